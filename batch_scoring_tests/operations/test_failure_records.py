"""A failed run leaves one record in the state: of its step, or of whoever finds that its process is gone."""

from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest
from dagster._core.execution.plan.objects import StepSuccessData

from batch_scoring.errors import SinkError
from batch_scoring.operations import failed_runs, failure_records, run_history
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import FailureRecord
from batch_scoring_tests.ended_runs import ended, ended_other
from batch_scoring_tests.exports import NAME, break_sink, mend_sink, run_exports, scored, with_export
from batch_scoring_tests.tiny import DAY, TinyProject, error_of

LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)


def recorded(tiny: TinyProject) -> list[FailureRecord]:
    """The records of the tiny pipeline, of which each must have a document of its own."""
    found = tiny.state.failures_since(LONG_AGO)
    assert len(found) == len(tiny.pipeline.output.list("state/failures/"))
    return found


def of_error(tiny: TinyProject, error: Exception, step: str = "predictions") -> FailureRecord:
    """The newest record after a step has failed with an error."""
    run = StepContext("r", LONG_AGO, lambda _: None, tags={run_history.PARTITION: DAY})
    failure_records.record_error(tiny.pipeline, run, f"{tiny.name}__{step}", error, "processing_error")
    return recorded(tiny)[-1]


# of a step that raises


def test_a_failed_step_is_recorded_once_by_itself(tiny: TinyProject) -> None:
    tiny.land(DAY, b"PAR1, and no more")
    with dg.DagsterInstance.ephemeral() as instance:
        result = tiny.run(instance=instance, raise_on_error=False)
        (record,) = recorded(tiny)
        assert (record.run_id, record.day, record.step) == (result.run_id, DAY, "raw_input")
        assert (record.failure_class, record.export) == ("bad_input", "")
        assert record.message[:-1] and error_of(result).startswith(record.message[:-1])
        assert abs(datetime.now(UTC) - record.at) < timedelta(minutes=1)
        start = instance.get_run_record_by_id(result.run_id).start_time  # type: ignore[union-attr]
        assert record.began and record.began.timestamp() == start and record.began < record.at
        run_history.of_day(instance, tiny.pipeline, DAY)
        failure_records.record_runs(instance, [result.run_id], tiny.pipeline)
    assert recorded(tiny) == [record]


def test_two_steps_of_a_run_that_fail_leave_one_record(tiny: TinyProject) -> None:
    of_error(tiny, ValueError("first"), "predictions.score_share[share_1]")
    record = of_error(tiny, ValueError("second"), "predictions.score_share[share_2]")
    assert (record.step, record.message) == ("predictions", "ValueError: first")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (SinkError("the sink is full; make room"), "the sink is full; make room"),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("\n  a cell\nsecond line"), "ValueError: a cell"),
        (SinkError("\n\n  red \x1b[31m\ttext\nsecond line"), r"red \u001b[31m\u0009text"),
        (dg.Failure("the check says so"), "the check says so"),
        (SinkError(""), "no message"),
        (SinkError("x" * 301), "x" * 299 + "…"),
        (SinkError("x" * 300), "x" * 300),
    ],
)
def test_the_first_line_of_an_error_is_kept_cleaned_and_shortened(
    tiny: TinyProject, error: Exception, message: str
) -> None:
    assert of_error(tiny, error).message == message


def test_a_failed_export_is_recorded_with_its_name(tiny: TinyProject) -> None:
    with_export(tiny)
    scored(tiny)
    break_sink(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        result = run_exports(tiny, instance)
        assert not result.success
        (record,) = recorded(tiny)
        assert (record.day, record.step, record.export) == (DAY, f"export_{NAME}", NAME)
        assert (record.run_id, record.failure_class) == (result.run_id, "sink")
        mend_sink(tiny)
        assert run_exports(tiny, instance).success
    assert recorded(tiny) == [record]


@pytest.mark.parametrize("asset", ["report", "retention"])
def test_what_is_of_no_day_is_recorded_without_one(tiny: TinyProject, asset: str) -> None:
    record = of_error(tiny, ValueError("no"), asset)
    assert (record.step, record.day) == (asset, "")


def test_a_state_that_cannot_be_written_does_not_hide_the_error(tiny: TinyProject) -> None:
    tiny.pipeline.output.put("state/failures", b"a file where the folder should be")
    tiny.land(DAY, b"PAR1, and no more")
    with dg.DagsterInstance.ephemeral() as instance:
        result = tiny.run(instance=instance, raise_on_error=False)
        run = instance.get_run_by_id(result.run_id)
        assert run and failed_runs.of_run(run) == "bad_input"
    assert "not a complete Parquet file" in error_of(result)


# of a run whose process is gone


@pytest.mark.parametrize(
    ("message", "failure", "kept"),
    [
        ("Run worker is gone.", "lost", "Run worker is gone."),
        ("Exceeded maximum runtime of 21600 seconds.", "timeout", "Exceeded maximum runtime of 21600 seconds."),
        (
            "This run has been marked as failed from outside the execution context.",
            "lost",
            "the run's process is gone: killed, out of memory, or its machine went down",
        ),
    ],
)
def test_a_run_whose_process_is_gone_is_recorded_by_who_finds_it(
    tiny: TinyProject, message: str, failure: str, kept: str
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = ended(instance, tiny, message)
        assert [one.failure for one in run_history.of_day(instance, tiny.pipeline, DAY)] == [failure]
        (record,) = recorded(tiny)
        assert (record.run_id, record.day, record.step) == (run.run_id, DAY, "")
        assert (record.failure_class, record.message) == (failure, kept)
        assert record.began and record.began <= record.at
        run_history.of_day(instance, tiny.pipeline, DAY)
        failure_records.record_runs(instance, [run.run_id], tiny.pipeline)
        assert recorded(tiny) == [record]


def test_the_step_at_which_a_process_died_is_recorded(tiny: TinyProject) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        run = dg.DagsterRun(f"score_{tiny.name}", status=dg.DagsterRunStatus.STARTED, tags={run_history.PARTITION: DAY})
        instance.add_run(run)
        for kind, step in (("START", "raw_input"), ("SUCCESS", "raw_input"), ("START", "validated_features")):
            event = dg.DagsterEvent(
                f"STEP_{kind}",
                run.job_name,
                step_key=f"{tiny.name}__{step}",
                event_specific_data=StepSuccessData(1.0) if kind == "SUCCESS" else None,
            )
            instance.report_dagster_event(event, run.run_id)
        instance.report_run_failed(run, "gone")
        failure_records.record_runs(instance, [run.run_id], tiny.pipeline)
    assert [(record.step, record.message) for record in recorded(tiny)] == [("validated_features", "gone")]


def run_of(instance: dg.DagsterInstance, tiny: TinyProject, job: str, *assets: str) -> str:
    """The id of a run that ended before its first step."""
    keys = {dg.AssetKey([tiny.name, asset]) for asset in assets}
    tags = {run_history.PARTITION: DAY}
    run = dg.DagsterRun(job, status=dg.DagsterRunStatus.STARTED, tags=tags, asset_selection=keys or None)
    instance.add_run(run)
    instance.report_run_failed(run, "gone")
    return run.run_id


@pytest.mark.parametrize(
    ("job", "assets", "found"),
    [
        ("score_{}", (), (DAY, "", "")),
        ("export_{}", (f"export_{NAME}",), (DAY, f"export_{NAME}", NAME)),
        ("export_{}", (), ("", "", "")),
        ("report_{}", (), ("", "", "")),
        ("__ASSET_JOB", ("report",), ("", "report", "")),
        ("__ASSET_JOB", ("predictions", "raw_input"), (DAY, "", "")),
        ("retain_{}", ("retention",), ("", "retention", "")),
    ],
)
def test_what_a_run_was_about_is_known_without_a_step(
    tiny: TinyProject, job: str, assets: tuple[str, ...], found: tuple[str, str, str]
) -> None:
    with_export(tiny)
    with dg.DagsterInstance.ephemeral() as instance:
        run_id = run_of(instance, tiny, job.format(tiny.name), *assets)
        failure_records.record_runs(instance, [run_id], tiny.pipeline)
    assert [(record.day, record.step, record.export) for record in recorded(tiny)] == [found]


def test_runs_of_others_are_not_recorded(tiny: TinyProject) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        other = ended_other(instance, datetime.now(UTC).timestamp())
        failure_records.record_runs(instance, [other, "unknown"], tiny.pipeline)
    assert recorded(tiny) == []


def test_an_examination_goes_on_where_the_state_cannot_be_written(tiny: TinyProject) -> None:
    tiny.pipeline.output.put("state/failures", b"a file where the folder should be")
    with dg.DagsterInstance.ephemeral() as instance:
        ended(instance, tiny, "Run worker is gone.")
        assert [one.failure for one in run_history.of_day(instance, tiny.pipeline, DAY)] == ["lost"]
