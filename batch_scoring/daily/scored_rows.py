"""Scored rows as the predictions table holds them, rows without a score, and sums over the scores.

Days (`predictions.py`) and files at the command line (`adhoc/`) have the same rows.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import Scored
from batch_scoring.ingest import key_index, quarantine
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.schema.contract import Reason
from batch_scoring.storage import parquet

BINS = 20
UNKNOWN_VALUES = 20
"""Unknown values of a column that a shard's account names, the most frequent first."""

DICTIONARY = ("model_version", "scored_at")
"""Columns that are worth a dictionary: they have one value in all rows."""


def schema(key: pa.Field, manifest: Manifest) -> pa.Schema:
    """The rows of predictions, without the partition column; `key`: the key as the features have it."""
    fields = [key]
    if manifest.task == "regression":
        fields.append(pa.field("prediction", pa.float64()))
    else:
        fields += [pa.field("prediction", pa.int64()), pa.field("prediction_proba", pa.float32())]
        fields += [pa.field(f"prob_class_{index}", pa.float32()) for index in range(manifest.outputs)]
    fields += [pa.field("model_version", pa.string()), pa.field("scored_at", pa.timestamp("us", "UTC"))]
    return pa.schema([field.with_nullable(False) for field in fields])


def rows(scored: Scored, version: str, at: pa.Scalar, form: pa.Schema) -> pa.RecordBatch:
    """The rows that have a score, with the columns that `schema` gives; the first of them is the key."""
    kept = scored.rows
    constants = [parquet.constant(version, len(kept)), parquet.constant(at, len(kept))]
    columns = [kept.column(form.names[0]), *scored.scores.columns, *constants]
    return pa.RecordBatch.from_arrays(columns, names=form.names)


def failed(scored: Scored, key: str) -> Iterator[Rejected]:
    """The rows without a score, on their way into the quarantine; `source_file` and `row_number` are columns."""
    if not scored.failed:
        return
    batch = _failed_rows(scored)
    files = batch.column("source_file").cast(pa.string()).to_pylist()
    numbers = batch.column("row_number").to_numpy()
    cells = batch.drop_columns(["source_file", "row_number"])
    for position, row in enumerate(scored.failed):
        reason = Reason("score", row.rule, "", row.detail)
        yield from quarantine.from_rows(cells, numbers, {position: reason}, key, files[position])


def failed_keys(scored: Scored, key: str) -> int:
    """The sum of the hashes of the keys without a score."""
    return key_index.identity(key_index.hash64(_failed_rows(scored).column(key))) if scored.failed else 0


class Tally:
    """Sums over a shard's scores, for checks and reports that never read the rows again."""

    def __init__(self, manifest: Manifest) -> None:
        self._manifest = manifest
        self._sums: dict[str, float] = {}
        self._squares: dict[str, float] = {}
        self._bins = np.zeros(BINS, np.int64)
        self._classes = np.zeros(max(len(manifest.classes), 1), np.int64)
        self._unknown: dict[str, dict[str, int]] = {}
        self._bad = 0

    def add(self, scored: Scored) -> None:
        """Count one record batch."""
        scores = scored.scores
        for column in scores.schema.names:
            if column != "prediction" or self._manifest.task == "regression":
                values = scores.column(column).to_numpy().astype(np.float64)
                self._sums[column] = self._sums.get(column, 0.0) + float(values.sum())
                # not values @ values: BLAS would wake its own threads, which spin against those that score
                self._squares[column] = self._squares.get(column, 0.0) + float(np.square(values).sum())
        if self._manifest.task == "classification":
            block = [scores.column(f"prob_class_{index}").to_numpy() for index in range(self._manifest.outputs)]
            total = np.sum(block, axis=0)
            sound = (np.abs(total - 1) < 1e-3) & (np.min(block, axis=0) >= 0) & (np.max(block, axis=0) <= 1)
            self._bad += int((~sound).sum())
            score = block[1] if len(block) == 2 else scores.column("prediction_proba").to_numpy()
            bins = np.clip(np.nan_to_num(score) * BINS, 0, BINS - 1).astype(np.int64)
            self._bins += np.bincount(bins, minlength=BINS)
            self._classes += np.bincount(scores.column("prediction").to_numpy(), minlength=len(self._classes))
        else:
            self._bad += int((~np.isfinite(scores.column("prediction").to_numpy())).sum())
        for column, values in scored.unknown.items():
            counts = self._unknown.setdefault(column, {})
            for value, rows in values.items():
                word = quarantine.shortened(value, quarantine.CELL_CHARACTERS)
                counts[word] = counts.get(word, 0) + rows

    def figures(self) -> dict[str, Any]:
        """The fields of the shard's account."""
        is_classes = self._manifest.task == "classification"
        return {
            "sums": self._sums,
            "squares": self._squares,
            "histogram": tuple(self._bins.tolist()) if is_classes else (),
            "classes": {str(index): int(n) for index, n in enumerate(self._classes)} if is_classes else {},
            "unknown": {
                column: dict(sorted(counts.items(), key=lambda item: -item[1])[:UNKNOWN_VALUES])
                for column, counts in self._unknown.items()
            },
            "not_probabilities": self._bad,
        }


def _failed_rows(scored: Scored) -> pa.RecordBatch:
    return scored.source.take(pa.array([row.position for row in scored.failed]))
