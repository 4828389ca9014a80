"""The quarantine table's rows: rows that were not scored, each with its key and the reason.

Each row appears once, under the first error found, with the cells of the columns that are read as JSON.
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
"""Maximum length of the invalid value; the whole cell is in `raw`."""
CELL_CHARACTERS = 10_000
"""Maximum length of a cell in `raw`, of a key, or of a row that could not be parsed; the full length is appended."""

_WAITING_ROWS = 10_000
_WAITING_BYTES = 4 * 1024 * 1024
"""Maximum bytes of rejected rows held in memory."""

STAGES_OF_FEATURES = ("read", "schema", "rule", "duplicate")
STAGES_OF_PREDICTIONS = ("score",)
STAGES_OF_DECISIONS = ("decide",)
"""No row is ever rejected there: the step's part of the quarantine is empty."""

_AT_ONCE = 128
"""Rows formatted at a time."""


def schema(key: str) -> pa.Schema:
    """The table's columns, without its partitions `dt` and `stage`. The key is text, as it may itself be invalid."""
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
    """The cells that the schema requires, as a JSON object; for a row that could not be parsed, its text."""


class Waiting:
    """A buffer of rejected rows that are not yet written."""

    def __init__(self) -> None:
        self._rows: list[Rejected] = []
        self._bytes = 0

    def __len__(self) -> int:
        """Number of rows in the buffer."""
        return len(self._rows)

    @property
    def is_full(self) -> bool:
        """Whether the buffer should be written before rows are added."""
        return len(self._rows) >= _WAITING_ROWS or self._bytes >= _WAITING_BYTES

    def add(self, row: Rejected) -> None:
        """Add a row to the buffer."""
        self._rows.append(row)
        self._bytes += len(row.raw)

    def take(self) -> list[Rejected]:
        """Remove and return all rows in the buffer."""
        rows, self._rows, self._bytes = self._rows, [], 0
        return rows


def shortened(text: str, most: int = VALUE_CHARACTERS) -> str:
    """Truncate a text that is too long to be shown, and append its length."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text)} characters)"


def from_rows(
    batch: pa.RecordBatch,
    numbers: np.ndarray,
    reasons: Mapping[int, Reason],
    key: str,
    source_file: str,
    positions: np.ndarray | None = None,
) -> Iterator[Rejected]:
    """Yield the rows of a batch that `reasons` names by position, or only those at `positions`, ascending."""
    positions = np.array(sorted(reasons), np.int64) if positions is None else positions
    for start in range(0, len(positions), _AT_ONCE):
        part = positions[start : start + _AT_ONCE]
        cells = {name: list(map(_bounded, plain_cells(batch.column(name), part))) for name in batch.schema.names}
        named = [None if cell is None else str(cell) for cell in cells.get(key, [None] * len(part))]
        why = reasons.reasons(part) if isinstance(reasons, Rejections) else [reasons[row] for row in part.tolist()]
        rows = zip(why, named, numbers[part].tolist(), _raw(cells), strict=True)
        for place, (reason, name, number, raw) in enumerate(rows):
            cell_value = cells[reason.column][place] if reason.column in cells else None
            yield Rejected(_with_printable_value(reason, cell_value), name, source_file, number, raw)


def _raw(cells: dict[str, list[object]]) -> Iterator[str]:
    """Yield each row's cells as a JSON object."""
    form = ", ".join(encode_basestring(name).replace("%", "%%") + ": %s" for name in cells)
    return (f"{{{form}}}" % row for row in zip(*map(as_json, cells.values()), strict=True))


def as_json(cells: list[object]) -> list[str]:
    """Return each cell as JSON."""
    try:
        return list(map(encode_basestring, cells))  # type: ignore[arg-type]  # in a CSV file, all are text
    except TypeError:
        together = json.dumps(cells, ensure_ascii=False, default=str)
    if not any(mark in together[1:] for mark in '"[{'):  # only numbers
        return together[1:-1].split(", ")
    return [json.dumps(cell, ensure_ascii=False, default=str) for cell in cells]


def from_broken(row: BrokenRow, source_file: str) -> Rejected:
    """Return the quarantine row for a row that could not be parsed into cells."""
    reason = Reason("read", row.rule, "", row.detail)
    raw = json.dumps(shortened(row.text, CELL_CHARACTERS), ensure_ascii=False)
    return Rejected(reason, None, source_file, row.number, raw)


def _bounded(cell: object) -> object:
    return shortened(cell, CELL_CHARACTERS) if isinstance(cell, str) else cell


def _with_printable_value(reason: Reason, cell: object) -> Reason:
    """Return the reason with a printable value, in quotes if it begins or ends with blanks."""
    value = reason.value
    if value is None:
        return reason
    if isinstance(cell, str) and cell != cell.strip() == value.strip():
        value = f'"{cell}"'
    return replace(reason, value=shortened(value))


def table(rows: list[Rejected], key: str) -> pa.RecordBatch:
    """Return the rows as a record batch of the table."""
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
    """The columns of an unpartitioned file: those of the table, and the stage."""
    return schema(key).insert(1, pa.field("stage", pa.string()))


def file_rows(rows: list[Rejected], key: str) -> pa.RecordBatch:
    """Return the rows as a record batch of an unpartitioned file."""
    stages = pa.array([row.reason.stage for row in rows], pa.string())
    return pa.RecordBatch.from_arrays([*(c := table(rows, key).columns)[:1], stages, *c[1:]], schema=file_schema(key))


def count(counts: dict[str, dict[str, int]], row: Rejected) -> None:
    """Count a row in `counts`: rows by stage and reason, as in the shard statistics."""
    reasons = counts.setdefault(row.reason.stage, {})
    name = reason_name(row.reason)
    reasons[name] = reasons.get(name, 0) + 1


def reason_name(reason: Reason | Shared) -> str:
    """Return the name of a reason in statistics and messages."""
    return f"{reason.column}: {reason.rule}" if reason.column else reason.rule
