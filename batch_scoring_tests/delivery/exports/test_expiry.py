"""Exports of days whose rows retention has removed."""

import os
from pathlib import Path
from typing import Any

import pytest
from deltalake import DeltaTable

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports import pending
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.errors import SinkRefusedError
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import limits_of
from batch_scoring.storage.delta import Table
from batch_scoring_tests.bare_decisions import decide
from batch_scoring_tests.exports import NAME, scored, unchecked
from batch_scoring_tests.tiny import DAY, TinyProject, run_of_test


@pytest.fixture
def old(tiny: TinyProject) -> TinyProject:
    """A scored and decided day, and settings by which its features and decisions are too old."""
    scored(tiny)
    decide(tiny)
    for file in Path(tiny.pipeline.output.uri, "tables").glob(f"*/dt={DAY}/*.parquet"):
        stamp = file.stat().st_mtime - 200 * 86400
        os.utime(file, (stamp, stamp))
    return tiny


def swept(tiny: TinyProject, **days: int) -> None:
    """Let retention remove what is older than some days, and its files."""
    tiny.spec["retention"] = days
    tiny.write_spec()
    pipeline = tiny.pipeline
    done = vacuum.sweep(pipeline, vacuum.look(pipeline, limits_of(pipeline.spec.retention)), "r")
    assert done.removed and not done.problems
    for table in (setting.removesuffix("_days") for setting in days):
        folder = Path(pipeline.output.uri, "tables", {"features": "validated_features"}.get(table, table))
        for file in folder.glob(f"dt={DAY}/*.parquet"):
            file.unlink()


def told(pipeline: Pipeline) -> str:
    """What both say that look at the day."""
    (one,) = pending.recent(pipeline, NAME)
    with pytest.raises(SinkRefusedError) as refused:
        export_day(pipeline, NAME, DAY, run_of_test())
    assert str(refused.value) == one.waits_for
    return one.waits_for


@pytest.mark.parametrize("fields", [{"columns": ["id", "x"]}, {"where": "x > 0"}])
def test_a_day_without_its_features_is_refused_for_good_with_the_setting(
    old: TinyProject, fields: dict[str, Any]
) -> None:
    pipeline = unchecked(old, **fields)
    assert pending.recent(pipeline, NAME)[0].waits_for == ""
    swept(old, features_days=30)
    assert told(pipeline) == (
        f"retention has removed the features of {old.name} {DAY} (retention.features_days in the spec); what was "
        "exported of the day stays; without their columns it can still be exported"
    )
    assert pending.recent(unchecked(old), NAME)[0].waits_for == ""
    assert export_day(unchecked(old), NAME, DAY, run_of_test()).outcome == "exported"


def test_a_day_without_its_decisions_is_refused_for_good_with_the_setting(old: TinyProject) -> None:
    swept(old, decisions_days=100)
    assert told(unchecked(old, of="decisions")) == (
        f"retention has removed the decisions of {old.name} {DAY} (retention.decisions_days in the spec); what was "
        "exported of the day stays"
    )
    assert export_day(unchecked(old), NAME, DAY, run_of_test()).outcome == "exported"


def test_a_day_that_was_validated_again_can_be_exported_again(old: TinyProject) -> None:
    pipeline = unchecked(old, columns=["id", "x"])
    swept(old, features_days=30)
    scored(old, rows=13)
    assert pending.recent(pipeline, NAME)[0].waits_for == ""
    assert export_day(pipeline, NAME, DAY, run_of_test()).rows == 13


def test_whatever_the_number_of_days_a_table_is_opened_once_and_its_log_not_read_again(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    scored(tiny, "2024-03-01", "2024-03-02", DAY)
    pipeline, done = unchecked(tiny, columns=["id", "x"]), []
    load, version = Table.load, DeltaTable.transaction_version

    def counted_load(table: Table) -> DeltaTable | None:
        done.append(f"opened {table.name}")
        return load(table)

    def counted_version(table: DeltaTable, app_id: str) -> int | None:
        done.append(f"asked for {app_id}")
        return version(table, app_id)

    monkeypatch.setattr(Table, "load", counted_load)
    monkeypatch.setattr(DeltaTable, "transaction_version", counted_version)
    assert [one.waits_for for one in pending.recent(pipeline, NAME)] == ["", "", ""]
    assert done == ["opened validated_features"]
