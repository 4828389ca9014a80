"""Scored rows as the predictions table and the files of `batch-scoring score` hold them, and rows without a score."""

from collections.abc import Iterator
from dataclasses import dataclass

import pyarrow as pa

from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import ScoredBatch
from batch_scoring.ingest import quarantine
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.quarantine_blocks import Block
from batch_scoring.ingest.schema.contract import Reason
from batch_scoring.storage import parquet

DICTIONARY = ("model_version", "scored_at")
"""Columns that are worth a dictionary: they have one value in all rows."""


def schema(key: pa.Field, manifest: Manifest) -> pa.Schema:
    """The rows of predictions, without the partition column; `key`: the key as the features have it."""
    fields = [key, *manifest.task.fields]
    fields += [pa.field("model_version", pa.string()), pa.field("scored_at", pa.timestamp("us", "UTC"))]
    return pa.schema([field.with_nullable(False) for field in fields])


def rows(scored: ScoredBatch, version: str, at: pa.Scalar, form: pa.Schema) -> pa.RecordBatch:
    """The rows that have a score, with the columns that `schema` gives; the first of them is the key."""
    kept = scored.rows
    constants = [parquet.constant(version, len(kept)), parquet.constant(at, len(kept))]
    columns = [kept.column(form.names[0]), *scored.scores.columns, *constants]
    return pa.RecordBatch.from_arrays(columns, names=form.names)


@dataclass(frozen=True)
class Unscored:
    """The rows of a record batch without a score; `source_file` and `row_number` are columns of the batch."""

    scored: ScoredBatch
    key: str

    @property
    def keys(self) -> pa.Array:
        """The key of each row."""
        return self.scored.source.column(self.key).take(self._positions)

    def rejected(self) -> Iterator[Rejected]:
        """All of them, as rows of the quarantine."""
        if not self.scored.failed:
            return
        batch = self.scored.source.take(self._positions)
        files = batch.column("source_file").cast(pa.string()).to_pylist()
        numbers = batch.column("row_number").to_numpy()
        cells = batch.drop_columns(["source_file", "row_number"])
        for position, row in enumerate(self.scored.failed):
            reason = Reason("score", row.rule, row.column, row.detail)
            yield from quarantine.from_rows(cells, numbers, {position: reason}, self.key, files[position])

    def quarantine(self) -> tuple[list[Block], Iterator[Rejected]]:
        """All of them one by one: they are too few for blocks."""
        return [], self.rejected()

    @property
    def _positions(self) -> pa.Array:
        return pa.array([row.position for row in self.scored.failed], pa.int64())
