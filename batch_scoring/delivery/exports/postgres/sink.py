"""Exports to PostgreSQL: a day's rows in a table, replaced in one transaction together with the marker.

    scores.churn                      dt, the key, the exported columns: primary key (dt, key) if the export made it
    scores.batch_scoring_exports      a row for each day of each export: the marker

The marker is in the schema of the table and changes with the rows, so readers see the old day or the new one, and a
transaction that did not commit has changed nothing. Of two exports of a day the second waits at a lock until the first
has committed, then compares versions with what that one has left.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date

import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.delivery.exports.postgres import columns as table_columns
from batch_scoring.delivery.exports.postgres.columns import DAY, Column
from batch_scoring.delivery.exports.postgres.connection import BAD_TEXT, Connection, address_of, quoted
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker, Outcome, Version
from batch_scoring.errors import RowsLostError, SinkError, SinkRefusedError
from batch_scoring.runtime.printable import one_line

MARKERS = "batch_scoring_exports"
"""Table of the markers."""

_MARKERS_DEFINITION = f"""
    CREATE TABLE IF NOT EXISTS {{}} (
        pipeline text, export text, {DAY} date, table_name text NOT NULL, created bigint NOT NULL,
        transaction bigint NOT NULL, rows bigint NOT NULL, run_id text NOT NULL, exported_at timestamptz NOT NULL,
        "of" text NOT NULL DEFAULT '',
        PRIMARY KEY (pipeline, export, {DAY})
    )
"""

_MARKERS_CHANGE = """ALTER TABLE {} ADD COLUMN IF NOT EXISTS "of" text NOT NULL DEFAULT ''"""
"""For a table from before markers named their step."""

_COLUMNS = """
    SELECT attname::text, format_type(atttypid, NULL), attnotnull AND NOT atthasdef AND attidentity = '',
           attgenerated <> ''
    FROM pg_attribute WHERE attrelid = to_regclass($1) AND attnum > 0 AND NOT attisdropped
"""

_TABLE = """
    SELECT nspname::text, relkind IN ('r', 'p') FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = to_regclass($1)
"""

_TABLE_RIGHTS = ("SELECT", "INSERT", "DELETE")
_MARKER_RIGHTS = ("SELECT", "INSERT", "UPDATE")


@dataclass(frozen=True)
class _Place:
    """Where the tables are, or will be."""

    schema: str
    table: str
    exists: bool

    @property
    def quoted(self) -> str:
        """The table's name in a statement."""
        return quoted(self.schema, self.table)

    @property
    def markers(self) -> str:
        """The name of the markers' table in a statement."""
        return quoted(self.schema, MARKERS)


@dataclass(frozen=True)
class _Shown:
    """A row of the markers' table."""

    marker: Marker
    table: str
    """In quotes, with its schema."""


class PostgresSink:
    """A table of an export."""

    def __init__(self, url: str, table: str, pipeline: str, export: str, key: str) -> None:
        """Nothing is connected yet.

        Args:
            url: postgresql://user:password@host:port/database.
            table: name of the table, with its schema if it has one.
            pipeline: name of the pipeline.
            export: name of the export in its spec.
            key: column that identifies a row within a day; a table that the export creates has it in its primary key,
                if it is exported.

        Raises:
            SinkRefusedError: the address cannot be read.
        """
        self._target, self._table = address_of(url), table
        self._names, self._key = (pipeline, export), key

    @property
    def address(self) -> str:
        """See `Sink.address`."""
        return f"{self._target.shown}/{self._table}"

    def marker(self, day: str) -> Marker | None:
        """See `Sink.marker`."""
        with Connection(self._target) as connection:
            place = self._place(connection)
            shown = self._shown(connection, place, day) if _exists(connection, place.markers) else None
        return shown.marker if shown and shown.table == place.quoted else None

    def deliver(self, delivery: Delivery) -> Delivered:
        """See `Sink.deliver`."""
        schema = table_columns.with_day(delivery.schema)
        self._refuse(table_columns.schema_problems(schema))
        with Connection(self._target) as connection:
            place = self._create(connection, schema)
            self._lock(connection, place, delivery.day)
            shown = self._shown(connection, place, delivery.day)
            if shown and (outcome := self._outcome(connection, place, shown, delivery)):
                return Delivered(outcome, shown.marker, where=(self.address,))
            self._refuse_sharing(connection, place, delivery.day)
            rows = self._replace(connection, place, delivery, schema)
            marker = self._mark(connection, place, delivery, rows)
            connection.commit()
        return Delivered("exported", marker, where=(self.address,))

    def problems(self, schema: pa.Schema) -> Iterable[str]:
        """See `Sink.problems`."""
        try:
            yield from self._problems(table_columns.with_day(schema))
        except (SinkError, SinkRefusedError) as error:
            yield str(error)

    def _problems(self, schema: pa.Schema) -> Iterator[str]:
        found = list(table_columns.schema_problems(schema))
        with Connection(self._target) as connection:
            place = self._place(connection)
            found += _rights_problems(connection, place)
            if place.exists:
                found += table_columns.table_problems(place.quoted, schema, _columns(connection, place.quoted))
        yield from (f"{self.address}: {problem}" for problem in found)

    def _place(self, connection: Connection) -> _Place:
        *schema, table = self._table.split(".")
        found = connection.rows(_TABLE, quoted(*schema, table))
        if found:
            name, is_table = found[0]
            if not is_table:
                self._refuse([f"{self._table} is not a table; name a table in `table`, or drop what has its name"])
            return _Place(name, table, exists=True)
        name = schema[0] if schema else connection.rows("SELECT current_schema()::text")[0][0]
        if name is None:
            self._refuse([f"no schema of the search path exists; write the table with its schema: public.{table}"])
        return _Place(name, table, exists=False)

    def _create(self, connection: Connection, schema: pa.Schema) -> _Place:
        """The place with its tables, which are created if they are missing."""
        place = self._place(connection)
        if place.exists and "of" in _columns(connection, place.markers):
            return place
        _lock(connection, "tables")  # IF NOT EXISTS fails if another one creates the same table just now
        connection.rows(_MARKERS_DEFINITION.format(place.markers))
        connection.rows(_MARKERS_CHANGE.format(place.markers))
        if not _exists(connection, place.quoted):
            for statement in table_columns.creation(place.quoted, schema, self._key):
                connection.rows(statement)
        connection.commit()
        return self._place(connection)

    def _lock(self, connection: Connection, place: _Place, day: str) -> None:
        """Wait for other runs of this export, and for others that name the same table."""
        _lock(connection, "export", place.schema, *self._names, day)
        _lock(connection, "table", place.quoted, day)

    def _shown(self, connection: Connection, place: _Place, day: str) -> _Shown | None:
        found = connection.rows(
            # as JSON: an older table has no column `of`
            "SELECT created, transaction, rows, run_id, exported_at, coalesce(to_jsonb(markers) ->> 'of', ''), "
            f"table_name FROM {place.markers} AS markers "
            f"WHERE pipeline = $1 AND export = $2 AND {DAY} = $3",
            *self._names,
            date.fromisoformat(day),
        )
        if not found:
            return None
        created, transaction, rows, run_id, exported_at, of, table = found[0]
        return _Shown(Marker(Version(created, transaction), rows, run_id, exported_at.astimezone(UTC), of), table)

    def _outcome(self, connection: Connection, place: _Place, shown: _Shown, delivery: Delivery) -> Outcome | None:
        """What comes of a delivery without writing anything; None if it has to be written.

        Rows that somebody has deleted, or a table that was dropped, are written again, unless what was exported is to
        stay: nothing tells whether they would be the same rows.
        """
        if shown.table != place.quoted and delivery.is_of_another_step(shown.marker):
            return None
        outcome = delivery.refused(shown.marker)
        if outcome is None or outcome == "superseded":
            return outcome
        if shown.table != place.quoted:
            return None
        is_left = delivery.replaces == "nothing" or _count(connection, place, delivery.day) == shown.marker.rows
        return outcome if is_left else None

    def _refuse_sharing(self, connection: Connection, place: _Place, day: str) -> None:
        """Refuse a table in which another export shows this day: each would delete the other's rows."""
        others = connection.rows(
            f"SELECT pipeline, export FROM {place.markers} "
            f"WHERE table_name = $1 AND {DAY} = $2 AND (pipeline, export) <> ($3, $4)",
            place.quoted,
            date.fromisoformat(day),
            *self._names,
        )
        self._refuse(
            f"the table has {day} of export {export} of {pipeline}; give each export a table of its own, or, if that "
            f"export is no more, run DELETE FROM {place.markers} WHERE pipeline = '{pipeline}' AND export = '{export}'"
            for pipeline, export in others
        )

    def _replace(self, connection: Connection, place: _Place, delivery: Delivery, schema: pa.Schema) -> int:
        """Delete the day's rows, append those of the delivery, count them."""
        columns = _columns(connection, place.quoted)
        self._refuse(table_columns.table_problems(place.quoted, schema, columns))
        connection.rows(f"DELETE FROM {place.quoted} WHERE {DAY} = $1", date.fromisoformat(delivery.day))
        rows = _Rows(delivery, table_columns.sent(schema, columns))
        try:
            connection.ingest(place.schema, place.table, rows.reader())
        except (SinkError, SinkRefusedError) as error:
            if rows.error:
                raise rows.error from None
            if BAD_TEXT in str(error):
                self._refuse(_nul_characters(delivery, self._key))
            raise
        found = _count(connection, place, delivery.day)
        if found != rows.count:
            raise RowsLostError(
                f"{self.address}: {rows.count:,} rows of {delivery.day} were sent and {found:,} are in the table; "
                "look for a trigger, a rule or row-level security that drops or adds rows; nothing was changed"
            )
        return found

    def _mark(self, connection: Connection, place: _Place, delivery: Delivery, rows: int) -> Marker:
        connection.rows(
            f"INSERT INTO {place.markers} (pipeline, export, {DAY}, table_name, created, transaction, rows, run_id, "
            'exported_at, "of") VALUES ($1, $2, $3, $4, $5, $6, $7, $8, clock_timestamp(), $9) '
            f"ON CONFLICT (pipeline, export, {DAY}) DO UPDATE SET table_name = EXCLUDED.table_name, "
            "created = EXCLUDED.created, transaction = EXCLUDED.transaction, rows = EXCLUDED.rows, "
            'run_id = EXCLUDED.run_id, exported_at = EXCLUDED.exported_at, "of" = EXCLUDED."of"',
            *self._names,
            date.fromisoformat(delivery.day),
            place.quoted,
            *delivery.version,
            rows,
            delivery.run_id,
            delivery.of,
        )
        shown = self._shown(connection, place, delivery.day)
        assert shown is not None, "it was written just now"
        return shown.marker

    def _refuse(self, problems: Iterable[str]) -> None:
        """Refuse what has problems.

        Raises:
            SinkRefusedError: there are some; it names all.
        """
        if found := list(problems):
            raise SinkRefusedError(f"{self.address}: {'; '.join(found)}")


class _Rows:
    """The rows of a delivery while PostgreSQL takes them."""

    def __init__(self, delivery: Delivery, schema: pa.Schema) -> None:
        self._delivery, self._schema = delivery, schema
        self.count = 0
        self.error: BaseException | None = None
        """Why they could not be read; the driver has only its text."""

    def reader(self) -> pa.RecordBatchReader:
        """The rows in the types of the table."""
        return pa.RecordBatchReader.from_batches(self._schema, self._read())

    def _read(self) -> Iterator[pa.RecordBatch]:
        day = pa.scalar(date.fromisoformat(self._delivery.day))
        try:
            for batch in self._delivery.read():
                self.count += batch.num_rows
                columns = [pa.repeat(day, batch.num_rows), *(batch.column(name) for name in self._schema.names[1:])]
                yield pa.RecordBatch.from_arrays(
                    [column.cast(type_, safe=False) for column, type_ in zip(columns, self._schema.types, strict=True)],
                    schema=self._schema,
                )
        except BaseException as error:
            self.error = error
            raise


def _nul_characters(delivery: Delivery, key: str) -> Iterator[str]:
    """Find the first text with a NUL character."""
    before = 0
    for batch in delivery.read():
        for name, column in zip(batch.schema.names, batch.columns, strict=True):
            if "text" not in table_columns.accepted(column.type):
                continue
            at = pc.index(pc.match_substring(column.cast(pa.string()), "\0"), True).as_py()
            if at >= 0:
                row = (
                    f"with {key} {one_line(str(batch.column(key)[at]))}"
                    if key in batch.schema.names
                    else f"{before + at + 1:,}"
                )
                yield (
                    f"column {name} has a NUL character in the row {row}; "
                    "PostgreSQL does not store it: remove it where the column comes from, or leave the column out"
                )
                return
        before += batch.num_rows


def _lock(connection: Connection, *names: str) -> None:
    """Wait for a lock, which the end of the transaction releases."""
    connection.rows("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", "/".join(("batch_scoring", *names)))


def _exists(connection: Connection, table: str) -> bool:
    return bool(connection.rows("SELECT to_regclass($1) IS NOT NULL", table)[0][0])


def _count(connection: Connection, place: _Place, day: str) -> int:
    statement = f"SELECT count(*) FROM {place.quoted} WHERE {DAY} = $1"
    return int(connection.rows(statement, date.fromisoformat(day))[0][0])


def _columns(connection: Connection, table: str) -> dict[str, Column]:
    """The columns of a table; none if there is no such table."""
    return {row[0]: Column(*row) for row in connection.rows(_COLUMNS, table)}


def _rights_problems(connection: Connection, place: _Place) -> Iterator[str]:
    """What the user may not do, each with the statement that grants it."""
    tables = [(place.quoted, place.exists, _TABLE_RIGHTS)]
    tables.append((place.markers, _exists(connection, place.markers), _MARKER_RIGHTS))
    for table, exists, rights in tables:
        if exists:
            yield from _table_rights_problems(connection, table, rights)
    if not all(exists for _, exists, _ in tables):
        yield from _schema_rights_problems(connection, place.schema)


def _table_rights_problems(connection: Connection, table: str, rights: Sequence[str]) -> Iterator[str]:
    missing = connection.rows(
        "SELECT wanted FROM unnest($1::text[]) AS wanted WHERE NOT has_table_privilege($2, wanted)", list(rights), table
    )
    if missing:
        names = ", ".join(name for (name,) in missing)
        yield f"the user may not {names} in {table}; let its owner run GRANT {names} ON {table} TO this user"


def _schema_rights_problems(connection: Connection, schema: str) -> Iterator[str]:
    found = connection.rows("SELECT has_schema_privilege(oid, 'CREATE') FROM pg_namespace WHERE nspname = $1", schema)
    if not found:
        yield f"there is no schema {schema}; run CREATE SCHEMA {quoted(schema)}"
    elif not found[0][0]:
        yield (
            f"a table is missing and the user may not create it in schema {schema}; let its owner run "
            f"GRANT USAGE, CREATE ON SCHEMA {quoted(schema)} TO this user"
        )
