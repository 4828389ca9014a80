"""What both writing steps share: when a day stands, what of it can be taken over, what a dying run leaves."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.daily.publish import DayStep, Draft, check_input
from batch_scoring.daily.stream import Batch
from batch_scoring.daily.validate import prepare
from batch_scoring.errors import RowsLostError, SupersededError
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.schema.contract import Reason
from batch_scoring.runtime.usage import Meter
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring.storage.state import ShardStats, StepName
from batch_scoring_tests.tiny import DAY, TinyProject, long_rows, run_of_test


@pytest.fixture
def scored(tiny: TinyProject) -> TinyProject:
    """A day with rows in both quarantines."""
    rows = tiny.rows(100)
    x = [666.0 if n == 7 else 2000.0 if n == 9 else value for n, value in enumerate(rows["x"].to_pylist())]
    tiny.land(DAY, rows.set_column(1, "x", pa.array(x)))
    tiny.run()
    return tiny


def step_of(tiny: TinyProject, name: str = "predictions") -> DayStep:
    return DayStep(tiny.pipeline, DAY, name)  # type: ignore[arg-type]


def stands(tiny: TinyProject) -> bool:
    step = step_of(tiny)
    return (
        step.published(tiny.state.day_input(DAY).fingerprint, tiny.pipeline.scoring_code, tiny.state.model().sha256)
        is not None
    )


def test_a_day_stands_for_its_input_code_and_model_alone(scored: TinyProject) -> None:
    fingerprint, code = scored.state.day_input(DAY).fingerprint, scored.pipeline.scoring_code
    sha256 = scored.state.model().sha256
    step = step_of(scored)
    assert step.published(fingerprint, code, sha256) == scored.published_day("predictions")
    assert step.published("other", code, sha256) is None
    assert step.published(fingerprint, "other", sha256) is None
    assert step.published(fingerprint, code, "other") is None
    assert step.published(fingerprint, code) is None


def delete_in(table: str) -> Callable[[TinyProject], None]:
    def delete(tiny: TinyProject) -> None:
        step = step_of(tiny)
        part = step.table if table == "predictions" else step.quarantine
        part.table.load().delete(f"dt = '{DAY}'")  # type: ignore[union-attr]

    return delete


def restore_predictions(tiny: TinyProject) -> None:
    before = step_of(tiny).table.table.load().version()  # type: ignore[union-attr]
    tiny.land(DAY, tiny.rows(50))
    tiny.run()
    step_of(tiny).table.table.load().restore(before)  # type: ignore[union-attr]


@pytest.mark.parametrize("meddle", [delete_in("predictions"), delete_in("quarantine"), restore_predictions])
def test_a_day_whose_tables_somebody_changed_does_not_stand_and_is_put_right_once(
    scored: TinyProject, meddle: Callable[[TinyProject], None]
) -> None:
    assert stands(scored)
    meddle(scored)
    assert not stands(scored)
    scored.run()
    assert stands(scored)
    stats = scored.published_day("predictions")
    scored.run()
    assert scored.published_day("predictions") == stats


def test_a_shard_without_its_quarantine_is_not_taken_over(scored: TinyProject) -> None:
    step = step_of(scored)
    (shard,) = scored.published_day("predictions").shards
    found = step.finished().find(shard.digest)
    assert found is not None and found.reused and [f.path.split("/")[1] for f in found.quarantine] == ["stage=score"]
    Path(step.quarantine.table.folder.uri, found.quarantine[0].path).unlink()
    assert step.finished().find(shard.digest) is None
    assert step.finished().find("0" * 32) is None


def rejected(number: int, stage: str = "rule") -> Rejected:
    return Rejected(Reason(stage, "ge", "x", "-1"), f"k{number}", "a.csv", number, "{}")  # type: ignore[arg-type]


def test_more_rejected_rows_than_fit_in_memory_are_all_written(tiny: TinyProject) -> None:
    step = step_of(tiny, "validated_features")
    schema = pa.schema([("id", pa.string())])
    with step.draft(schema, []) as draft:
        draft.reject(rejected(number) for number in range(25_001))
        draft.reject(rejected(number, "read") for number in range(3))
        assert most_waiting(draft) <= 10_000
        done = draft.finish(ShardStats(digest="a" * 32, source="s", run_id="r", rows_in=25_004, rows=0), Meter())
    assert {file.path.split("/")[1]: file.rows for file in done.quarantine} == {"stage=rule": 25_001, "stage=read": 3}
    assert draft.quarantined == {"rule": {"x: ge": 25_001}, "read": {"x: ge": 3}}
    table = step.quarantine.table.folder
    assert isinstance(table, LocalFolder)
    (path,) = [file.path for file in done.quarantine if "stage=rule" in file.path]
    keys = pq.read_table(Path(table.uri, path), columns=["id"])["id"].to_pylist()
    assert keys == [f"k{number}" for number in range(25_001)]


def test_rejected_rows_that_are_long_are_written_before_they_are_many(tiny: TinyProject) -> None:
    with step_of(tiny, "validated_features").draft(pa.schema([("id", pa.string())]), dictionary=[]) as draft:
        draft.reject(long_rows())
        assert draft.quarantined == {"read": {"cells_match_header": 3_000}}


def test_a_shard_that_has_other_rows_than_were_counted_is_not_finished(tiny: TinyProject) -> None:
    step, stats = (
        step_of(tiny, "validated_features"),
        ShardStats(digest="a" * 32, source="s", run_id="r", rows_in=2, rows=2),
    )
    with step.draft(pa.schema([("id", pa.string())]), []) as draft:
        draft.write(Batch(pa.record_batch({"id": ["a"]})))
        with pytest.raises(RowsLostError, match="s: 2 rows were counted and 1 were written"):
            draft.finish(stats, Meter())
    with step.draft(pa.schema([("id", pa.string())]), []) as draft:
        draft.reject([rejected(1)])
        draft.quarantined["rule"]["x: ge"] += 1
        with pytest.raises(RowsLostError, match="s, stage rule: 2 rows were counted and 1 were written"):
            draft.finish(stats.model_copy(update={"rows": 0}), Meter())
    assert step.table.table.folder.list() == [] == step.quarantine.table.folder.list()


def test_shards_that_do_not_add_up_are_not_published_whatever_the_checks_have_said(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    tiny.run(steps=["raw_input"])
    step, pinned = step_of(tiny, "validated_features"), tiny.state.day_input(DAY)
    prepared = prepare(step, pinned, run_of_test())
    for change in ({"rows_in": 21}, {"missing_identity": 1}):
        shards = tuple(replace(one, stats=one.stats.model_copy(update=change)) for one in prepared.shards)
        with pytest.raises(RowsLostError, match=r"a\.parquet#000000000000 are lost or doubled; nothing was published"):
            step.publish(
                replace(prepared, shards=shards),
                run_of_test(),
                fingerprint=pinned.fingerprint,
                code="c",
                model=None,
                check_current=lambda: None,
            )
    assert step.state.published_day("validated_features", DAY) is None and step.table.table.load() is None


def most_waiting(draft: Draft) -> int:
    return max(map(len, draft._rejected.values()))


def test_a_draft_that_is_not_finished_leaves_nothing(tiny: TinyProject) -> None:
    step = step_of(tiny, "validated_features")
    with pytest.raises(RuntimeError, match="dies"), step.draft(pa.schema([("id", pa.string())]), []) as draft:
        draft.write(Batch(pa.record_batch({"id": ["a"]})))
        draft.reject(rejected(number) for number in range(10_001))
        raise RuntimeError("the run dies")
    for part in (step.table, step.quarantine):
        assert part.table.folder.list() == []


def test_the_parts_of_the_steps_do_not_overlap(tiny: TinyProject) -> None:
    steps = [step_of(tiny, name) for name in get_args(StepName)]
    prefixes = [prefix for step in steps for prefix in step.quarantine.prefixes]
    assert sorted(prefixes) == sorted(set(prefixes))
    assert len({part.transaction for step in steps for part in (step.table, step.quarantine)}) == 2 * len(steps)


def test_input_that_changed_or_went_supersedes_the_run(scored: TinyProject) -> None:
    pinned = scored.state.day_input(DAY)
    check_input(scored.pipeline, pinned, may_be_archived=False)
    (file,) = Path(scored.pipeline.landing.uri, f"dt={DAY}").iterdir()
    file.unlink()
    check_input(scored.pipeline, pinned, may_be_archived=True)
    with pytest.raises(SupersededError, match=f"the files of {scored.name} {DAY} have changed since raw_input pinned"):
        check_input(scored.pipeline, pinned, may_be_archived=False)
    scored.land(DAY, scored.rows(3))
    for may_be_archived in (True, False):
        with pytest.raises(SupersededError):
            check_input(scored.pipeline, pinned, may_be_archived=may_be_archived)
