"""Which days are up to date and which are stale, as storage tells."""

from pathlib import Path

import pytest

from batch_scoring.daily import freshness
from batch_scoring.daily.publish import DayStep
from batch_scoring.inference.bundle import read_sha256
from batch_scoring.ingest import landing_files
from batch_scoring_tests.tiny import DAY, NEXT_DAY, SCHEMA, TinyProject


@pytest.fixture
def scored(tiny: TinyProject) -> TinyProject:
    """Two days, scored."""
    for day, count in ((DAY, 40), (NEXT_DAY, 30)):
        tiny.land(day, tiny.rows(count))
        tiny.run(day)
    return tiny


def up_to_date(tiny: TinyProject) -> dict[str, str]:
    return freshness.fingerprints(tiny.pipeline, [DAY, NEXT_DAY, "2024-03-20"])


def stale(tiny: TinyProject) -> tuple[dict[str, list[str]], set[str]]:
    found = freshness.stale_days(tiny.pipeline, read_sha256(tiny.pipeline.bundle))
    return found.by_reason, found.archived


def test_a_day_is_settled_by_both_accounts_and_the_transactions_of_all_tables(scored: TinyProject) -> None:
    fingerprints = {day: scored.state.day_input(day).fingerprint for day in (DAY, NEXT_DAY)}
    assert up_to_date(scored) == fingerprints
    scored.land(DAY, scored.rows(41))
    scored.run(steps=["raw_input"])
    assert up_to_date(scored) == fingerprints, "raw_input alone tells nothing"
    scored.run(steps=["validated_features"])
    assert list(up_to_date(scored)) == [NEXT_DAY], "the accounts are of different files"
    scored.run(steps=["predictions"])
    assert up_to_date(scored).keys() == {DAY, NEXT_DAY} and up_to_date(scored)[DAY] != fingerprints[DAY]


def test_a_commit_that_no_account_names_unsettles_its_day_alone(scored: TinyProject) -> None:
    step, pinned = DayStep(scored.pipeline, DAY, "predictions"), scored.state.day_input(DAY)
    stats = scored.published_day("predictions")
    older = stats.table.model_copy(update={"transaction": stats.table.transaction + 1})
    step.state.put_published_day(stats.model_copy(update={"table": older}))
    assert list(up_to_date(scored)) == [NEXT_DAY]
    step.state.put_published_day(stats)
    assert up_to_date(scored)[DAY] == pinned.fingerprint


def test_days_are_stale_for_another_model_other_code_or_other_files(scored: TinyProject) -> None:
    assert stale(scored) == ({}, set())
    scored.land(DAY, scored.rows(41))
    assert stale(scored) == ({"input": [DAY]}, set())
    scored.deliver("v2", seed=1)
    assert stale(scored) == ({"model": [DAY, NEXT_DAY], "input": [DAY]}, set())
    scored.write_code(SCHEMA + "# stricter\n")
    assert stale(scored)[0].keys() == {"model", "code", "input"}


def test_a_day_whose_files_are_gone_is_archived_and_not_of_other_files(scored: TinyProject) -> None:
    (file,) = Path(scored.pipeline.landing.uri, f"dt={DAY}").iterdir()
    file.unlink()
    assert stale(scored) == ({}, {DAY})
    found = freshness.stale_days(scored.pipeline, "another")
    assert (found.days, found.archived) == ([DAY, NEXT_DAY], {DAY})


def test_what_is_left_of_the_pinned_files_brings_nothing_new(tiny: TinyProject) -> None:
    for name in ("a.parquet", "b.parquet"):
        tiny.land(DAY, tiny.rows(5), name)
    tiny.run(steps=["raw_input"])
    pinned = tiny.state.day_input(DAY)
    both = landing_files.list_day(tiny.pipeline.landing, DAY)
    assert not freshness.is_rest_of(both, pinned), "none has gone"
    assert freshness.is_rest_of(both[:1], pinned) and freshness.is_rest_of([], pinned)
    tiny.land(DAY, tiny.rows(6), "a.parquet")
    changed = [file for file in landing_files.list_day(tiny.pipeline.landing, DAY) if file.path.endswith("a.parquet")]
    assert not freshness.is_rest_of(changed, pinned)
