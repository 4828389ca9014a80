"""The rows of a published day: its predictions, beside them its features and attributes, and its decisions.

Every shard of predictions has the rows of one shard of features, in the same order, less those without a score; a day's
decisions have the rows of all its predictions, in that order. So the tables are read side by side, a batch at a time,
and the keys of every batch are compared.
"""

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.daily.tables import decisions_table, features_table, predictions_table
from batch_scoring.errors import StateError
from batch_scoring.storage import shards
from batch_scoring.storage.folders.folder import Folder
from batch_scoring.storage.parquet import READ_ROWS
from batch_scoring.storage.state import PublishedDay, ShardStats, StepName


@dataclass(frozen=True)
class _File:
    """A shard's file."""

    stats: ShardStats
    folder: Folder
    path: str

    @functools.cached_property
    def schema(self) -> pa.Schema:
        return shards.schema(self.folder, self.path)


class DayRows:
    """The rows of a day, in the order of its predictions."""

    def __init__(
        self,
        pipeline: Pipeline,
        features: PublishedDay | None,
        predictions: PublishedDay,
        decisions: PublishedDay | None = None,
    ) -> None:
        """Find the files.

        Args:
            pipeline: whose tables to read.
            features: what is published of the day's features; None if they are not needed.
            predictions: the same of its predictions.
            decisions: the same of its decisions; None if they are not needed.

        Raises:
            StateError: the tables do not belong together.
        """
        self._where, self._key = f"{pipeline.name} {predictions.day}", pipeline.spec.input.key
        if reason := why_apart(features, predictions, decisions):
            raise self._apart(reason)
        self._predictions = _files(predictions_table(pipeline).folder, predictions)
        validated = _files(features_table(pipeline).folder, features) if features else []
        self._features = {file.stats.digest: file for file in validated}
        self._decisions = _files(decisions_table(pipeline).folder, decisions)[0] if decisions else None

    @property
    def schema(self) -> pa.Schema:
        """All columns: the key, then those of decisions, predictions, features and attributes."""
        fields = [field for _, file in self._tables for field in file.schema]
        return pa.schema({field.name: field for field in reversed(fields)}[name] for name in self._owners)

    def columns_of(self, step: StepName) -> list[str]:
        """The columns of one table, in its order."""
        return next((file.schema.names for name, file in self._tables if name == step), [])

    def read(self, columns: Sequence[str] = (), batch_rows: int = READ_ROWS) -> Iterator[pa.RecordBatch]:
        """Yield the rows, with the key and some other columns; rows without a score are left out.

        Raises:
            KeyError: no table has a column.
            StateError: rows that lie side by side have different keys.
        """
        wanted = [name for name in dict.fromkeys(columns) if name != self._key]
        if unknown := [name for name in wanted if name not in self._owners]:
            raise KeyError(", ".join(unknown))
        read = {step: [self._key] for step, _ in self._tables}
        for name in wanted:
            read[self._owners[name]].append(name)
        decided = None
        if self._decisions and len(read["decisions"]) > 1:
            decided = _Rows(_read(self._decisions, read["decisions"], batch_rows))
        for file in self._predictions:
            besides = [decided] if decided else []
            if len(read.get("validated_features", ())) > 1:
                besides.append(_Rows(self._scored_features(file, read["validated_features"], batch_rows)))
            for batch in filter(len, _read(file, read["predictions"], batch_rows)):
                beside = [part for rows in besides if (part := rows.take(batch.num_rows))]
                parts, keys = [batch, *beside], batch.column(self._key)
                if len(beside) < len(besides) or any(not part.column(self._key).equals(keys) for part in parts):
                    raise self._apart("rows of its tables that lie side by side have different keys")
                found = {name: part.column(name) for part in parts for name in part.schema.names}
                yield pa.RecordBatch.from_pydict({name: found[name] for name in (self._key, *wanted)})

    @functools.cached_property
    def _tables(self) -> list[tuple[StepName, _File]]:
        """The first file of each table, in the order in which columns are looked up."""
        first = self._predictions[0]
        tables: list[tuple[StepName, _File | None]] = [
            ("decisions", self._decisions),
            ("predictions", first),
            ("validated_features", self._features.get(first.stats.source)),
        ]
        return [(step, file) for step, file in tables if file]

    @functools.cached_property
    def _owners(self) -> dict[str, StepName]:
        """The table of every column."""
        found: dict[str, StepName] = {self._key: "predictions"}
        for step, file in self._tables:
            for name in file.schema.names:
                found.setdefault(name, step)
        return found

    def _scored_features(self, predictions: _File, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
        """The features of the rows that have a score."""
        features = self._features[predictions.stats.source]
        batches = _read(features, columns, batch_rows)
        if predictions.stats.rows == features.stats.rows:
            yield from batches
            return
        scored = pa.chunked_array(
            [batch.column(self._key) for batch in _read(predictions, [self._key], batch_rows)],
            predictions.schema.field(self._key).type,
        )
        for batch in batches:
            yield batch.filter(pc.is_in(batch.column(self._key), value_set=scored))

    def _apart(self, why: str) -> StateError:
        return StateError(f"{self._where}: {why}; run the day again")


def why_apart(features: PublishedDay | None, predictions: PublishedDay, decisions: PublishedDay | None) -> str:
    """Why what is published of a day does not belong together; empty if it does, or if that is not asked."""
    digests = {shard.digest for shard in features.shards} if features else set()
    if features and any(shard.source not in digests for shard in predictions.shards):
        return "its predictions were scored from other features than those that are published"
    if decisions and not freshness.are_of(decisions, predictions):
        return "its decisions are not about the predictions that are published"
    return ""


class _Rows:
    """Batches of one file, taken in batches of another's size."""

    def __init__(self, batches: Iterator[pa.RecordBatch]) -> None:
        self._batches = batches
        self._left: list[pa.RecordBatch] = []

    def take(self, count: int) -> pa.RecordBatch | None:
        """The next rows; fewer if there are no more, None if there are none."""
        while sum(batch.num_rows for batch in self._left) < count:
            batch = next(self._batches, None)
            if batch is None:
                break
            self._left.append(batch)
        if not self._left:
            return None
        rows = pa.Table.from_batches(self._left)
        self._left = rows.slice(count).to_batches()
        taken = rows.slice(0, count).combine_chunks()
        return pa.RecordBatch.from_arrays([_whole(column) for column in taken.columns], names=taken.column_names)


def _whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _files(folder: Folder, published: PublishedDay) -> list[_File]:
    """The files of a published day, in the order of its shards."""
    by_identity = {shards.identity_of(path): path for path in published.table.files}
    return [_File(stats, folder, by_identity[f"dt={published.day}/{stats.digest}"]) for stats in published.shards]


def _read(file: _File, columns: list[str], batch_rows: int) -> Iterator[pa.RecordBatch]:
    return shards.read(file.folder, file.path, columns, batch_rows=batch_rows)
