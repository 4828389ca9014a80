"""The exporter's pod, against the command that it runs and the rules of its network."""

from typing import Any

import pytest

from batch_scoring.cli.metrics.command import metrics
from batch_scoring_tests.deploy.test_deploy import DATABASE, EXPORTER, METADATA, OUTSIDE, is_among, manifests, selects

LABELS = {"app.kubernetes.io/name": "batch-scoring-metrics"}


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, Any]]:
    return {manifest["kind"]: manifest for manifest in manifests(EXPORTER)}


@pytest.fixture(scope="module")
def container(found: dict[str, dict[str, Any]]) -> dict[str, Any]:
    [container] = found["Deployment"]["spec"]["template"]["spec"]["containers"]
    assert isinstance(container, dict)
    return container


def test_the_pod_runs_a_command_that_there_is_on_the_port_that_is_scraped(
    container: dict[str, Any], found: dict[str, dict[str, Any]]
) -> None:
    assert container["args"][:2] == ["batch-scoring", "metrics"]
    names = ["-h", "--help"]  # the command keeps those of its first context; by `batch-scoring` they are these
    options = metrics.make_context("metrics", container["args"][2:], help_option_names=names).params
    assert options["host"] == "0.0.0.0", "else nothing outside the pod reaches it"
    [port] = container["ports"]
    [served] = found["Service"]["spec"]["ports"]
    [scraped] = found["ServiceMonitor"]["spec"]["endpoints"]
    assert options["port"] == port["containerPort"] == served["port"]
    assert port["name"] == served["targetPort"] == served["name"] == scraped["port"]
    assert scraped["path"] == "/metrics"
    assert {container[probe]["httpGet"]["path"] for probe in ("livenessProbe", "readinessProbe")} == {"/healthy"}


def test_each_object_selects_the_pod_and_its_job_is_that_of_the_rules(found: dict[str, dict[str, Any]]) -> None:
    pod = found["Deployment"]["spec"]["template"]
    assert pod["metadata"]["labels"] == found["Service"]["spec"]["selector"] == LABELS
    assert selects(found["NetworkPolicy"]["spec"]["podSelector"], LABELS)
    service = found["Service"]["metadata"]["labels"]
    assert selects(found["ServiceMonitor"]["spec"]["selector"], service)
    assert service[found["ServiceMonitor"]["spec"]["jobLabel"]] == "batch-scoring"
    assert pod["spec"]["serviceAccountName"] == found["ServiceAccount"]["metadata"]["name"]
    assert found["Deployment"]["spec"]["replicas"] == 1


def test_prometheus_alone_reaches_it_and_it_reaches_the_bucket_and_the_database(
    found: dict[str, dict[str, Any]],
) -> None:
    policy = found["NetworkPolicy"]["spec"]

    def allows(direction: str, side: str, peer: Any, port: int, namespace: str = "dagster") -> bool:  # noqa: ANN401
        return any(
            is_among(rule[side], peer, namespace) and port in [entry["port"] for entry in rule["ports"]]
            for rule in policy[direction]
        )

    assert policy["policyTypes"] == ["Ingress", "Egress"]
    assert allows("ingress", "from", {}, 9464, "x1")
    assert not allows("ingress", "from", {}, 9464) and not allows("ingress", "from", OUTSIDE, 9464)
    assert allows("egress", "to", DATABASE, 5432) and allows("egress", "to", OUTSIDE, 443)
    assert not allows("egress", "to", OUTSIDE, 5432) and not allows("egress", "to", METADATA, 443)
