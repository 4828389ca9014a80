"""The rows of an export: those that its rule selects, in its order, with its columns.

With an order or a maximum number of rows, the whole selection is sorted in memory. Otherwise rows are sorted by key,
a million at a time, so memory stays flat as a day grows; databases store sorted rows twice as fast.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batch_scoring.config.delivery_spec import Export, RedisExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.rules.expressions import Rule
from batch_scoring.config.validation.spec_validation import schema_columns
from batch_scoring.delivery.day_rows import DayRows
from batch_scoring.delivery.exports.expiry import why_gone
from batch_scoring.delivery.exports.published import Published
from batch_scoring.errors import SinkRefusedError
from batch_scoring.storage.parquet import READ_ROWS
from batch_scoring.storage.state import PublishedDay

SORTED_ROWS = 2**20
"""Rows that are sorted at a time, if no order is given."""

OF_FEATURES = ("source_file", "row_number")
"""Columns of the features table that no spec names."""

Mask = Callable[[pa.RecordBatch], pa.BooleanArray]


@dataclass(frozen=True)
class Selection:
    """The selected rows of a day."""

    rows: DayRows
    schema: pa.Schema
    """Of the exported columns, in their order."""
    sort_keys: Sequence[tuple[str, str]]
    """Columns to sort by, each `ascending` or `descending`."""
    is_whole: bool = False
    """Whether all rows are sorted together."""
    most: int | None = None
    where: Mask | None = None
    """Which rows of a batch are selected: those for which it is true, neither false nor null."""
    read_besides: Sequence[str] = ()
    """Columns that `where` and the order need beside the exported ones."""

    def read(self) -> Iterator[pa.RecordBatch]:
        """Read the rows from the beginning."""
        for table in self._sorted():
            for batch in table.select(self.schema.names).to_batches(max_chunksize=READ_ROWS):
                yield pa.RecordBatch.from_arrays(batch.columns, schema=self.schema)

    def _sorted(self) -> Iterator[pa.Table]:
        """Sorted tables, one after the other; a single one if all rows are sorted together."""
        waiting: list[pa.RecordBatch] = []
        limit = SORTED_ROWS + 2 * (self.most or 0)
        for batch in self._selected():
            waiting.append(batch)
            if sum(map(len, waiting)) < limit:
                continue
            if not self.is_whole:
                yield self._in_order(waiting)
                waiting = []
            elif self.most is not None:
                waiting = self._in_order(waiting).to_batches()
        if waiting:
            yield self._in_order(waiting)

    def _selected(self) -> Iterator[pa.RecordBatch]:
        for batch in self.rows.read([*self.schema.names, *self.read_besides]):
            yield batch.filter(self.where(batch)) if self.where else batch

    def _in_order(self, batches: Sequence[pa.RecordBatch]) -> pa.Table:
        ranked = pa.Table.from_batches(batches).sort_by(list(self.sort_keys))
        return ranked if self.most is None else ranked.slice(0, self.most)


def select(pipeline: Pipeline, name: str, published: Published) -> Selection:
    """The rows of an export.

    Args:
        pipeline: whose export.
        name: of the export in the spec.
        published: what is published of the day.

    Raises:
        RuleError: `where` cannot be read, or does not fit the columns.
        SinkRefusedError: a column does not exist, or retention has removed rows that the export reads.
        StateError: the tables of the day do not belong together.
    """
    export, key = pipeline.spec.exports[name], pipeline.spec.input.key
    order, direction = export.order.removeprefix("-"), "descending" if export.order.startswith("-") else "ascending"
    rule = _rule(export, name)
    besides = [key, *([order] if order else ()), *(rule.names if rule else ())]
    rows = _rows(pipeline, published, [*named_columns(export), *besides])
    known = rows.schema
    columns = named_columns(export) or rows.columns_of(export.of)
    for column in (*columns, *([order] if order else ())):
        if column not in known.names:
            raise SinkRefusedError(
                f"exports.{name}: no column {column!r} in the rows of {export.of}; there are: {', '.join(known.names)}"
            )
    return Selection(
        rows,
        pa.schema([pa.field(column, known.field(column).type) for column in columns]),
        [(order, direction), (key, "ascending")] if order and order != key else [(key, direction)],
        is_whole=bool(order) or export.most is not None,
        most=export.most,
        where=rule.bind(known) if rule else None,
        read_besides=besides,
    )


def _rows(pipeline: Pipeline, published: Published, columns: Sequence[str]) -> DayRows:
    """The rows of a day; features are looked up only if a column is in no other table."""
    _refuse_if_gone(pipeline, published.decisions)
    rows = DayRows(pipeline, None, published.predictions, published.decisions)
    if published.features is None or set(columns) <= set(rows.schema.names):
        return rows
    _refuse_if_gone(pipeline, published.features)
    return DayRows(pipeline, published.features, published.predictions, published.decisions)


def _refuse_if_gone(pipeline: Pipeline, published: PublishedDay | None) -> None:
    if why := why_gone(pipeline, [published]):
        raise SinkRefusedError(why)


def reads_features(pipeline: Pipeline, name: str) -> bool:
    """Whether an export needs columns that no table has but that of the features."""
    spec, export = pipeline.spec, pipeline.spec.exports[name]
    rule = _rule(export, name)
    mentioned = {*named_columns(export), export.order.removeprefix("-"), *(rule.names if rule else ())}
    columns = spec.features.validated(schema_columns(spec, pipeline.folder) or ())
    return not mentioned.isdisjoint({*columns, *spec.input.attributes, *OF_FEATURES})


def named_columns(export: Export) -> tuple[str, ...]:
    """The columns that the spec names, each once; empty for all of the exported table."""
    return tuple(dict.fromkeys((export.key, export.value))) if isinstance(export, RedisExport) else export.columns


def _rule(export: Export, name: str) -> Rule | None:
    return Rule.parse(export.where, f"exports.{name}.where") if export.where else None
