"""A broken pipeline among others: it is left out and told once, the others run; mended, it goes on."""

import logging
import shutil
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import StringIO
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
import yaml
from dagster._cli.api import _execute_run_command_body
from dagster._core.events import EngineEventData, JobFailureData, RunFailureReason
from dagster._core.execution.plan.objects import StepFailureData
from dagster._core.scheduler.instigation import InstigatorStatus
from dagster._core.test_utils import create_test_daemon_workspace_context, freeze_time
from dagster._core.workspace.load_target import PythonFileTarget
from dagster._scheduler.scheduler import launch_scheduled_runs
from dagster._utils.error import SerializableErrorInfo

from batch_scoring.cli.doctor import all_probes as doctor
from batch_scoring.cli.main import main
from batch_scoring.config import loader
from batch_scoring.config.loader import PROJECT, Survey, survey_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.definitions import deploy, deploy_valid
from batch_scoring.defs.sensors import uploads_sensor
from batch_scoring.errors import SpecError
from batch_scoring.operations import failed_runs, run_history
from batch_scoring.operations.alerting import collector
from batch_scoring_tests.deployed import job_of
from batch_scoring_tests.receivers import WebServer
from batch_scoring_tests.reliability.deployment import DEFINITIONS, Deployment, wait_until
from batch_scoring_tests.tiny import DAY, NETWORK, TinyProject, days_ago, normalised

Breaks = Callable[[TinyProject], object]
LOG = logging.getLogger("tick")


class Pair:
    """Two pipelines in one deployment."""

    def __init__(self, folder: Path) -> None:
        self.other, self.mine = TinyProject(folder), TinyProject(folder)

    def survey(self) -> Survey:
        return survey_pipelines(self.mine.packages, self.mine.data_root)

    def break_mine(self) -> str:
        """Break it as an editor would, while its files are being written; what is said of it."""
        (self.mine.folder / "network.py").write_text("def f(:\n")
        (broken,) = self.survey().broken
        assert broken.name == self.mine.name
        return broken.errors[0]

    def mend(self) -> None:
        self.mine.write_code(network=NETWORK)
        self.mine.write_spec()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


@pytest.fixture
def site(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> Pair:
    """Where the commands look for it."""
    for function in (loader.load_pipelines, loader.survey_pipelines):
        monkeypatch.setattr(function, "__defaults__", (pair.mine.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", pair.mine.data_root)
    return pair


def put(name: str, content: bytes | str) -> Breaks:
    return lambda tiny: (tiny.folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def say(**fields: object) -> Breaks:
    return lambda tiny: (tiny.folder / "pipeline.yaml").write_text(yaml.safe_dump(tiny.spec | fields))


BREAKS: dict[str, tuple[Breaks, str]] = {
    "half a YAML": (put("pipeline.yaml", "name: [\n"), "line 2: is not valid YAML: while parsing a flow node"),
    "no mapping": (put("pipeline.yaml", ""), ": is empty; expected a mapping"),
    "no UTF-8": (put("pipeline.yaml", b"name: caf\xe9\n"), "can't decode byte 0xe9"),
    "a day that there is not": (put("pipeline.yaml", "partitions: {start: 2024-02-31}\n"), "day is out of range"),
    "a field": (say(colour="red"), ": colour: unknown field"),
    "a name": (say(name="My Pipeline"), ": name: 'My Pipeline'"),
    "an unset variable": (say(output="${NOBODY_SETS_THIS}"), "output: '${NOBODY_SETS_THIS}': the environment variable"),
    "no bundle yet": (say(model={"bundle": "models/v9", "network": "network:Net"}), "there is no bundle.json"),
    "an owner": (say(owners=["müller@example.org"]), "owners: ['müller@example.org']"),
    "half a schema": (put("schema.py", "class Rows(:\n"), "schema.py line 1 is not valid Python: invalid syntax"),
    "half a network": (put("network.py", f"{NETWORK}\ndef f(\n"), "is not valid Python: '(' was never closed"),
    "a module that is not installed": (put("network.py", f"import nowhere\n{NETWORK}"), "line 1 imports nowhere, whi"),
    "no schema": (lambda tiny: (tiny.folder / "schema.py").unlink(), "there is no schema.py beside the spec"),
    "a folder as a spec": (
        lambda tiny: [(tiny.folder / "pipeline.yaml").unlink(), (tiny.folder / "pipeline.yaml").mkdir()],
        "Is a directory",
    ),
    "a link that leads nowhere": (
        lambda tiny: (
            (tiny.folder / "pipeline.yaml").rename(tiny.folder / "spec")
            and (tiny.folder / "pipeline.yaml").symlink_to("nowhere")
        ),
        "No such file or directory",
    ),
    "another ending": (
        lambda tiny: (tiny.folder / "pipeline.yaml").rename(tiny.folder / "pipeline.yml"),
        "rename it to pi",
    ),
}


@pytest.mark.parametrize("name", BREAKS)
def test_the_others_are_deployed_and_the_broken_one_is_a_sensor_that_fails(pair: Pair, name: str) -> None:
    breaks, fault = BREAKS[name]
    breaks(pair.mine)
    whole = deploy([pair.other.pipeline])
    found = deploy_valid(pair.survey())
    keys = found.resolve_asset_graph().get_all_asset_keys()
    assert keys == whole.resolve_asset_graph().get_all_asset_keys()
    jobs = {job.name for job in found.resolve_all_job_defs()} - {job.name for job in whole.resolve_all_job_defs()}
    assert jobs == {f"{pair.mine.name}_is_broken"}, "that of the schedules that wait"
    (more,) = {sensor.name for sensor in found.sensors or []} - {sensor.name for sensor in whole.sensors or []}
    assert more == f"{pair.mine.name}_is_broken"
    sensor = found.resolve_sensor_def(more)
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING and fault in (sensor.description or "")
    with pytest.raises(SpecError) as raised:
        sensor(dg.build_sensor_context())
    assert fault in str(raised.value) and str(pair.mine.folder / "pipeline.y") in str(raised.value)


def test_a_folder_whose_name_no_sensor_may_have_stops_nobody_either(pair: Pair) -> None:
    for name in ("my-pipe", "my pipe", "Müller"):
        shutil.copytree(pair.mine.folder, pair.mine.packages / name)
    found = deploy_valid(pair.survey())
    found.get_repository_def()
    broken = {sensor.name for sensor in found.sensors or [] if sensor.name.endswith("_is_broken")}
    assert len(broken) == 3 and len([name for name in broken if name.startswith("my_pipe_")]) == 2


def test_what_dagster_refuses_is_left_out_too(pair: Pair) -> None:
    """The spec's own rules are meant to see it before; what they miss stops one pipeline, not all."""
    survey = pair.survey()
    spec = pair.mine.pipeline.spec.model_copy(update={"owners": ("nobody",)})
    odd = Pipeline(spec, pair.mine.folder, "", pair.mine.data_root)
    found = deploy_valid(Survey((pair.other.pipeline, odd), survey.broken))
    assert {key.path[0] for key in found.resolve_asset_graph().get_all_asset_keys()} == {pair.other.name}
    with pytest.raises(SpecError, match="Dagster refuses it: Invalid owner 'nobody'"):
        found.resolve_sensor_def(f"{pair.mine.name}_is_broken")(dg.build_sensor_context())


def test_where_no_pipeline_is_left_the_code_location_does_not_load(pair: Pair) -> None:
    pair.break_mine()
    (pair.other.folder / "pipeline.yaml").write_text("name: [")
    with pytest.raises(SpecError, match="2 errors in the pipelines' specs"):
        deploy_valid(pair.survey())


# commands


def test_commands_of_the_others_work_and_those_of_the_broken_one_say_why(
    site: Pair, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    site.other.land(DAY, site.other.rows(20))
    pq.write_table(site.other.rows(20), tmp_path / "rows.parquet")
    fault = site.break_mine()
    files = ["--input", str(tmp_path / "rows.parquet"), "--output"]
    assert main(["backfill", site.other.name, DAY, DAY]) == 0
    assert main(["retention", site.other.name]) == 0
    assert main(["score", "--pipeline", site.other.name, *files, str(tmp_path / "scores.parquet")]) == 0
    capsys.readouterr()
    within = str(Path(site.mine.data_root, site.mine.name, "tables", "scores.parquet"))
    assert main(["score", "--pipeline", site.other.name, *files, within]) == 2
    assert f"lies in the folder of {site.mine.name}, whose spec is broken" in capsys.readouterr().err
    for arguments in (["backfill", site.mine.name, DAY, DAY], ["retention", site.mine.name]):
        assert main(arguments) == 2
        said = capsys.readouterr()
        assert said.err == f"batch-scoring: 1 error in the pipelines' specs:\n  {fault}\n" and not said.out
    assert (
        "pipeline.yaml line " in fault
        and "model.network: 'network:Net': network.py line 1 is not valid Python" in fault
    )


def test_doctor_finds_it_and_says_nothing_of_it_where_another_is_asked_for(site: Pair) -> None:
    fault = site.break_mine()
    assert doctor.chosen([]) == ([site.other.pipeline], [fault])
    assert doctor.chosen([site.mine.name]) == ([], [fault])
    assert doctor.chosen([site.other.name]) == ([site.other.pipeline], [])
    out = StringIO()
    assert doctor.doctor([site.mine.name], out) == 1
    where, _, what = fault.partition(": ")
    assert f"error    specs: {where}\n         found:    {what}\n" in out.getvalue()


# alerts


def test_each_fault_is_told_once_until_it_is_mended(pair: Pair, tmp_path: Path) -> None:
    web = WebServer()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance, pytest.MonkeyPatch.context() as patch:
        patch.setenv("ALERT_URLS", web.url)

        def told() -> list[tuple[str, str]]:
            before, survey = len(web.received), pair.survey()
            for _ in range(2):
                collector.tick(instance, survey.valid, LOG, survey.broken)
            return [(normalised(title), body) for title, body in web.received[before:]]

        assert told() == []
        fault = pair.break_mine()
        ((title, body),) = told()
        assert title == "tiny: left out of the deployment, 1 error" and body.startswith(f"{fault}\n")
        say(colour="red")(pair.mine)
        ((title, body),) = told()
        assert title == "tiny: left out of the deployment, 2 errors" and "colour" in body
        pair.mine.write_spec()
        assert told() == [], "one of two is left, and was told"
        pair.mend()
        assert told() == []
        pair.break_mine()
        assert len(told()) == 1
    web.stop()


def test_what_was_told_of_a_pipeline_is_not_told_again_when_it_is_mended(
    pair: Pair, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pair.mine.spec["partitions"]["start"] = days_ago(2)
    pair.mine.spec["input"]["deadline_hours"] = 24
    pair.mine.write_spec()
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:

        def told() -> list[str]:
            caplog.clear()
            survey = pair.survey()
            collector.tick(instance, survey.valid, LOG, survey.broken)
            return [normalised(record.getMessage().splitlines()[0]) for record in caplog.records]

        missing = [f"tiny {days_ago(back)}: missing, no file has landed" for back in (2, 1)]
        assert told() == missing
        pair.break_mine()
        assert told() == ["tiny: left out of the deployment, 1 error"]
        pair.mend()
        assert told() == []


# runs of code that has been broken since they were launched


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance")) as found:
        yield found


def test_a_sensor_asks_for_no_run_of_code_that_is_broken_by_now(pair: Pair, instance: dg.DagsterInstance) -> None:
    pair.mine.spec["input"]["complete"] = {"quiet_minutes": 0}
    pair.mine.write_spec()
    sensor, definitions = uploads_sensor(pair.mine.pipeline), pair.mine.definitions
    context = dg.build_sensor_context(instance=instance, definitions=definitions)
    pair.mine.land(DAY, pair.mine.rows(10))
    fault = pair.break_mine()
    with pytest.raises(SpecError) as raised:
        sensor(context)
    assert raised.value.errors == [fault]
    pair.mend()
    asked = sensor(context)
    assert isinstance(asked, dg.SensorResult) and [one.partition_key for one in asked.run_requests or []] == [DAY]


def launched(pair: Pair, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> dg.DagsterRun:
    """A run as Dagster's launcher leaves it to the run's own process."""
    job = job_of(pair.mine, monkeypatch)
    definition = job.get_definition()
    return instance.create_run_for_job(
        definition,
        status=dg.DagsterRunStatus.STARTING,
        tags={run_history.PARTITION: DAY, run_history.FINGERPRINT: "f"},
        job_code_origin=job.get_python_origin(),
    )


@pytest.mark.parametrize("alone", [False, True])
def test_a_run_whose_code_does_not_load_is_the_codes_fault_and_says_so(
    pair: Pair,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    alone: bool,
) -> None:
    """In Dagster's own function, as the process of a run has it."""
    run, known = launched(pair, instance, monkeypatch), pair.mine.pipeline
    pair.break_mine()
    if alone:
        shutil.rmtree(pair.other.folder)
    _execute_run_command_body(run.run_id, instance, lambda _: None, set_exit_code_on_failure=False)
    collector.tick(instance, [known], LOG)
    ended = instance.get_run_by_id(run.run_id)
    assert ended and ended.status == dg.DagsterRunStatus.FAILURE
    assert failed_runs.of_run(ended) == "bad_model" and failed_runs.has_load_error(ended)
    (known_run,) = run_history.of_day(instance, known, DAY)
    assert (known_run.status, known_run.failure) == ("refused", "bad_model")
    assert known_run.fingerprint == "f", "the same code would fail again"
    text = "\n".join(record.getMessage() for record in caplog.records)
    why = "network.py line 1 is not valid Python" if alone else f"Could not find job 'score_{pair.mine.name}'"
    assert "its code does not load: " in text and why in text and "class: bad_model" in text
    assert "killed" not in text
    monkeypatch.setattr(run_history, "LOADED_AT", time.time() + 1)
    assert run_history.of_day(instance, known, DAY)[0].fingerprint == "", "it loads by now: that was no try"


@pytest.mark.slow
def test_a_step_whose_code_does_not_load_is_the_codes_fault_too(
    pair: Pair, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a process of its own, which loads the code anew."""
    monkeypatch.setenv("BATCH_SCORING_EXECUTOR", "multiprocess")
    job = job_of(pair.mine, monkeypatch)
    job.get_definition()
    pair.break_mine()
    with dg.execute_job(job, instance, tags={run_history.PARTITION: DAY}) as result:
        assert not result.success
    run = instance.get_run_by_id(result.run_id)
    assert run and failed_runs.record_failure(instance, run) == "bad_model"
    assert "Could not find job" in (failed_runs.load_error(instance, run) or "")


@pytest.mark.parametrize(
    ("error", "failure"),
    [
        ("dagster._core.errors.DagsterInvariantViolationError: Could not find job 'score_x'. Found: ", "bad_model"),
        ("  File '/app/network.py', line 1\nSyntaxError: invalid syntax\n", "bad_model"),
        ("sqlalchemy.exc.OperationalError: could not connect to server", "lost"),
    ],
)
@pytest.mark.parametrize("is_of_failed", [True, False])
def test_a_pod_whose_code_does_not_load_is_the_codes_fault_if_its_step_has_failed_of_it(
    pair: Pair, instance: dg.DagsterInstance, error: str, failure: str, is_of_failed: bool
) -> None:
    """As `dagster api execute_step` and the executor of pods say it."""
    run = dg.DagsterRun(
        f"score_{pair.mine.name}", status=dg.DagsterRunStatus.STARTED, tags={run_history.PARTITION: DAY}
    )
    instance.add_run(run)
    said = EngineEventData.engine_error(SerializableErrorInfo(error, [], "SomeError"))
    words = "An exception was thrown during step execution that is likely a framework error, rather than an error in "
    step = "a_step" if is_of_failed else "another"
    instance.report_engine_event(f"{words}user code.", run, said, step_key=step)
    gone = StepFailureData(SerializableErrorInfo("Step a_step failed health check", [], None), user_failure_data=None)
    event = dg.DagsterEvent("STEP_FAILURE", run.job_name, step_key="a_step", event_specific_data=gone)
    instance.report_dagster_event(event, run.run_id)
    instance.report_run_failed(run, "failed", JobFailureData(None, RunFailureReason.STEP_FAILURE))
    ended = instance.get_run_by_id(run.run_id)
    assert ended and failed_runs.record_failure(instance, ended) == (failure if is_of_failed else "lost")


# a daemon


@pytest.mark.slow
def test_a_schedule_that_somebody_has_switched_on_is_on_when_its_pipeline_is_mended_days_later(
    pair: Pair, tmp_path: Path
) -> None:
    """By Dagster's own scheduler: after twelve hours it would forget one that is gone."""
    code, queue = tmp_path / "code.py", {"module": "dagster", "class": "QueuedRunCoordinator"}
    code.write_text(DEFINITIONS.format(places=[(str(pair.mine.packages), pair.mine.data_root)]))
    name, begin = f"score_{pair.mine.name}_on_schedule", datetime(2024, 3, 5, 5, tzinfo=UTC)
    (tmp_path / "instance").mkdir()
    with dg.DagsterInstance.local_temp(str(tmp_path / "instance"), overrides={"run_coordinator": queue}) as instance:

        def is_on_after(hours: int) -> bool:
            now = begin + timedelta(hours=hours)
            target = PythonFileTarget(str(code), None, str(PROJECT), None)
            with create_test_daemon_workspace_context(target, instance) as workspace, freeze_time(now):
                if not hours:
                    (location,) = workspace.create_request_context().code_locations
                    (repository,) = location.get_repositories().values()
                    instance.start_schedule(repository.get_schedule(name))
                list(launch_scheduled_runs(workspace, logging.getLogger("scheduler"), now, {}))
            states = {state.name: state.status for state in instance.all_instigator_state()}
            return states.get(name) == InstigatorStatus.RUNNING

        assert is_on_after(0)
        pair.break_mine()
        assert is_on_after(2) and is_on_after(30)
        assert not instance.get_runs(), "while it is left out nothing is asked for"
        pair.mend()
        assert is_on_after(54)
        assert [run.tags[run_history.PARTITION] for run in instance.get_runs()] == ["2024-03-06"]


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_daemon_goes_on_with_the_others_tells_it_once_and_goes_on_with_it_when_it_is_mended(
    pair: Pair, tmp_path: Path
) -> None:
    yesterday = days_ago(1)
    for tiny in (pair.mine, pair.other):
        tiny.spec["partitions"]["start"] = yesterday
        tiny.spec["uploads"] = {"interval_seconds": 2}
        tiny.spec["input"]["complete"] = {"quiet_minutes": 0}
        tiny.write_spec()
    known = {tiny.name: tiny.pipeline for tiny in (pair.mine, pair.other)}
    web = WebServer()
    deployment = Deployment(tmp_path / "site", [pair.mine], {"ALERT_URLS": web.url}, {})

    def land(tiny: TinyProject, name: str, first: int) -> None:
        folder = Path(known[tiny.name].landing.uri, f"dt={yesterday}")
        folder.mkdir(parents=True, exist_ok=True)
        pq.write_table(tiny.rows(30, first), folder / f".{name}")
        (folder / f".{name}").rename(folder / f"{name}.parquet")

    with deployment.instance() as instance:

        def good(tiny: TinyProject) -> int:
            return sum(run.is_success for run in instance.get_runs(dg.RunsFilter(job_name=f"score_{tiny.name}")))

        def ticks_of_broken() -> list[str]:
            states = [state for state in instance.all_instigator_state() if state.name.endswith("_is_broken")]
            ticks = [t for s in states for t in instance.get_ticks(s.instigator_origin_id, s.selector_id)]
            return [str((tick.error.cause or tick.error).message) if tick.error else "" for tick in ticks]

        def told() -> list[tuple[str, str]]:
            return [(normalised(title), body) for title, body in web.received if "left out" in title]

        deployment.start()
        try:
            for tiny in (pair.mine, pair.other):
                land(tiny, "a", 0)
            assert wait_until(lambda: good(pair.mine) == good(pair.other) == 1, 150), deployment.log
            fault = pair.break_mine()
            for tiny in (pair.mine, pair.other):
                land(tiny, "b", 100)
            deployment.reload()
            assert wait_until(lambda: bool(told()), 150), deployment.log
            deployment.reload()  # told once by whatever process has the code
            assert wait_until(lambda: good(pair.other) == 2 and bool(ticks_of_broken()), 150), deployment.log
            assert [title for title, _ in told()] == ["tiny: left out of the deployment, 1 error"]
            assert told()[0][1].startswith(fault) and all(fault in said for said in ticks_of_broken())
            pair.mend()
            deployment.reload()
            assert wait_until(lambda: good(pair.mine) == 2, 150), deployment.log
            assert len(told()) == 1
        finally:
            deployment.stop()
            web.stop()
    assert pair.mine.read(yesterday).num_rows == pair.other.read(yesterday).num_rows == 60
