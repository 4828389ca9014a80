import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.delivery.exports.postgres.sink import PostgresSink
from batch_scoring.delivery.exports.sink import Delivery, Version
from batch_scoring.errors import RowsLostError, SinkError, SinkRefusedError, StoreError
from batch_scoring_tests import deliveries
from batch_scoring_tests.postgres_server import PASSWORD, Server

DAY, OTHER_DAY = "2024-01-01", "2024-01-02"
ROWS = pa.table({"id": pa.array([3, 1, 2], pa.int32()), "score": pa.array([0.5, None, float("nan")], pa.float32())})
TEXT = 'it\'s "so"\t\n\\N \u20ac \U0001f600'


def sink_of(server: Server, table: str = "results", *, user: str = "owner", export: str = "results") -> PostgresSink:
    return PostgresSink(server.url_of(user), table, "churn", export, "id")


def delivery_of(rows: pa.Table, transaction: int = 1, day: str = DAY) -> Delivery:
    return deliveries.delivery_of(rows, day, transaction, created=7, run_id=f"run-{transaction}")


def rows_in(server: Server, columns: str = "id", table: str = "results") -> list[Any]:
    found = server.query(f"SELECT {columns} FROM {table} WHERE dt = '{DAY}' ORDER BY id")
    return [row[0] if len(row) == 1 else row for row in found]


def ids(*values: int) -> pa.Table:
    return pa.table({"id": pa.array(values, pa.int32())})


def statement(problem: str) -> str:
    """What a problem says to run."""
    found = re.search(r"run ((?:ALTER|GRANT|CREATE|DELETE) .*)$", problem)
    assert found, problem
    return found[1]


# Rows, their types and order


def test_values_arrive_as_they_are(postgres: Server) -> None:
    at = datetime(2024, 1, 1, 2, 3, 4, 5678, tzinfo=UTC)
    columns: dict[str, tuple[pa.Array, list[Any], str]] = {
        "id": (pa.array([1, 2], pa.int64()), [1, 2], "bigint"),
        "yes": (pa.array([True, None]), [True, None], "boolean"),
        "tiny": (pa.array([-128, 127], pa.int8()), [-128, 127], "smallint"),
        "large": (pa.array([2**64 - 1, None], pa.uint64()), [Decimal(2**64 - 1), None], "numeric"),
        "single": (pa.array([0.5, None], pa.float32()), [0.5, None], "real"),
        "double": (pa.array([0.1, -1e300]), [0.1, -1e300], "double precision"),
        "money": (pa.array([Decimal("1.50"), None], pa.decimal128(10, 2)), [Decimal("1.50"), None], "numeric"),
        "text": (pa.array([TEXT, ""]), [TEXT, ""], "text"),
        "few": (pa.array(["a", None]).dictionary_encode(), ["a", None], "text"),
        "raw": (pa.array([b"\0\xff", None]), [b"\0\xff", None], "bytea"),
        "on": (pa.array([date(1969, 12, 31), None]), [date(1969, 12, 31), None], "date"),
        "at": (pa.array([at, None], pa.timestamp("us", "UTC")), [at, None], "timestamp with time zone"),
        "naive": (
            pa.array([at.replace(tzinfo=None), None], pa.timestamp("ns")),
            [at.replace(tzinfo=None), None],
            "timestamp without time zone",
        ),
        "many": (pa.array([["a", None], []]), [["a", None], []], "text[]"),
        'A "quoted" näme': (pa.array([1, 2], pa.int16()), [1, 2], "smallint"),
    }
    rows = pa.table({name: array for name, (array, _, _) in columns.items()})
    sink_of(postgres).deliver(delivery_of(rows))
    names = ", ".join('"' + name.replace('"', '""') + '"' for name in columns)
    found = dict(zip(columns, zip(*rows_in(postgres, names), strict=True), strict=True))
    found["raw"] = tuple(value and bytes(value) for value in found["raw"])
    assert found == {name: tuple(values) for name, (_, values, _) in columns.items()}
    types = dict(
        postgres.query(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute "
            "WHERE attrelid = 'results'::regclass AND attnum > 0"
        )
    )
    assert types == {"dt": "date"} | {name: type_ for name, (_, _, type_) in columns.items()}


def test_a_missing_number_and_one_that_is_none_stay_apart(postgres: Server) -> None:
    sink_of(postgres).deliver(delivery_of(ROWS))
    assert postgres.query("SELECT id FROM results WHERE score IS NULL") == [(1,)]
    assert postgres.query("SELECT id FROM results WHERE score = 'NaN'") == [(2,)]


def test_rows_are_stored_in_their_order(postgres: Server) -> None:
    sink_of(postgres).deliver(delivery_of(ROWS))
    assert postgres.query("SELECT id FROM results ORDER BY ctid") == [(3,), (1,), (2,)]


def test_rows_are_not_collected_in_memory(postgres: Server) -> None:
    batch = pa.record_batch({"id": pa.array(range(20_000)), "score": pa.array([0.5] * 20_000)})
    before, most = pa.total_allocated_bytes(), 0

    def read() -> Iterator[pa.RecordBatch]:
        nonlocal most
        for number in range(20):
            ids = pa.array(range(number * 20_000, (number + 1) * 20_000))
            yield pa.record_batch({"id": ids, "score": batch["score"]})
            most = max(most, pa.total_allocated_bytes() - before)

    sink_of(postgres).deliver(replace(delivery_of(pa.Table.from_batches([batch])), read=read))
    assert postgres.query("SELECT count(*) FROM results") == [(400_000,)]
    assert most < 5 * batch.nbytes


def test_a_day_without_rows_is_exported_too(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ROWS))
    assert sink.deliver(delivery_of(ROWS.slice(0, 0), 2)).outcome == "exported"
    assert rows_in(postgres) == []
    assert sink.deliver(delivery_of(ROWS.slice(0, 0), 2)).outcome == "unchanged"


# The marker


def test_the_marker_is_of_what_the_table_shows(postgres: Server) -> None:
    sink = sink_of(postgres)
    assert sink.marker(DAY) is None
    delivered = sink.deliver(delivery_of(ROWS, 4))
    marker = sink.marker(DAY)
    assert marker == delivered.marker
    assert marker is not None
    assert (marker.version, marker.rows, marker.run_id) == (Version(7, 4), 3, "run-4")
    assert abs((datetime.now(UTC) - marker.exported_at).total_seconds()) < 60
    assert sink.marker(OTHER_DAY) is None
    assert delivered.where == (f"postgresql://127.0.0.1:{postgres.port}/{postgres.database}/results",)


def test_rows_that_somebody_has_deleted_are_exported_again(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ROWS))
    postgres.query("DELETE FROM results WHERE id = 2")
    assert sink.deliver(delivery_of(ROWS)).outcome == "exported"
    postgres.query("DROP TABLE results")
    assert sink.deliver(delivery_of(ROWS)).outcome == "exported"
    assert rows_in(postgres) == [1, 2, 3]


def test_an_export_that_is_asked_for_again_replaces_the_same_version(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ids(1, 2), 4))
    assert sink.deliver(replace(delivery_of(ids(3, 4), 4), replaces="same")).outcome == "exported"
    assert sink.deliver(replace(delivery_of(ids(5), 3), replaces="same")).outcome == "superseded"
    assert rows_in(postgres) == [3, 4]


def test_a_day_that_is_kept_is_not_corrected(postgres: Server) -> None:
    sink = sink_of(postgres)
    assert sink.deliver(replace(delivery_of(ids(1)), replaces="nothing")).outcome == "exported"
    kept = sink.deliver(replace(delivery_of(ids(2), 2), replaces="nothing"))
    assert (kept.outcome, kept.marker.version.transaction) == ("kept", 1)
    assert rows_in(postgres) == [1]


def test_an_export_that_changes_to_decisions_and_back_goes_on(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(replace(delivery_of(ids(1), 4), of="predictions"))
    before = sink.marker(DAY)
    assert sink.deliver(replace(delivery_of(ids(2), 1), of="decisions", instead_of=before)).outcome == "exported"
    marker = sink.marker(DAY)
    assert marker and (marker.of, marker.version) == ("decisions", Version(7, 1))
    assert sink.deliver(replace(delivery_of(ids(3), 0), of="decisions")).outcome == "superseded"
    predictions = replace(delivery_of(ids(3), 0), of="predictions", instead_of=before)
    assert sink.deliver(predictions).outcome == "superseded", "the decisions came meanwhile"
    assert sink.deliver(replace(predictions, instead_of=marker)).outcome == "exported"
    assert rows_in(postgres) == [3]
    other = sink_of(postgres, "renamed")
    assert other.marker(DAY) is None
    assert other.deliver(replace(delivery_of(ids(4)), of="decisions")).outcome == "exported"


def test_a_table_of_markers_without_the_step_gets_it_with_the_next_day(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(replace(delivery_of(ids(1), 4), of="predictions"))
    postgres.query("ALTER TABLE batch_scoring_exports DROP COLUMN of")
    marker = sink.marker(DAY)
    assert marker and (marker.of, marker.version) == ("", Version(7, 4))
    assert sink.deliver(replace(delivery_of(ids(2), 3), of="decisions")).outcome == "superseded", "as before"
    assert sink.deliver(replace(delivery_of(ids(2), 5), of="decisions")).outcome == "exported"
    assert postgres.query("SELECT of FROM batch_scoring_exports") == [("decisions",)]


def test_a_day_that_is_kept_stays_as_somebody_has_left_it(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(replace(delivery_of(ids(1, 2)), replaces="nothing"))
    postgres.query("DELETE FROM results")
    assert sink.deliver(replace(delivery_of(ids(1, 2)), replaces="nothing")).outcome == "unchanged"
    assert sink.deliver(replace(delivery_of(ids(3), 2), replaces="nothing")).outcome == "kept"
    assert rows_in(postgres) == []
    other = sink_of(postgres, "renamed")
    assert other.deliver(replace(delivery_of(ids(3), 2), replaces="nothing")).outcome == "exported"


def test_an_export_that_names_another_table_begins_anew_there(postgres: Server) -> None:
    sink_of(postgres).deliver(delivery_of(ROWS))
    other = sink_of(postgres, "renamed")
    assert other.marker(DAY) is None
    assert other.deliver(delivery_of(ROWS)).outcome == "exported"
    assert rows_in(postgres, table="renamed") == [1, 2, 3]


def test_two_exports_cannot_share_a_table(postgres: Server) -> None:
    sink_of(postgres).deliver(delivery_of(ROWS))
    other = sink_of(postgres, "public.results", export="others")
    with pytest.raises(SinkRefusedError, match="export results of churn") as refused:
        other.deliver(delivery_of(ids(9), 2))
    assert rows_in(postgres) == [1, 2, 3]
    postgres.query(statement(str(refused.value)))
    assert other.deliver(delivery_of(ids(9), 2)).outcome == "exported"


@pytest.mark.parametrize("isolation", ["read committed", "repeatable read", "serializable"])
def test_an_export_that_waits_for_another_sees_what_that_one_has_left(postgres: Server, isolation: str) -> None:
    postgres.query(f"ALTER DATABASE {postgres.database} SET default_transaction_isolation = '{isolation}'")
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ids(1)))
    is_half_way, waits, outcomes = threading.Event(), threading.Event(), []

    def read() -> Iterator[pa.RecordBatch]:
        is_half_way.set()
        assert waits.wait(20)
        yield from ids(1, 2).to_batches()

    first = threading.Thread(
        target=lambda: outcomes.append(sink.deliver(replace(delivery_of(ids(1, 2), 2), read=read)).outcome)
    )
    second = threading.Thread(target=lambda: outcomes.append(sink.deliver(delivery_of(ids(1, 2), 2)).outcome))
    first.start()
    assert is_half_way.wait(20)
    second.start()
    while not postgres.query("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"):
        assert second.is_alive()
    waits.set()
    first.join()
    second.join()
    assert sorted(outcomes) == ["exported", "unchanged"]
    assert rows_in(postgres) == [1, 2]


def test_the_tables_are_created_once_by_exports_of_two_days_at_the_same_time(postgres: Server) -> None:
    outcomes: list[str] = []
    days = [f"2024-01-{day:02}" for day in range(1, 9)]
    threads = [
        threading.Thread(
            target=lambda day=day: outcomes.append(sink_of(postgres).deliver(delivery_of(ROWS, 1, day)).outcome)
        )
        for day in days
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert outcomes == ["exported"] * len(days)


def test_a_lock_that_is_held_for_too_long_is_an_error_that_may_pass(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ROWS))
    postgres.query(f"ALTER DATABASE {postgres.database} SET lock_timeout = '50ms'")

    def read() -> Iterator[pa.RecordBatch]:
        with pytest.raises(SinkError, match="55P03"):
            sink.deliver(delivery_of(ROWS, 3))
        yield from ids(8).to_batches()

    sink.deliver(replace(delivery_of(ids(8), 2), read=read))
    assert rows_in(postgres) == [8]


# A table of the user's


def test_a_table_of_the_user_s_gets_the_rows_in_its_own_types(postgres: Server) -> None:
    postgres.query(
        "CREATE SCHEMA scores; CREATE TABLE scores.results (why json, note text, kind varchar(5) DEFAULT 'new', "
        "number bigserial, id numeric, score double precision, dt date)"
    )
    sink = sink_of(postgres, "scores.results")
    rows = ROWS.append_column("why", pa.array(['{"a": 1}', None, "[]"]))
    assert not list(sink.problems(rows.schema))
    sink.deliver(delivery_of(rows))
    found = rows_in(postgres, "id, why, note, kind", "scores.results")
    assert found == [(1, None, None, "new"), (2, [], None, "new"), (3, {"a": 1}, None, "new")]
    assert postgres.query("SELECT rows FROM scores.batch_scoring_exports") == [(3,)]


@pytest.mark.parametrize(
    "table",
    [
        "dt date, id integer",
        "id integer, score real",
        "dt date, id smallint, score real",
        "dt date, id integer, score integer",
        "dt timestamp, id integer, score real",
        "dt date, id integer, score real, note text NOT NULL",
        "dt date, id integer, half real, score real GENERATED ALWAYS AS (half * 2) STORED",
    ],
)
def test_a_table_that_does_not_fit_is_refused_with_the_statement_that_mends_it(postgres: Server, table: str) -> None:
    postgres.query(f"CREATE TABLE results ({table})")
    sink = sink_of(postgres)
    (problem,) = sink.problems(ROWS.schema)
    with pytest.raises(SinkRefusedError) as refused:
        sink.deliver(delivery_of(ROWS))
    assert str(refused.value) == problem
    postgres.query(statement(problem))
    assert not list(sink.problems(ROWS.schema))
    assert sink.deliver(delivery_of(ROWS)).outcome == "exported"


def test_asking_for_problems_writes_nothing(postgres: Server) -> None:
    assert not list(sink_of(postgres).problems(ROWS.schema))
    assert postgres.query("SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace") == []


def test_a_schema_that_is_missing_is_a_problem(postgres: Server) -> None:
    sink = sink_of(postgres, "scores.results")
    (problem,) = sink.problems(ROWS.schema)
    with pytest.raises(SinkRefusedError, match="3F000"):
        sink.deliver(delivery_of(ROWS))
    postgres.query(statement(problem))
    assert sink.deliver(delivery_of(ROWS)).outcome == "exported"


def test_rights_that_are_missing_are_problems_with_the_grants(postgres: Server) -> None:
    postgres.query(f"CREATE ROLE reader LOGIN PASSWORD '{PASSWORD}'")
    sink = sink_of(postgres, user="reader")
    (may_not_create,) = sink.problems(ROWS.schema)
    with pytest.raises(SinkRefusedError, match="permission denied for schema public") as refused:
        sink.deliver(delivery_of(ROWS))
    assert "grant" in str(refused.value)
    postgres.query(statement(may_not_create).replace("this user", "reader"))
    assert not list(sink.problems(ROWS.schema))
    sink_of(postgres).deliver(delivery_of(ROWS))  # the owner creates them
    problems = list(sink.problems(ROWS.schema))
    assert [problem.partition("may not ")[2].partition(";")[0] for problem in problems] == [
        'SELECT, INSERT, DELETE in "public"."results"',
        'SELECT, INSERT, UPDATE in "public"."batch_scoring_exports"',
    ]
    with pytest.raises(SinkRefusedError, match="42501"):
        sink.marker(DAY)
    for problem in problems:
        postgres.query(statement(problem).replace("this user", "reader"))
    assert not list(sink.problems(ROWS.schema))
    assert sink.deliver(delivery_of(ROWS, 2)).outcome == "exported"


def test_a_view_is_refused(postgres: Server) -> None:
    postgres.query("CREATE VIEW results AS SELECT 1 AS id")
    (problem,) = sink_of(postgres).problems(ROWS.schema)
    assert "results is not a table" in problem


def test_a_table_with_partitions_takes_the_days_that_it_has(postgres: Server) -> None:
    postgres.query(
        "CREATE TABLE results (dt date, id integer, score real) PARTITION BY RANGE (dt); "
        f"CREATE TABLE first_of_january PARTITION OF results FOR VALUES FROM ('{DAY}') TO ('{OTHER_DAY}')"
    )
    sink = sink_of(postgres)
    assert sink.deliver(delivery_of(ROWS)).outcome == "exported"
    with pytest.raises(SinkRefusedError, match="no partition of relation"):
        sink.deliver(delivery_of(ROWS, day=OTHER_DAY))


# Rows that are refused or lost


@pytest.mark.parametrize("encode", [False, True])
def test_a_nul_character_is_named_with_its_column_and_key(postgres: Server, encode: bool) -> None:
    sink = sink_of(postgres)
    rows = pa.table({"id": [17, 18], "note": ["fine", "fine"]})
    sink.deliver(delivery_of(rows))
    note = pa.array(["fine", "not\0so"])
    bad = rows.set_column(1, "note", note.dictionary_encode() if encode else note)
    with pytest.raises(SinkRefusedError, match="column note has a NUL character in the row with id 18"):
        sink.deliver(delivery_of(bad, 2))
    assert rows_in(postgres, "note") == ["fine", "fine"]
    assert sink.marker(DAY).version.transaction == 1  # type: ignore[union-attr]


def test_rows_may_be_without_their_key(postgres: Server) -> None:
    sink = sink_of(postgres)
    rows = pa.table({"note": ["fine", "fine"]})
    sink.deliver(delivery_of(rows))
    assert sink.deliver(delivery_of(rows)).outcome == "unchanged"
    assert postgres.query("SELECT note FROM results") == [("fine",), ("fine",)]
    bad = pa.chunked_array([["fine"], ["fine", "not\0so"]])
    with pytest.raises(SinkRefusedError, match="column note has a NUL character in the row 3"):
        sink.deliver(delivery_of(pa.table({"note": bad}), 2))


def test_a_value_that_a_column_refuses_is_told_with_the_column_and_without_the_value(postgres: Server) -> None:
    postgres.query("CREATE TABLE results (dt date, id integer, name varchar(3))")
    rows = ids(1).append_column("name", pa.array(["Bilbo Baggins"]))
    with pytest.raises(SinkRefusedError, match=r"value too long .* in column name \(SQLSTATE 22001\)") as refused:
        sink_of(postgres).deliver(delivery_of(rows))
    assert "Bilbo" not in str(refused.value)


def test_two_rows_with_one_key_are_refused(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ROWS))
    with pytest.raises(SinkRefusedError, match="two rows have the same key"):
        sink.deliver(delivery_of(ids(4, 5, 4), 2))
    assert rows_in(postgres) == [1, 2, 3]


@pytest.mark.parametrize(
    "body",
    ["IF NEW.id = 5 THEN RETURN NULL; END IF; RETURN NEW", "INSERT INTO results VALUES ('2024-01-01', 6); RETURN NEW"],
)
def test_rows_that_a_trigger_drops_or_adds_change_nothing(postgres: Server, body: str) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ids(1)))
    postgres.query(
        f"CREATE FUNCTION meddles() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body}; END $$; "
        "CREATE TRIGGER meddles BEFORE INSERT ON results FOR EACH ROW WHEN (NEW.id = 5) EXECUTE FUNCTION meddles()"
    )
    with pytest.raises(RowsLostError, match=r"2 rows of 2024-01-01 were sent and [13] are in the table"):
        sink.deliver(delivery_of(ids(4, 5), 2))
    assert rows_in(postgres) == [1]


def test_an_error_of_the_storage_is_raised_as_it_is(postgres: Server) -> None:
    sink = sink_of(postgres)
    sink.deliver(delivery_of(ids(1)))
    error = StoreError("S3 does not answer")

    def read() -> Iterator[pa.RecordBatch]:
        yield from ids(2).to_batches()
        raise error

    with pytest.raises(StoreError) as raised:
        sink.deliver(replace(delivery_of(ids(2), 2), read=read))
    assert raised.value is error
    assert rows_in(postgres) == [1]
