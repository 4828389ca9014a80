"""Somebody else's hands on the tables: the next run of the day puts it right, once."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from deltalake import DeltaTable

from batch_scoring.daily.publish import DayStep
from batch_scoring_tests.reliability.audit import audit, signature, some_rows, versions
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


def compact(table: DeltaTable) -> None:
    table.optimize.compact()


def restore_the_first_commit(table: DeltaTable) -> None:
    table.restore(1)


def restore_the_empty_table(table: DeltaTable) -> None:
    table.restore(0)


def delete_some_rows(table: DeltaTable) -> None:
    table.delete("id < 'k0000200'")


def delete_the_day(table: DeltaTable) -> None:
    table.delete(f"dt = '{DAY}'")


TABLES = ("validated_features", "predictions", "quarantine")
CASES = [
    *((deed, (name,)) for deed in (compact, restore_the_first_commit, delete_some_rows) for name in TABLES),
    *((deed, TABLES) for deed in (restore_the_empty_table, delete_the_day)),
]


def two_days(folder: Path) -> TinyProject:
    """The first of them published twice."""
    tiny = TinyProject(folder)
    tiny.spec["scoring"]["rows_per_shard"] = 150
    tiny.deliver("v1")
    tiny.land(DAY, some_rows(tiny, 300))
    tiny.run()
    tiny.land(DAY, some_rows(tiny, 300, start=280), "b.parquet")
    tiny.land(NEXT_DAY, some_rows(tiny, 300, start=700))
    tiny.run()
    tiny.run(NEXT_DAY)
    return tiny


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """Every test leaves it as it was."""
    return two_days(tmp_path_factory.mktemp("strangers"))


@pytest.mark.parametrize(("deed", "names"), CASES, ids=lambda case: getattr(case, "__name__", None) or "+".join(case))
def test_a_run_puts_right_what_somebody_did_to_a_table_and_the_next_commits_nothing(
    scored: TinyProject, deed: Callable[[DeltaTable], None], names: Sequence[str]
) -> None:
    pipeline = scored.pipeline
    right, before, step = signature(pipeline, DAY), versions(pipeline), DayStep(pipeline, DAY, "predictions")
    for name in names:
        table = step.quarantine.table if name == "quarantine" else DayStep(pipeline, DAY, name).table.table  # type: ignore[arg-type]
        deed(table.load())
        assert versions(pipeline)[name] > before[name], "nothing was done"
    for day in (DAY, NEXT_DAY):
        scored.run(day)
        assert audit(pipeline, day) == []
    assert signature(pipeline, DAY) == right
    settled = versions(pipeline)
    assert {table for table in settled if settled[table] != before[table]} == set(names)
    scored.run()
    assert versions(pipeline) == settled


def test_a_vacuum_takes_nothing_that_a_day_needs(tmp_path: Path) -> None:
    scored = two_days(tmp_path)
    pipeline = scored.pipeline
    for step in (DayStep(pipeline, DAY, "validated_features"), DayStep(pipeline, DAY, "predictions")):
        table = step.table.table.load()
        compact(table)
        table.vacuum(retention_hours=0, dry_run=False, enforce_retention_duration=False, full=True)
    for day in (DAY, NEXT_DAY):
        scored.run(day)
        assert audit(pipeline, day) == []
    settled = versions(pipeline)
    scored.run()
    assert versions(pipeline) == settled


def test_an_unchanged_day_is_not_committed_again(scored: TinyProject) -> None:
    before = versions(scored.pipeline)
    scored.run()
    scored.run(NEXT_DAY)
    assert versions(scored.pipeline) == before
