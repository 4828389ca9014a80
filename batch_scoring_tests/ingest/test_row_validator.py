"""Rows of files, newest first: each is accepted or rejected once, and of equal keys the first valid row is accepted."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.ingest.formats.rows import BrokenRow, BrokenRows, Rows
from batch_scoring.ingest.row_validator import RowValidator, ValidatedRows
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring_tests.tiny import TinyProject


def block(rows: pa.Table, first: int, broken: Sequence[int] = ()) -> Rows:
    """Rows of a Parquet file, numbered from `first`, and the numbers of others that could not be parsed."""
    [batch] = rows.combine_chunks().to_batches()
    numbers = np.arange(first, first + rows.num_rows)
    return Rows(batch, numbers, BrokenRows(np.array(broken, np.int64), lambda number: BrokenRow(number, "", "x")))


def ids(validated: ValidatedRows) -> list[str]:
    return [str(key) for key in validated.accepted.column("id").to_pylist()]


def stages(validated: ValidatedRows) -> dict[int, str]:
    """Why each rejected row is rejected, by its number."""
    found = {row.row_number: row.reason.stage for row in validated.rejected()}
    assert sorted(validated.rejected_numbers.tolist()) == sorted(found)
    return found


@pytest.mark.parametrize("helpers", [0, 2])
def test_of_equal_keys_the_first_valid_row_is_accepted_and_every_other_row_has_its_reason(
    tiny: TinyProject, helpers: int
) -> None:
    validator = RowValidator(Contract(tiny.pipeline))
    x = pa.array([9999.0, 1.0, 1.0, 1.0])  # the first breaks a rule: its key is still free
    newer = [block(tiny.rows(4).set_column(1, "x", x), 1, broken=[5])]
    [one] = validator.validate(newer, "new.parquet", is_text=False, helpers=helpers)
    assert (ids(one), one.numbers.tolist(), one.duplicates) == (["k0000001", "k0000002", "k0000003"], [2, 3, 4], ())
    assert stages(one) == {1: "rule", 5: "read"}
    older = [block(tiny.rows(3, start=start), 1 + start) for start in (0, 3)]
    first, last = validator.validate(older, "old.parquet", is_text=False, helpers=helpers)
    assert (ids(first), first.duplicates, stages(first)) == (["k0000000"], (2, 3), {2: "duplicate", 3: "duplicate"})
    assert (ids(last), last.duplicates, stages(last)) == (["k0000004", "k0000005"], (4,), {4: "duplicate"})
    assert len(validator.seen) == 6


def test_many_rejected_rows_are_in_blocks_and_the_others_one_by_one(tiny: TinyProject) -> None:
    x = pa.array([9999.0] * 600 + [1.0] * 20)
    rows = block(tiny.rows(620).set_column(1, "x", x), 1, broken=[621, 622])
    [validated] = RowValidator(Contract(tiny.pipeline)).validate([rows], "a.parquet", is_text=False, helpers=0)
    blocks, others = validated.quarantine()
    in_blocks = [number for one in blocks for number in one.rows["row_number"].to_pylist()]
    one_by_one = [row.row_number for row in others]
    assert in_blocks == [*range(1, 601)] and one_by_one == [621, 622]
    assert sorted(stages(validated)) == in_blocks + one_by_one
