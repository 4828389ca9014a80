"""What an alert says of a run that has ended."""

import time
from datetime import UTC, datetime

import dagster as dg

from batch_scoring.ingest.landing_files import day_folder
from batch_scoring.operations import run_history
from batch_scoring.operations.alerting import messages
from batch_scoring_tests.ended_runs import ended_other
from batch_scoring_tests.receivers import Told
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


def break_landing(tiny: TinyProject, day: str = DAY) -> None:
    tiny.land(day, b"PAR1, and no more")


def test_a_failed_blocking_check_is_told_once_with_what_it_saw(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    break_landing(tiny)
    run = tiny.run(instance=instance, raise_on_error=False)
    (message,) = told()
    title, check, failure, ended_at, link = message.splitlines()
    assert (title, failure) == (f"tiny {DAY}: failed at raw_input", "class: bad_input")
    assert check.startswith("tiny/raw_input input_is_complete (ERROR): ") and "a.parquet" in check
    assert "truncated" in check
    assert ended_at.startswith("ended 20") and ended_at.endswith(" UTC")
    assert link == f"http://ui/runs/{run.run_id}"
    assert told() == []


def test_a_step_that_fails_without_a_check_is_told_with_the_first_line_of_its_error(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    tiny.run(instance=instance, steps=["validated_features"], raise_on_error=False)
    (message,) = told()
    title, error, *_ = message.splitlines()
    assert title == f"tiny {DAY}: failed at validated_features"
    assert error.startswith("tiny/validated_features: ") and error.endswith("run raw_input for this day first")
    assert "Error: " not in error, "the path of our class tells a user nothing"


def test_the_error_of_a_run_comes_before_checks_that_only_warn(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(instance=instance)
    tiny.land(DAY, tiny.rows(65))  # stale from now on
    tiny.run(NEXT_DAY, instance=instance, steps=["model", "validated_features"], raise_on_error=False)
    (message,) = told()
    _, error, check, *_ = message.splitlines()
    assert error.endswith("run raw_input for this day first")
    assert "days_are_current (WARN)" in check


def test_failures_in_a_row_are_counted_until_a_run_went_well(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    def run() -> None:
        tiny.run(instance=instance, raise_on_error=False)

    break_landing(tiny, NEXT_DAY)
    tiny.run(NEXT_DAY, instance=instance, raise_on_error=False)  # another day is other work
    break_landing(tiny)
    run(), run()
    first = datetime.now(UTC)
    assert [message.splitlines()[0].split(" since ")[0] for message in told()] == [
        f"tiny {NEXT_DAY}: failed at raw_input",
        f"tiny {DAY}: failed at raw_input",
        f"tiny {DAY}: failed at raw_input, keeps failing: 2 failed runs in a row",
    ]
    run()
    (message,) = told()
    assert message.count(f"keeps failing: 3 failed runs in a row since {first:%Y-%m-%d %H:}") == 2
    tiny.land(DAY, tiny.rows(64))
    run()
    break_landing(tiny)
    run()
    (message,) = told()
    assert "keeps failing" not in message


def test_a_run_that_went_well_is_told_only_if_the_spec_asks_for_it(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(instance=instance)
    assert told() == []
    tiny.spec["alerts"] = {"on_success": True}
    tiny.write_spec()
    rows = tiny.rows(64)
    tiny.land(NEXT_DAY, rows.set_column(3, "n", [[-1, *[1] * 63]]))
    run = tiny.run(NEXT_DAY, instance=instance)
    (message,) = told()
    title, counts, _, link = message.splitlines()
    assert (title, counts) == (f"tiny {NEXT_DAY}: succeeded", "64 rows in, 63 scored, 1 quarantined")
    assert link.endswith(run.run_id)
    tiny.run(NEXT_DAY, instance=instance)
    assert "rows in" not in told()[0], "another run has published the day"


def test_accounts_that_cannot_be_read_do_not_stop_the_message(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    break_landing(tiny)
    tiny.run(instance=instance, raise_on_error=False)
    tiny.pipeline.output.put(f"state/{day_folder(DAY)}predictions.json", b"{}")
    (message,) = told()
    assert "counts cannot be read" in message and "damaged" in message


def test_ends_without_a_failed_step_say_what_dagster_said(instance: dg.DagsterInstance, told: Told) -> None:
    now = time.time()
    ended_other(instance, now, **{"dagster/partition": DAY})
    ended_other(instance, now, "RUN_CANCELED")
    ended_other(instance, now, "RUN_SUCCESS")
    assert [message.splitlines()[:2] for message in told()] == [
        [f"other {DAY}: failed", "it is over"],
        ["other: canceled", "it is over"],
    ]


def test_a_failure_without_a_word_is_told_and_holds_up_no_other(instance: dg.DagsterInstance, told: Told) -> None:
    @dg.op
    def silent() -> None:
        raise dg.Failure(description=" \n")

    @dg.job
    def other() -> None:
        silent()

    other.execute_in_process(instance=instance, raise_on_error=False)
    (message,) = told()
    assert message.splitlines()[1] == "silent: no message"


def test_a_run_that_its_command_stopped_is_told_and_wakes_nobody(instance: dg.DagsterInstance, told: Told) -> None:
    now = time.time()
    run_id = ended_other(instance, now, "RUN_CANCELED", **{"dagster/partition": DAY})
    instance.add_run_tags(run_id, {run_history.STOPPED: run_id})
    other = ended_other(instance, now, "RUN_CANCELED")
    instance.add_run_tags(other, {run_history.STOPPED: run_id})  # copied by Dagster
    records = {record.dagster_run.run_id: record for record in instance.get_run_records()}
    kinds = [messages.of_run(instance, messages.read(instance, records[name]), [], "").kind for name in (run_id, other)]
    assert kinds == ["info", "failure"]
    assert told()[0].splitlines()[:2] == [f"other {DAY}: stopped", "it is over"]
