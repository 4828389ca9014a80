"""Every step of every job as the Job that Kubernetes would get: strictly valid, and what its spec asks for.

The executor's own handler launches the step; what is looked at is what has come over the wire.
"""

import re
from collections.abc import Iterator, Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import dagster as dg
import kubernetes_validate
import pytest
from dagster._core.definitions.job_definition import JobDefinition
from pydantic import ValidationError

from batch_scoring.config.compute import VARIABLE
from batch_scoring.config.loader import PIPELINES, load_pipelines
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.defs.execution.step_pods import K8S_TAG, SPOT_TAINTS
from batch_scoring.errors import SpecError
from batch_scoring_tests.deployed import PACKAGES
from batch_scoring_tests.pods.cluster import Cluster, running_cluster
from batch_scoring_tests.pods.deployment import IMAGE, Steps, instance_of, job_named
from batch_scoring_tests.tiny import DAY, TinyProject

VERSIONS = ("1.27", "1.33", "1.37")
SCORING = re.compile(r"(__predictions|_score_share\[share_\d+\])$")
GPU = "nvidia.com/gpu"
RICH: dict[str, Any] = {
    "default": {
        "cpu": 0.5,
        "memory": "1Gi",
        "node_selector": {"pool": "batch"},
        "max_hours": 2.5,
        "tolerations": [{"key": "batch", "operator": "Equal", "value": "yes", "effect": "NoSchedule"}],
    },
    "predictions": {
        "cpu": 3,
        "memory": "8Gi",
        "gpu": 2,
        "image": "registry.example/batch-scoring:0123abc-cuda",
        "spot": True,
        "shared_memory": "2Gi",
        "node_selector": {"cloud.google.com/gke-accelerator": "nvidia-l4"},
        "tolerations": [{"key": "dedicated", "effect": ""}],
    },
}
"""A spec's section that says all there is to say."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster", slots=0) as found:
        yield found


@pytest.fixture
def instance(tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance whose launcher says something of pods, too."""
    monkeypatch.setenv(VARIABLE, "k8s")
    monkeypatch.setenv("BATCH_SCORING_DATA", "s3://bucket/data")
    with instance_of(tmp_path, cluster, {"BATCH_SCORING_DATA": "s3://bucket/data", VARIABLE: "k8s"}) as found:
        yield found


def rendered(instance: dg.DagsterInstance, cluster: Cluster, *jobs: str) -> dict[str, dict[str, Any]]:
    """The Job of every step of some jobs, by the step's key."""
    found = {}
    for name in jobs:
        steps = Steps(instance, job_named(name), DAY, cluster)
        found |= {key: steps.launch(key).manifest for key in steps.all}
    return found


def jobs_of(name: str) -> list[str]:
    return [f"{kind}_{name}" for kind in ("score", "report", "retain")]


def spec_of(manifest: dict[str, Any]) -> dict[str, Any]:
    return dict(manifest["spec"]["template"]["spec"])


def container_of(manifest: dict[str, Any]) -> dict[str, Any]:
    (container,) = spec_of(manifest)["containers"]
    return dict(container)


UNITS = {"": 1, "m": Fraction(1, 1000), **{unit + "i": 1024**n for n, unit in enumerate("KMGT", 1)}}


def amount(quantity: str) -> Fraction:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()  # type: ignore[union-attr]
    return Fraction(number) * UNITS[unit]


LABEL = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
DNS_LABEL = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
QUALIFIED = re.compile(r"([a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")


def refused_by_the_api(manifest: dict[str, Any]) -> Iterator[str]:
    """What the API refuses and its schema does not."""
    spec, container = spec_of(manifest), container_of(manifest)
    for part in (manifest, manifest["spec"]["template"]):
        metadata = part["metadata"]
        if not DNS_LABEL.fullmatch(metadata["name"]):
            yield f"name {metadata['name']}"
        for key, value in metadata["labels"].items():
            if not QUALIFIED.fullmatch(key) or not LABEL.fullmatch(value):
                yield f"label {key}: {value}"
        yield from (f"annotation {key}" for key in metadata.get("annotations", {}) if not QUALIFIED.fullmatch(key))
    requests, limits = container["resources"]["requests"], container["resources"]["limits"]
    for name, quantity in {**requests, **limits}.items():
        if "/" in name and (not quantity.isdecimal() or requests.get(name) != limits.get(name)):
            yield f"{name}: an extended resource is whole, and its request its limit"
        if name in requests and name in limits and amount(requests[name]) > amount(limits[name]):
            yield f"{name}: the request is more than the limit"
    volumes = [volume["name"] for volume in spec.get("volumes") or []]
    mounts = container.get("volumeMounts") or []
    if len(set(volumes)) < len(volumes) or not {mount["name"] for mount in mounts} <= set(volumes):
        yield f"mounts {mounts} of {volumes}"
    if len({mount["mountPath"] for mount in mounts}) < len(mounts):
        yield f"two mounts at one place: {mounts}"
    names = [variable["name"] for variable in container["env"]]
    yield from (f"{name} is set twice" for name in sorted({name for name in names if names.count(name) > 1}))
    for toleration in spec.get("tolerations") or []:
        if toleration["operator"] == "Exists" and toleration.get("value"):
            yield f"toleration {toleration}: Exists has no value"
    if manifest["spec"].get("activeDeadlineSeconds", 1) < 1 or "podFailurePolicy" in manifest["spec"]:
        yield "deadline or policy"


def assert_valid(manifests: Mapping[str, dict[str, Any]]) -> None:
    for key, manifest in manifests.items():
        for version in VERSIONS:
            kubernetes_validate.validate(manifest, version, strict=True)
        assert list(refused_by_the_api(manifest)) == [], key


def test_every_step_of_every_job_of_the_project_is_a_valid_job(
    instance: dg.DagsterInstance, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(PACKAGES, str(PIPELINES))
    names = [pipeline.name for pipeline in load_pipelines(PIPELINES, "s3://bucket/data")]
    assert names == ["customer_churn", "flight_delay", "support_tickets"]
    manifests = rendered(instance, cluster, *(job for name in names for job in jobs_of(name)))
    assert len(manifests) >= 14
    assert_valid(manifests)
    for key, manifest in manifests.items():
        assert manifest["spec"]["backoffLimit"] == 0, key
        assert GPU not in container_of(manifest)["resources"]["limits"], key
        assert container_of(manifest)["image"] == IMAGE


def test_the_pods_of_a_day_carry_its_pipeline_and_its_day(
    instance: dg.DagsterInstance, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cost tools allocate by the labels of a pod; a month's report is of no day, though its run has a partition."""
    monkeypatch.setenv(PACKAGES, str(PIPELINES))
    for key, manifest in rendered(instance, cluster, *jobs_of("flight_delay")).items():
        labels = manifest["spec"]["template"]["metadata"]["labels"]
        assert labels["batch-scoring/pipeline"] == "flight_delay", key
        assert labels.get("batch-scoring/day") == (None if key == "flight_delay__report" else DAY), key
        assert labels["dagster/op"], "beside those of dagster-k8s"


@pytest.fixture
def rich(tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A pipeline that asks for all there is."""
    tiny = TinyProject(tmp_path)
    monkeypatch.setenv(PACKAGES, str(tiny.packages))
    tiny.spec |= {"compute": RICH, "model": {**tiny.spec["model"], "bundle": f"{tiny.data_root}/{tiny.name}/models/v1"}}
    tiny.write_spec()
    return tiny


@pytest.mark.parametrize("shards", ["one_step", "fan_out"])
@pytest.mark.parametrize("gpu", [0, 2])
def test_every_step_is_a_valid_job_of_what_its_spec_says(
    rich: TinyProject, instance: dg.DagsterInstance, cluster: Cluster, shards: str, gpu: int
) -> None:
    rich.spec["scoring"]["shards"] = shards
    rich.spec["compute"] = RICH | {"predictions": RICH["predictions"] | {"gpu": gpu}}
    rich.write_spec()
    manifests = rendered(instance, cluster, *jobs_of(rich.name))
    assert_valid(manifests)
    scoring = {key for key in manifests if SCORING.search(key)}
    assert len(scoring) == (1 if shards == "one_step" else 2) and len(manifests) > len(scoring) + 5
    for key, manifest in manifests.items():
        check_common(manifest)
        if key in scoring:
            check_scoring(manifest, gpu)
        else:
            check_other(manifest)


def check_common(manifest: dict[str, Any]) -> None:
    job, spec = manifest["spec"], spec_of(manifest)
    assert (job["backoffLimit"], job["activeDeadlineSeconds"], job["ttlSecondsAfterFinished"]) == (0, 9000, 86400)
    assert "podFailurePolicy" not in job
    assert (spec["restartPolicy"], spec["terminationGracePeriodSeconds"]) == ("Never", 60)
    annotations = manifest["spec"]["template"]["metadata"]["annotations"]
    assert annotations["karpenter.sh/do-not-disrupt"] == "true"
    environment = {variable["name"]: variable["value"] for variable in container_of(manifest)["env"]}
    assert environment["BATCH_SCORING_DATA"] == "s3://bucket/data" and environment[VARIABLE] == "k8s"


def check_scoring(manifest: dict[str, Any], gpu: int) -> None:
    spec, container = spec_of(manifest), container_of(manifest)
    gpus = {GPU: str(gpu)} if gpu else {}
    assert container["resources"] == {
        "requests": {"cpu": "3", "memory": "8Gi", **gpus},
        "limits": {"memory": "8Gi", **gpus},
    }
    assert container["image"] == "registry.example/batch-scoring:0123abc-cuda"
    assert {"name": "OMP_NUM_THREADS", "value": "3"} in container["env"]
    assert container["volumeMounts"] == [{"name": "shared-memory", "mountPath": "/dev/shm"}]
    assert spec["volumes"] == [{"name": "shared-memory", "emptyDir": {"medium": "Memory", "sizeLimit": "2Gi"}}]
    assert spec["nodeSelector"] == {"cloud.google.com/gke-accelerator": "nvidia-l4"}
    tolerated = {(t["key"], t["operator"], t.get("value", ""), t.get("effect", "")) for t in spec["tolerations"]}
    spot = {(key, "Equal", value, "NoSchedule") for key, value in SPOT_TAINTS.items()}
    assert tolerated == {("dedicated", "Exists", "", ""), *spot} | (
        {(GPU, "Exists", "", "NoSchedule")} if gpu else set()
    )


def check_other(manifest: dict[str, Any]) -> None:
    spec, container = spec_of(manifest), container_of(manifest)
    assert container["resources"] == {"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"memory": "1Gi"}}
    assert container["image"] == IMAGE
    assert {"name": "OMP_NUM_THREADS", "value": "1"} in container["env"]
    assert spec["nodeSelector"] == {"pool": "batch"}
    assert [toleration["key"] for toleration in spec["tolerations"]] == ["batch"]
    assert not spec.get("volumes") and not container.get("volumeMounts")


def test_a_step_that_is_tried_again_has_a_job_of_its_own(
    rich: TinyProject, instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    steps, key = Steps(instance, job_named(f"score_{rich.name}"), DAY, cluster), f"{rich.name}__predictions"
    names = [steps.launch(key, attempt).name for attempt in (0, 1, 2)]
    assert names[1:] == [f"{names[0]}-1", f"{names[0]}-2"]


# the schema refuses what would not come through


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"predictions": {"gpus": 1}}, "gpus"),
    ({"validated_features": {"gpu": 1}}, "gpu"),
    ({"default": {"gpu": 1}}, "gpu"),
    ({"predictions": {"gpu": 0.5}}, "gpu"),
    ({"predictions": {"memory": "8 GB"}}, "memory"),
    ({"predictions": {"memory": "2Gi", "shared_memory": "2Gi"}}, "shared_memory"),
    ({"predictions": {"node_selector": {"accelerator": "L4 24GB"}}}, "node_selector"),
    ({"predictions": {"tolerations": [{"key": "spot", "efect": "NoSchedule"}]}}, "tolerations"),
    ({"predictions": {"tolerations": [{"key": "spot", "operator": "Equal"}]}}, "tolerations"),
    ({"predictions": {"gpu": 1, "gpu_resource": "nvidia.com/gpu:1"}}, "gpu_resource"),
    ({"prediction": {}}, "prediction"),
]


@pytest.mark.parametrize(("section", "field"), WRONG, ids=[str(section) for section, _ in WRONG])
def test_a_typo_in_the_spec_is_refused_when_it_is_read(tiny: TinyProject, section: dict[str, Any], field: str) -> None:
    tiny.spec["compute"] = section
    with pytest.raises(ValidationError, match=field):
        PipelineSpec.model_validate(tiny.spec)
    tiny.write_spec()
    with pytest.raises(SpecError, match=field):
        _ = tiny.pipeline


def test_the_validation_itself_can_fail(rich: TinyProject, instance: dg.DagsterInstance, cluster: Cluster) -> None:
    key = f"{rich.name}__predictions"
    manifest = rendered(instance, cluster, f"score_{rich.name}")[key]
    container = manifest["spec"]["template"]["spec"]["containers"][0]
    container["volumeMount"] = container.pop("volumeMounts")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)
    container["volumeMounts"] = [{"name": "nowhere", "mountPath": "/x"}]
    container["resources"]["limits"] |= {GPU: "1", "cpu": "1"}
    manifest["metadata"]["labels"]["dagster/op"] = "a[b]"
    container["env"] *= 2
    faults = " ".join(refused_by_the_api(manifest))
    for words in (f"{GPU}: an extended", "cpu: the request", "nowhere", "a[b]", "OMP_NUM_THREADS is set twice"):
        assert words in faults


# everything stands on the assets


def stands_on(job: JobDefinition, name: str) -> dict[str, Any]:
    """Tags, tries and pool of the steps of a pipeline's assets, as a job has them."""
    return {
        op.name: (op.tags, op.retry_policy, op.pool) for op in job.graph.iterate_op_defs() if op.name.startswith(name)
    }


@pytest.mark.parametrize("shards", ["one_step", "fan_out"])
def test_what_a_pod_asks_for_stands_on_the_asset_and_not_on_its_job(rich: TinyProject, shards: str) -> None:
    rich.spec["scoring"]["shards"] = shards
    rich.write_spec()
    definitions = rich.definitions
    implicit = stands_on(definitions.resolve_implicit_global_asset_job_def(), rich.name)
    for name in jobs_of(rich.name):
        job = definitions.resolve_job_def(name)
        assert K8S_TAG not in job.tags, name
        found = stands_on(job, rich.name)
        assert found and found == {op: implicit[op] for op in found}
    assert all(K8S_TAG in tags for tags, _, _ in implicit.values())
    assert {op for op, (_, _, pool) in implicit.items() if pool} == {
        f"{rich.name}__predictions" if shards == "one_step" else f"{rich.name}_score_share"
    }
