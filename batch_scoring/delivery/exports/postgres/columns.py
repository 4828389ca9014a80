"""Columns of a table in PostgreSQL, and the Arrow types that they take.

COPY has no conversions: a value has the binary format of its column's type. So every type is sent as the column has it,
if nothing is lost by that, and refused otherwise, with the statement that changes the column.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import pyarrow as pa
from pyarrow import types

from batch_scoring.delivery.exports.postgres.connection import quoted

DAY = "dt"
"""Column of the day."""

LONGEST_NAME = 63
"""Bytes of a name in PostgreSQL; it cuts longer ones off."""

_TEXT = ("text", "character varying", "character", "json")
_WHOLE = pa.decimal128(20, 0)
"""What whole numbers are sent as to a column of type numeric."""


@dataclass(frozen=True)
class Column:
    """A column of an existing table."""

    name: str
    type: str
    """As PostgreSQL writes it, without length and precision."""
    is_required: bool
    """Whether rows that say nothing about it are refused: not null, and without a default."""
    is_generated: bool


def accepted(type_: pa.DataType) -> Mapping[str, pa.DataType]:
    """The types of columns that take an Arrow type, with the Arrow type to send; that of a new table first.

    Empty if there is none.
    """
    if types.is_dictionary(type_):
        return accepted(type_.value_type)
    if types.is_integer(type_):
        return _whole_numbers(type_)
    if types.is_list(type_) or types.is_large_list(type_) or types.is_fixed_size_list(type_):
        return {f"{name}[]": pa.list_(sent) for name, sent in accepted(type_.value_type).items() if "[" not in name}
    return _scalars(type_)


def _whole_numbers(type_: pa.DataType) -> dict[str, pa.DataType]:
    bits = type_.bit_width + types.is_unsigned_integer(type_)
    signed = {"smallint": pa.int16(), "integer": pa.int32(), "bigint": pa.int64()}
    return {name: sent for name, sent in signed.items() if sent.bit_width >= bits} | {"numeric": _WHOLE}


def _scalars(type_: pa.DataType) -> dict[str, pa.DataType]:
    if types.is_boolean(type_):
        return {"boolean": type_}
    if types.is_float64(type_):
        return {"double precision": type_}
    if types.is_floating(type_):
        return {"real": pa.float32(), "double precision": pa.float64()}
    if types.is_decimal(type_):
        return {"numeric": type_}
    if types.is_string(type_) or types.is_large_string(type_) or types.is_string_view(type_):
        return dict.fromkeys(_TEXT, pa.string())
    if types.is_binary(type_) or types.is_large_binary(type_):
        return {"bytea": pa.binary()}
    if types.is_date(type_):
        return {"date": pa.date32()}
    if types.is_timestamp(type_):
        return {f"timestamp with{'' if type_.tz else 'out'} time zone": pa.timestamp("us", "UTC" if type_.tz else None)}
    return {}


def with_day(schema: pa.Schema) -> pa.Schema:
    """The schema of what is stored of rows: the day, then the rows' own columns."""
    return pa.schema([pa.field(DAY, pa.date32()), *schema])


def schema_problems(schema: pa.Schema) -> Iterator[str]:
    """Why no table can have these columns."""
    leave_out = "leave it out: name the others in `columns` of the export"
    for name, type_ in zip(schema.names, schema.types, strict=True):
        if not accepted(type_):
            yield f"column {name} is of type {type_}, for which PostgreSQL has none; {leave_out}"
        if len(name.encode()) > LONGEST_NAME:
            yield f"the name of column {name} is longer than PostgreSQL's {LONGEST_NAME} bytes; {leave_out}"
    if schema.names.count(DAY) > 1:
        yield f"the rows have a column {DAY}, which is the day's in the table; {leave_out}"


def creation(table: str, schema: pa.Schema, key: str) -> Iterator[str]:
    """The statements that create a table, whose name is quoted already, so that the rows of a day are found quickly."""
    columns = [f"{quoted(field.name)} {_first_type(field)}" for field in schema]
    if key in schema.names:
        yield f"CREATE TABLE {table} ({', '.join(columns)}, PRIMARY KEY ({quoted(DAY)}, {quoted(key)}))"
    else:
        yield f"CREATE TABLE {table} ({', '.join(columns)})"
        yield f"CREATE INDEX ON {table} ({quoted(DAY)})"


def table_problems(table: str, schema: pa.Schema, found: Mapping[str, Column]) -> Iterator[str]:
    """Why an existing table does not take rows of a schema, each with the statement that changes it."""
    for field in schema:
        alter = f"run ALTER TABLE {table}"
        column = found.get(field.name)
        if column is None:
            yield f"there is no column {field.name}; {alter} ADD COLUMN {quoted(field.name)} {_first_type(field)}"
        elif column.is_generated:
            yield f"column {field.name} is generated; {alter} ALTER COLUMN {quoted(field.name)} DROP EXPRESSION"
        elif column.type not in accepted(field.type):
            yield (
                f"column {field.name} is of type {column.type}, expected {' or '.join(accepted(field.type))}; {alter} "
                f"ALTER COLUMN {quoted(field.name)} TYPE {_first_type(field)} "
                f"USING {quoted(field.name)}::{_first_type(field)}"
            )
    for column in found.values():
        if column.is_required and column.name not in schema.names:
            yield (
                f"column {column.name} is NOT NULL, has no default, and is not exported; run ALTER TABLE {table} ALTER "
                f"COLUMN {quoted(column.name)} DROP NOT NULL"
            )


def sent(schema: pa.Schema, found: Mapping[str, Column]) -> pa.Schema:
    """The schema in which rows are sent to a table without problems."""
    return pa.schema([pa.field(field.name, accepted(field.type)[found[field.name].type]) for field in schema])


def _first_type(field: pa.Field) -> str:
    return next(iter(accepted(field.type)))
