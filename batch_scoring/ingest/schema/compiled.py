"""A pandera model, compiled to check typed columns: the types that it declares, and which rows break a rule.

Everything that a schema checks besides types, missing values and NaN is decided here by pandera, or by Arrow where
that proves that pandera would accept a whole batch.
"""

import contextlib
import copy
import functools
import re
import threading
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from batch_scoring.errors import ContractError
from batch_scoring.ingest.schema import options
from batch_scoring.ingest.schema.arrow_checks import answers

if TYPE_CHECKING:
    import pandas as pd
    import pandera.pandas


@dataclass(frozen=True)
class Column:
    """A column that the schema requires."""

    name: str
    type: pa.DataType
    nullable: bool
    coerce: bool = False
    """Whether a value of another kind is accepted if it is exactly representable in the type."""
    naive: bool = False
    """For a timestamp: the schema declares it without a time zone and compares it as such. It is taken as UTC."""


class CompiledSchema:
    """The columns and rules of a pandera model."""

    def __init__(self, model: Any, where: str) -> None:  # noqa: ANN401  (a class of the user's)
        """Compile the model and reject settings that cannot be decided for one row alone.

        Args:
            model: the pandera model.
            where: its name, for messages.

        Raises:
            ContractError: names the check or column and what is accepted.
        """
        self._where = where
        try:
            schema = model.to_schema()
        except Exception as error:  # pandera raises whatever a user's class raises
            raise ContractError(f"{where} is not a schema: {type(error).__name__}: {error}") from error
        if fault := next(options.refused(schema, model), None):
            raise ContractError(f"{where}{fault}")
        self._bytes = _declared_bytes(model)
        self.columns = {
            name: self._column(name, column, bool(schema.coerce)) for name, column in schema.columns.items()
        }
        self._checks = {
            name: [_of_all_rows(check) for check in column.checks]
            for name, column in schema.columns.items()
            if column.checks
        }
        self._pandera = threading.Lock()  # neither pandera nor users' checks are thread-safe
        self._answers = {name: answers(schema.columns[name].checks, self.columns[name].type) for name in self._checks}

    def broken(self, table: pa.RecordBatch) -> Iterator[tuple[str, str, np.ndarray]]:
        """Yield the rows of `table` that fail a check, with its column and name, as decided by pandera."""
        if not table.num_rows:
            return
        for name, checks in self._checks.items():
            values = table.column(name)
            if self._passes(name, values):
                continue
            present = np.flatnonzero(values.is_valid().to_numpy(zero_copy_only=False))
            missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
            series = self._series(name, values.drop_null(), present)
            for check in checks:
                failed = self._failed(check, series)
                # without missing values, which would turn integers into floats in pandas
                if not check.ignore_na and len(missing) and len(self._failed(check, self._missing(name))):
                    failed = np.sort(np.concatenate([failed, missing]))
                if len(failed):
                    yield name, str(check.error or check.name), failed

    def _failed(self, check: "pandera.pandas.Check", values: "pd.Series[Any]") -> np.ndarray:
        """Return the labels of the values that fail a check.

        Raises:
            ContractError: the check does not return a result for each value.
        """
        if not len(values):
            return np.zeros(0, np.int64)
        try:
            with self._pandera:
                result = check(values)
            if result.check_passed:
                return np.zeros(0, np.int64)
            if result.failure_cases is None:
                raise TypeError(
                    f"it returned {len(result.check_output)} results that do not match the {len(values)} values"
                )
        except MemoryError:
            raise
        except Exception as error:  # whatever a user's check may raise
            raise ContractError(
                f"{self._where}: the check {check.error or check.name} on {values.name} did not return one result "
                f"per row ({error!r}); expected a check that returns a bool for every element"
            ) from error
        labels: np.ndarray = result.failure_cases.index.to_numpy()
        return labels

    def _passes(self, name: str, values: pa.Array) -> bool:
        """Whether Arrow can decide that every value of a column passes its checks."""
        found = self._answers[name]
        return found is not None and all(answer(values) for answer in found)

    def _series(self, name: str, values: pa.Array, labels: np.ndarray) -> "pd.Series[Any]":
        """Return values as pandera alone would see them."""
        if self.columns[name].naive:
            values = values.cast(pa.timestamp("us"))
        series: pd.Series[Any] = values.to_pandas()
        series.index, series.name = labels, name
        return series

    def _missing(self, name: str) -> "pd.Series[Any]":
        """Return one missing value, as pandas represents it in a column of its own."""
        kind = self.columns[name].type
        return self._series(name, pa.nulls(1, pa.float64() if pa.types.is_integer(kind) else kind), np.zeros(1, int))

    def _column(self, name: str, column: "pandera.pandas.Column", coerce: bool) -> Column:
        if column.dtype is None:
            raise ContractError(f"{self._where}: {name} has no type; expected int, float, str, bool or datetime")
        kind = pa.binary() if name in self._bytes else _arrow_type(str(column.dtype))
        if kind is None:
            raise ContractError(
                f"{self._where}: {name} is {column.dtype}; expected int, float, str, bool, datetime, "
                "list[float] or bytes"
            )
        naive = bool(re.match(r"datetime64\[\w+\]", str(column.dtype)))
        return Column(name, kind, bool(column.nullable), coerce or bool(column.coerce), naive)


def _of_all_rows(check: "pandera.pandas.Check") -> "pandera.pandas.Check":
    """Return the check, changed to report every failing row and to fail if it does not return one result per row."""
    import pandas as pd

    decide = check._check_fn

    @functools.wraps(decide)
    def decided(values: Any, *args: Any, **settings: Any) -> Any:  # noqa: ANN401  (a user's check)
        answer = decide(values, *args, **settings)
        if isinstance(values, pd.Series) and len(np.shape(answer)) != 1:
            raise TypeError(f"it returned {answer!r} for {len(values)} rows")
        return answer

    complete = copy.copy(check)
    complete.n_failure_cases = None
    complete._check_fn = decided
    return complete


def _declared_bytes(model: Any) -> set[str]:  # noqa: ANN401  (a class of the user's)
    """The columns that a model declares as bytes: to pandas they are objects, as texts may be."""
    hints: dict[str, Any] = {}
    with contextlib.suppress(Exception):  # names that cannot be resolved: pandera decides what the types are
        hints = typing.get_type_hints(model)
    return {name for name, hint in hints.items() if hint is bytes or bytes in typing.get_args(hint)}


def _arrow_type(name: str) -> pa.DataType | None:
    """Return the Arrow type for a pandera type, by its name. Delta has no unsigned integers."""
    name = name.lower()
    if match := re.match(r"int(8|16|32|64)", name):
        return {"8": pa.int8(), "16": pa.int16(), "32": pa.int32(), "64": pa.int64()}[match[1]]
    if match := re.match(r"float(16|32|64)", name):
        return pa.float64() if match[1] == "64" else pa.float32()
    if name.startswith(("str", "object", "category", "large_string")):
        return pa.string()
    if match := re.fullmatch(r"(?:typing\.)?list\[(float|int)\]", name):
        return pa.list_(pa.field("element", pa.float64() if match[1] == "float" else pa.int64()))
    if name.startswith("bool"):
        return pa.bool_()
    if name.startswith(("datetime", "timestamp")):
        return pa.timestamp("us", "UTC")
    return pa.date32() if name.startswith("date") else None
