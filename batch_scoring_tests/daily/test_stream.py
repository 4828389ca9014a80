"""The stream of rows: whatever is read comes out once, as scored or as rejected, and the ledger says so."""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.daily import scored_rows
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.score import load_model
from batch_scoring.daily.shard_stats import ColumnCounts
from batch_scoring.daily.stream import ALL_ROWS, Batch, Ledger, ScoringStage, ValidationStage, ensure_written, open_rows
from batch_scoring.errors import RowsLostError
from batch_scoring.inference.scorer import Scorer
from batch_scoring.ingest.key_index import hash64
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.row_validator import RowValidator
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring_tests.tiny import DAY, TinyProject

FATES = {
    "scored": "{key},1,1,1,red",
    "cells": "{key},1,1",
    "schema": "{key},abc,1,1,red",
    "rule": "{key},5000,1,1,red",
    "raises": "{key},666,1,1,red",
    "not finite": "{key},555,1,1,red",
}
"""A line of a file, by what becomes of it."""

Line = tuple[str, int]
"""What becomes of a row if no row before it has its key, and its key."""

LINES = st.lists(st.tuples(st.sampled_from([*FATES, "scored", "scored"]), st.integers(0, 30)), max_size=60)


def one_by_one(batch: Batch) -> Iterator[Rejected]:
    for rejected in batch.rejected:
        yield from rejected.rejected()


def in_blocks(batch: Batch) -> Iterator[tuple[str, int]]:
    """File and row number of the rejected rows, as a day writes them."""
    for rejected in batch.rejected:
        blocks, others = rejected.quarantine()
        for block in blocks:
            yield from zip(block.rows["source_file"].to_pylist(), block.rows["row_number"].to_pylist(), strict=True)
        yield from ((row.source_file, row.row_number) for row in others)


def expected(files: list[list[Line]]) -> tuple[list[str], Counter[str]]:
    """The keys that are scored, in their order, and how many rows are rejected by stage."""
    seen: set[int] = set()
    scored, stages = [], Counter[str]()
    for fate, key in (line for lines in files for line in lines):
        stage = {"cells": "read", "schema": "schema", "rule": "rule"}.get(fate)
        if stage is None and key in seen:
            stage = "duplicate"
        elif stage is None:
            seen.add(key)
            stage = None if fate == "scored" else "score"
        if stage:
            stages[stage] += 1
        else:
            scored.append(f"k{key}")
    return scored, stages


def test_every_row_of_every_file_is_scored_or_rejected_exactly_once(tiny: TinyProject) -> None:
    pipeline = tiny.pipeline
    tiny.run(steps=["model"])
    step = DayStep(pipeline, DAY, "predictions")
    scorer = Scorer(load_model(step, step.state.model()), device="cpu", batch_rows=64)
    contract, landing = Contract(pipeline), pipeline.landing

    @given(st.lists(LINES, min_size=1, max_size=3), st.integers(1, 25), st.integers(0, 2))
    @settings(max_examples=40, deadline=None)
    def holds(files: list[list[Line]], batch_rows: int, helpers: int) -> None:
        for number, lines in enumerate(files):
            text = [FATES[fate].format(key=f"k{key}") for fate, key in lines]
            landing.put(f"dt={DAY}/{number}.csv", "\n".join(["id,x,y,n,c", *text, ""]).encode())
        validator = RowValidator(contract)
        validation = ValidationStage(validator, ColumnCounts(contract.inputs, contract.categorical))
        schema = scored_rows.schema(contract.arrow_schema.field("id"), scorer.manifest)
        scoring = ScoringStage(scorer, schema, accepted=validation.keys, at=datetime.now(UTC))
        accepted: list[tuple[str, int]] = []

        def validated() -> Iterator[Batch]:
            for number in range(len(files)):
                [file] = landing.list(f"dt={DAY}/{number}.csv")
                with open_rows(landing, file, pipeline.spec.input.csv, validator, print, batch_rows) as rows:
                    read, is_text = rows.read(0, ALL_ROWS), rows.is_text
                    for batch in validation.run(read, file.path, start=0, is_text=is_text, helpers=helpers):
                        places = zip(
                            *(batch.rows[name].to_pylist() for name in ("source_file", "row_number")), strict=True
                        )
                        accepted.extend(places)
                        yield batch

        batches = list(scoring.run(validated()))
        rejected = [row for batch in batches for row in one_by_one(batch)]
        lost = [row for row in rejected if row.reason.stage != "score"]
        every = [
            (f"dt={DAY}/{number}.csv", row) for number, lines in enumerate(files) for row in range(1, len(lines) + 1)
        ]
        assert sorted(accepted + [(row.source_file, row.row_number) for row in lost]) == every
        keys = [key for batch in batches for key in batch.rows["id"].to_pylist()]
        assert (keys, Counter(row.reason.stage for row in rejected)) == expected(files)
        places = sorted((row.source_file, row.row_number) for row in rejected)
        assert sorted(place for batch in batches for place in in_blocks(batch)) == places
        by_batch = [sorted(in_blocks(batch)) for batch in batches]
        assert [place for some in by_batch for place in some] == places, "they travel with the rows beside them"

        assert all(ledger.is_balanced for ledger in validation.ledgers.values()) and scoring.ledger.is_balanced
        assert sum(ledger.received.rows for ledger in validation.ledgers.values()) == len(every)
        assert (validation.keys.rows, len(validator.seen)) == (len(accepted), len(accepted))
        assert (scoring.ledger.kept.rows, scoring.ledger.rejected.rows) == (len(keys), len(rejected) - len(lost))

    holds()


# the ledger


@given(st.lists(st.integers(1, 2**40), unique=True, min_size=2, max_size=50), st.data())
def test_the_ledger_sees_a_row_that_is_lost_doubled_or_exchanged_in_whatever_parts_they_are_kept(
    rows: list[int], data: st.DataObject
) -> None:
    hashes = hash64(pa.array(rows))
    is_kept = np.array(data.draw(st.lists(st.booleans(), min_size=len(rows), max_size=len(rows))))
    cut = data.draw(st.integers(0, len(rows)))

    def ledger_of(change: Callable[[np.ndarray], np.ndarray]) -> Ledger:
        ledger = Ledger()
        ledger.received.add(hashes[cut:])
        ledger.received.add(hashes[:cut])
        kept, rejected = hashes[is_kept], hashes[~is_kept]
        ledger.kept.add(change(kept) if len(kept) else kept)
        ledger.rejected.add(rejected if len(kept) else change(rejected))
        return ledger

    assert ledger_of(lambda some: some[::-1]).is_balanced
    assert not ledger_of(lambda some: some[1:]).is_balanced, "lost"
    assert not ledger_of(lambda some: np.append(some, some[:1])).is_balanced, "doubled"
    other = hash64(pa.array([2**41]))
    exchanged = ledger_of(lambda some: np.append(some[1:], other))
    assert not exchanged.is_balanced and exchanged.missing
    assert exchanged.received.rows == exchanged.kept.rows + exchanged.rejected.rows


def test_a_row_that_is_lost_and_another_that_is_doubled_do_not_cancel_out() -> None:
    ledger, hashes = Ledger(), hash64(pa.array(["a", "b", "c"]))
    ledger.received.add(hashes)
    ledger.kept.add(hashes[[0, 0]])
    ledger.rejected.add(hashes[[2]])
    assert not ledger.is_balanced


def test_what_was_counted_and_what_was_written_must_agree() -> None:
    ensure_written(3, 3, "a file")
    with pytest.raises(RowsLostError, match="a file: 3 rows were counted and 2 were written"):
        ensure_written(3, 2, "a file")
