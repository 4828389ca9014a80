import pyarrow as pa
import pytest

from batch_scoring.delivery.exports.postgres.columns import (
    Column,
    accepted,
    creation,
    schema_problems,
    sent,
    table_problems,
    with_day,
)

SCHEMA = with_day(pa.schema([("id", pa.int32()), ("score", pa.float32())]))


def table(**types: str) -> dict[str, Column]:
    """Columns of a table that may be null."""
    return {name: Column(name, type_, is_required=False, is_generated=False) for name, type_ in types.items()}


@pytest.mark.parametrize(
    ("type_", "columns"),
    [
        (pa.bool_(), ["boolean"]),
        (pa.int8(), ["smallint", "integer", "bigint", "numeric"]),
        (pa.uint8(), ["smallint", "integer", "bigint", "numeric"]),
        (pa.uint16(), ["integer", "bigint", "numeric"]),
        (pa.int32(), ["integer", "bigint", "numeric"]),
        (pa.uint32(), ["bigint", "numeric"]),
        (pa.int64(), ["bigint", "numeric"]),
        (pa.uint64(), ["numeric"]),
        (pa.float16(), ["real", "double precision"]),
        (pa.float32(), ["real", "double precision"]),
        (pa.float64(), ["double precision"]),
        (pa.decimal128(10, 2), ["numeric"]),
        (pa.string(), ["text", "character varying", "character", "json"]),
        (pa.dictionary(pa.int8(), pa.large_string()), ["text", "character varying", "character", "json"]),
        (pa.binary(), ["bytea"]),
        (pa.date64(), ["date"]),
        (pa.timestamp("ns", "UTC"), ["timestamp with time zone"]),
        (pa.timestamp("us"), ["timestamp without time zone"]),
        (pa.list_(pa.int16()), ["smallint[]", "integer[]", "bigint[]", "numeric[]"]),
        (pa.list_(pa.list_(pa.int16())), []),
        (pa.struct([("a", pa.int32())]), []),
        (pa.list_(pa.struct([("a", pa.int32())])), []),
    ],
)
def test_the_columns_that_take_a_type(type_: pa.DataType, columns: list[str]) -> None:
    assert list(accepted(type_)) == columns


def test_what_no_table_takes_is_named() -> None:
    schema = with_day(pa.schema([("a", pa.struct([("b", pa.int32())])), ("c" * 64, pa.int32()), ("dt", pa.date32())]))
    of_struct, too_long, of_day = schema_problems(schema)
    assert "column a is of type struct<b: int32>" in of_struct
    assert f"column {'c' * 64} is longer than PostgreSQL's 63 bytes" in too_long
    assert "have a column dt" in of_day
    assert all("`columns`" in problem for problem in (of_struct, too_long, of_day))


def test_a_table_is_created_with_the_day_and_the_key_as_its_key() -> None:
    assert list(creation('"scores"."churn"', SCHEMA, "id")) == [
        'CREATE TABLE "scores"."churn" ("dt" date, "id" integer, "score" real, PRIMARY KEY ("dt", "id"))'
    ]


def test_a_table_without_the_key_is_created_with_an_index_of_the_day() -> None:
    assert list(creation("t", SCHEMA.remove(1), "id")) == [
        'CREATE TABLE t ("dt" date, "score" real)',
        'CREATE INDEX ON t ("dt")',
    ]


def test_a_table_with_wider_columns_and_others_that_may_be_null_has_no_problems() -> None:
    found = table(id="bigint", note="text", score="double precision", dt="date")
    assert not list(table_problems("t", SCHEMA, found))
    assert sent(SCHEMA, found) == pa.schema([("dt", pa.date32()), ("id", pa.int64()), ("score", pa.float64())])


def test_each_problem_of_a_table_has_the_statement_that_solves_it() -> None:
    found = table(id="smallint", dt="date") | {
        "note": Column("note", "text", is_required=True, is_generated=False),
        "score": Column("score", "real", is_required=False, is_generated=True),
    }
    assert list(table_problems("t", with_day(pa.schema([*SCHEMA.remove(0), ("new", pa.string())])), found)) == [
        "column id is of type smallint, expected integer or bigint or numeric; run ALTER TABLE t ALTER COLUMN "
        '"id" TYPE integer USING "id"::integer',
        'column score is generated; run ALTER TABLE t ALTER COLUMN "score" DROP EXPRESSION',
        'there is no column new; run ALTER TABLE t ADD COLUMN "new" text',
        "column note is NOT NULL, has no default, and is not exported; run ALTER TABLE t ALTER COLUMN "
        '"note" DROP NOT NULL',
    ]
