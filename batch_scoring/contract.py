"""The contract on input rows: the pipeline's pandera schema, decided row by row.

Types are enforced here in Arrow: a missing or retyped column stops the day, a cell that does not fit its type is a
rejected row. Nullability, NaN and infinity are masks. All that a schema checks beyond that, pandera decides.
"""

import contextlib
import copy
import functools
import math
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.bounds import answers
from batch_scoring.pipeline import Pipeline
from batch_scoring.printable import one_line

if TYPE_CHECKING:
    import pandera.pandas

_TEXT_CHECKS = frozenset(
    {"isin", "notin", "str_matches", "str_contains", "str_startswith", "str_endswith", "str_length"}
)
"""pandera's checks that give the same answer, only faster, for a dictionary-encoded column."""

Stage = Literal["read", "schema", "rule", "duplicate", "score"]


class ContractError(ValueError):
    """The schema cannot be applied row by row, or a file has not the columns that it demands: the day stops."""


@dataclass(frozen=True)
class Reason:
    """Why a row is rejected: the first of its faults."""

    stage: Stage
    rule: str
    column: str
    value: str | None


@dataclass(frozen=True)
class Column:
    """A column that the schema demands."""

    name: str
    type: pa.DataType
    nullable: bool
    naive: bool = False
    """Of a timestamp: the schema declares it without a time zone, and compares it with such. It is taken as UTC."""


@dataclass(frozen=True)
class Verdict:
    """What the contract says of a record batch."""

    accepted: pa.RecordBatch
    """Rows that meet it, typed: the key, then the features."""
    positions: np.ndarray
    """int64: where in the batch each accepted row stood."""
    rejected: dict[int, Reason]
    """By position in the batch."""


class Contract:
    """A pipeline's schema, ready to judge record batches."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Load the schema and refuse what cannot be decided for one row alone.

        Raises:
            ContractError: naming the check or column and what is accepted.
        """
        spec = pipeline.spec
        self._where = f"{pipeline.name}: {spec.features.contract}"
        self._delimiter = spec.input.csv.delimiter
        model = pipeline.load(spec.features.contract)
        try:
            schema = model.to_schema()
        except Exception as error:  # pandera raises what it meets in a user's class
            raise ContractError(f"{self._where} is no schema: {type(error).__name__}: {error}") from error
        self._refuse_whole_frame_checks(schema)
        self.key = spec.input.key
        self._kept = (self.key, *spec.features.names)
        if unknown := [name for name in self._kept if name not in schema.columns]:
            raise ContractError(f"{self._where} has no column {', '.join(unknown)}, which the spec names")
        self.columns = {name: self._column(name, column) for name, column in schema.columns.items()}
        for name in spec.features.numeric:
            kind = self.columns[name].type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise ContractError(
                    f"{self._where}: {name} is {kind} but numeric in the spec; expected int, float or bool"
                )
        self._encoded = {
            name
            for name in spec.features.categorical
            if all(check.name in _TEXT_CHECKS for check in schema.columns[name].checks)
        }
        self._checks = self._checks_only(schema)
        self._pandera = threading.Lock()  # neither pandera nor a user's checks are made for several threads
        self._answers = {name: answers(schema.columns[name].checks, self.columns[name].type) for name in self._checks}

    @functools.cached_property
    def arrow_schema(self) -> pa.Schema:
        """Of accepted rows: the key and the features."""
        kept = (self.columns[name] for name in self._kept)
        return pa.schema([pa.field(c.name, c.type, c.nullable and c.name != self.key) for c in kept])

    def unexpected(self, schema: pa.Schema, where: str, *, is_text: bool) -> list[str]:
        """Columns of a file that the contract does not know; they are reported and ignored.

        Raises:
            ContractError: a column is missing or of another kind than the contract's.
        """
        if missing := [name for name in self.columns if name not in schema.names]:
            hint = ""
            if is_text and len(schema.names) == 1:
                hint = f" (one column: is input.csv.delimiter {self._delimiter!r} in the spec the right one?)"
            elif is_text and len(missing) == len(self.columns):
                hint = " (none of them: is the header line missing?)"
            raise ContractError(
                f"{where} has no column {', '.join(missing)}, which {self._where} demands; "
                f"it has {', '.join(schema.names)}{hint}: upload the file with all columns, or change the schema"
            )
        if not is_text:
            for column in self.columns.values():
                found = schema.field(column.name).type
                if not _fits(found, column.type):
                    raise ContractError(
                        f"{where}: column {column.name} is {found}, {self._where} expects {column.type}; "
                        "upload the file with the declared type, or change the schema"
                    )
        return [name for name in schema.names if name not in self.columns]

    def judge(self, batch: pa.RecordBatch, *, is_text: bool) -> Verdict:
        """Split a record batch into accepted rows, typed, and rejected ones with their reasons; in any thread."""
        rejected: dict[int, Reason] = {}
        typed: dict[str, pa.Array] = {}
        for column in self.columns.values():
            values = batch.column(column.name)
            if is_text:
                values = self._decode(values, column.name, rejected)
            elif pa.types.is_string(column.type):
                values = self._valid_text(values, column.name, rejected)
            typed[column.name] = values = self._cast(values, column, rejected)
            if values.null_count and (not column.nullable or column.name == self.key):
                for row in np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False)):
                    rejected.setdefault(int(row), Reason("rule", "not_nullable", column.name, None))
            if pa.types.is_floating(values.type):
                finite = pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
                for row in np.flatnonzero(~finite):
                    reason = Reason("rule", "is_finite", column.name, shown(values, int(row)))
                    rejected.setdefault(int(row), reason)
        table = pa.RecordBatch.from_pydict(typed)
        positions = _without(np.arange(batch.num_rows), rejected)
        if rejected:
            table = table.take(pa.array(positions))
        failures = {int(positions[row]): reason for row, reason in self._broken_rules(table)}
        if failures:
            kept = np.flatnonzero(~np.isin(positions, list(failures)))
            table, positions = table.take(pa.array(kept)), positions[kept]
        accepted = pa.RecordBatch.from_arrays(table.select(self._kept).columns, schema=self.arrow_schema)
        return Verdict(accepted, positions, rejected | failures)

    def _decode(self, values: pa.Array, name: str, rejected: dict[int, Reason]) -> pa.Array:
        """Bytes to text; a row that is not UTF-8 is rejected."""
        with contextlib.suppress(pa.ArrowInvalid):
            return values.cast(pa.string())
        reasons = _by_halves(values, lambda part: part.cast(pa.string()))
        for row in reasons:
            text = values[row].as_py().decode("utf-8", "backslashreplace")
            rejected.setdefault(row, Reason("read", "is_utf8", name, text))
        return _blanked(values, reasons).cast(pa.string())

    def _valid_text(self, values: pa.Array, name: str, rejected: dict[int, Reason]) -> pa.Array:
        """Text of a Parquet file, which nobody has looked at so far: a row that is not UTF-8 is rejected."""
        try:
            values.validate(full=True)
        except pa.ArrowInvalid:
            plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
            return self._decode(plain.cast(pa.binary()), name, rejected)
        return values

    def _cast(self, values: pa.Array, column: Column, rejected: dict[int, Reason]) -> pa.Array:
        """To the contract's type; a row whose cell does not fit is rejected."""
        if values.type == column.type:
            return values
        if pa.types.is_dictionary(values.type):
            values = values.dictionary_decode()
        is_text = pa.types.is_string(values.type) and not pa.types.is_string(column.type)
        is_plain = is_text and _is_plain(values)
        if is_text and not is_plain:
            values = pc.utf8_trim_whitespace(values)
        # a number is rounded to float32 or float64, nanoseconds to microseconds; never text
        is_rounded = pa.types.is_floating(column.type) or (
            pa.types.is_timestamp(values.type) and values.type.unit == "ns"
        )
        safe = is_text or not is_rounded

        def cast(part: pa.Array) -> pa.Array:
            if is_text and pa.types.is_timestamp(column.type):
                part = _in_utc(part)
            if is_text and not is_plain and pa.types.is_integer(column.type):
                part = _decimal(part)
            return part.cast(column.type, safe=safe)

        with contextlib.suppress(pa.ArrowInvalid):
            return cast(values)
        misfits = _by_halves(values, cast)
        for row in misfits:
            rejected.setdefault(row, Reason("schema", f"is_{column.type}", column.name, shown(values, row)))
        return cast(_blanked(values, misfits))

    def _broken_rules(self, table: pa.RecordBatch) -> Iterator[tuple[int, Reason]]:
        """The first check that each row fails, by position in `table`, as pandera decides it."""
        if not table.num_rows:
            return
        suspects = [name for name in self._checks if not self._passes(name, table.column(name))]
        if not suspects:
            return
        import pandera.errors
        import pandera.pandas

        arrays = [self._for_pandera(name, table.column(name)) for name in suspects]
        frame = pa.RecordBatch.from_arrays(arrays, names=suspects).to_pandas()
        try:
            with self._pandera:
                schema = pandera.pandas.DataFrameSchema({name: self._checks[name] for name in suspects})
                schema.validate(frame, lazy=True)
        except pandera.errors.SchemaErrors as error:
            cases = error.failure_cases
            if cases["index"].isna().any():
                case = cases[cases["index"].isna()].iloc[0]
                raise ContractError(
                    f"{self._where}: the check {case['check']} on {case['column']} gave no answer a row "
                    f"({case['failure_case']}); expected one that returns a bool for every element"
                ) from error
            done = set()
            for column, check, row in cases[["column", "check", "index"]].itertuples(index=False):
                if row not in done:
                    done.add(row)
                    yield int(row), Reason("rule", str(check), column, shown(table.column(column), int(row)))

    def _passes(self, name: str, values: pa.Array) -> bool:
        """Whether Arrow can tell that every value of a column passes its checks."""
        found = self._answers[name]
        return found is not None and all(answer(values) for answer in found)

    def _for_pandera(self, name: str, values: pa.Array) -> pa.Array:
        if name in self._encoded:
            return values.dictionary_encode()
        return values.cast(pa.timestamp("us")) if self.columns[name].naive else values

    def _refuse_whole_frame_checks(self, schema: "pandera.pandas.DataFrameSchema") -> None:
        asks = "; expected checks on the elements of one column, which name the rows that fail"
        if schema.checks or schema.parsers or schema.index is not None:
            raise ContractError(f"{self._where} checks or changes the whole frame or its index{asks}")
        if schema.strict or schema.ordered:
            raise ContractError(
                f"{self._where} is strict or ordered; columns that it does not know are reported and ignored, "
                "and their order is free: drop the setting"
            )
        if schema.unique:
            raise ContractError(f"{self._where}: unique={schema.unique}; the key is unique by input.key{asks}")
        for name, column in schema.columns.items():
            if column.unique:
                raise ContractError(f"{self._where}: {name} is unique=True; the key is unique by input.key{asks}")
            if not column.required:
                raise ContractError(
                    f"{self._where}: {name} may be absent; expected columns that every file has: declare it without "
                    "Optional and with nullable=True, or leave it out"
                )
            if column.regex or column.parsers:
                raise ContractError(f"{self._where}: {name} has a regex name or a parser{asks}")
            if column.default is not None:
                raise ContractError(f"{self._where}: {name} has a default, which changes rows{asks}")
            if any(check.groupby is not None for check in column.checks):
                raise ContractError(f"{self._where}: a check of {name} groups rows{asks}")

    def _column(self, name: str, column: "pandera.pandas.Column") -> Column:
        if column.dtype is None:
            raise ContractError(f"{self._where}: {name} has no type; expected int, float, str, bool or datetime")
        kind = _arrow_type(str(column.dtype))
        if kind is None:
            raise ContractError(f"{self._where}: {name} is {column.dtype}; expected int, float, str, bool or datetime")
        return Column(name, kind, bool(column.nullable), naive=bool(re.match(r"datetime64\[\w+\]", str(column.dtype))))

    @staticmethod
    def _checks_only(schema: "pandera.pandas.DataFrameSchema") -> "dict[str, pandera.pandas.Column]":
        """The columns that have checks, without types and nulls, which Arrow has decided."""
        import pandera.pandas

        return {
            name: pandera.pandas.Column(None, checks=[_of_all_rows(check) for check in column.checks], nullable=True)
            for name, column in schema.columns.items()
            if column.checks
        }


def shown(values: pa.Array, row: int) -> str | None:
    """A cell as a person reads it, on one line and with what a terminal obeys made visible; None if it is null."""
    value = plain(values, row)
    return None if value is None else one_line(str(value))


def plain(values: pa.Array, row: int) -> object:
    """A cell as JSON can hold it, or as `str` can show it, whatever its bytes are."""
    try:
        value = values[row].as_py()
    except (ValueError, OverflowError):  # text that is not UTF-8, a date beyond Python's years
        cell = values.slice(row, 1)
        if pa.types.is_dictionary(cell.type):
            cell = cell.dictionary_decode()
        try:
            value = cell.cast(pa.string() if pa.types.is_temporal(cell.type) else pa.binary())[0].as_py()
        except pa.ArrowException:
            return f"a {cell.type} that cannot be shown"
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _of_all_rows(check: "pandera.pandas.Check") -> "pandera.pandas.Check":
    """The check, made to name every row that fails and refused if it does not answer row by row."""
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


def _arrow_type(name: str) -> pa.DataType | None:
    """The Arrow type of a pandera type, by its name. Delta has no unsigned integers."""
    name = name.lower()
    if match := re.match(r"int(8|16|32|64)", name):
        return {"8": pa.int8(), "16": pa.int16(), "32": pa.int32(), "64": pa.int64()}[match[1]]
    if match := re.match(r"float(16|32|64)", name):
        return pa.float64() if match[1] == "64" else pa.float32()
    if name.startswith(("str", "object", "category", "large_string")):
        return pa.string()
    if name.startswith("bool"):
        return pa.bool_()
    if name.startswith(("datetime", "timestamp")):
        return pa.timestamp("us", "UTC")
    return pa.date32() if name.startswith("date") else None


def _kind(kind: pa.DataType) -> str:
    for name, test in (
        ("integer", pa.types.is_integer), ("floating", pa.types.is_floating), ("boolean", pa.types.is_boolean),
        ("timestamp", pa.types.is_timestamp), ("date", pa.types.is_date),
    ):  # fmt: skip
        if test(kind):
            return name
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return "text" if text else str(kind)


def _fits(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether values of a Parquet column can be taken for the contract's: the same kind, or integers for floats."""
    if pa.types.is_dictionary(found):
        found = found.value_type
    pair = (_kind(found), _kind(expected))
    return pair[0] == pair[1] or pair == ("integer", "floating") or pa.types.is_null(found)


def _by_halves(values: pa.Array, attempt: Callable[[pa.Array], pa.Array], start: int = 0) -> list[int]:
    """Positions of the values for which `attempt` fails, found by halving: one call where all is well."""
    try:
        attempt(values)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return [start]
        middle = len(values) // 2
        left, right = values.slice(0, middle), values.slice(middle)
        return _by_halves(left, attempt, start) + _by_halves(right, attempt, start + middle)
    return []


def _in_utc(texts: pa.Array) -> pa.Array:
    """Times as text, each with its zone: one that names none, or is a day alone, is taken as UTC."""
    days = pc.match_substring_regex(texts, r"^\d{4}-\d\d-\d\d$")
    zoned = pc.match_substring_regex(texts, r"(?:Z|[+-]\d\d(?::?\d\d)?)$")
    in_utc = pc.binary_join_element_wise(texts, "Z", "")
    return pc.if_else(days, pc.binary_join_element_wise(texts, "T00:00Z", ""), pc.if_else(zoned, texts, in_utc))


def _is_plain(texts: pa.Array) -> bool:
    """Whether there are digits, signs and points alone, slashes perhaps: nothing to trim, and no hexadecimals."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)
    start, stop = offsets[texts.offset], offsets[texts.offset + len(texts)]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[start:stop]
    return not len(data) or bool(data.min() >= ord("+") and data.max() <= ord("9"))


def _decimal(texts: pa.Array) -> pa.Array:
    """Texts of whole numbers as they are; Arrow would take 0x10 for 16, which nobody has meant.

    Raises:
        ArrowInvalid: one of them is hexadecimal.
    """
    if pc.any(pc.match_substring_regex(texts, "^[+-]?0[xX]")).as_py():
        raise pa.ArrowInvalid("hexadecimal")
    return texts


def _blanked(values: pa.Array, positions: list[int]) -> pa.Array:
    """`values` with null at the positions."""
    if not positions:
        return values
    mask = np.zeros(len(values), bool)
    mask[positions] = True
    return pc.if_else(pa.array(mask), pa.scalar(None, values.type), values)


def _without(positions: np.ndarray, rejected: dict[int, Reason]) -> np.ndarray:
    return np.delete(positions, list(rejected)) if rejected else positions
