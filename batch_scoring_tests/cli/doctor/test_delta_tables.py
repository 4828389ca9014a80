"""Tables that are broken: for each the right finding, and what doctor says puts it right."""

import json
import os
import subprocess
import time
from pathlib import Path

import pytest
from deltalake import DeltaTable

from batch_scoring.cli.doctor import delta_tables
from batch_scoring_tests.broken_sites import Clinic, findings, told
from batch_scoring_tests.decided import customers, with_decisions
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


def table(clinic: Clinic, name: str = "predictions") -> Path:
    return Path(clinic.tiny.pipeline.output.uri, "tables", name)


def last_commit(clinic: Clinic) -> Path:
    return max((table(clinic) / "_delta_log").glob("*.json"))


def test_a_torn_last_commit_and_what_doctor_says_puts_it_right(scored: Clinic) -> None:
    commit = last_commit(scored)
    commit.write_bytes(commit.read_bytes()[:-40])
    report = scored.look()
    told(report, "error", "table logs", str(commit), f"rm {commit}")
    commit.unlink()
    told(scored.look(), "error", "table rows", NEXT_DAY, "0 rows; state/ records 60", "batch-scoring backfill")
    scored.tiny.run(NEXT_DAY)
    assert findings(scored.look()) == []


def test_an_empty_last_commit(scored: Clinic) -> None:
    last_commit(scored).write_bytes(b"")
    report = scored.look()
    assert findings(report) == [("error", "table rows"), ("warning", "table logs")], report.text()
    assert "a power cut destroyed it" in report.text()
    scored.tiny.run(NEXT_DAY)
    assert findings(scored.look()) == []


@pytest.mark.parametrize("left", [0, 100])
def test_a_damaged_checkpoint_and_what_doctor_says_puts_it_right(scored: Clinic, left: int) -> None:
    DeltaTable(table(scored)).create_checkpoint()
    (checkpoint,) = (table(scored) / "_delta_log").glob("*.checkpoint.parquet")
    checkpoint.write_bytes(checkpoint.read_bytes()[:left])
    report = scored.look()
    told(report, "error", "table logs", str(checkpoint), "_last_checkpoint")
    remedy = report.findings()[0][0].remedy.split(";")[0]
    assert remedy.startswith("rm ")
    subprocess.run(remedy, shell=True, check=True)
    assert findings(scored.look()) == []


def test_a_commit_that_is_missing(scored: Clinic) -> None:
    (table(scored) / "_delta_log" / f"{1:020}.json").unlink()
    told(scored.look(), "error", "table logs", f"{1:020}.json", "is missing", "backup")


def test_two_compactions_at_once_have_doubled_rows_and_another_run_puts_it_right(scored: Clinic) -> None:
    one, other = DeltaTable(table(scored)), DeltaTable(table(scored))
    scored.tiny.run(DAY)
    for compacting in (one, other):
        compacting.optimize.z_order(["id"])
    report = scored.look()
    told(report, "error", "table rows", "128 rows, 2 times; state/ records 64", f"{DAY} {NEXT_DAY}", "OPTIMIZE")
    for day in (DAY, NEXT_DAY):
        scored.tiny.run(day)
    assert findings(scored.look()) == []


@pytest.mark.parametrize("is_first", [True, False])
def test_a_commit_whose_account_is_to_come_is_a_run_at_work_for_some_minutes(scored: Clinic, is_first: bool) -> None:
    for step in ("validated_features", "predictions"):
        file = Path(scored.tiny.pipeline.output.uri, f"state/dt={DAY}/{step}.json")
        published_day = json.loads(file.read_text())
        published_day["table"]["transaction"] -= 1
        published_day["shards"][0]["rows"] += 1
        file.unlink() if is_first else file.write_text(json.dumps(published_day))
    for age, severities in ((0, set()), (delta_tables.IN_FLIGHT + 60, {"warning" if is_first else "error"})):
        for commit in table(scored).parent.glob("*/_delta_log/*.json"):
            os.utime(commit, (time.time() - age,) * 2)
        report = scored.look()
        assert set(findings(report)) == {(severity, "table rows") for severity in severities}, report.text()
        assert ("not yet in state/: a run is at work" in report.text()) == (age == 0)


def test_one_compaction_is_no_finding(scored: Clinic) -> None:
    DeltaTable(table(scored)).optimize.z_order(["id"])
    assert findings(scored.look()) == []


def test_a_data_file_that_somebody_has_removed(scored: Clinic) -> None:
    (file,) = (table(scored) / f"dt={DAY}").glob("*.parquet")
    file.unlink()
    told(scored.look(), "error", "table rows", f"{file.name} has no bytes", DAY)


def test_a_damaged_account(scored: Clinic) -> None:
    published_day = Path(scored.tiny.pipeline.output.uri, f"state/dt={DAY}/predictions.json")
    published_day.write_bytes(published_day.read_bytes()[:100])
    report = scored.look()
    assert findings(report) == [("error", "table rows"), ("warning", "table rows")]
    assert str(published_day) in report.text()


def test_rows_of_decisions_are_compared_with_their_record(tiny: TinyProject) -> None:
    with_decisions(tiny)
    tiny.land(DAY, customers(tiny, 30))
    tiny.run()
    published = {"validated_features", "predictions", "decisions"}
    days, damaged = delta_tables._published_days(tiny.pipeline)
    assert (damaged, {step for step, by_day in days.items() if by_day}) == ([], published)
    assert delta_tables._mismatches(tiny.pipeline, days) == []
    file = Path(tiny.pipeline.output.uri, f"state/dt={DAY}/decisions.json")
    record = json.loads(file.read_text())
    record["shards"][0]["rows"] = 29
    file.write_text(json.dumps(record))
    [wrong] = delta_tables._mismatches(tiny.pipeline, delta_tables._published_days(tiny.pipeline)[0])
    assert (wrong.table, wrong.text) == ("decisions", "30 rows; state/ records 29")
