"""Rows that were not scored, each with its name and its reason: the quarantine table's rows.

A row stands here once, under the first fault found, with all its cells as JSON.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from json.encoder import encode_basestring

import numpy as np
import pyarrow as pa

from batch_scoring.contract import Reason, Rejections, Shared, plain_cells
from batch_scoring.landing import BrokenRow

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
    """The row's cells as a JSON object; of a row that could not be parsed, its text as a JSON string."""


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
        cells = {name: plain_cells(batch.column(name), part) for name in batch.schema.names}
        named = [None if cell is None else str(cell) for cell in cells.get(key, [None] * len(part))]
        why = reasons.reasons(part) if isinstance(reasons, Rejections) else [reasons[row] for row in part.tolist()]
        for reason, name, number, raw in zip(why, named, numbers[part].tolist(), _raw(cells), strict=True):
            yield Rejected(reason, key=name, source_file=source_file, row_number=number, raw=raw)


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
    reason = Reason("read", "cells_match_header", "", row.detail)
    return Rejected(reason, None, source_file, row.number, json.dumps(row.text, ensure_ascii=False))


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
