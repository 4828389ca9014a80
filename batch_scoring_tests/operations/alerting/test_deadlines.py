"""Days that are late: what has not landed, not completely, or is not scored, is told once."""

import os
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.ingest.landing_files import day_folder
from batch_scoring.operations.alerting import collector, deadlines
from batch_scoring_tests.receivers import LOG, Told
from batch_scoring_tests.tiny import TinyProject, days_ago, normalised


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
    arriving = f"its files are still arriving, the last was dt={days_ago(2)}/a.parquet at "
    assert late.status == "missed" and arriving in late.lacks


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
