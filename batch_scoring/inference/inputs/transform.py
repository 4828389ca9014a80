"""Features made from columns: the pipeline's own function, called with record batches in training as in scoring.

    def transform(rows: pa.RecordBatch, fitted: dict) -> dict:     # rows: pd.DataFrame gives it a pandas frame

It gets the raw columns, always the same ones in the same types, and what `fit` has learned (`fitted.py`); it returns a
column for each engineered feature. A row for which it raises is found by halves. `acceptance/functions/transforms.py`
proves that what it gives for a row depends on that row alone.
"""

import contextlib
import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import ScoringError, is_out_of_memory
from batch_scoring.inference.inputs.fitted import Fitted
from batch_scoring.inference.manifest import BrokenRow, Transformed

if TYPE_CHECKING:
    import pandas as pd

Function = Callable[[Any, Any], object]
Form = Literal["RecordBatch", "Table", "DataFrame"]
"""What the function gets: the class's name."""

NAME = "features.transform"
"""The function as messages name it: by the field of the spec."""

MOST_RAISING = 100
"""Rows of one record batch for which it may raise; more of them mean a broken function, not broken rows."""


Rules = Callable[[pa.RecordBatch], list[BrokenRow]]
"""Rules about engineered columns: which rows break one."""


@dataclass(frozen=True)
class Transform:
    """A function with its fitted state and the columns it gets and gives."""

    function: Function
    fitted: Fitted
    reads: pa.Schema
    """The raw columns, in the order and the types in which the function gets them."""
    gives: pa.Schema
    """The engineered columns."""
    rules: Rules | None = None

    @classmethod
    def learn(cls, function: Function, fitted: Fitted, rows: pa.Table, rules: Rules | None = None) -> Self:
        """Learn which columns the function gives, from rows of the training data.

        Raises:
            ScoringError: it raises for one of them, or what it returns are no columns.
        """
        first = cls(function, fitted, plain(rows.schema), pa.schema([]), rules)
        made, raising = first.run(whole(rows), typed=False)
        if raising:
            row = raising[0]
            raise ScoringError(f"{NAME} raises for row {row.position}: {row.detail}")
        return cls(function, fitted, first.reads, made.schema, rules)

    def apply(self, batch: pa.RecordBatch) -> Transformed:
        """Add the engineered columns to rows; rows for which that fails are left out and named.

        Raises:
            ScoringError: a raw column is missing; the function returns other columns, types or rows than it should, or
                raises for more than `MOST_RAISING` rows.
        """
        engineered, broken = self.run(batch)
        positions = np.delete(np.arange(batch.num_rows), [row.position for row in broken])
        if self.rules and engineered.num_rows:
            wrong = self.rules(engineered)
            engineered = engineered.take(_others(engineered.num_rows, wrong))
            broken = sorted([*broken, *(row._replace(position=int(positions[row.position])) for row in wrong)])
            positions = np.delete(np.arange(batch.num_rows), [row.position for row in broken])
        kept = batch.take(pa.array(positions)) if broken else batch
        others = [name for name in kept.schema.names if name not in self.gives.names]
        rows = pa.RecordBatch.from_arrays(
            [*(kept.column(name) for name in others), *engineered.columns], names=[*others, *engineered.schema.names]
        )
        return Transformed(rows, positions, tuple(broken))

    def applied(self, rows: pa.Table) -> pa.Table:
        """A small table with its engineered columns.

        Raises:
            ScoringError: see `apply`; or one of the rows has none.
        """
        found = self.apply(whole(rows))
        for row in found.broken:
            what = f"{row.column} breaks {row.rule}" if row.column else f"{NAME} raises"
            raise ScoringError(f"{what} in row {row.position}: {row.detail}")
        return pa.Table.from_batches([found.rows])

    def run(self, batch: pa.RecordBatch, *, typed: bool = True) -> tuple[pa.RecordBatch, list[BrokenRow]]:
        """The engineered columns alone, of the rows for which the function does not raise; and the other rows.

        Args:
            batch: with the raw columns.
            typed: whether the columns have to be those of `gives`.

        Raises:
            ScoringError: see `apply`.
        """
        broken: list[BrokenRow] = []
        made = self._halved(self._input(batch), 0, broken)
        parts = [self._as_known(part) if typed else part for part in made]
        if not parts:
            return pa.RecordBatch.from_pylist([], schema=self.gives), broken
        try:
            return (parts[0] if len(parts) == 1 else pa.concat_batches(parts)), broken
        except pa.ArrowInvalid as error:  # they are apart because of a row that raises
            raise ScoringError(f"{NAME} returned other columns or types for some rows: {_summary(error)}") from error

    def _halved(self, rows: pa.RecordBatch, start: int, broken: list[BrokenRow]) -> Iterator[pa.RecordBatch]:
        if not rows.num_rows:
            return
        try:
            result = self.function(_in_form(rows, form_of(self.function)), self.fitted)
        except Exception as error:  # whatever a user's function may raise
            if is_out_of_memory(error):
                raise  # the machine's fault, not the row's
            if rows.num_rows > 1:
                half = rows.num_rows // 2
                yield from self._halved(rows.slice(0, half), start, broken)
                yield from self._halved(rows.slice(half), start + half, broken)
                return
            broken.append(BrokenRow(start, "transform_raises", "", _summary(error)))
            if len(broken) > MOST_RAISING:
                raise ScoringError(
                    f"{NAME} raises for more than {MOST_RAISING} rows of a record batch: the function is at fault; "
                    f"for one of them: {broken[0].detail}"
                ) from error
            return
        yield columns_of(result, rows)

    def _input(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """The raw columns, in their types: without dictionaries, for example."""
        if absent := [name for name in self.reads.names if name not in batch.schema.names]:
            raise ScoringError(f"the input has no column {', '.join(absent)}, which {NAME} gets")
        return pa.RecordBatch.from_arrays([_cast(batch, field) for field in self.reads], schema=self.reads)

    def _as_known(self, made: pa.RecordBatch) -> pa.RecordBatch:
        """The columns in their order and types.

        Raises:
            ScoringError: they are others.
        """
        if set(made.schema.names) != set(self.gives.names):
            raise ScoringError(
                f"{NAME} returned the columns {', '.join(made.schema.names)}; expected {', '.join(self.gives.names)}"
            )
        return pa.RecordBatch.from_arrays([_typed(made, field) for field in self.gives], schema=self.gives)


def form_of(function: Function) -> Form:
    """What a function gets, by the annotation of its first parameter.

    Raises:
        ScoringError: it does not take the rows and the fitted state.
    """
    try:
        parameters = list(inspect.signature(function).parameters.values())
        first, _ = (each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD))
    except (TypeError, ValueError):
        raise ScoringError(f"{NAME} takes other parameters; expected def transform(rows, fitted)") from None
    if first.annotation is first.empty:
        return "RecordBatch"
    written = getattr(first.annotation, "__name__", str(first.annotation)).rpartition(".")[2]
    known: dict[str, Form] = {"RecordBatch": "RecordBatch", "Table": "Table", "DataFrame": "DataFrame"}
    if written not in known:
        raise ScoringError(
            f"{NAME}: {first.name} is annotated as {written}; expected pa.RecordBatch, pa.Table or pd.DataFrame"
        )
    return known[written]


def columns_of(result: object, rows: pa.RecordBatch) -> pa.RecordBatch:
    """What a function returned for some rows, as columns of equal length; NaN is a missing value.

    Raises:
        ScoringError: they are no columns, or not one value for each row.
    """
    found = dict(_named(result))
    if not found:
        raise ScoringError(f"{NAME} returned no columns; expected the engineered features by name")
    if same := [name for name in found if name in rows.schema.names]:
        raise ScoringError(
            f"{NAME} returned {', '.join(same)}, which the rows have already; expected the new columns alone, under "
            "names of their own"
        )
    arrays = [_array(name, values) for name, values in found.items()]
    for name, array in zip(found, arrays, strict=True):
        if len(array) != rows.num_rows:
            raise ScoringError(
                f"{NAME} returned {len(array)} values of {name} for {rows.num_rows} rows: it drops or repeats rows; "
                "expected a value or null for each"
            )
    return pa.RecordBatch.from_arrays(arrays, names=list(found))


def plain(columns: pa.Schema) -> pa.Schema:
    """The same columns as a function gets them: texts of one type, and nothing encoded."""
    return pa.schema([pa.field(field.name, _plain_type(field.type)) for field in columns])


def _plain_type(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_dictionary(kind):
        return _plain_type(kind.value_type)
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def whole(rows: pa.Table) -> pa.RecordBatch:
    """A small table as one record batch."""
    batches = rows.combine_chunks().to_batches()
    return batches[0] if batches else pa.RecordBatch.from_pylist([], schema=rows.schema)


def _named(result: object) -> Iterator[tuple[str, object]]:
    """Columns by name, from any of the forms that a function may return."""
    if isinstance(result, Mapping):
        yield from result.items()
    elif isinstance(result, pa.Table | pa.RecordBatch) or type(result).__name__ == "DataFrame":
        names = list(result.schema.names if isinstance(result, pa.Table | pa.RecordBatch) else result.columns)  # type: ignore[attr-defined]
        if twice := sorted({str(name) for name in names if names.count(name) > 1}):
            raise ScoringError(f"{NAME} returned two columns {', '.join(twice)}")
        yield from ((name, result[name]) for name in names)  # type: ignore[index]
    else:
        raise ScoringError(
            f"{NAME} returned a {type(result).__name__}; expected a dict of columns, a DataFrame, RecordBatch or Table"
        )


def _array(name: object, values: object) -> pa.Array:
    """A column as an Arrow array, in plain types."""
    if not isinstance(name, str):
        raise ScoringError(f"{NAME} returned a column named {name!r}; expected text")
    if isinstance(values, np.ndarray) and values.ndim != 1:
        raise ScoringError(f"{NAME} returned {name} with the shape {values.shape}; expected one value for each row")
    if isinstance(values, str | bytes) or not hasattr(values, "__len__"):
        raise ScoringError(f"{NAME} returned the {type(values).__name__} {name}; expected a column of all rows' values")
    try:
        found = values if isinstance(values, pa.Array | pa.ChunkedArray) else pa.array(values, from_pandas=True)
        if isinstance(found, pa.ChunkedArray):
            found = found.combine_chunks()
        found = found.cast(_plain_type(found.type))
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise ScoringError(f"{NAME} returned {name}, which is no column of one type: {_summary(error)}") from error
    if pa.types.is_floating(found.type) and pc.any(pc.is_nan(found)).as_py():
        return pc.if_else(pc.is_nan(found), pa.scalar(None, found.type), found)
    return found


def _typed(made: pa.RecordBatch, field: pa.Field) -> pa.Array:
    """A column in its recorded type.

    It may have come out as another one if it has no value, or if all of its numbers are the same in both types: a
    missing value, such as no training row had, turns integers into floats in pandas.
    """
    values = made.column(field.name)
    if values.type == field.type:
        return values
    if values.null_count == len(values):
        return pa.nulls(len(values), field.type)
    if all(pa.types.is_integer(kind) or pa.types.is_floating(kind) for kind in (values.type, field.type)):
        with contextlib.suppress(pa.ArrowInvalid):
            return values.cast(field.type)
    raise ScoringError(
        f"{NAME} returned {field.name} as {values.type}, and when the bundle was written as {field.type}: give the "
        "column one type, whatever its values are"
    )


def _cast(batch: pa.RecordBatch, field: pa.Field) -> pa.Array:
    values = batch.column(field.name)
    if values.type == field.type:
        return values
    try:
        return values.cast(field.type)
    except pa.ArrowException as error:
        raise ScoringError(
            f"column {field.name} is {values.type}, and {NAME} has got it as {field.type} when the bundle was written: "
            f"{_summary(error)}"
        ) from error


def _in_form(rows: pa.RecordBatch, form: Form) -> "pa.RecordBatch | pa.Table | pd.DataFrame":
    if form == "RecordBatch":
        return rows
    if form == "Table":
        return pa.Table.from_batches([rows])
    # integers and booleans have pandas' own types, which stay the same whether or not a value is missing
    return rows.to_pandas(types_mapper=_stable_types().get, date_as_object=False, use_threads=False)


def _stable_types() -> "dict[pa.DataType, Any]":
    import pandas as pd

    return {
        pa.bool_(): pd.BooleanDtype(),
        pa.int8(): pd.Int8Dtype(),
        pa.int16(): pd.Int16Dtype(),
        pa.int32(): pd.Int32Dtype(),
        pa.int64(): pd.Int64Dtype(),
        pa.uint8(): pd.UInt8Dtype(),
        pa.uint16(): pd.UInt16Dtype(),
        pa.uint32(): pd.UInt32Dtype(),
        pa.uint64(): pd.UInt64Dtype(),
    }


def _others(rows: int, broken: list[BrokenRow]) -> pa.Array:
    return pa.array(np.delete(np.arange(rows), [row.position for row in broken]))


def _summary(error: Exception) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())}"[:500]
