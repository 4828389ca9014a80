"""What is shipped for Kubernetes, held against the code, the chart's rules and Dagster's own classes.

No cluster, no docker and no chart is needed. `instance_of_chart` writes the dagster.yaml that the official chart makes
of the values, as far as the values use it; the chart itself is not run here.
"""

import fnmatch
import functools
import importlib
import io
import ipaddress
import json
import os
import re
import shlex
import string
import subprocess
import threading
import tomllib
from collections.abc import Iterator
from contextlib import redirect_stdout
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
import sqlalchemy
import yaml
from click.testing import CliRunner
from dagster._cli import cli as dagster_command
from dagster._config import process_config
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.instance.ref import InstanceRef
from dagster._core.launcher import LaunchRunContext
from dagster._core.origin import JobPythonOrigin, RepositoryPythonOrigin
from dagster._core.run_coordinator import QueuedRunCoordinator
from dagster._core.storage.dagster_run import DagsterRunStatus
from dagster._core.utils import make_new_run_id
from dagster._serdes import ConfigurableClassData
from dagster_aws.s3 import S3ComputeLogManager
from dagster_k8s import K8sRunLauncher
from dagster_k8s.container_context import K8sContainerContext
from dagster_k8s.job import (
    DagsterK8sJobConfig,
    UserDefinedDagsterK8sConfig,
    construct_dagster_k8s_job,
    get_user_defined_k8s_config,
)
from dagster_postgres.utils import pg_url_from_config
from kubernetes.client import ApiClient
from packaging.requirements import Requirement

from batch_scoring.cli.doctor.instance import settings
from batch_scoring.cli.doctor.probe import Site
from batch_scoring.cli.main import main
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.defs.execution import step_pods
from deploy import plan

DEPLOY = PROJECT / "deploy"
README = (DEPLOY / "README.md").read_text(encoding="utf-8")
VALUES = (DEPLOY / "helm/values.yaml").read_text(encoding="utf-8")
PLACEHOLDER = re.compile(r"\bMY_[A-Z_]+\b")
KUBERNETES = "1.33"
RELEASE, CODE = "dagster", "dagster-dagster-user-deployments"
"""The names that the chart makes of the release `dagster`."""

KNOWN_KEYS = {
    "": """additionalInstanceConfig busybox computeLogManager concurrency dagster-user-deployments dagsterDaemon
        dagsterWebserver defsStateStorage flower fullnameOverride generateCeleryConfigSecret
        generatePostgresqlPasswordSecret global imagePullSecrets ingress migrate nameOverride postgresql pythonLogs
        rabbitmq rbacEnabled redis retention runLauncher scheduler serviceAccount telemetry""",
    "global": "celeryConfigSecretName dagsterHome dagsterInstanceConfigMap postgresqlSecretName serviceAccountName",
    "postgresql": """enabled image postgresqlDatabase postgresqlHost postgresqlParams postgresqlPassword
        postgresqlScheme postgresqlUsername service""",
    "serviceAccount": "annotations create name",
    "dagsterWebserver": """affinity annotations checkDbReadyInitContainer dbPoolMaxOverflow dbPoolRecycle
        dbStatementTimeout deploymentLabels enableReadOnly env envConfigMaps envSecrets extraContainers
        extraPrependedInitContainers image initContainerResources labels livenessProbe logLevel nameOverride
        nodeSelector pathPrefix podSecurityContext readinessProbe replicaCount resources schedulerName securityContext
        service startupProbe tolerations volumeMounts volumes workspace""",
    "telemetry": "enabled",
    "concurrency": "enabled pools runs",
    "concurrency.pools": "defaultLimit granularity opGranularityRunBuffer",
    "concurrency.runs": "maxConcurrentRuns tagConcurrencyLimits",
    "runLauncher": "config type",
    "runLauncher.config.k8sRunLauncher": """envConfigMaps envSecrets envVars failPodOnRunFailure image imagePullPolicy
        jobNamespace kubeconfigFile labels loadInclusterConfig resources runK8sConfig schedulerName securityContext
        volumeMounts volumes""",
    "runLauncher.config.k8sRunLauncher.runK8sConfig": """containerConfig jobMetadata jobSpecConfig podSpecConfig
        podTemplateSpecMetadata""",
    "dagsterDaemon.runCoordinator": "config enabled type",
    "dagsterDaemon.runMonitoring": """cancelTimeoutSeconds enabled freeSlotsAfterRunEndSeconds maxResumeRunAttempts
        maxRuntimeSeconds pollIntervalSeconds startTimeoutSeconds""",
    "dagsterDaemon.runRetries": "enabled maxRetries retryOnAssetOrOpFailure",
    "computeLogManager": "config type",
    "computeLogManager.config.s3ComputeLogManager": """bucket endpointUrl localDir prefix region showUrlOnly
        skipEmptyFiles uploadExtraArgs uploadInterval useSsl verify verifyCertPath""",
    "dagster-user-deployments": """deployments enableSubchart enabled imagePullSecrets includeInstance rbacEnabled
        serviceAccount""",
    "dagster-user-deployments.serviceAccount": "annotations create name",
    "dagster-user-deployments.deployments[]": """affinity annotations codeServerArgs dagsterApiGrpcArgs
        deploymentStrategy env envConfigMaps envSecrets image includeConfigInLaunchedRuns initContainers labels
        livenessProbe name nodeSelector podSecurityContext port readinessProbe resources schedulerName securityContext
        service sidecarContainers startupProbe tolerations volumeMounts volumes""",
    "dagster-user-deployments.deployments[].image": "pullPolicy repository tag",
    "dagster-user-deployments.deployments[].includeConfigInLaunchedRuns": "enabled",
}
"""What the chart knows; others it drops without a word in most of these places, and refuses in the rest."""


@pytest.fixture
def values() -> dict[str, Any]:
    return yaml.safe_load(VALUES)


@pytest.fixture
def location(values: dict[str, Any]) -> dict[str, Any]:
    [location] = values["dagster-user-deployments"]["deployments"]
    return location


def instance_of_chart(values: dict[str, Any]) -> dict[str, Any]:
    """The dagster.yaml of the chart, of the blocks that the values use."""
    database, daemon = values["postgresql"], values["dagsterDaemon"]
    concurrency, launcher = values["concurrency"], values["runLauncher"]["config"]["k8sRunLauncher"]
    postgres = {
        "postgres_db": {
            "username": database["postgresqlUsername"],
            "password": {"env": "DAGSTER_PG_PASSWORD"},
            "hostname": database["postgresqlHost"],
            "db_name": database["postgresqlDatabase"],
            "port": database["service"]["port"],
            "params": database.get("postgresqlParams", {}),
            "scheme": database["postgresqlScheme"],
        }
    }
    return {
        "scheduler": {"module": "dagster.core.scheduler", "class": "DagsterDaemonScheduler"},
        **{
            key: {"module": f"dagster_postgres.{module}", "class": f"Postgres{name}Storage", "config": postgres}
            for key, module, name in (
                ("run_storage", "run_storage", "Run"),
                ("event_log_storage", "event_log", "EventLog"),
                ("schedule_storage", "schedule_storage", "Schedule"),
            )
        },
        "run_launcher": {
            "module": "dagster_k8s",
            "class": values["runLauncher"]["type"],
            "config": {
                "load_incluster_config": launcher.get("loadInclusterConfig", True),
                "kubeconfig_file": launcher.get("kubeconfigFile"),
                "job_namespace": "dagster",
                "image_pull_policy": launcher["imagePullPolicy"],
                "service_account_name": RELEASE,
                "dagster_home": "/opt/dagster/dagster_home",
                "instance_config_map": f"{RELEASE}-instance",
                "postgres_password_secret": values["global"]["postgresqlSecretName"],
                "env_secrets": [secret["name"] for secret in launcher.get("envSecrets", [])],
                "run_k8s_config": snake(launcher["runK8sConfig"], deep=False),
            },
        },
        "run_coordinator": {"module": "dagster.core.run_coordinator", "class": daemon["runCoordinator"]["type"]},
        "concurrency": snake({key: block for key, block in concurrency.items() if key != "enabled"}),
        "compute_logs": {
            "module": "dagster_aws.s3.compute_log_manager",
            "class": values["computeLogManager"]["type"],
            "config": snake(values["computeLogManager"]["config"]["s3ComputeLogManager"]),
        },
        "run_monitoring": snake(daemon["runMonitoring"]),
        "run_retries": snake(daemon["runRetries"]),
        "telemetry": values["telemetry"],
        **values.get("additionalInstanceConfig", {}),
    }


def snake(block: dict[str, Any], deep: bool = True) -> dict[str, Any]:
    return {
        re.sub("[A-Z]", lambda match: f"_{match[0].lower()}", key): snake(item)
        if deep and isinstance(item, dict)
        else item
        for key, item in block.items()
    }


def container_context(values: dict[str, Any]) -> dict[str, Any]:
    """What the chart tells the code server of the pods of its runs."""
    [location] = values["dagster-user-deployments"]["deployments"]
    assert location["includeConfigInLaunchedRuns"]["enabled"]
    return {
        "k8s": {
            "image_pull_policy": location["image"]["pullPolicy"],
            "env_config_maps": [f"{CODE}-{location['name']}-user-env"],
            "env_secrets": [secret["name"] for secret in location["envSecrets"]],
            "resources": location["resources"],
            "namespace": "dagster",
            "service_account_name": f"{CODE}-user-deployments",
        }
    }


class JobsApi:
    """A loopback server that takes Jobs; it is no Kubernetes."""

    def __init__(self, folder: Path) -> None:
        self.jobs: list[dict[str, Any]] = []
        api = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                api.jobs.append(json.loads(body))
                self.send_response(201)
                self.send_header("Content-Type", "application/json")
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.kubeconfig = folder / "kubeconfig"
        cluster = {"name": "here", "cluster": {"server": f"http://127.0.0.1:{self.server.server_port}"}}
        context = {"name": "here", "context": {"cluster": "here", "user": "nobody"}}
        self.kubeconfig.write_text(
            yaml.safe_dump(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "clusters": [cluster],
                    "contexts": [context],
                    "current-context": "here",
                    "users": [{"name": "nobody", "user": {}}],
                }
            )
        )


@pytest.fixture
def jobs_api(tmp_path: Path) -> Iterator[JobsApi]:
    api = JobsApi(tmp_path)
    yield api
    api.server.shutdown()
    api.server.server_close()


ENVIRONMENT = {
    "DAGSTER_PG_HOST": "db.example.org",
    "DAGSTER_PG_USERNAME": "dagster",
    "DAGSTER_PG_PASSWORD": "s3cr/t@",
    "DAGSTER_PG_DB": "dagster",
    "COMPUTE_LOGS_BUCKET": "bucket",
    "AWS_DEFAULT_REGION": "eu-central-1",
    "BATCH_SCORING_DATA": "s3://bucket/scoring",
    "DAGSTER_UI_URL": "https://dagster.example.org",
}


@pytest.fixture(params=["values.yaml", "dagster.yaml"])
def instance(
    request: pytest.FixtureRequest, jobs_api: JobsApi, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """Either instance that is shipped, out of a cluster: its launcher speaks to the Jobs stand-in."""
    if request.param == "values.yaml":
        monkeypatch.setenv("DAGSTER_PG_PASSWORD", ENVIRONMENT["DAGSTER_PG_PASSWORD"])
        monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
        found = instance_of_chart(yaml.safe_load(VALUES))
    else:
        for name, value in ENVIRONMENT.items():
            monkeypatch.setenv(name, value)
        found = yaml.safe_load((DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))
    found["run_launcher"]["config"] |= {"load_incluster_config": False, "kubeconfig_file": str(jobs_api.kubeconfig)}
    return found


STORAGES = {"storage", "run_storage", "event_log_storage", "schedule_storage"}


def written(instance: dict[str, Any], folder: Path, without: set[str] = frozenset()) -> str:  # type: ignore[assignment]
    """A DAGSTER_HOME with that instance."""
    folder.mkdir()
    content = {key: block for key, block in instance.items() if key not in without}
    (folder / "dagster.yaml").write_text(yaml.safe_dump(content))
    return str(folder)


def test_each_instance_has_its_runs_in_postgresql_by_psycopg2(instance: dict[str, Any], tmp_path: Path) -> None:
    ref = InstanceRef.from_dir(written(instance, tmp_path / "home"))

    for data in (ref.run_storage_data, ref.event_storage_data, ref.schedule_storage_data):
        url = database_of(data)
        assert (url.drivername, url.database, url.password) == ("postgresql+psycopg2", "dagster", "s3cr/t@")
        assert sqlalchemy.create_engine(url).driver == "psycopg2"


def database_of(data: ConfigurableClassData | None) -> sqlalchemy.URL:
    """The address that a storage would connect to; to make one of its class would connect."""
    assert data is not None
    config = yaml.safe_load(data.config_yaml)
    storage = getattr(importlib.import_module(data.module_name), data.class_name)
    found = process_config(storage.config_type(), config)
    assert found.success, found.errors
    return sqlalchemy.make_url(pg_url_from_config(found.value))


@pytest.fixture
def opened(instance: dict[str, Any], tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """The same, with SQLite in the place of PostgreSQL."""
    with dg.DagsterInstance.from_config(written(instance, tmp_path / "home", without=STORAGES)) as found:
        yield found


def test_each_instance_is_made_of_the_classes_that_it_names(opened: dg.DagsterInstance) -> None:
    assert isinstance(opened.run_launcher, K8sRunLauncher)
    assert isinstance(opened.compute_log_manager, S3ComputeLogManager)
    assert isinstance(opened.run_coordinator, QueuedRunCoordinator)
    assert not opened.telemetry_enabled


def test_each_instance_ends_what_is_stuck_and_resumes_what_is_lost(opened: dg.DagsterInstance) -> None:
    assert opened.run_monitoring_enabled
    assert opened.run_monitoring_max_resume_run_attempts == 3
    assert opened.get_settings("run_monitoring")["max_runtime_seconds"] == 6 * 3600
    limits = opened.get_concurrency_config()
    assert limits.run_queue_config and limits.run_queue_config.max_concurrent_runs == 10
    assert limits.pool_config.default_pool_limit == 4
    assert limits.pool_config.pool_granularity and limits.pool_config.pool_granularity.value == "op"


def test_each_instance_retries_runs_as_the_local_one_does(opened: dg.DagsterInstance) -> None:
    local = yaml.safe_load((PROJECT / "dagster.yaml").read_text(encoding="utf-8"))["run_retries"]

    assert opened.run_retries_enabled == local["enabled"]
    assert opened.run_retries_max_retries == local["max_retries"]
    assert opened.run_retries_retry_on_asset_or_op_failure == local["retry_on_asset_or_op_failure"]


def test_a_lost_run_is_run_again_as_often_as_its_tag_says_whatever_the_instance_says(tmp_path: Path) -> None:
    from dagster._core.events import RunFailureReason
    from dagster._core.execution.retries import auto_reexecution_should_retry_run

    home = tmp_path / "home"
    retries = {"enabled": True, "max_retries": 0, "retry_on_asset_or_op_failure": False}
    with dg.DagsterInstance.from_config(written({"run_retries": retries}, home)) as instance:
        run = dg.DagsterRun(
            "job", make_new_run_id(), status=DagsterRunStatus.FAILURE, tags={"dagster/max_retries": "1"}
        )
        instance.add_run(run)

        assert auto_reexecution_should_retry_run(instance, run, RunFailureReason.RUN_EXCEPTION)
        assert not auto_reexecution_should_retry_run(instance, run, RunFailureReason.STEP_FAILURE)
        assert not auto_reexecution_should_retry_run(instance, run.with_tags({}), RunFailureReason.RUN_EXCEPTION)


def test_the_doctor_finds_each_instance_well(instance: dict[str, Any], tmp_path: Path) -> None:
    home = written(instance, tmp_path / "home")

    assert list(settings.look(Site([], home=Path(home)))) == []


def launched(opened: dg.DagsterInstance, jobs_api: JobsApi, image: str, context: dict[str, Any]) -> dict[str, Any]:
    """The Job of a run, as the launcher sends it to the API."""
    pointer = ModuleCodePointer("batch_scoring.definitions", "defs", "/opt/batch_scoring")
    repository = RepositoryPythonOrigin("python", pointer, image, ["dagster"], context)
    origin = JobPythonOrigin("score_flight_delay", repository)
    run = dg.DagsterRun("score_flight_delay", make_new_run_id(), job_code_origin=origin)
    opened.add_run(run)
    assert isinstance(opened.run_launcher, K8sRunLauncher)
    opened.run_launcher.launch_run(LaunchRunContext(run, None))
    [job] = jobs_api.jobs
    return job


@pytest.mark.parametrize("instance", ["values.yaml"], indirect=True)
def test_a_run_of_the_chart_is_a_job_that_kubernetes_takes(
    opened: dg.DagsterInstance, jobs_api: JobsApi, values: dict[str, Any], location: dict[str, Any]
) -> None:
    image = f"{location['image']['repository']}:{location['image']['tag']}"

    job = launched(opened, jobs_api, image, container_context(values))

    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    container = sound_pod(job)
    assert container["image"] == image
    sources = [source[kind]["name"] for source in container["envFrom"] for kind in source]
    assert sources == [f"{CODE}-batch-scoring-user-env", "batch-scoring-secrets"]
    assert job["spec"]["template"]["spec"]["serviceAccountName"] == f"{CODE}-user-deployments"


@pytest.mark.parametrize("instance", ["dagster.yaml"], indirect=True)
def test_a_run_without_the_chart_is_a_job_that_kubernetes_takes(
    opened: dg.DagsterInstance, jobs_api: JobsApi, instance: dict[str, Any]
) -> None:
    job = launched(opened, jobs_api, "registry.example.org/team/batch-scoring:1f3a9c2", {})

    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    container = sound_pod(job)
    given = {variable["name"]: variable.get("value") for variable in container["env"]}
    named = set(re.findall(r"'env': '(\w+)'", str(instance)))
    assert named <= set(given), "the instance of a run's pod names what the pod does not have"
    assert given["BATCH_SCORING_EXECUTOR"] == "k8s"
    assert given["BATCH_SCORING_DATA"] == "s3://bucket/scoring"
    assert container["envFrom"] == [{"secretRef": {"name": "batch-scoring-secrets"}}]


def sound_pod(job: dict[str, Any]) -> dict[str, Any]:
    """The only container of the Job, after what holds for the pods of both instances."""
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
    assert container["securityContext"] == {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
    assert "gpu" not in json.dumps(container["resources"]).lower()
    assert container["resources"]["limits"]["memory"] == "2Gi"
    assert {mount["name"] for mount in container["volumeMounts"]} <= {volume["name"] for volume in pod["volumes"]}
    assert not {"nodeSelector", "tolerations", "affinity"} & set(pod)
    assert job["spec"]["backoffLimit"] == 0 and "podFailurePolicy" not in job["spec"]
    assert job["spec"]["ttlSecondsAfterFinished"] == 24 * 3600
    [password] = [variable for variable in container["env"] if variable["name"] == "DAGSTER_PG_PASSWORD"]
    reference = {"name": "dagster-postgresql-secret", "key": "postgresql-password"}
    assert password["valueFrom"]["secretKeyRef"] == reference
    assert ENVIRONMENT["DAGSTER_PG_PASSWORD"] not in json.dumps(job)
    return container


# access control

POLICIES = "kubernetes/network-policies.yaml"
EXPORTER = "kubernetes/metrics.yaml"
WEB, VIEW, DAEMON, SERVER = (
    {"app.kubernetes.io/instance": RELEASE, "component": component}
    for component in ("dagster-webserver", "dagster-webserver-read-only", "dagster-daemon", "user-deployments")
)
"""Labels that the chart gives to its pods."""
RUN, STEP = ({"app.kubernetes.io/component": component} for component in ("run_worker", "step_worker"))
EDITORS, VIEWERS = (
    {"app.kubernetes.io/name": "oauth2-proxy", "app.kubernetes.io/component": component}
    for component in ("editors", "viewers")
)
DATABASE, OUTSIDE, METADATA = "10.0.4.7", "198.51.100.7", "169.254.169.254"


@functools.cache
def manifests(name: str) -> list[dict[str, Any]]:
    """Those of a file, with the placeholders replaced by the README's own command."""
    [command] = [
        text for text in re.findall(r"^    (sed -e (?:.*\\\n)*.*) \| kubectl", README, re.MULTILINE) if name in text
    ]
    given = dict.fromkeys(string.Template(command).get_identifiers(), "x1") | {
        "INGRESS_NAMESPACE": "edge",
        "DB_CIDR": "10.0.4.0/24",
        "PROXY_IMAGE": "proxy@sha256:x",
        "ISSUER": "https://login.example.org",
        "EDITORS_HOST": "dagster.example.org",
        "VIEWERS_HOST": "view.dagster.example.org",
    }
    done = subprocess.run(
        ["sh", "-c", command], cwd=PROJECT, capture_output=True, text=True, check=True, env=os.environ | given
    )
    assert not PLACEHOLDER.search(re.sub(r"^#.*$", "", done.stdout, flags=re.MULTILINE))
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("name", [POLICIES, "kubernetes/oauth2-proxy.yaml", EXPORTER])
def test_kubernetes_takes_the_manifests_and_each_stands_in_the_namespace(name: str) -> None:
    found = manifests(name)

    for manifest in found:
        if manifest["kind"] != "ServiceMonitor":  # of the Prometheus operator
            kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        assert manifest["metadata"]["namespace"] == "dagster"
    assert len({(manifest["kind"], manifest["metadata"]["name"]) for manifest in found}) == len(found)


def selects(selector: dict[str, Any], labels: dict[str, str]) -> bool:
    expressions = selector.get("matchExpressions", [])
    assert all(expression["operator"] == "In" for expression in expressions)
    return selector.get("matchLabels", {}).items() <= labels.items() and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


Peer = dict[str, str] | str
"""A pod of our namespace by its labels, or an address."""


def is_among(peers: list[dict[str, Any]], one: Peer, namespace: str) -> bool:
    for peer in peers:
        if "ipBlock" in peer:
            if isinstance(one, str):
                inside = ipaddress.ip_address(one) in ipaddress.ip_network(peer["ipBlock"]["cidr"])
                blocked = [part for part in peer["ipBlock"].get("except", [])]
                if inside and not any(ipaddress.ip_address(one) in ipaddress.ip_network(part) for part in blocked):
                    return True
        elif isinstance(one, dict):
            theirs = {"kubernetes.io/metadata.name": namespace}
            there = (
                selects(peer["namespaceSelector"], theirs) if "namespaceSelector" in peer else namespace == "dagster"
            )
            if there and selects(peer.get("podSelector", {}), one):
                return True
    return False


def allows(one: Peer, other: Peer, port: int, namespaces: tuple[str, str] = ("dagster", "dagster")) -> bool:
    """Whether a connection from one to the other is let through: as Kubernetes defines NetworkPolicies."""
    policies = [manifest["spec"] for manifest in manifests(POLICIES)]

    def side(pod: Peer, peer: Peer, place: str, peers_place: str, direction: str, word: str) -> bool:
        if isinstance(pod, str) or place != "dagster":
            return True  # no policy of ours is about it
        mine = [p for p in policies if direction in p["policyTypes"] and selects(p["podSelector"], pod)]
        rules = [rule for policy in mine for rule in policy.get(direction.lower(), [])]
        return not mine or any(
            is_among(rule[word], peer, peers_place) and port in [entry["port"] for entry in rule["ports"]]
            for rule in rules
        )

    here, there = namespaces
    return side(one, other, here, there, "Egress", "to") and side(other, one, there, here, "Ingress", "from")


def test_only_the_web_servers_and_the_daemon_reach_the_code_server(location: dict[str, Any]) -> None:
    assert all(allows(pod, SERVER, location["port"]) for pod in (WEB, VIEW, DAEMON))
    for pod in (RUN, STEP, EDITORS, VIEWERS, SERVER, {"app": "stranger"}):
        assert not allows(pod, SERVER, location["port"])
    assert not allows({"app": "stranger"}, SERVER, location["port"], ("default", "dagster"))
    assert not allows({}, SERVER, location["port"], ("edge", "dagster"))
    assert not allows(OUTSIDE, SERVER, location["port"])


def test_only_their_own_proxy_reaches_a_web_server_and_only_the_ingress_a_proxy() -> None:
    pods = [WEB, VIEW, DAEMON, SERVER, RUN, STEP, EDITORS, VIEWERS, {"app": "stranger"}]
    assert [pod for pod in pods if allows(pod, WEB, 80)] == [EDITORS]
    assert [pod for pod in pods if allows(pod, VIEW, 80)] == [VIEWERS]
    for web in (WEB, VIEW):
        assert not allows({}, web, 80, ("edge", "dagster")) and not allows(OUTSIDE, web, 80)
    for proxy in (EDITORS, VIEWERS):
        assert allows({}, proxy, 4180, ("edge", "dagster"))
        assert not allows({}, proxy, 4180, ("default", "dagster")) and not any(allows(pod, proxy, 4180) for pod in pods)


def test_every_pod_reaches_what_it_needs_and_nobody_the_nodes_metadata() -> None:
    pods = (WEB, VIEW, DAEMON, SERVER, RUN, STEP)
    for pod in pods:
        assert allows(pod, DATABASE, 5432) and allows(pod, OUTSIDE, 443) and allows(pod, OUTSIDE, 6443)
        assert not allows(pod, OUTSIDE, 22) and not allows(pod, OUTSIDE, 5432)
    for pod in (*pods, EDITORS, VIEWERS, {"app": "stranger"}):
        assert allows(pod, {"k8s-app": "kube-dns"}, 53, ("dagster", "kube-system"))
        assert not any(allows(pod, METADATA, port) for port in (80, 443))
        assert not any(allows(pod, run, port) for run in (RUN, STEP) for port in (80, 443, 3030))
    assert not allows({"app": "stranger"}, OUTSIDE, 443)


@pytest.mark.parametrize("instance", ["values.yaml"], indirect=True)
def test_the_policies_know_the_pod_of_a_run_by_the_labels_that_the_launcher_gives_it(
    opened: dg.DagsterInstance, jobs_api: JobsApi, values: dict[str, Any]
) -> None:
    job = launched(opened, jobs_api, "registry.example.org/team/batch-scoring:1f3a9c2", container_context(values))
    labels = job["spec"]["template"]["metadata"]["labels"]

    assert RUN.items() <= labels.items() and allows(labels, DATABASE, 5432)
    assert not allows(labels, WEB, 80) and not allows(labels, SERVER, 3030)


def test_each_proxy_signs_people_in_for_its_own_web_server(values: dict[str, Any]) -> None:
    found = {(m["kind"], m["metadata"]["name"]): m["spec"] for m in manifests("kubernetes/oauth2-proxy.yaml")}
    assert values["dagsterWebserver"]["enableReadOnly"] is True

    for who, upstream in (
        ("editors", f"{RELEASE}-dagster-webserver"),
        ("viewers", f"{RELEASE}-dagster-webserver-read-only"),
    ):
        name = f"oauth2-proxy-{who}"
        pod = found["Deployment", name]["template"]
        [container] = pod["spec"]["containers"]
        options = dict(option.removeprefix("--").split("=", 1) for option in container["args"])
        assert options["upstream"] == f"http://{upstream}" and options["cookie-secure"] == "true"
        assert options["allowed-group"] and options["http-address"] == "0.0.0.0:4180"
        assert container["envFrom"] == [{"secretRef": {"name": "oauth2-proxy"}}] and "@sha256:" in container["image"]
        assert (
            found["Service", name]["selector"]
            == pod["metadata"]["labels"]
            == (EDITORS if who == "editors" else VIEWERS)
        )
        [rule] = found["Ingress", who]["rules"]
        assert rule["http"]["paths"][0]["backend"]["service"]["name"] == name
        assert options["redirect-url"] == f"https://{rule['host']}/oauth2/callback"
        assert found["Ingress", who]["tls"] == [{"hosts": [rule["host"]], "secretName": f"{who}-tls"}]


# the values against the code


def test_the_code_location_serves_this_project(location: dict[str, Any]) -> None:
    option, module = location["dagsterApiGrpcArgs"]

    assert option == "-m"
    assert isinstance(importlib.import_module(module).defs, dg.Definitions)
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", location["name"]), "becomes the name of a Service"


def test_every_variable_that_the_values_set_is_one_that_the_code_reads(
    values: dict[str, Any], location: dict[str, Any]
) -> None:
    files = [file for file in (PROJECT / "batch_scoring").rglob("*") if file.suffix in (".py", ".yaml")]
    code = "\n".join(file.read_text(encoding="utf-8") for file in files)
    read = set(re.findall(r'"([A-Z][A-Z0-9]*_[A-Z0-9_]+)"|\$\{([A-Z][A-Z0-9_]+)', code))
    names = {name for pair in read for name in pair if name}

    for env in (location["env"], values["dagsterWebserver"]["env"], values["dagsterDaemon"]["env"]):
        assert set(env) <= names
        assert all(isinstance(value, str) for value in env.values()), "the chart takes text alone"
    assert location["env"]["BATCH_SCORING_EXECUTOR"] == "k8s"
    assert location["env"]["BATCH_SCORING_DATA"].startswith("s3://")


def test_only_a_spec_asks_for_a_gpu(values: dict[str, Any]) -> None:
    assert "gpu" not in json.dumps({key: block for key, block in values.items() if key != "concurrency"}).lower()


def test_images_have_tags_that_yaml_takes_for_text_and_that_stay(values: dict[str, Any]) -> None:
    images = [block for _, block in blocks(values) if "repository" in block]

    assert images
    for image in images:
        assert isinstance(image["tag"], str) and image["tag"] not in ("", "latest")
        assert re.search(rf'tag: "{image["tag"]}"', VALUES), "MY_TAG may become 0123456, or 9e1"


def test_secrets_are_named_and_never_told(values: dict[str, Any]) -> None:
    named = {"global.postgresqlSecretName", "generatePostgresqlPasswordSecret"}
    for path, block in blocks(values):
        for key, item in block.items():
            at = f"{path}.{key}".lstrip(".")
            if (
                re.search("password|secret|token|credential|access_?key|private", key, re.IGNORECASE)
                and at not in named
            ):
                assert key == "envSecrets" and all(set(entry) == {"name"} for entry in item), at
            if isinstance(item, str):
                assert not re.search(r"://[^/\s]+:[^/\s]+@|\bAKIA|BEGIN .*KEY", item), at
    assert values["generatePostgresqlPasswordSecret"] is False
    assert not re.search(r"password: *[^{\s]", (DEPLOY / "dagster.yaml").read_text(encoding="utf-8"))


def test_both_accounts_have_a_role_and_rights_in_their_namespace_alone(values: dict[str, Any]) -> None:
    published_days = [values["serviceAccount"], values["dagster-user-deployments"]["serviceAccount"]]
    roles = [published_day["annotations"]["eks.amazonaws.com/role-arn"] for published_day in published_days]

    assert roles == ["MY_DAGSTER_ROLE", "MY_SCORING_ROLE"]
    assert values["rbacEnabled"] and values["dagster-user-deployments"]["rbacEnabled"]
    for name in ("dagster", "scoring", "metrics"):
        policy = json.loads((DEPLOY / f"iam/{name}.json").read_text(encoding="utf-8"))
        for statement in policy["Statement"]:
            # PutMetricData knows no resource
            is_metric = statement["Action"] == "cloudwatch:PutMetricData"
            assert is_metric or statement["Resource"].startswith("arn:aws:s3:::MY_BUCKET")
            assert "*" not in str(statement["Action"])
            assert name != "metrics" or not re.search("Put(?!MetricData)|Delete", str(statement["Action"]))


def test_no_key_is_one_that_the_chart_does_not_know(values: dict[str, Any]) -> None:
    for path, block in blocks(values):
        if path in KNOWN_KEYS:
            assert set(block) <= set(KNOWN_KEYS[path].split()), path


def test_no_key_of_the_instance_stands_twice(values: dict[str, Any]) -> None:
    # the chart appends them as text, and YAML keeps the last of two
    own = instance_of_chart({key: block for key, block in values.items() if key != "additionalInstanceConfig"})

    assert not set(own) & set(values.get("additionalInstanceConfig", {}))
    coordinator = values["dagsterDaemon"]["runCoordinator"].get("config", {}).get("queuedRunCoordinator", {})
    assert not coordinator.keys() & {"maxConcurrentRuns", "tagConcurrencyLimits"}, "helm fails if both places have them"


def blocks(content: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:  # noqa: ANN401  (any YAML value)
    """Every mapping of a YAML document with its path."""
    if isinstance(content, dict):
        yield path, content
        for key, item in content.items():
            yield from blocks(item, f"{path}.{key}".lstrip("."))
    elif isinstance(content, list):
        for item in content:
            yield from blocks(item, f"{path}[]")


def test_the_placeholders_are_listed_and_the_readme_replaces_each() -> None:
    comment, _, body = VALUES.partition("\n\n")
    used = set(PLACEHOLDER.findall(body))

    assert used == set(re.findall(r"^#   (MY_\w+) ", comment, re.MULTILINE))
    [command] = re.findall(r"^    (sed -e (?:.*\\\n)*.*values\.mine\.yaml)$", README, re.MULTILINE)
    environment = dict.fromkeys(string.Template(command).get_identifiers(), "x1")
    replaced = subprocess.run(
        ["sh", "-c", command.rpartition(" > ")[0]],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | environment,
    )
    assert not PLACEHOLDER.search(replaced.stdout)
    assert yaml.safe_load(replaced.stdout)["dagster-user-deployments"]["deployments"][0]["image"]["tag"] == "x1"


# the image


def instructions() -> list[tuple[str, str]]:
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    lines = re.sub(r"\\\n\s*", "", re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE)).splitlines()
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines if line.strip()]


def arguments(name: str) -> list[str]:
    return [rest for instruction, rest in instructions() if instruction == name]


def test_the_image_is_of_a_pinned_python_that_the_project_takes() -> None:
    [base] = arguments("FROM")
    version = re.fullmatch(r"python:(3\.11\.\d+)-slim-bookworm\$\{BASE_DIGEST:\+@\$BASE_DIGEST\}", base)

    assert version and instructions()[0] == ("ARG", 'BASE_DIGEST=""'), "before FROM, for FROM"
    image = base.partition("$")[0]
    text = (PROJECT / "Dockerfile").read_text(encoding="utf-8")
    assert f"imagetools inspect {image} " in text and f"imagetools inspect {image} " in README
    assert not re.search(r"sha256:[0-9a-f]{4}", text + README), "a digest is looked up, never made up"
    requires = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["requires-python"]
    assert Requirement(f"python{requires}").specifier.contains(version[1])


def test_the_image_serves_the_code_on_the_port_of_the_values_as_nobody_special(location: dict[str, Any]) -> None:
    command = json.loads(arguments("CMD")[0])

    assert [name for name, _ in instructions()][-2:] == ["USER", "CMD"]
    assert arguments("USER") == ["1000:1000"] and not arguments("ENTRYPOINT")
    assert command[:3] == ["dagster", "api", "grpc"]
    assert command[command.index("-p") + 1] == str(location["port"]) == arguments("EXPOSE")[0]
    assert command[-2:] == location["dagsterApiGrpcArgs"]
    help_text = CliRunner().invoke(dagster_command, ["api", "grpc", "--help"]).output
    assert all(option in help_text for option in command if option.startswith("-"))


def test_the_image_says_nothing_about_gpus_and_lets_the_instance_be_written() -> None:
    environment = dict(pair.split("=", 1) for line in arguments("ENV") for pair in shlex.split(line))

    assert environment["PYTHONUNBUFFERED"] == "1"
    assert "NVIDIA_VISIBLE_DEVICES" not in environment
    assert any('chown dagster:dagster "$DAGSTER_HOME"' in line for line in arguments("RUN"))


def test_another_commit_installs_neither_torch_nor_a_dependency_again() -> None:
    steps = [f"{name} {rest}" for name, rest in instructions()]
    torch, dependencies, code = (
        next(index for index, step in enumerate(steps) if words in step)
        for words in ("torch==", "--requirement requirements.txt", "COPY batch_scoring ")
    )

    assert torch < dependencies < code
    copied = {name for step in steps[:dependencies] if step.startswith("COPY ") for name in step.split()[1:-1]}
    assert copied == {"constraints.txt", "pyproject.toml"}
    assert steps.index('ARG REVISION=""') > code


@pytest.mark.parametrize(
    ("index", "options"), [("", []), ("https://x.example/cpu", ["--index-url", "https://x.example/cpu"])]
)
def test_torch_comes_from_the_index_that_the_build_names(index: str, options: list[str]) -> None:
    assert 'TORCH_INDEX=""' in arguments("ARG")
    [install] = [line for line in arguments("RUN") if "TORCH_INDEX" in line]
    shown = install.replace("pip install", "printf '%s\\n'")

    done = subprocess.run(
        ["sh", "-c", shown],
        cwd=PROJECT,
        env={"TORCH_INDEX": index, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["--no-deps", *options, "torch==2.13.0"]


def test_the_dependencies_of_the_image_are_the_project_s_and_those_of_what_runs_in_pods(tmp_path: Path) -> None:
    [line] = [line for line in arguments("RUN") if "requirements.txt" in line]
    (tmp_path / "pyproject.toml").write_bytes((PROJECT / "pyproject.toml").read_bytes())

    subprocess.run(["bash", "-c", line.partition("&&")[0]], cwd=tmp_path, check=True)

    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [
        *project["dependencies"],
        *extras["metrics"],
        *extras["postgres"],
        *extras["redis"],
        *extras["sql"],
        *extras["text"],
    ]
    assert (tmp_path / "requirements.txt").read_text().splitlines()[1:] == wanted


def is_sent(path: str) -> bool:
    """Whether docker sends a file to the build: of the patterns that match it or a folder above it the last decides."""
    sent = True
    for line in (PROJECT / ".dockerignore").read_text(encoding="utf-8").splitlines():
        pattern = line.strip()
        if not pattern or pattern.startswith("#"):
            continue
        parts = path.split("/")
        above = ["/".join(parts[: depth + 1]) for depth in range(len(parts))]
        glob = pattern.lstrip("!")
        names = parts if glob.startswith("**/") else above
        if any(
            fnmatch.fnmatchcase(name, glob.removeprefix("**/")) and not (glob == "*" and "/" in name) for name in names
        ):
            sent = pattern.startswith("!")
    return sent


def test_docker_is_sent_what_is_copied_and_nothing_else() -> None:
    copied = [source for line in arguments("COPY") for source in line.split()[:-1]]

    assert all(is_sent(source) and (PROJECT / source).exists() for source in copied)
    assert is_sent("batch_scoring/pipelines/flight_delay/pipeline.yaml")
    for path in (
        ".git/config",
        ".venv/bin/python",
        ".env",
        "data/flight_delay/landing/dt=2013-07-01/flights.parquet",
        "batch_scoring_tests/deploy/test_deploy.py",
        "benchmarks/engine.py",
        "storage/x",
        "history/runs.db",
        "batch_scoring/__pycache__/cli.cpython-311.pyc",
        "values.mine.yaml",
        "deploy/dagster.yaml",
    ):
        assert not is_sent(path), path


# PostgreSQL


def test_the_pinned_sqlalchemy_is_one_that_dagster_postgres_works_with() -> None:
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    constraints = (PROJECT / "constraints.txt").read_text(encoding="utf-8")
    pins = dict(line.lower().split("==") for line in constraints.splitlines())

    for text in project["optional-dependencies"]["postgres"]:
        wanted = Requirement(text)
        assert wanted.specifier.contains(pins[wanted.name]), text
    assert pins["torch"] == "2.13.0"
    assert sqlalchemy.create_engine("postgresql://dagster@localhost/dagster").driver == "psycopg2"


# the planner


def test_a_day_that_fits_into_the_window_needs_one_gpu() -> None:
    # 36 million rows at 10,000 a second are an hour, and a start of 60 s
    assert plan.plan(36e6, 10e3, 3660, start_seconds=60) == plan.Plan(1, 1, 3660, pytest.approx(3660 / 3600))


def test_a_day_that_does_not_is_scored_by_as_few_steps_as_do_it() -> None:
    # ten hours of work within one hour less 600 s: twelve steps, each 600 s + 36,000 s / 12 = an hour
    assert plan.plan(360e6, 10e3, 3600, start_seconds=600) == plan.Plan(12, 12, 3600, 12)


def test_a_backfill_is_packed_one_step_after_the_other() -> None:
    # 31 days of 8 steps, each 120 s + 500e6 / 8 / 200e3 = 432.5 s: 33 of them in four hours; 248 / 33 = 7.5
    found = plan.plan(500e6, 200e3, 4 * 3600, days=31, start_seconds=120, shards=8)

    assert (found.shards, found.gpus, found.step_seconds) == (8, 8, 432.5)
    assert found.gpu_hours == pytest.approx(31 * 8 * 432.5 / 3600)


def test_a_gpu_that_has_no_time_for_a_second_step_does_one() -> None:
    # three days of an hour each within 100 minutes
    assert plan.plan(36e6, 10e3, 6000, days=3).gpus == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--rows", "1e6", "--window-hours", "0.01"], "120 s to start, but the window has only 36 s"),
        (["--rows", "4e8", "--rows-per-second", "1e4", "--window-hours", "1", "--shards", "3"], "expected at least 12"),
        (["--rows", "1e12", "--rows-per-second", "1e4", "--window-hours", "1"], "allows 200"),
        (["--rows", "0", "--window-hours", "1"], "above 0"),
    ],
)
def test_a_window_that_cannot_be_met_is_said(
    options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert plan.main(options) == 2
    assert message in capsys.readouterr().err


# the README


def test_the_readme_plans_gpus_with_a_command_that_works() -> None:
    [command] = re.findall(r"^    python deploy/plan\.py (.*)$", README, re.MULTILINE)

    with redirect_stdout(io.StringIO()) as out:
        assert plan.main(command.split()) == 0
    assert re.search(r"^GPUs +8 ", out.getvalue(), re.MULTILINE)


def test_the_readme_names_files_commands_and_objects_that_there_are(values: dict[str, Any]) -> None:
    for path in set(re.findall(r"\bdeploy/[\w./-]*\w", README)) | set(
        re.findall(r"\b(?:Dockerfile|\w+\.toml)\b", README)
    ):
        assert (PROJECT / path).exists(), path
    for name in set(re.findall(r"batch-scoring ([a-z-]+)", commands())):
        with redirect_stdout(io.StringIO()):
            assert main([name, "--help"]) == 0, name
    for command in (["instance", "concurrency", "set"], ["instance", "migrate"], ["asset", "materialize"]):
        assert f"dagster {' '.join(command)}" in README
        assert CliRunner().invoke(dagster_command, [*command, "--help"]).exit_code == 0
    [location] = values["dagster-user-deployments"]["deployments"]
    deployments = {f"{RELEASE}-daemon", f"{RELEASE}-dagster-webserver", f"{CODE}-{location['name']}"}
    assert set(re.findall(r"(?:deployment|service)/([\w-]+)", README)) <= deployments
    assert f"--name {CODE}-user-deployments" in README
    secrets = {values["global"]["postgresqlSecretName"], *(secret["name"] for secret in location["envSecrets"])}
    secrets.add("oauth2-proxy")
    assert set(re.findall(r"create secret generic ([\w-]+)", README)) == secrets


def commands() -> str:
    return "\n".join(re.findall(r"^    +(.*)$", README, re.MULTILINE)).replace("-- batch-scoring", "\nbatch-scoring")


def test_the_chart_that_the_readme_installs_has_dagster_s_version() -> None:
    pinned = re.search(r"^dagster==(.*)$", (PROJECT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)

    assert pinned
    assert set(re.findall(r"--version ([\d.]+)", README)) == {pinned[1]}
    assert pinned[1] in VALUES.splitlines()[0]


def readme_spec() -> PipelineSpec:
    """flight_delay's, with the sections that the README shows for GPUs."""
    text = README.partition("        scoring: {shards: fan_out")[2].partition("\n\n")[0]
    section = yaml.safe_load("scoring: {shards: fan_out" + re.sub(r"^ {8}", "", text, flags=re.MULTILINE))
    folder = PROJECT / "batch_scoring/pipelines/flight_delay"
    own = yaml.safe_load((folder / "pipeline.yaml").read_text(encoding="utf-8"))
    image = section["compute"]["predictions"]["image"]
    section["compute"]["predictions"]["image"] = re.sub(r"\$\{\w+:-(.*)\}", r"\1", image)
    return PipelineSpec.model_validate(own | section)


@pytest.mark.parametrize(("asset", "gpus"), [("predictions", "1"), ("validated_features", None)])
def test_a_step_as_the_readme_asks_for_it_is_a_job_that_kubernetes_takes(
    values: dict[str, Any], asset: str, gpus: str | None
) -> None:
    folder = PROJECT / "batch_scoring/pipelines/flight_delay"
    pipeline = Pipeline(readme_spec(), folder, "batch_scoring.pipelines.flight_delay", "s3://bucket/scoring")
    tags = {key: json.dumps(value) for key, value in step_pods.tags(pipeline, asset).items()}
    launcher = snake(values["runLauncher"]["config"]["k8sRunLauncher"]["runK8sConfig"], deep=False)
    contexts = [
        K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict(config))
        for config in (launcher, get_user_defined_k8s_config(tags).to_dict())
    ]
    merged = contexts[0].merge(K8sContainerContext.create_from_config(container_context(values))).merge(contexts[1])

    built = construct_dagster_k8s_job(
        DagsterK8sJobConfig(job_image="image:1f3a9c2", dagster_home="/opt/dagster/dagster_home"),
        ["dagster", "api", "execute_step"],
        "dagster-step-1",
        merged.run_k8s_config,
    )

    job = ApiClient().sanitize_for_serialization(built)
    kubernetes_validate.validate(job, KUBERNETES, strict=True)
    pod = job["spec"]["template"]["spec"]
    [container] = pod["containers"]
    resources = container["resources"]
    assert [resources[kind].get("nvidia.com/gpu") for kind in ("requests", "limits")] == [gpus, gpus]
    assert resources["requests"]["memory"] == resources["limits"]["memory"] == ("16Gi" if gpus else "2Gi")
    mounts = {mount["name"]: mount["mountPath"] for mount in container["volumeMounts"]}
    assert mounts == {"scratch": "/tmp"} | ({"shared-memory": "/dev/shm"} if gpus else {})
    assert set(mounts) == {volume["name"] for volume in pod["volumes"]}
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod.get("nodeSelector") == ({"accelerator": "nvidia"} if gpus else None)
    assert job["spec"]["backoffLimit"] == 0
