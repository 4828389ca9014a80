"""Rows that were not scored, each with its name and its reason: the quarantine table's rows.

A row stands here once, under the first fault found, with its cells as JSON: those of the columns that are read.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from json.encoder import encode_basestring

import numpy as np
import pyarrow as pa

from batch_scoring.ingest.formats.rows import BrokenRow
from batch_scoring.ingest.schema.contract import Reason, Rejections, Shared, plain_cells

VALUE_CHARACTERS = 200
"""Of the value that was wrong, at most; what follows is in `raw`."""
CELL_CHARACTERS = 10_000
"""Of a cell in `raw`, of a key or of a row that could not be parsed, at most; how long it was is said behind them."""

_WAITING_ROWS = 10_000
_WAITING_BYTES = 4 * 1024 * 1024
"""Of rejected rows that are held in memory."""

STAGES_OF_FEATURES = ("read", "schema", "rule", "duplicate")
STAGES_OF_PREDICTIONS = ("score",)

_AT_ONCE = 128
"""Rows that are put into words at a time."""


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
    batch: pa.RecordBatch,
    numbers: np.ndarray,
    reasons: Mapping[int, Reason],
    key: str,
    source_file: str,
    positions: np.ndarray | None = None,
) -> Iterator[Rejected]:
    """The rows of a batch that `reasons` names by position, or those of them at `positions`, ascending."""
    positions = np.array(sorted(reasons), np.int64) if positions is None else positions
    for start in range(0, len(positions), _AT_ONCE):
        part = positions[start : start + _AT_ONCE]
        cells = {name: list(map(_bounded, plain_cells(batch.column(name), part))) for name in batch.schema.names}
        named = [None if cell is None else str(cell) for cell in cells.get(key, [None] * len(part))]
        why = reasons.reasons(part) if isinstance(reasons, Rejections) else [reasons[row] for row in part.tolist()]
        rows = zip(why, named, numbers[part].tolist(), _raw(cells), strict=True)
        for place, (reason, name, number, raw) in enumerate(rows):
            stood = cells[reason.column][place] if reason.column in cells else None
            yield Rejected(_as_it_stood(reason, stood), name, source_file, number, raw)


def _raw(cells: dict[str, list[object]]) -> Iterator[str]:
    """Each row's cells as a JSON object."""
    form = ", ".join(encode_basestring(name).replace("%", "%%") + ": %s" for name in cells)
    return (f"{{{form}}}" % row for row in zip(*map(as_json, cells.values()), strict=True))


def as_json(cells: list[object]) -> list[str]:
    """Each cell as JSON."""
    try:
        return list(map(encode_basestring, cells))  # type: ignore[arg-type]  # of a CSV file all are texts
    except TypeError:
        together = json.dumps(cells, ensure_ascii=False, default=str)
    if not any(mark in together[1:] for mark in '"[{'):  # numbers alone
        return together[1:-1].split(", ")
    return [json.dumps(cell, ensure_ascii=False, default=str) for cell in cells]


def from_broken(row: BrokenRow, source_file: str) -> Rejected:
    """A row that could not be parsed into cells."""
    reason = Reason("read", row.rule, "", row.detail)
    raw = json.dumps(shortened(row.text, CELL_CHARACTERS), ensure_ascii=False)
    return Rejected(reason, None, source_file, row.number, raw)


def _bounded(cell: object) -> object:
    return shortened(cell, CELL_CHARACTERS) if isinstance(cell, str) else cell


def _as_it_stood(reason: Reason, cell: object) -> Reason:
    """The reason with a value that can be shown; with quotes around it where blanks stood at its ends."""
    value = reason.value
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


def reason_name(reason: Reason | Shared) -> str:
    """How accounts and messages name a reason."""
    return f"{reason.column}: {reason.rule}" if reason.column else reason.rule
