"""The contract on input rows: the pipeline's pandera schema, applied row by row.

Types are enforced here with Arrow: a missing or retyped column stops the day; a cell that does not fit its type rejects
the row. Nullability, NaN and infinity are masks. Everything else that a schema checks is decided by pandera.
"""

import contextlib
import functools
import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Features
from batch_scoring.errors import ContractError
from batch_scoring.ingest.schema import casting
from batch_scoring.ingest.schema.compiled import Column, CompiledSchema
from batch_scoring.runtime.printable import one_line

if TYPE_CHECKING:
    pass

_WHOLE_FLOATS = (
    "a missing value turns integers into floats in pandas: write that column as Int64, or accept whole floats with "
    "Field(coerce=True); nullable=True accepts missing values"
)

_DELIMITERS = ";\t|,"
"""Delimiters that a header of one column is searched for."""
_DECIMAL_COMMA = "a decimal comma: write 0.5, not 0,5"

Stage = Literal["read", "schema", "rule", "duplicate", "score"]


@dataclass(frozen=True)
class Reason:
    """Why a row is rejected: the first error found in it."""

    stage: Stage
    rule: str
    column: str
    value: str | None

    @property
    def advice(self) -> str:
        """A likely cause and what to do; empty if the reason speaks for itself."""
        if self.rule.startswith("is_int") and re.fullmatch(r"[+-]?\d+\.0*", self.value or ""):
            return f"{self.column}: {_WHOLE_FLOATS}"
        if self.rule in ("is_double", "is_float") and re.fullmatch(r"[+-]?\d+,\d+", self.value or ""):
            return f"{self.column}: {_DECIMAL_COMMA}"
        return ""


@dataclass(frozen=True)
class Shared:
    """A reason that several rows share, with a value per row."""

    stage: Stage
    rule: str
    column: str
    rows: np.ndarray
    """Positions of the rows, ascending."""
    values: pa.Array
    """The invalid value of each row."""

    def reasons(self, rows: np.ndarray) -> list[Reason]:
        """Return the reasons of some of the rows."""
        cells = plain_cells(self.values, np.searchsorted(self.rows, rows))
        texts = [None if cell is None else one_line(str(cell)) for cell in cells]
        return [Reason(self.stage, self.rule, self.column, text) for text in texts]


class Rejections(Mapping[int, Reason]):
    """Why rows of a record batch are rejected, by position: the first error of each.

    A reason is formatted on access, because all rows may have one.
    """

    def __init__(self, rows: int) -> None:
        self.groups: list[Shared] = []
        """Shared reasons, not yet formatted."""
        self._group = np.full(rows, -1, np.int32)  # the index of each row's reason

    def add(
        self, stage: Stage, rule: str, column: str, rows: np.ndarray, values: pa.Array, places: np.ndarray | None = None
    ) -> None:
        """Reject rows that have no error yet; their values are `values` (or those at `places` of `values`)."""
        fresh = self._group[rows] < 0
        rows, places = rows[fresh], (rows if places is None else places)[fresh]
        if len(rows):
            self._group[rows] = len(self.groups)
            self.groups.append(Shared(stage, rule, column, rows, values.take(pa.array(places))))

    @property
    def positions(self) -> np.ndarray:
        """Positions of the rejected rows, ascending."""
        return np.flatnonzero(self._group >= 0)

    @property
    def others(self) -> np.ndarray:
        """Positions of the other rows, ascending."""
        return np.flatnonzero(self._group < 0)

    def __getitem__(self, row: int) -> Reason:
        """Return why a row is rejected."""
        if not 0 <= row < len(self._group) or self._group[row] < 0:
            raise KeyError(row)
        return self.reasons(np.array([row]))[0]

    def reasons(self, rows: np.ndarray) -> list[Reason]:
        """Return why each of some rejected rows is rejected."""
        found: dict[int, Reason] = {}
        for number in np.unique(self._group[rows]):
            mine = rows[self._group[rows] == number]
            found |= zip(mine.tolist(), self.groups[number].reasons(mine), strict=True)
        return [found[row] for row in rows.tolist()]

    def __iter__(self) -> Iterator[int]:
        """Iterate over the positions, ascending."""
        return iter(self.positions.tolist())

    def __len__(self) -> int:
        """Number of rejected rows."""
        return int((self._group >= 0).sum())


@dataclass(frozen=True)
class ValidationResult:
    """The result of validating a record batch."""

    accepted: pa.RecordBatch
    """Valid rows, typed: the key, the features and the attributes."""
    positions: np.ndarray
    """int64: the position of each accepted row in the batch."""
    rejected: Rejections
    """Rejected rows, by position in the batch."""


class Contract:
    """A pipeline's schema, compiled to validate record batches."""

    def __init__(self, pipeline: Pipeline) -> None:
        """Load the schema and reject settings that cannot be decided for one row alone.

        Raises:
            ContractError: names the check or column and what is accepted.
        """
        spec = pipeline.spec
        self._where = f"{pipeline.name}: {spec.features.contract}"
        self._schema = f"{spec.features.contract} of {pipeline.name}"
        self._delimiter = spec.input.csv.delimiter
        self._nulls = pa.array(spec.input.csv.null_values, pa.string()) if spec.input.csv.trim else None
        self._compiled = CompiledSchema(pipeline.load(spec.features.contract), self._where)
        self.columns = self._compiled.columns
        self.key = spec.input.key
        self._kept = self._kept_columns(spec.features, spec.input.attributes)
        if unknown := [name for name in self._kept if name not in self.columns]:
            raise ContractError(f"{self._where} has no column {', '.join(unknown)}, which the spec names")
        self.inputs = tuple(name for name in spec.features.inputs if name in self.columns)
        """The model's inputs that are columns of the rows; a transform makes the others."""
        self.categorical = tuple(name for name in spec.features.categorical if name in self.columns)
        for name in spec.features.numeric:
            kind = self.columns[name].type if name in self.columns else pa.float64()
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise ContractError(
                    f"{self._where}: {name} is {kind}, but numeric in the spec; expected int, float or bool"
                )

    def _kept_columns(self, features: Features, attributes: tuple[str, ...]) -> tuple[str, ...]:
        """The key, the features and the attributes; for a function of the user's, which may read any, all columns."""
        named = (self.key, *features.validated([*self.columns]), *attributes)
        return tuple(dict.fromkeys(named)) if features.transform or features.encode else named

    @functools.cached_property
    def arrow_schema(self) -> pa.Schema:
        """The columns of accepted rows: the key, the features and the attributes."""
        kept = (self.columns[name] for name in self._kept)
        return pa.schema([pa.field(c.name, c.type, c.nullable and c.name != self.key) for c in kept])

    def unexpected(self, schema: pa.Schema, where: str, *, is_text: bool) -> list[str]:
        """Return the columns of a file that the contract does not declare; they are reported and ignored.

        Raises:
            ContractError: a column is missing or of another kind than declared.
        """
        where = one_line(where)
        if missing := [name for name in self.columns if name not in schema.names]:
            raise ContractError(
                f"{where} has no column {', '.join(missing)}, which {self._schema} requires; it has "
                f"{one_line(', '.join(schema.names))}: {self._advice(missing, schema.names, is_text=is_text)}"
            )
        if is_text and (nested := [name for name, each in self.columns.items() if casting.is_beyond_text(each.type)]):
            raise ContractError(
                f"{where}: a CSV file cannot hold {', '.join(nested)} ({self.columns[nested[0]].type}); upload "
                "Parquet, or JSON Lines for lists"
            )
        if not is_text:
            for column in self.columns.values():
                found = schema.field(column.name).type
                if not casting.fits(found, column.type, coerce=column.coerce):
                    raise ContractError(
                        f"{where}: column {column.name} is {found}, {self._schema} expects {column.type}; upload the "
                        f"file with the declared type, or change the schema{_hint(found, column.type)}"
                    )
        return [name for name in schema.names if name not in self.columns]

    def _advice(self, missing: Sequence[str], found: Sequence[str], *, is_text: bool) -> str:
        """What to do about missing columns, given those that a file has."""
        if is_text and len(found) == 1:
            ours = f"input.csv.delimiter in the spec, now {self._delimiter!r}"
            for other in (mark for mark in _DELIMITERS if mark != self._delimiter and mark in found[0]):
                setting = f"input: {{csv: {{delimiter: {json.dumps(other)}}}}}"
                return f"it is one column, because its delimiter is another one: set {setting} in the spec"
            return f"it is one column: correct {ours}, or upload a file with all columns"
        alike = {name.strip().casefold(): name for name in found}
        if similar := {name: alike[name.casefold()] for name in missing if name.casefold() in alike}:
            pairs = ", ".join(f"{one_line(theirs)!r} for {name!r}" for name, theirs in similar.items())
            return f"names must be the same, also in upper and lower case ({pairs}): correct the header or the schema"
        if is_text and len(missing) == len(self.columns):
            return "all are missing: upload the file with a header line"
        return "upload the file with all columns, or change the schema"

    def validate(self, batch: pa.RecordBatch, *, is_text: bool) -> ValidationResult:
        """Split a record batch into accepted rows, typed, and rejected rows with their reasons; thread-safe."""
        rejected = Rejections(batch.num_rows)
        typed: dict[str, pa.Array] = {}
        for column in self.columns.values():
            values = batch.column(column.name)
            if is_text:
                values = casting.trimmed(self._decode(values, column.name, rejected), self._nulls)
            elif casting.kind_of(casting.plain_type(values.type)) == "text":
                values = self._valid_text(values, column.name, rejected)
            typed[column.name] = values = self._cast(values, column, rejected)
            if values.null_count and (not column.nullable or column.name == self.key):
                missing = np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))
                rejected.add("rule", "not_nullable", column.name, missing, values)
            if column.name == self.key:
                rejected.add("rule", "key_is_not_blank", column.name, _blanks(values), values)
            if pa.types.is_floating(values.type):
                finite = pc.fill_null(pc.is_finite(values), True).to_numpy(zero_copy_only=False)
                rejected.add("rule", "is_finite", column.name, np.flatnonzero(~finite), values)
        table = pa.RecordBatch.from_pydict(typed)
        if rejected:
            table = table.take(pa.array(rejected.others))
        positions = rejected.others
        for name, rule, rows in self._compiled.broken(table):
            rejected.add("rule", rule, name, positions[rows], table.column(name), rows)
        if len(rejected.others) < len(positions):
            kept = np.flatnonzero(np.isin(positions, rejected.others, assume_unique=True))
            table, positions = table.take(pa.array(kept)), positions[kept]
        accepted = pa.RecordBatch.from_arrays(table.select(self._kept).columns, schema=self.arrow_schema)
        return ValidationResult(accepted, positions, rejected)

    def _decode(self, values: pa.Array, name: str, rejected: Rejections) -> pa.Array:
        """Decode bytes as text; reject rows that are not UTF-8."""
        texts, wrong = casting.decode(values)
        rejected.add("read", "is_utf8", name, wrong, values)
        return texts

    def _valid_text(self, values: pa.Array, name: str, rejected: Rejections) -> pa.Array:
        """Check the text of a Parquet file, which Arrow does not validate: reject rows that are not UTF-8."""
        try:
            values.validate(full=True)
        except pa.ArrowInvalid:
            plain = values.dictionary_decode() if pa.types.is_dictionary(values.type) else values
            return self._decode(plain.cast(pa.binary()), name, rejected)
        return values

    def _cast(self, values: pa.Array, column: Column, rejected: Rejections) -> pa.Array:
        """Cast to the contract's type; reject rows whose cell does not fit."""
        typed, wrong, cells = casting.cast(values, column.type, coerce=column.coerce)
        rejected.add("schema", f"is_{column.type}", column.name, wrong, cells)
        return typed


def _blanks(keys: pa.Array) -> np.ndarray:
    """Return the positions of empty or blank texts, which identify nothing and are duplicates of one another."""
    if not pa.types.is_string(keys.type):
        return np.zeros(0, np.int64)
    blank = pc.or_(pc.equal(pc.binary_length(keys), 0), pc.utf8_is_space(keys))
    return np.flatnonzero(pc.fill_null(blank, False).to_numpy(zero_copy_only=False))


def plain(values: pa.Array, row: int) -> object:
    """Return a cell in a form that JSON can represent or `str` can show, whatever its bytes are."""
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
    return _readable(value)


def plain_cells(values: pa.Array, rows: np.ndarray) -> list[object]:
    """Return some of the cells, each converted by `plain`."""
    try:
        return _all_plain(values.take(pa.array(rows)))
    except pa.ArrowNotImplementedError:  # string views, for example
        return [plain(values, int(row)) for row in rows]


def _all_plain(values: pa.Array) -> list[object]:
    """Return each cell converted by `plain`."""
    with contextlib.suppress(pa.ArrowInvalid):
        if pa.types.is_binary(values.type):  # from a CSV file: nearly always text
            values = values.cast(pa.string())
    try:
        if pa.types.is_string(values.type):
            return list(values.to_pylist())
        if pa.types.is_binary(values.type):
            return [None if cell is None else cell.decode("utf-8", "backslashreplace") for cell in values.to_pylist()]
        return [_readable(value) for value in values.to_pylist()]
    except (ValueError, OverflowError):
        return [plain(values, row) for row in range(len(values))]


def _readable(value: object) -> object:
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value


def _hint(found: pa.DataType, expected: pa.DataType) -> str:
    """Return an alternative for a column of another kind, if there is one."""
    if not casting.is_coercible(found, expected):
        return ""
    if pa.types.is_floating(found) and pa.types.is_integer(expected):
        return f" ({_WHOLE_FLOATS})"
    return f" (Field(coerce=True) accepts values that are exactly representable as {expected})"
