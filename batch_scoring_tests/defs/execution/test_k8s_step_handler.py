"""What a run's worker is told of its steps' pods: what each waits for, what it died of, and what becomes of it.

The executor's own handler asks the stand-in's API; no step is executed here.
"""

import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.executor.step_delegating import CheckStepHealthResult

from batch_scoring.config.compute import SHARED, VARIABLE
from batch_scoring.defs.execution.k8s_step_handler import WatchedSteps
from batch_scoring.operations import failed_runs
from batch_scoring.operations.alerting.messages import of_run, read
from batch_scoring_tests.deployed import PACKAGES, ROOT
from batch_scoring_tests.pods.cluster import MESSAGES, Cluster, Death, Job, Trouble, running_cluster
from batch_scoring_tests.pods.deployment import IMAGE, Steps, instance_of, job_named
from batch_scoring_tests.reliability.deployment import wait_until
from batch_scoring_tests.tiny import DAY, TinyProject

WAITS: dict[Trouble, str] = {
    "Unschedulable": f"a node: Unschedulable: {MESSAGES['Unschedulable']}",
    "ImagePullBackOff": f"image {IMAGE}: ImagePullBackOff: {MESSAGES['ImagePullBackOff']}",
    "FailedMount": f"FailedMount: {MESSAGES['FailedMount']}",
    "FailedCreate": f"FailedCreate: {MESSAGES['FailedCreate']}",
}
"""What a step's events say of its pod."""


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[Cluster]:
    with running_cluster(tmp_path / "cluster", slots=0) as found:
        yield found


@pytest.fixture
def steps(tiny: TinyProject, tmp_path: Path, cluster: Cluster, monkeypatch: pytest.MonkeyPatch) -> Iterator[Steps]:
    """A run whose steps may wait for 30 minutes, and are not tried again."""
    environment = {VARIABLE: "k8s", SHARED: "1", PACKAGES: str(tiny.packages), ROOT: tiny.data_root}
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    tiny.spec["compute"] = {"default": {"retries": 0, "start_minutes": 30}}
    tiny.write_spec()
    with instance_of(tmp_path, cluster, environment) as instance:
        yield Steps(instance, job_named(f"score_{tiny.name}"), DAY, cluster)


@pytest.fixture
def key(tiny: TinyProject) -> str:
    """Of the step that is launched."""
    return f"{tiny.name}__predictions"


def later(job: Job, minutes: float) -> None:
    """Let it have been created so long ago."""
    job.created -= timedelta(minutes=minutes)
    if job.pod:
        job.pod.created -= timedelta(minutes=minutes)


def run_something(job: Job) -> None:
    """Let the pod run, as far as anybody sees from outside."""
    assert job.pod
    job.pod.process = subprocess.Popen(["sleep", "60"], start_new_session=True)


def lose(cluster: Cluster, job: Job, death: Death) -> None:
    run_something(job)
    cluster.kill(job, death)
    assert wait_until(lambda: bool(job.pod and job.pod.phase == "Failed"), 5, every=0.05)


def events(steps: Steps) -> list[str]:
    entries = steps.instance.all_logs(steps.run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return [entry.dagster_event.message or "" for entry in entries if entry.dagster_event]


def failures_of(steps: Steps) -> list[str]:
    """The errors of the failed steps."""
    entries = steps.instance.all_logs(steps.run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    data = [entry.dagster_event.step_failure_data for entry in entries if entry.dagster_event]
    return [one.error.message for one in data if one.error]


def ended(steps: Steps, key: str, result: CheckStepHealthResult | None = None) -> str | None:
    """The class of a run that ends so; it stands in the message, with the step and the reason."""
    if result:
        steps.fail(key, result)
    else:
        steps.end()
    record = steps.instance.get_run_record_by_id(steps.run.run_id)
    assert record
    failure = failed_runs.record_failure(steps.instance, record.dagster_run)
    record = steps.instance.get_run_record_by_id(steps.run.run_id)
    assert record and failed_runs.of_run(record.dagster_run) == failure
    told = of_run(steps.instance, read(steps.instance, record), [], "").body
    assert f"class: {failure}" in told and key.replace("__", "/") in told
    assert failures_of(steps)[0].splitlines()[0][:400] in told
    return failure


# a pod that waits


@pytest.mark.parametrize("trouble", WAITS)
def test_what_a_pod_waits_for_is_told_once_and_fails_the_step_when_it_has_waited_too_long(
    steps: Steps, cluster: Cluster, key: str, trouble: Trouble
) -> None:
    cluster.trouble = lambda _: trouble
    job = steps.launch(key)
    later(job, 29)
    assert steps.health(key).is_healthy and steps.health(key).is_healthy
    (told,) = (event for event in events(steps) if "waits for" in event)
    assert told.startswith(f"The pod of step {key} waits for ") and WAITS[trouble] in told
    assert not job.is_deleted

    later(job, 2)
    assert steps.health(key).is_healthy, "an unhealthy step would be tried again, and wait again"
    (error,) = failures_of(steps)
    assert "did not start within 30 minutes (compute.start_minutes in the spec)" in error
    assert WAITS[trouble] in error
    assert job.is_deleted and (job.pod is None or job.pod.is_deleted)
    assert ended(steps, key) == "timeout"


def test_a_pod_that_waits_for_its_turn_is_healthy_and_nothing_is_told(steps: Steps, key: str) -> None:
    later(steps.launch(key), 29)
    assert steps.health(key).is_healthy
    assert not any("waits for" in event for event in events(steps))


def test_a_pod_that_waits_too_long_for_what_nobody_says_fails_its_step_too(steps: Steps, key: str) -> None:
    job = steps.launch(key)
    later(job, 31)
    assert steps.health(key).is_healthy and job.pod
    (error,) = failures_of(steps)
    assert "it waits for container dagster: ContainerCreating" in error
    assert job.is_deleted


def test_a_pod_that_runs_is_healthy_however_old_it_is(steps: Steps, key: str) -> None:
    job = steps.launch(key)
    run_something(job)
    later(job, 600)
    assert steps.health(key).is_healthy and not job.is_deleted


def test_a_job_is_complete_and_its_step_has_not_ended_so_its_first_pod_was_lost(steps: Steps, key: str) -> None:
    """Before 1.26 Kubernetes replaces the pod of a node that vanished; the new one finds the step begun, and ends."""
    job = steps.launch(key)
    assert job.pod
    job.pod.process = subprocess.Popen(["true"], start_new_session=True)
    assert wait_until(lambda: bool(job.pod and job.pod.phase == "Succeeded"), 5, every=0.05)
    later(job, 600)
    assert steps.health(key).is_healthy, "the step may have said how it ended since the events were read"
    result = steps.health(key)
    assert "is complete, and step" in (result.unhealthy_reason or "")
    assert ended(steps, key, result) == "lost"


# a pod that has died


@pytest.mark.parametrize(
    ("death", "says", "failure"),
    [
        ("OOMKilled", "OOMKilled, exit code 137", "out_of_memory"),
        ("Evicted", "Evicted: The node was low on resource: memory.", "lost"),
    ],
)
def test_a_pod_that_has_died_says_of_what(
    steps: Steps, cluster: Cluster, key: str, death: Death, says: str, failure: str
) -> None:
    job = steps.launch(key)
    lose(cluster, job, death)
    result = steps.health(key)
    assert not result.is_healthy and job.pod
    assert result.unhealthy_reason == (
        f"Discovered failed Kubernetes job {job.name} for step {key}. Pod {job.pod.name}: {says}"
    )
    assert ended(steps, key, result) == failure


def test_a_job_that_took_longer_than_its_max_hours_says_so(steps: Steps, cluster: Cluster, key: str) -> None:
    job = steps.launch(key)
    run_something(job)
    cluster.expire(job)
    result = steps.health(key)
    assert f"Job {job.name}: DeadlineExceeded: Job was active longer" in (result.unhealthy_reason or "")
    assert ended(steps, key, result) == "timeout"


def test_a_job_that_somebody_has_deleted_is_a_lost_one(steps: Steps, key: str) -> None:
    job = steps.launch(key)
    job.is_deleted = True
    result = steps.health(key)
    assert result.unhealthy_reason == f"Kubernetes job {job.name} for step {key} could not be found."
    assert ended(steps, key, result) == "lost"


def test_a_step_that_was_lost_together_with_its_run_is_found_lost_by_the_next_worker_when_it_has_begun(
    steps: Steps, cluster: Cluster, key: str
) -> None:
    """Told so at once it would launch it again, under the name that the dead Job still has, which is refused."""
    lose(cluster, steps.launch(key), "Evicted")
    steps.handler = WatchedSteps(steps.handler._inner)
    assert steps.health(key).is_healthy
    assert "Evicted" in (steps.health(key).unhealthy_reason or "")
    assert steps.launch(key, attempt=1).name.endswith("-1")


# a service account that may not look


@pytest.mark.parametrize("forbidden", [{"pods"}, {"events"}, {"pods", "events"}])
def test_a_refusal_fails_no_step_that_is_well(steps: Steps, cluster: Cluster, key: str, forbidden: set[str]) -> None:
    cluster.trouble = lambda _: "FailedCreate"
    later(steps.launch(key), 600)
    cluster.forbidden = forbidden
    assert steps.health(key).is_healthy


@pytest.mark.parametrize("forbidden", [{"pods"}, {"pods", "events"}])
def test_a_refusal_does_not_hide_that_a_job_has_failed(
    steps: Steps, cluster: Cluster, key: str, forbidden: set[str]
) -> None:
    job = steps.launch(key)
    lose(cluster, job, "OOMKilled")
    cluster.forbidden = forbidden
    result = steps.health(key)
    assert not result.is_healthy and result.unhealthy_reason
    assert result.unhealthy_reason.startswith(f"Discovered failed Kubernetes job {job.name}")
    assert "The reason cannot be determined: (403)" in result.unhealthy_reason
