"""Rows that were not scored, each with its name and its reason: the quarantine table's rows.

A row stands here once, under the first fault found, with all its cells as JSON.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batch_scoring.contract import Reason, plain
from batch_scoring.landing import BrokenRow

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
    """The row's cells as a JSON object; of a row that could not be parsed, its text as a JSON string."""


def from_rows(
    batch: pa.RecordBatch, numbers: np.ndarray, reasons: Mapping[int, Reason], key: str, source_file: str
) -> Iterator[Rejected]:
    """The rows of a batch that `reasons` names by position."""
    for position in sorted(reasons):
        cells = {name: plain(batch.column(name), position) for name in batch.schema.names}
        named = cells.get(key)
        yield Rejected(
            reasons[position],
            key=None if named is None else str(named),
            source_file=source_file,
            row_number=int(numbers[position]),
            raw=json.dumps(cells, ensure_ascii=False, default=str),
        )


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


def reason_name(reason: Reason) -> str:
    """How accounts and messages name a reason."""
    return f"{reason.column}: {reason.rule}" if reason.column else reason.rule
