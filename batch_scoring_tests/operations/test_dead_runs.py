import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData

from batch_scoring.config.loader import PROJECT
from batch_scoring.defs.sensors import dead_runs
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.runtime import run_locks

STUCK = """
import sys, time
import dagster as dg

@dg.op
def waits():
    print("at work", flush=True)
    time.sleep(600)

@dg.job
def stuck():
    waits()

with dg.DagsterInstance.get() as instance:
    stuck.execute_in_process(instance=instance, tags={"who": sys.argv[1]})
"""


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """The instance of a laptop."""
    (tmp_path / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as found:
        yield found


@pytest.fixture(scope="module")
def wrong_clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library by which a process sees another time."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = str(PROJECT / "batch_scoring_tests/reliability/clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    return library


def at_work(who: str, within: Sequence[str] = ()) -> "subprocess.Popen[bytes]":
    """A process whose run has begun; `within`: the command that starts it."""
    command = [*within, sys.executable, "-c", STUCK, who]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None and process.stdout.readline() == b"at work\n"
    return process


def run_of(instance: dg.DagsterInstance, who: str) -> dg.DagsterRun:
    (run,) = instance.get_runs(dg.RunsFilter(tags={"who": who}))
    return run


def run_status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> dg.DagsterRunStatus:
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    return found.status


def test_a_killed_run_is_ended_and_a_living_one_is_left_alone(instance: dg.DagsterInstance) -> None:
    killed, living = at_work("killed"), at_work("living")
    try:
        killed.kill()
        killed.wait()
        dead = run_of(instance, "killed")
        assert dead.status == dg.DagsterRunStatus.STARTED
        assert end_dead_runs(instance) == [dead.run_id]
        assert run_of(instance, "killed").status == dg.DagsterRunStatus.FAILURE
        assert run_of(instance, "living").status == dg.DagsterRunStatus.STARTED
        said = [entry.message for entry in instance.all_logs(dead.run_id) if "process is gone" in entry.message]
        assert said
        assert end_dead_runs(instance) == []
    finally:
        living.kill()
        living.wait()


def test_a_process_that_was_given_the_number_of_a_dead_one_is_not_the_run(instance: dg.DagsterInstance) -> None:
    killed = at_work("killed")
    killed.kill()
    killed.wait()
    other = subprocess.Popen(["sleep", "600"])
    try:
        run = run_of(instance, "killed")
        instance.report_engine_event("also in", run, EngineEventData.in_process(other.pid))
        assert end_dead_runs(instance) == [run.run_id]
    finally:
        other.kill()
        other.wait()


def test_a_clock_that_is_set_forward_ends_no_living_run(
    instance: dg.DagsterInstance, wrong_clock: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "clock").write_text("-30")  # 16 would do where nothing has to be imported
    with monkeypatch.context() as before:
        before.setenv("LD_PRELOAD", str(wrong_clock))
        before.setenv("CLOCK_FILE", str(tmp_path / "clock"))
        living = at_work("living")
    try:
        assert end_dead_runs(instance) == []
        assert run_of(instance, "living").status == dg.DagsterRunStatus.STARTED
    finally:
        living.kill()
        living.wait()
    assert len(end_dead_runs(instance)) == 1


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes a namespace of processes")
def test_a_run_of_another_container_is_judged_by_its_process_too(instance: dg.DagsterInstance) -> None:
    container = ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc")
    asks = "import dagster as dg; from batch_scoring.operations.dead_runs import end_dead_runs as end\n"
    asks += "print(end(dg.DagsterInstance.get()))"
    here, elsewhere = at_work("here"), at_work("elsewhere", container)
    try:
        assert end_dead_runs(instance) == []
        said = subprocess.check_output([*container, sys.executable, "-c", asks], text=True)
        assert said == "[]\n", "from another container the run here is seen to live"
    finally:
        for process in (here, elsewhere):
            process.kill()
            process.wait()
    until = time.monotonic() + 20
    while len(ended := ended_runs(instance)) < 2 and time.monotonic() < until:
        end_dead_runs(instance)  # the kernel frees the lock of a namespace's process a moment later
        time.sleep(0.05)
    assert len(ended) == 2


def ended_runs(instance: dg.DagsterInstance) -> list[dg.DagsterRun]:
    return list(instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE])))


def test_what_ended_processes_have_left_is_swept_and_a_living_one_keeps_its_lock(
    instance: dg.DagsterInstance,
) -> None:
    place = run_locks.folder(instance.root_directory)
    killed, living = at_work("killed"), at_work("living")
    try:
        killed.kill()
        killed.wait()
        instance.report_run_canceled(run_of(instance, "killed"))
        assert end_dead_runs(instance) == []
        left = [file.stem for file in place.iterdir()]
        assert left == [run_of(instance, "living").run_id] and run_locks.has_process(place, left[0])
    finally:
        living.kill()
        living.wait()
    assert run_locks.has_process(place, left[0]) is False and run_locks.has_process(place, "nobody's") is None


def test_a_run_that_this_very_process_works_on_lives(instance: dg.DagsterInstance) -> None:
    seen: list[list[str]] = []

    @dg.op
    def looks() -> None:
        seen.append(end_dead_runs(instance))

    @dg.job
    def alive() -> None:
        looks()

    assert alive.execute_in_process(instance=instance).success and seen == [[]]


def test_a_run_that_has_not_named_its_process_yet_is_left_alone(instance: dg.DagsterInstance) -> None:
    run = instance.create_run_for_job(dg.GraphDefinition(name="g", node_defs=[]).to_job())
    instance.report_dagster_event(dg.DagsterEvent(dg.DagsterEventType.RUN_START.value, run.job_name), run.run_id)
    assert run_status(instance, run) == dg.DagsterRunStatus.STARTED
    assert end_dead_runs(instance) == []
    assert run_status(instance, run) == dg.DagsterRunStatus.STARTED


def test_an_instance_in_memory_has_no_dead_runs() -> None:
    with dg.DagsterInstance.ephemeral() as passing:
        assert end_dead_runs(passing) == []


def test_the_sensor_ends_them_and_says_which(instance: dg.DagsterInstance) -> None:
    nothing = dead_runs(dg.build_sensor_context(instance=instance))
    assert isinstance(nothing, dg.SkipReason) and nothing.skip_message == "every started run has its process"
    killed = at_work("killed")
    killed.kill()
    killed.wait()
    found = dead_runs(dg.build_sensor_context(instance=instance))
    run = run_of(instance, "killed")
    assert isinstance(found, dg.SkipReason) and found.skip_message == f"marked as failed: {run.run_id}"
    assert run.tags["dagster/max_retries"] == "0", "nobody can launch it again"


@pytest.mark.slow
def test_a_run_of_the_queue_does_not_wait_for_dead_ones(
    instance: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dead = [at_work(f"killed {n}") for n in range(2)]  # as many as the queue has slots
    for process in dead:
        process.kill()
        process.wait()
    for part in ("landing/dt=2024-01-01", "models"):  # the sensor would ask for other days
        shutil.copytree(PROJECT / "data/customer_churn" / part, tmp_path / "data/customer_churn" / part)
    for name in ("flight_delay", "support_tickets"):
        shutil.copytree(PROJECT / "data" / name / "models", tmp_path / "data" / name / "models")
    monkeypatch.setenv("BATCH_SCORING_DATA", str(tmp_path / "data"))
    where = ["-m", "batch_scoring.definitions"]
    day = json.dumps({"dagster/partition": "2024-01-01"})
    launch = ["-m", "dagster", "job", "launch", *where, "-j", "score_customer_churn", "--tags", day]
    subprocess.run([sys.executable, *launch], cwd=tmp_path, check=True, capture_output=True)
    (queued,) = instance.get_runs(dg.RunsFilter(job_name="score_customer_churn"))
    assert queued.status == dg.DagsterRunStatus.QUEUED
    program = str(Path(sys.executable).with_name("dagster-daemon"))
    daemon = subprocess.Popen([program, "run", *where], cwd=tmp_path, stderr=subprocess.DEVNULL)
    try:
        give_up = time.monotonic() + 200
        while run_status(instance, queued) != dg.DagsterRunStatus.SUCCESS and time.monotonic() < give_up:
            time.sleep(0.5)
    finally:
        daemon.terminate()
        daemon.wait()
    assert run_status(instance, queued) == dg.DagsterRunStatus.SUCCESS
    assert [run_of(instance, f"killed {n}").status.value for n in range(2)] == ["FAILURE", "FAILURE"]
    assert instance.get_runs_count() == 3, "nothing was launched in their place: they came from a shell"
