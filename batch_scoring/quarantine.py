"""Rows that were not scored, each with its name and its reason: the quarantine table's rows.

A row stands here once, under the first fault found, with its cells as JSON: those of the columns that are read.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa

from batch_scoring.contract import Reason, plain
from batch_scoring.rows import BrokenRow

VALUE_CHARACTERS = 200
"""Of the value that was wrong, at most; what follows is in `raw`."""
CELL_CHARACTERS = 10_000
"""Of a cell in `raw`, of a key or of a row that could not be parsed, at most; how long it was is said behind them."""

_WAITING_ROWS = 10_000
_WAITING_BYTES = 4 * 1024 * 1024
"""Of rejected rows that are held in memory."""

STAGES_OF_FEATURES = ("read", "schema", "rule", "duplicate")
STAGES_OF_PREDICTIONS = ("score",)


def schema(key: str) -> pa.Schema:
    """The table's columns, less its partitions `dt` and `stage`. The key is text: it may be what is wrong."""
    texts = (key, "rule", "column", "value", "source_file")
    return pa.schema([*((name, pa.string()) for name in texts), ("row_number", pa.int64()), ("raw", pa.string())])


@dataclass(frozen=True)
class Rejected:
    """One row on its way into the quarantine."""

    reason: Reason
    key: str | None
    source_file: str
    row_number: int
    raw: str
    """Its cells that the schema asks for, as a JSON object; of a row that could not be parsed, its text as a string."""


class Waiting:
    """Rejected rows, until they are enough to be written."""

    def __init__(self) -> None:
        self._rows: list[Rejected] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Rows that wait."""
        return len(self._rows)

    @property
    def is_full(self) -> bool:
        """Whether no more should wait."""
        return len(self._rows) >= _WAITING_ROWS or self._bytes >= _WAITING_BYTES

    def add(self, row: Rejected) -> None:
        """Let a row wait."""
        self._rows.append(row)
        self._bytes += len(row.raw)

    def take(self) -> list[Rejected]:
        """The rows; none waits any more."""
        rows, self._rows, self._bytes = self._rows, [], 0
        return rows


def shortened(text: str, most: int = VALUE_CHARACTERS) -> str:
    """The beginning of a text that is too long to be shown, and how long it is."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def from_rows(
    batch: pa.RecordBatch, numbers: np.ndarray, reasons: dict[int, Reason], key: str, source_file: str
) -> Iterator[Rejected]:
    """The rows of a batch that `reasons` names by position."""
    for position in sorted(reasons):
        cells = {name: _bounded(plain(batch.column(name), position)) for name in batch.schema.names}
        named = cells.get(key)
        yield Rejected(
            _as_it_stood(reasons[position], cells),
            key=None if named is None else str(named),
            source_file=source_file,
            row_number=int(numbers[position]),
            raw=json.dumps(cells, ensure_ascii=False, default=str),
        )


def from_broken(row: BrokenRow, source_file: str) -> Rejected:
    """A row that could not be parsed into cells."""
    reason = Reason("read", row.rule, "", row.detail)
    raw = json.dumps(shortened(row.text, CELL_CHARACTERS), ensure_ascii=False)
    return Rejected(reason, None, source_file, row.number, raw)


def _bounded(cell: object) -> object:
    return shortened(cell, CELL_CHARACTERS) if isinstance(cell, str) else cell


def _as_it_stood(reason: Reason, cells: dict[str, object]) -> Reason:
    """The reason with a value that can be shown; with quotes around it where blanks stood at its ends."""
    value, cell = reason.value, cells.get(reason.column)
    if value is None:
        return reason
    if isinstance(cell, str) and cell != cell.strip() == value.strip():
        value = f'"{cell}"'
    return replace(reason, value=shortened(value))


def table(rows: list[Rejected], key: str) -> pa.RecordBatch:
    """The rows as the table holds them."""
    columns = [
        [row.key for row in rows],
        [row.reason.rule for row in rows],
        [row.reason.column for row in rows],
        [row.reason.value for row in rows],
        [row.source_file for row in rows],
        [row.row_number for row in rows],
        [row.raw for row in rows],
    ]
    form = schema(key)
    return pa.RecordBatch.from_arrays([pa.array(c, f.type) for c, f in zip(columns, form, strict=True)], schema=form)


def file_schema(key: str) -> pa.Schema:
    """The columns of a file that is not partitioned: those of the table, and the stage."""
    return schema(key).insert(1, pa.field("stage", pa.string()))


def file_rows(rows: list[Rejected], key: str) -> pa.RecordBatch:
    """The rows as such a file holds them."""
    stages = pa.array([row.reason.stage for row in rows], pa.string())
    return pa.RecordBatch.from_arrays([*(c := table(rows, key).columns)[:1], stages, *c[1:]], schema=file_schema(key))


def count(counts: dict[str, dict[str, int]], row: Rejected) -> None:
    """Count a row in `counts`: rows by stage and reason, as accounts have them."""
    reasons = counts.setdefault(row.reason.stage, {})
    name = reason_name(row.reason)
    reasons[name] = reasons.get(name, 0) + 1


def reason_name(reason: Reason) -> str:
    """How accounts and messages name a reason."""
    return f"{reason.column}: {reason.rule}" if reason.column else reason.rule
