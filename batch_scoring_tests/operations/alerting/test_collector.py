"""What is told, and that it is told once: real runs of the tiny pipeline, real receivers, the real daemon."""

import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.sensors import alerts_sensor
from batch_scoring.ingest.landing_files import day_folder
from batch_scoring.operations import run_history
from batch_scoring.operations.alerting import collector, deadlines, messages
from batch_scoring_tests.receivers import PASSWORD, MailServer, WebServer
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, normalised

LOG = logging.getLogger("tick")
Told = Callable[..., list[str]]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as found:
        yield found


@pytest.fixture
def told(
    instance: dg.DagsterInstance, tiny: TinyProject, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> Told:
    """One tick; its messages, which go to the log as there is no channel."""
    monkeypatch.setenv("DAGSTER_UI_URL", "http://ui/")

    def look(*pipelines: Pipeline) -> list[str]:
        caplog.clear()
        collector.tick(instance, pipelines or [tiny.pipeline], LOG)
        return [normalised(r.getMessage()) for r in caplog.records if (r.name, r.levelname) == ("tick", "WARNING")]

    return look


def ended(instance: dg.DagsterInstance, at: float, kind: str = "RUN_FAILURE", **tags: str) -> str:
    """The id of a run of some other job that ended at a moment, as its process would have said it."""
    run = instance.create_run_for_job(dg.GraphDefinition(name="other", node_defs=[]).to_job(), tags=tags)
    event = dg.DagsterEvent(dg.DagsterEventType[kind].value, "other", message="it is over")
    instance.report_dagster_event(event, run.run_id, timestamp=at)
    return run.run_id


def break_landing(tiny: TinyProject, day: str = DAY) -> None:
    tiny.land(day, b"PAR1, and no more")


# messages


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
    ended(instance, now, **{"dagster/partition": DAY})
    ended(instance, now, "RUN_CANCELED")
    ended(instance, now, "RUN_SUCCESS")
    assert [message.splitlines()[:2] for message in told()] == [
        [f"other {DAY}: failed", "it is over"],
        ["other: canceled", "canceled: it is over"],
    ]


# states


def test_a_failed_check_without_a_day_is_told_when_it_begins(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    def land_and_run(day: str, rows: int) -> list[str]:
        tiny.land(day, tiny.rows(rows))
        tiny.run(day, instance=instance)
        return told()

    assert land_and_run(DAY, 64) == []
    tiny.land(DAY, tiny.rows(65))
    (message,) = land_and_run(NEXT_DAY, 64)
    title, check, *_ = message.splitlines()
    assert title == f"tiny {NEXT_DAY}: check days_are_current failed"
    assert check.startswith(f"tiny/model days_are_current (WARN): stale days: 1 (input: {DAY})")
    assert land_and_run(NEXT_DAY, 66) == []
    assert land_and_run(DAY, 65) == []
    tiny.land(NEXT_DAY, tiny.rows(67))
    assert len(land_and_run(DAY, 65)) == 1, "in between it had passed"


def test_a_state_that_has_more_to_say_is_told_again_and_one_that_has_less_is_not(
    instance: dg.DagsterInstance, tiny: TinyProject, told: Told
) -> None:
    for day in (DAY, NEXT_DAY):
        tiny.land(day, tiny.rows(64))
        tiny.run(day, instance=instance)
    tiny.land(DAY, tiny.rows(65))
    tiny.land("2024-03-06", tiny.rows(64))
    tiny.run("2024-03-06", instance=instance)
    assert len(told()) == 1, "another input of one day"
    tiny.land(NEXT_DAY, tiny.rows(65))
    tiny.run("2024-03-06", instance=instance)
    (message,) = told()
    assert f"{DAY} … {NEXT_DAY}" in message
    tiny.run(DAY, instance=instance)
    assert told() == [], "one of the two is done"
    tiny.deliver("v2", seed=3)
    tiny.run(DAY, instance=instance)
    assert len(told()) == 1, "another model"


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


def test_a_run_whose_events_cannot_be_read_is_told_all_the_same(
    instance: dg.DagsterInstance, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, sound = ended(instance, time.time() - 2), ended(instance, time.time() - 1)
    read = instance.all_logs

    def all_logs(run_id: str, of_type: set[dg.DagsterEventType]) -> Sequence[dg.EventLogEntry]:
        if run_id == broken:
            raise ValueError("a damaged event")
        return read(run_id, of_type=of_type)

    monkeypatch.setattr(instance, "all_logs", all_logs)
    first, second = told()
    assert "its events cannot be read" in first and f"http://ui/runs/{broken}" in first
    assert sound in second


def run_checks(instance: dg.DagsterInstance, *results: dg.AssetCheckResult) -> None:
    """A run with results of checks that are not the tiny pipeline's."""

    @dg.asset(
        key=["p", "a"],
        partitions_def=dg.DailyPartitionsDefinition("2024-01-01"),
        check_specs=[
            dg.AssetCheckSpec(
                result.check_name or "", asset=["p", "a"], partitions_def=dg.DailyPartitionsDefinition("2024-01-01")
            )
            for result in results
        ],
    )
    def a() -> dg.MaterializeResult:
        return dg.MaterializeResult(check_results=results)

    dg.materialize([a], instance=instance, partition_key=DAY)


def test_a_state_that_an_earlier_message_has_told_is_left_out(instance: dg.DagsterInstance, told: Told) -> None:
    continuing = dg.AssetCheckResult(check_name="drifts", passed=False, metadata={"continues_since": "2024-03-01"})
    run_checks(instance, continuing)
    assert told() == []
    other = dg.AssetCheckResult(
        check_name="fits", passed=False, description="too large", metadata={"observed": 3, "expected": "at most 2"}
    )
    run_checks(instance, continuing, other)
    (message,) = told()
    assert message.splitlines()[:2] == [
        f"p {DAY}: check fits failed",
        "p/a fits (ERROR): too large; observed: 3; expected: at most 2",
    ]


# the scan of runs


def test_the_first_tick_looks_back_a_day(instance: dg.DagsterInstance, told: Told) -> None:
    ended(instance, time.time() - 25 * 3600)
    recent = ended(instance, time.time() - 23 * 3600)
    (message,) = told()
    assert recent in message


def test_a_run_that_is_touched_after_its_end_is_not_told_again(instance: dg.DagsterInstance, told: Told) -> None:
    old, new = ended(instance, time.time() - 7200), ended(instance, time.time())
    assert len(told()) == 2
    for run_id in (old, new):
        instance.add_run_tags(run_id, {"seen": "yes"})
    assert told() == []


def test_a_run_that_is_touched_before_it_is_seen_is_told(instance: dg.DagsterInstance, told: Told) -> None:
    old, _ = ended(instance, time.time() - 7200), ended(instance, time.time())
    instance.add_run_tags(old, {"seen": "yes"})
    assert len(told()) == 2


def test_runs_of_one_instant_beyond_a_page_are_all_told_in_one_message(
    instance: dg.DagsterInstance, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(collector, "ENDED_PER_QUERY", 5)
    now = time.time()
    runs = [ended(instance, now, **{"dagster/partition": f"day {n:03}"}) for n in range(collector.ENDED_PER_QUERY + 10)]
    (message,) = told()
    title, *lines = message.splitlines()
    assert title == f"other: {len(runs)} messages" and len(lines) == len(runs)
    assert lines[0] == "other day 000: failed: it is over"
    assert told() == []


def test_ends_that_are_stored_late_or_by_a_clock_ahead_lose_nothing(instance: dg.DagsterInstance, told: Told) -> None:
    now = time.time()
    ended(instance, now + 3600)
    assert len(told()) == 1
    ended(instance, now)
    assert len(told()) == 1
    ended(instance, now - collector.OVERLAP + 60)
    assert len(told()) == 1
    assert told() == []


def test_what_a_tick_has_no_time_for_is_told_in_the_next(
    instance: dg.DagsterInstance, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended(instance, time.time())
    with monkeypatch.context() as hurried:
        hurried.setattr(collector, "RUNS_UNTIL", 0.0)
        assert told() == []
    assert len(told()) == 1


def test_a_failure_waits_until_dagster_has_said_whether_it_runs_again(
    tmp_path: Path, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))

    def titles() -> list[str]:
        caplog.clear()
        collector.tick(instance, [], LOG)
        return [record.getMessage().splitlines()[0] for record in caplog.records if record.name == "tick"]

    with dg.DagsterInstance.get() as instance:
        retried = ended(instance, time.time(), **{"dagster/partition": "retried"})
        instance.add_run_tags(retried, {"dagster/will_retry": "true"})
        final = ended(instance, time.time(), **{"dagster/partition": "final"})
        instance.add_run_tags(final, {"dagster/will_retry": "false"})
        undecided = ended(instance, time.time(), **{"dagster/partition": "undecided"})
        with instance.run_storage.connect() as connection:  # between the failure and the tag
            connection.exec_driver_sql(
                f"update runs set run_body = replace(run_body, 'dagster/will_retry', 'x') where run_id = '{undecided}'"
            )
        assert "dagster/will_retry" not in instance.get_run_by_id(undecided).tags  # type: ignore[union-attr]
        assert titles() == ["other final: failed"]
        instance.add_run_tags(undecided, {"dagster/will_retry": "false"})
        assert titles() == ["other undecided: failed"]
        # Dagster says so of a run of a job's backfill too, and does not do it: test_dagster_behaviour.py
        ended(
            instance,
            time.time() - run_history.TO_RETRY - 1,
            **{"dagster/partition": "promised", "dagster/will_retry": "true"},
        )
        made = ended(instance, time.time() - run_history.TO_RETRY - 1, **{"dagster/partition": "made"})
        instance.add_run_tags(made, {"dagster/auto_retry_run_id": retried})
        assert titles() == ["other promised: failed"]


# days that are late


def days_ago(count: int) -> str:
    return (datetime.now(UTC).date() - timedelta(days=count)).isoformat()


@pytest.fixture
def awaited(tiny: TinyProject) -> TinyProject:
    """A pipeline whose only day beyond its deadline is the one two days ago."""
    tiny.spec["partitions"]["start"] = days_ago(2)
    tiny.spec["input"]["deadline_hours"] = 48
    tiny.write_spec()
    return tiny


def presence(instance: dg.DagsterInstance, tiny: TinyProject) -> list[tuple[str, str | None]]:
    key = dg.AssetCheckKey(dg.AssetKey([tiny.name, "raw_input"]), "input_is_present")
    records = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    return [(record.status.value, record.partition) for record in records]


def test_a_missing_day_is_told_once_and_shown(instance: dg.DagsterInstance, awaited: TinyProject, told: Told) -> None:
    (message,) = told()
    title, text, link = message.splitlines()
    assert title == f"tiny {days_ago(2)}: missing, no file has landed"
    landing = normalised(awaited.pipeline.landing.uri)
    assert text == f"missing: tiny {days_ago(2)}, expected in {landing}/dt={days_ago(2)}/ by {days_ago(0)} 00:00 UTC"
    assert link == f"http://ui/assets/tiny/raw_input?partition={days_ago(2)}"
    assert presence(instance, awaited) == [("FAILED", days_ago(2))]
    assert told() == [] and len(presence(instance, awaited)) == 1


Incomplete = Callable[[TinyProject], None]


def with_a_marker(tiny: TinyProject) -> None:
    tiny.spec["input"]["complete"] = {"by": "marker"}
    tiny.land(days_ago(2), tiny.rows(8), age=7200)


def with_a_manifest(tiny: TinyProject) -> None:
    tiny.spec["input"]["complete"] = {"by": "manifest"}
    tiny.land(days_ago(2), tiny.rows(8), age=7200)
    tiny.land(days_ago(2), b'["a.parquet", "b.parquet"]', "_manifest.json")


def with_an_empty_file(tiny: TinyProject) -> None:
    tiny.land(days_ago(2), b"", age=7200)


def with_a_link_to_nothing(tiny: TinyProject) -> None:
    tiny.land(days_ago(2), tiny.rows(8), age=7200)
    link = Path(tiny.pipeline.landing.uri, f"dt={days_ago(2)}", "b.parquet")
    link.symlink_to("gone")
    os.utime(link, (time.time() - 7200,) * 2, follow_symlinks=False)


INCOMPLETE: dict[str, tuple[Incomplete, str, str]] = {
    "marker": (with_a_marker, "1 file: there is no _SUCCESS in ", "_SUCCESS"),
    "manifest": (
        with_a_manifest,
        "1 file: of the 2 files listed in dt={day}/_manifest.json, b.parquet is mi",
        "b.parquet",
    ),
    "empty": (with_an_empty_file, "1 file: {folder}/a.parquet: 0 bytes; upload it again", "a.parquet"),
    "trouble": (
        with_a_link_to_nothing,
        "2 files: {folder}/b.parquet: it is a link to 'gone', which does",
        "b.parquet",
    ),
}


@pytest.mark.parametrize("case", INCOMPLETE)
def test_an_incomplete_day_has_not_landed_and_what_is_missing_is_told_once(
    instance: dg.DagsterInstance, awaited: TinyProject, told: Told, case: str
) -> None:
    make, lacks, name = INCOMPLETE[case]
    make(awaited)
    awaited.write_spec()
    folder = f"{normalised(awaited.pipeline.landing.uri)}/dt={days_ago(2)}"
    (message,) = told()
    title, text, _ = message.splitlines()
    assert title == f"tiny {days_ago(2)}: incomplete, not all of it has landed"
    expected = lacks.format(day=days_ago(2), folder=folder)
    assert text.startswith(
        f"incomplete: tiny {days_ago(2)}, expected in {folder}/ by {days_ago(0)} 00:00 UTC, {expected}"
    )
    key = dg.AssetCheckKey(dg.AssetKey([awaited.name, "raw_input"]), "input_is_complete")
    (record,) = instance.event_log_storage.get_asset_check_execution_history(key, limit=10)
    assert (record.status.value, record.partition) == ("FAILED", days_ago(2))
    assert told() == [] and presence(instance, awaited) == []
    awaited.spec["input"].pop("deadline_hours")
    awaited.spec["alerts"] = {"scored_hours": 48}
    awaited.write_spec()
    (message,) = told()
    assert message.splitlines()[0] == f"tiny {days_ago(2)}: incomplete, and not scored"
    assert "since the day is not complete" in message and name in message and "backfill" not in message


def test_a_complete_day_has_landed(instance: dg.DagsterInstance, awaited: TinyProject, told: Told) -> None:
    with_a_manifest(awaited)
    awaited.land(days_ago(2), awaited.rows(8, start=50), "b.parquet", age=7200)
    awaited.land(days_ago(2), b"", "_SUCCESS")
    for by in ("manifest", "marker"):
        awaited.spec["input"]["complete"] = {"by": by}
        awaited.write_spec()
        with dg.DagsterInstance.ephemeral() as other:
            assert collector.tick(other, [awaited.pipeline], LOG) == "no new alerts"


def test_files_that_still_come_at_the_deadline_have_an_hour(awaited: TinyProject) -> None:
    awaited.land(days_ago(2), awaited.rows(8))
    (deadline,) = deadlines.passed([awaited.pipeline], datetime.now(UTC))
    (file,) = awaited.pipeline.landing.look(f"dt={days_ago(2)}/")

    def result(after_the_file: float, after_the_deadline: float) -> deadlines.Result:
        now = file.modified + timedelta(seconds=after_the_file)
        return deadlines.check(replace(deadline, at=now - timedelta(seconds=after_the_deadline)), now)

    assert result(30, 300).status == "open"
    assert result(61, 300).status == result(61, 7200).status == result(-10, 7200).status == "kept"
    late = result(30, 3601)
    assert late.status == "missed" and f"still arriving, the last was dt={days_ago(2)}/a.parquet at " in late.lacks


def test_a_damaged_account_of_one_day_keeps_no_other_days_alert(
    instance: dg.DagsterInstance, awaited: TinyProject, told: Told
) -> None:
    awaited.spec["partitions"]["start"] = days_ago(3)
    awaited.write_spec()
    awaited.pipeline.output.put(f"state/dt={days_ago(3)}/predictions.json", b"{")
    (message,) = told()
    assert message.splitlines()[0] == f"tiny {days_ago(2)}: missing, no file has landed"


def test_a_day_that_has_landed_or_is_scored_and_archived_is_not_missing(
    instance: dg.DagsterInstance, awaited: TinyProject, told: Told
) -> None:
    awaited.land(days_ago(2), awaited.rows(64), age=120)
    assert told() == []
    awaited.run(days_ago(2), instance=instance)
    (Path(awaited.pipeline.landing.uri) / day_folder(days_ago(2)) / "a.parquet").unlink()
    with dg.DagsterInstance.ephemeral() as other:
        assert collector.tick(other, [awaited.pipeline], LOG) == "no new alerts"


def test_a_landed_day_that_is_not_scored_in_time_is_told_once(
    instance: dg.DagsterInstance, awaited: TinyProject, told: Told
) -> None:
    awaited.spec["input"].pop("deadline_hours")
    awaited.spec["alerts"] = {"scored_hours": 48}
    awaited.write_spec()
    assert told() == [], "what has not landed cannot be scored"
    awaited.land(days_ago(2), awaited.rows(64), age=60)
    assert told() == [], "it has just come"
    awaited.land(days_ago(2), awaited.rows(64), age=7200)
    (message,) = told()
    assert message.splitlines()[0] == f"tiny {days_ago(2)}: landed, but not scored"
    assert f"run: batch-scoring backfill tiny {days_ago(2)} {days_ago(2)}" in message
    assert told() == []


def test_a_day_that_was_scored_in_time_is_not_told_and_one_of_other_files_is(
    instance: dg.DagsterInstance, awaited: TinyProject
) -> None:
    awaited.spec["alerts"] = {"scored_hours": 48}
    awaited.write_spec()
    awaited.land(days_ago(2), awaited.rows(64), age=7200)
    awaited.run(days_ago(2), instance=instance)
    assert collector.tick(instance, [awaited.pipeline], LOG) == "no new alerts"
    awaited.land(days_ago(2), awaited.rows(65), age=7200)
    assert collector.tick(instance, [awaited.pipeline], LOG) == "no new alerts", "it is settled"
    with dg.DagsterInstance.ephemeral() as other:
        assert collector.tick(other, [awaited.pipeline], LOG) == "1 new"


def test_a_store_that_does_not_answer_is_said_and_silences_nobody_else(
    instance: dg.DagsterInstance, awaited: TinyProject, tmp_path: Path, told: Told
) -> None:
    other = TinyProject(tmp_path / "other")
    other.spec |= {"partitions": awaited.spec["partitions"], "input": {**awaited.spec["input"], "landing": "loop"}}
    other.write_spec()
    loop = Path(other.pipeline.landing.uri)
    loop.symlink_to(loop)
    pipelines = [other.pipeline, awaited.pipeline]
    said = collector.tick(instance, pipelines, LOG)
    assert "1 new" in said and f"{other.name} {days_ago(2)} landed: " in said and "tried again" in said
    loop.unlink()
    (message,) = told(*pipelines)
    assert f"{day_folder(days_ago(2))}" in message and "loop" in message


def test_deadlines_are_by_the_wall_clock_of_the_pipeline(tiny: TinyProject) -> None:
    tiny.spec |= {"partitions": {"start": "2024-03-01", "timezone": "America/New_York"}}
    tiny.spec["input"]["deadline_hours"] = 33
    tiny.write_spec()
    now = datetime(2024, 3, 11, 13, tzinfo=UTC)  # 09:00, the day after the clocks went forward
    found = list(deadlines.passed([tiny.pipeline], now))
    assert [deadline.day for deadline in found] == [f"2024-03-{day:02}" for day in range(3, 11)]
    assert {str(deadline.at.time()) for deadline in found} == {"09:00:00"}
    assert [d.day for d in deadlines.passed([tiny.pipeline], now - timedelta(seconds=1))][-1] == "2024-03-09"
    tiny.spec["partitions"]["start"] = date(2024, 3, 9).isoformat()
    tiny.write_spec()
    assert [deadline.day for deadline in deadlines.passed([tiny.pipeline], now)] == ["2024-03-09", "2024-03-10"]


def test_the_fields_of_alerts_change_no_code_digest(tiny: TinyProject) -> None:
    before = tiny.pipeline.features_code, tiny.pipeline.scoring_code
    tiny.spec["input"]["deadline_hours"] = 9
    tiny.spec["alerts"] = {"on_success": True, "scored_hours": 12.5}
    tiny.write_spec()
    assert (tiny.pipeline.features_code, tiny.pipeline.scoring_code) == before


# delivery


def test_without_a_channel_the_sensor_writes_messages_into_its_log(
    instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    ended(instance, time.time())
    said = alerts_sensor([])(dg.build_sensor_context(instance=instance))
    assert isinstance(said, dg.SkipReason) and said.skip_message == "1 new"
    assert "WARNING - other: failed\nit is over\n" in capfd.readouterr().err


def test_no_secret_of_an_address_is_written_anywhere(
    instance: dg.DagsterInstance,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    web = WebServer()
    web.is_down = True
    unclear = [f"nosuch://{PASSWORD}@host", f"json://127.0.0.1:1x{PASSWORD}/"]
    monkeypatch.setenv("ALERT_URLS", f"{web.url} {' '.join(unclear)}")
    ended(instance, time.time())
    with caplog.at_level(1):
        said = collector.tick(instance, [], LOG)
    web.stop()
    assert said.startswith("1 new; 1 wait for ALERT_URLS[1] (json) since ") and "last error: HTTP status 503" in said
    for position in (2, 3):
        assert f"ALERT_URLS[{position}] is not understood by apprise" in said
        assert any(said.startswith(f"ALERT_URLS[{position}] is not understood by apprise") for said in caplog.messages)
    assert web.attempts == 1
    stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"HTTP status 503" in stored and PASSWORD.encode() not in stored
    for text in (said, caplog.text, *capfd.readouterr()):
        assert PASSWORD not in text


def test_what_is_told_while_an_address_is_mistyped_comes_when_it_is_right(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    web, other = WebServer(), WebServer()
    monkeypatch.setattr(collector, "_said_at", {})
    monkeypatch.setenv("ALERT_URLS", f"{other.url} {web.url.replace('json:', 'jsn:')}")
    ended(instance, time.time())
    said = [collector.tick(instance, [], LOG) for _ in range(2)]
    assert "1 wait for ALERT_URLS[2] since " in said[1] and "no alert is sent there: correct the address" in said[1]
    loud = [record for record in caplog.records if record.levelname == "ERROR"]
    assert len(loud) == 1, "not each tick, but at most hourly"
    monkeypatch.setenv("ALERT_URLS", f"{other.url} {web.url}")
    assert collector.tick(instance, [], LOG) == "delivered 1"
    assert [title for title, _ in web.received] == [title for title, _ in other.received] == ["other: failed"]
    web.stop(), other.stop()


@pytest.mark.parametrize("wrong", ["jsn://127.0.0.1:1/", "json:/127.0.0.1", "127.0.0.1", ",", "json://"])
def test_a_mistyped_address_is_said_when_the_code_location_is_loaded(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALERT_URLS", wrong)
    with pytest.warns(UserWarning, match=r"ALERT_URLS\[1\] is not understood by apprise"):
        collector.warn_of_mistakes()
    assert "warn_of_mistakes()" in (PROJECT / "batch_scoring/definitions.py").read_text()


def test_a_run_that_its_command_stopped_is_told_and_wakes_nobody(instance: dg.DagsterInstance, told: Told) -> None:
    now = time.time()
    run_id = ended(instance, now, "RUN_CANCELED", **{"dagster/partition": DAY})
    instance.add_run_tags(run_id, {run_history.STOPPED: run_id})
    other = ended(instance, now, "RUN_CANCELED")
    instance.add_run_tags(other, {run_history.STOPPED: run_id})  # copied by Dagster
    records = {record.dagster_run.run_id: record for record in instance.get_run_records()}
    kinds = [messages.of_run(instance, messages.read(instance, records[name]), [], "").kind for name in (run_id, other)]
    assert kinds == ["info", "failure"]
    assert told()[0].splitlines()[:2] == [f"other {DAY}: stopped", "stopped: it is over"]


DEPLOYMENT = """
import batch_scoring.pipelines
from pathlib import Path
from batch_scoring.definitions import deploy
from batch_scoring.config.loader import load_pipelines

batch_scoring.pipelines.__path__.append({packages!r})
defs = deploy(load_pipelines(Path({packages!r}), {root!r}))
"""


@pytest.mark.slow
def test_the_daemon_delivers_each_message_once_to_each_channel_also_when_it_was_killed(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
    (tmp_path / "deployment.py").write_text(DEPLOYMENT.format(packages=str(tiny.packages), root=tiny.data_root))
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    mail, web = MailServer(), WebServer()
    web.is_down = True
    monkeypatch.setenv("ALERT_URLS", f"{mail.url} {web.url}")
    tiny.spec["partitions"]["start"] = days_ago(3)
    tiny.spec["input"]["deadline_hours"] = 30
    tiny.write_spec()
    scored, missing, failed = days_ago(3), days_ago(2), days_ago(1)
    tiny.land(scored, tiny.rows(64))
    tiny.land(failed, tiny.rows(64))
    expected = [
        f"tiny {failed}: check days_are_current failed",
        f"tiny {failed}: failed at raw_input",
        f"tiny {missing}: missing, no file has landed",
    ]

    def titles(receiver: MailServer | WebServer) -> list[str]:
        return [normalised(title) for title, _ in receiver.received]

    def daemon() -> "subprocess.Popen[bytes]":
        program = str(Path(sys.executable).with_name("dagster-daemon"))
        command = [program, "run", "-f", "deployment.py"]
        return subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True)

    def wait(until: Callable[[], bool]) -> None:
        give_up = time.monotonic() + 120
        while not until() and time.monotonic() < give_up:
            time.sleep(0.2)
        assert until()

    started = []
    try:
        with dg.DagsterInstance.get() as instance:
            tiny.run(scored, instance=instance)
            tiny.land(scored, tiny.rows(65))
            tiny.run(failed, instance=instance)
            break_landing(tiny, failed)
            tiny.run(failed, instance=instance, raise_on_error=False)
            started.append(daemon())
            wait(lambda: len(mail.received) == 3 and web.attempts > 0)
            time.sleep(2)  # the delivery is noted, the tick is over
            started[0].kill()
            web.is_down = False
            started.append(daemon())
            wait(lambda: len(web.received) == 3)
            time.sleep(2)
            ticks = instance.get_ticks(*tick_origin(instance))
    finally:
        for process in started:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        mail.stop()
        web.stop()
    assert titles(mail) == titles(web) == expected
    said = [tick.skip_reason or "" for tick in reversed(ticks)]
    assert said[0].startswith("3 new; delivered 3; 3 wait for ALERT_URLS[2] (json) since ")
    assert "delivered 3" in said


def tick_origin(instance: dg.DagsterInstance) -> tuple[str, str]:
    (state,) = [state for state in instance.all_instigator_state() if state.name == "alerts"]
    return state.instigator_origin_id, state.selector_id
