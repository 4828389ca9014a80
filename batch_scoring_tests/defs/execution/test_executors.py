"""Where steps run: what the environment, the spec and the launchpad say reaches the executor and the steps."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.reconstruct import ReconstructableJob
from dagster._core.errors import DagsterInvalidConfigError
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context_creation_job import create_context_creation_data, create_executor
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster._core.executor.step_delegating import StepDelegatingExecutor

from batch_scoring.config.compute import SHARED, VARIABLE
from batch_scoring.config.loader import PROJECT
from batch_scoring.defs.execution import executors, step_pods
from batch_scoring.defs.execution.k8s_step_handler import WatchedSteps
from batch_scoring.errors import ComputeError
from batch_scoring.operations import failed_runs
from batch_scoring_tests.deployed import job_of
from batch_scoring_tests.tiny import DAY, NETWORK, TinyProject

S3 = {"landing": "s3://bucket/landing", "output": "s3://bucket/output"}


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """One that the steps' processes find too."""
    (tmp_path / "dagster_home").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "dagster_home")) as found:
        yield found


@pytest.fixture
def cluster(tmp_path: Path) -> dict[str, Any]:
    """What the launchpad says of a cluster; that nothing answers there does not matter before a step is launched."""
    file = tmp_path / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "c",
                "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
            }
        )
    )
    return {"load_incluster_config": False, "kubeconfig_file": str(file)}


def executor_of(job: ReconstructableJob, instance: dg.DagsterInstance, config: Mapping[str, Any]) -> dg.Executor:
    """The executor of a run that is launched with a config."""
    run_config = {"execution": {"config": dict(config)}}
    definition = job.get_definition()
    run = instance.create_run_for_job(definition, run_config=run_config, tags={"dagster/partition": DAY})
    plan = create_execution_plan(job, run_config)
    return create_executor(create_context_creation_data(job, plan, run_config, run, instance))


def handler_of(executor: dg.Executor) -> Any:  # noqa: ANN401  (dagster-k8s's, whose settings are private)
    assert isinstance(executor, StepDelegatingExecutor)
    assert isinstance(executor._step_handler, WatchedSteps)
    return executor._step_handler._inner


# the executor by the environment


@pytest.mark.parametrize(
    ("value", "name"),
    [
        (None, "in_process"),
        ("", "in_process"),
        ("in_process", "in_process"),
        ("multiprocess", "multiprocess"),
        ("k8s", "k8s"),
    ],
)
def test_the_environment_says_where_steps_run(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, value: str | None, name: str
) -> None:
    if value is not None:
        monkeypatch.setenv(VARIABLE, value)
    definitions = tiny.definitions
    assert definitions.executor and definitions.executor.name == name
    for job in definitions.resolve_all_job_defs():
        assert job.executor_def.name == name, job.name


def test_another_value_is_one_clear_error(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "kubernetes")
    with pytest.raises(ComputeError) as raised:
        _ = tiny.definitions
    assert str(raised.value) == f"{VARIABLE} is 'kubernetes'; expected in_process, multiprocess or k8s"


def test_a_command_says_so_in_one_line_and_ends_with_2(tmp_path: Path) -> None:
    command = [
        str(Path(sys.executable).with_name("batch-scoring")),
        "backfill",
        "flight_delay",
        "2013-07-14",
        "2013-07-14",
    ]
    environment = os.environ | {VARIABLE: "kubernetes", "PYTHONPATH": str(PROJECT)}
    ended = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr == f"batch-scoring: {VARIABLE} is 'kubernetes'; expected in_process, multiprocess or k8s\n"


def test_kubernetes_is_not_imported_where_nobody_asks_for_it() -> None:
    asked = (
        "import sys, batch_scoring.definitions;"
        "print(batch_scoring.definitions.defs.executor.name, *{'dagster_k8s', 'kubernetes'} & set(sys.modules))"
    )
    environment = os.environ | {VARIABLE: "multiprocess", "PYTHONPATH": str(PROJECT)}
    found = subprocess.run([sys.executable, "-c", asked], env=environment, capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["multiprocess"]


# what an operator writes into the launchpad


def test_processes_at_a_time_are_what_the_launchpad_says(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "multiprocess")
    job = job_of(tiny, monkeypatch)
    for config, count in (({}, executors.PROCESSES), ({"max_concurrent": 5}, 5)):
        executor = executor_of(job, instance, config)
        assert isinstance(executor, MultiprocessExecutor) and executor._max_concurrent == count
    with pytest.raises(DagsterInvalidConfigError):
        executor_of(job, instance, {"nonsense": 1})


def test_pods_are_what_the_launchpad_says(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any]
) -> None:
    for name, value in {VARIABLE: "k8s", SHARED: "1"}.items():
        monkeypatch.setenv(name, value)
    job = job_of(tiny, monkeypatch)
    larger = {f"{tiny.name}__predictions": {"container_config": {"resources": {"limits": {"memory": "64Gi"}}}}}
    executor = executor_of(job, instance, cluster | {"max_concurrent": 3, "per_step_k8s_config": larger})
    assert isinstance(executor, StepDelegatingExecutor) and executor._max_concurrent == 3
    (said,) = handler_of(executor)._per_step_k8s_config.values()
    assert said["container_config"] == larger[f"{tiny.name}__predictions"]["container_config"]
    with pytest.raises(DagsterInvalidConfigError):
        executor_of(job, instance, cluster | {"nonsense": 1})


def test_the_image_of_the_code_location_is_only_a_default(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any]
) -> None:
    for name, value in {VARIABLE: "k8s", SHARED: "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("DAGSTER_CURRENT_IMAGE", raising=False)
    job = job_of(tiny, monkeypatch)
    assert handler_of(executor_of(job, instance, cluster))._executor_image is None
    monkeypatch.setenv("DAGSTER_CURRENT_IMAGE", "here:1")
    assert handler_of(executor_of(job, instance, cluster))._executor_image == "here:1"
    assert handler_of(executor_of(job, instance, cluster | {"job_image": "other:2"}))._executor_image == "other:2"


# folders that pods do not share


def test_pods_and_a_local_folder_are_refused_by_its_name_with_both_remedies(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, cluster: dict[str, Any]
) -> None:
    monkeypatch.setenv(VARIABLE, "k8s")
    job = job_of(tiny, monkeypatch)
    with pytest.raises(ComputeError) as raised:
        executor_of(job, instance, cluster)
    assert f"{tiny.name}: {tiny.pipeline.output.uri}" in str(raised.value)
    assert f"{tiny.name}: {tiny.pipeline.landing.uri}" in str(raised.value)
    assert "set BATCH_SCORING_DATA to s3://bucket/prefix, or BATCH_SCORING_DATA_SHARED=1" in str(raised.value)
    monkeypatch.setenv(SHARED, "0")
    with pytest.raises(ComputeError):
        executor_of(job, instance, cluster)
    monkeypatch.setenv(SHARED, "1")
    assert handler_of(executor_of(job, instance, cluster))


@pytest.mark.parametrize("local", ["landing", "output", None])
def test_only_the_folders_of_the_job_s_own_pipeline_count(
    tiny: TinyProject,
    tmp_path: Path,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    cluster: dict[str, Any],
    local: str | None,
) -> None:
    remote = TinyProject(tmp_path)
    remote.spec["input"]["landing"], remote.spec["output"] = S3["landing"], S3["output"]
    if local == "landing":
        del remote.spec["input"]["landing"]
    if local == "output":
        del remote.spec["output"]
    remote.write_spec()
    monkeypatch.setenv(VARIABLE, "k8s")
    job = job_of(remote, monkeypatch)
    if local is None:
        assert handler_of(executor_of(job, instance, cluster))
        return
    with pytest.raises(ComputeError) as raised:
        executor_of(job, instance, cluster)
    assert f"({remote.name}: {getattr(remote.pipeline, local).uri})" in str(raised.value)
    assert tiny.name not in str(raised.value)


# processes that are killed


DEADLY = """
        if (numeric[:, 0] == 777).any():
            import os, pathlib
            mark = pathlib.Path({mark!r})
            if not mark.exists():
                mark.touch()
                os.kill(os.getpid(), 9)
"""


@pytest.mark.slow
def test_a_step_whose_process_is_killed_is_run_again_in_the_same_run_with_half_the_batch(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv(VARIABLE, "multiprocess")
    monkeypatch.setattr(step_pods, "RETRY_SECONDS", 0)
    tiny.spec["scoring"]["batch_rows"] = 4096
    tiny.write_spec()
    head = "    def forward(self, numeric, categorical):"
    tiny.write_code(network=NETWORK.replace(head, head + DEADLY.format(mark=str(tmp_path / "mark"))))
    rows = tiny.rows(100)
    tiny.land(DAY, rows.set_column(1, "x", [[777.0, *rows["x"].to_pylist()[1:]]]))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    key = dg.AssetKey([tiny.name, "predictions"])
    with dg.execute_job(
        job_of(tiny, monkeypatch), instance, tags={"dagster/partition": DAY}, asset_selection=[key], raise_on_error=True
    ) as result:
        kinds = [e.event_type_value for e in result.all_events if e.step_key == f"{tiny.name}__predictions"]
        assert result.success and (tmp_path / "mark").exists()
        assert [kinds.count(kind) for kind in ("STEP_START", "STEP_UP_FOR_RETRY", "STEP_RESTARTED")] == [1, 1, 1]
        (made,) = result.asset_materializations_for_node(f"{tiny.name}__predictions")
        assert made.metadata["batch_rows"].value == 2048
    assert tiny.read().num_rows == 100


@pytest.mark.slow
def test_an_exception_is_not_tried_again_within_the_run_and_keeps_its_name(
    tiny: TinyProject, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "multiprocess")
    key = dg.AssetKey([tiny.name, "predictions"])
    job = job_of(tiny, monkeypatch)
    ops = tiny.definitions.resolve_job_def(f"score_{tiny.name}").graph.iterate_op_defs()
    (policy,) = {op.retry_policy for op in ops if op.name == f"{tiny.name}__predictions"}
    assert policy and policy.max_retries == 2
    with dg.execute_job(job, instance, tags={"dagster/partition": DAY}, asset_selection=[key]) as result:
        assert not result.success
        kinds = [event.event_type_value for event in result.all_events if event.step_key]
        assert kinds.count("STEP_START") == kinds.count("STEP_FAILURE") == 1
        assert "STEP_UP_FOR_RETRY" not in kinds
        error = next(event for event in result.all_events if event.is_step_failure).step_failure_data.error
    assert error and error.cause and error.cause.cls_name == "StateError"
    assert "has no pinned input in" in error.cause.message
    run = instance.get_run_by_id(result.run_id)
    assert run and failed_runs.of_run(run) == "processing_error" and failed_runs.is_recorded(run)
