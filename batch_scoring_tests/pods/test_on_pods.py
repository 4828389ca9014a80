"""Runs and steps in pods of their own, on a store that they share: the same rows, whatever is lost on the way.

What is real: the run launcher and the executor of dagster-k8s, every process, its environment and its files. What is
not: Kubernetes (see `cluster.py`) and S3 (moto).
"""

from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.daily.tables import predictions_table
from batch_scoring.operations import failed_runs, run_history
from batch_scoring.operations.alerting.messages import of_run, read
from batch_scoring.storage.state import REFERENCES
from batch_scoring_tests.pods.cluster import Cluster, Job
from batch_scoring_tests.pods.deployment import ended, launch
from batch_scoring_tests.reliability.deployment import wait_until
from batch_scoring_tests.tiny import DAY, NETWORK, TinyProject

pytestmark = [pytest.mark.s3, pytest.mark.slow]

SLOW = """
        import os, pathlib, time
        host = os.environ.get("HOSTNAME", "")
        if (numeric[:, 0] == 777).any() and host.startswith("dagster-step-") and host.count("-") == 3:
            pathlib.Path("at-work").touch()
            time.sleep(60)
"""
"""The first pod that scores the row 777 takes its time, and says that it does."""


def day_of_four_files(tiny: TinyProject) -> None:
    """With rows of each kind: one that the network cannot score, one that it takes its time for."""
    rows = tiny.rows(200)
    x = [{17: 666.0, 111: 777.0}.get(n, value) for n, value in enumerate(rows["x"].to_pylist())]
    rows = rows.set_column(1, "x", pa.array(x))
    for number, name in enumerate("abcd"):
        tiny.land(DAY, rows.slice(50 * number, 50), f"{name}.parquet")


def locally(folder: Path, network: str) -> pa.Table:
    """The predictions of the same day, in one step, in this process, on a local folder."""
    tiny = TinyProject(folder)
    tiny.write_code(network=network)
    day_of_four_files(tiny)
    tiny.run()
    return tiny.read().drop_columns("scored_at")


def is_running(cluster: Cluster, step: str) -> bool:
    return any(job.pod and job.pod.phase == "Running" for job in cluster.of_step(step))


def with_gpu(jobs: list[Job]) -> set[str]:
    return {job.step for job in jobs if "nvidia.com/gpu" in job.container["resources"].get("limits", {})}


def commits(tiny: TinyProject) -> list[str]:
    """The runs whose commits the table of predictions has."""
    table = predictions_table(tiny.pipeline).load()
    assert table
    return [entry["run_id"] for entry in table.history() if "run_id" in entry]


def assert_nothing_is_left_on_machines(cluster: Cluster, instance: dg.DagsterInstance) -> None:
    for job in cluster.jobs:
        assert job.pod
        assert [file for file in job.pod.files() if not file.endswith("dagster_home/logs")] == [], job.step
    kept = Path(instance.storage_directory())
    assert not kept.exists() or list(kept.iterdir()) == [], "outputs, pickled"


def test_a_day_in_shares_survives_the_loss_of_a_pod(
    tmp_path: Path, on_s3: TinyProject, instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    head = "    def forward(self, numeric, categorical):"
    network = NETWORK.replace(head, head + SLOW)
    on_s3.write_code(network=network)
    on_s3.spec["scoring"] |= {"shards": "fan_out", "max_shards": 4, "rows_per_shard": 50}
    on_s3.spec["compute"] = {"predictions": {"gpu": 1}}
    on_s3.write_spec()
    day_of_four_files(on_s3)
    run_id = launch(instance, f"score_{on_s3.name}", DAY)
    shares = [f"score_share[share_{number}]" for number in (1, 2, 3, 4)]

    def at_work() -> list[Job]:
        return [job for job in cluster.jobs if job.pod and (job.pod.folder / "work" / "at-work").exists()]

    assert wait_until(lambda: bool(at_work()), 150, every=0.1)
    (lost,) = at_work()
    cluster.kill(lost, "OOMKilled")
    (lost.pod.folder / "work" / "at-work").unlink()  # type: ignore[union-attr]
    run = ended(instance, run_id, cluster)
    assert run.is_success, "\n".join(f"{job.step}: {job.pod and job.pod.log}" for job in cluster.jobs)

    times = {share: len(cluster.of_step(share)) for share in shares}
    assert times == {share: 1 for share in shares} | {next(s for s in shares if lost.step.endswith(s)): 2}
    steps = ("__model", "__raw_input", "__validated_features", "_plan", "_publish", "_drift", "")
    assert [len(cluster.of_step(step)) for step in steps] == [1] * len(steps)
    assert with_gpu(cluster.jobs) == {job.step for job in cluster.jobs if "score_share" in job.step}
    lost_events = [e for e in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)]
    (event,) = (entry.dagster_event for entry in lost_events)
    assert event and event.step_key == lost.step
    assert f"Pod {lost.pod.name}: OOMKilled, exit code 137" in event.step_retry_data.error.message  # type: ignore[union-attr]

    assert commits(on_s3) == [run_id]
    assert on_s3.read().drop_columns("scored_at").equals(locally(tmp_path / "local", network))
    told = {file.path.split("/")[-1] for file in on_s3.pipeline.output.list(f"{REFERENCES}/{run_id}/")}
    names = {"plan.began", *(f"plan.shares.share_{n}" for n in (1, 2, 3, 4)), *(f"{share}.result" for share in shares)}
    assert told == {f"{on_s3.name}__predictions.{on_s3.name}_{name}.json" for name in names}
    assert_nothing_is_left_on_machines(cluster, instance)


def test_a_run_whose_own_pod_is_lost_is_gone_on_with(
    tmp_path: Path, on_s3: TinyProject, instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    day_of_four_files(on_s3)
    run_id = launch(instance, f"score_{on_s3.name}", DAY)
    assert wait_until(lambda: is_running(cluster, "__validated_features"), 150, every=0.1)
    (first,) = cluster.of_step("")
    cluster.kill(first, "Evicted")
    run = ended(instance, run_id, cluster)
    assert run.is_success, "\n".join(f"{job.step}: {job.pod and job.pod.log}" for job in cluster.jobs)
    assert [job.name for job in cluster.of_step("")] == [first.name, f"{first.name}-1"]
    steps = ("__model", "__raw_input", "__validated_features", "__predictions", "_drift")
    assert [len(cluster.of_step(step)) for step in steps] == [1] * len(steps), "nobody has done a step twice"
    assert commits(on_s3) == [run_id]
    assert on_s3.read().drop_columns("scored_at").equals(locally(tmp_path / "local", NETWORK))
    assert with_gpu(cluster.jobs) == set()
    assert_nothing_is_left_on_machines(cluster, instance)


def test_pods_that_nobody_can_start_end_the_run_with_their_reasons(
    on_s3: TinyProject, instance: dg.DagsterInstance, cluster: Cluster
) -> None:
    on_s3.spec["compute"] = {"default": {"start_minutes": 0.01, "retries": 0}}
    on_s3.write_spec()
    day_of_four_files(on_s3)
    cluster.trouble = lambda job: {"__model": "Unschedulable", "__raw_input": "ImagePullBackOff"}.get(  # type: ignore[assignment,return-value]
        job.step.removeprefix(on_s3.name)
    )
    run_id = launch(instance, f"score_{on_s3.name}", DAY)
    run = ended(instance, run_id, cluster)
    assert run.status == dg.DagsterRunStatus.FAILURE
    errors = {
        entry.dagster_event.step_key: entry.dagster_event.step_failure_data.error.message  # type: ignore[union-attr]
        for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
        if entry.dagster_event
    }
    assert errors.keys() == {f"{on_s3.name}__model", f"{on_s3.name}__raw_input"}
    for step, why in {
        "model": "waits for a node: Unschedulable: 0/3 nodes are available: 3 Insufficient nvidia.com/gpu.",
        "raw_input": "ImagePullBackOff: Back-off pulling image",
    }.items():
        error = errors[f"{on_s3.name}__{step}"]
        assert "did not start within 0.01 minutes (compute.start_minutes in the spec)" in error and why in error
        (job,) = cluster.of_step(f"__{step}")
        assert job.is_deleted and job.pod and job.pod.is_deleted, "else it starts when nobody waits for it any more"

    (known,) = run_history.of_day(instance, on_s3.pipeline, DAY)
    assert known.failure == "timeout"
    record = instance.get_run_record_by_id(run_id)
    assert record and failed_runs.of_run(record.dagster_run) == "timeout"
    told = of_run(instance, read(instance, record), [], "")
    assert f"{on_s3.name}/" in told.body and "did not start within" in told.body and "class: timeout" in told.body
