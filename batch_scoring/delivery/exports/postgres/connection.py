"""Connections to PostgreSQL: addresses, time limits, and errors that tell no user name and no password.

libpq quotes parts of an address in its errors, and takes a password's own @ or / for the end of the password: what
follows becomes a host or a port in the error. So an address is refused unless it can be read in one way only.
"""

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import pyarrow as pa

from batch_scoring.errors import SinkError, SinkRefusedError
from batch_scoring.runtime.printable import one_line

if TYPE_CHECKING:
    from adbc_driver_manager import Error

Answer = TypeVar("Answer")

_HOST = r"(?:\[[0-9A-Fa-f:.]+\]|[^:@/?#\s,\[\]]*)(?::\d+)?"
_URL = re.compile(
    r"postgres(?:ql)?://"
    r"(?:(?P<user>[^:@/?#\s]*)(?::(?P<password>[^@/?#\s]*))?@)?"
    rf"(?P<hosts>{_HOST}(?:,{_HOST})*)"
    r"(?:/(?P<database>[^@/?#\s]*))?"
    r"(?:\?(?P<query>[^@?#\s]*))?"
)
_BAD_PERCENT = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SECRET = ("user", "password", "sslpassword", "passfile")
"""Parameters of an address that are not told."""

_CLIENT = {
    "application_name": "batch_scoring",
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
    "tcp_user_timeout": "60000",
}
"""Parameters of an address that has not its own: a server that is gone is noticed within a minute."""

_LIMITS = {
    "statement_timeout": "1h",
    "lock_timeout": "10min",
    "idle_in_transaction_session_timeout": "10min",
    "synchronous_commit": "on",
}
"""Settings of a transaction, where the server, the database or the role has none or has switched them off."""

_SETTINGS = {
    "client_encoding": "UTF8",
    "tcp_keepalives_idle": "60",
    "tcp_keepalives_interval": "10",
    "tcp_keepalives_count": "6",
}
"""Settings of every transaction: the locks of a machine that is gone are released after two minutes, not two hours."""

_MAY_PASS = ("08", "25006", "25P03", "40", "53", "55006", "55P03", "57", "58", "XX")
"""SQLSTATEs, or how they begin, of what may succeed later: connection lost, read-only after a failover, deadlock, out
of disk or memory, lock or statement timeout, shutdown, errors of the operating system."""

_PROTOCOL_VIOLATION = "08P01"
"""What values in the wrong binary format are to PostgreSQL; they stay wrong."""

BAD_TEXT = "SQLSTATE 22021"
"""In the error of an ingest: a text has a NUL character, which PostgreSQL does not store."""

_REFUSED = re.compile(
    r"authentication failed|no pg_hba\.conf entry|no password supplied|does not exist|not permitted to log in"
    r"|permission denied|invalid (URI|connection|sslmode|integer|port)|not currently accepting connections"
)
"""Texts of attempts to connect that will fail again: libpq has no SQLSTATE of these. An unknown text, or one in another
language, counts as one that may pass, so that it is tried again."""

_ROLE = re.compile(r'\b(user|role) "[^"]*"')
_PREFIX = re.compile(r"^[A-Z_]+: (\[libpq\] )?")
_REST = re.compile(r"\n+(CONTEXT|DETAIL|LINE \d+|Query was):.*", re.DOTALL)
_COLUMN = re.compile(r"^COPY .*, column ([^:]*)")

_ADVICE = {
    "23505": "two rows have the same key, or the table has a unique constraint that the rows of the day break",
    "42501": "let the owner of the table or schema grant what is missing",
    "3F000": "create the schema, or let `table` name another one",
}


@dataclass(frozen=True)
class Address:
    """Where a database is."""

    url: str = field(repr=False)
    """With user name and password."""
    shown: str
    """Without them."""
    secrets: tuple[str, ...] = field(repr=False)
    """User name and password as they may appear in messages, longest first."""

    def without_secrets(self, text: str) -> str:
        """What is told of an attempt to connect; a server that is connected to does not know the password."""
        for secret in self.secrets:
            text = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", text)
        return text


def address_of(url: str) -> Address:
    """Read an address.

    Raises:
        SinkRefusedError: it can be read in no way, or in more than one; nothing of it is told.
    """
    found = _URL.fullmatch(url.strip())
    if found is None or _BAD_PERCENT.search(url):
        raise SinkRefusedError(
            "the address of the database cannot be read; write it as postgresql://user:password@host:port/database, "
            "with each of @ : / ? # % in a user name or password as %40 %3A %2F %3F %23 %25"
        )
    given = dict(part.partition("=")[::2] for part in (found["query"] or "").split("&") if part)
    parameters = {name: unquote(value) for name, value in given.items()}
    named = [found["user"], found["password"], *(given.get(name) for name in _SECRET)]
    secrets = {text for raw in named if raw for text in (raw, unquote(raw))}
    hosts = found["hosts"] or parameters.get("host", "")
    whole, _, _ = found.group().partition("?")
    query = "&".join(f"{name}={value}" for name, value in (_CLIENT | given).items())
    return Address(
        f"{whole}?{query}",
        f"postgresql://{unquote(hosts)}/{unquote(found['database'] or parameters.get('dbname', ''))}",
        tuple(sorted(secrets, key=len, reverse=True)),
    )


def quoted(*names: str) -> str:
    """An identifier, quoted, with its schema if there are two names."""
    return ".".join('"' + name.replace('"', '""') + '"' for name in names)


class Connection:
    """A connection with an open transaction, which is rolled back unless it is committed.

    Statements are executed in a thread of their own: in the main thread, the driver keeps Ctrl-C to itself and cancels
    only the statement, and the command would go on with the next day.
    """

    def __init__(self, address: Address) -> None:
        """Connect.

        Raises:
            SinkError: the database does not answer.
            SinkRefusedError: it refuses the user, there is no such database, or the driver is not installed.
        """
        try:
            from adbc_driver_postgresql import dbapi
        except ImportError as error:
            raise SinkRefusedError(
                f"the driver of PostgreSQL cannot be imported ({error}); where exports run, install it: "
                "pip install -c constraints.txt -e '.[sql]'"
            ) from error

        self._address = address
        with _told(address, is_connecting=True):
            self._connection = dbapi.connect(address.url, autocommit=False)
        self._thread = ThreadPoolExecutor(1, "postgres")
        self._is_new = True

    def __enter__(self) -> "Connection":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        from adbc_driver_manager import Error

        self._thread.shutdown()
        try:
            self._connection.close()
        except Error:  # it was lost: what was not committed is rolled back all the same
            return

    def rows(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        """Execute a statement, its values numbered $1, $2 …; return its rows.

        Raises:
            SinkError: it may succeed later.
            SinkRefusedError: it will not.
        """
        if self._is_new:
            self._is_new = False
            self._begin()
        with _told(self._address):
            return self._in_thread(lambda: self._rows(statement, values))

    def _rows(self, statement: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with self._connection.cursor() as cursor:
            cursor.execute(statement, values or None)
            return cursor.fetchall() if cursor.description else []

    def ingest(self, schema: str, table: str, rows: pa.RecordBatchReader) -> None:
        """Append rows to a table by COPY, in their order.

        Raises:
            SinkError: it may succeed later; also if `rows` cannot be read.
            SinkRefusedError: it will not.
        """
        with _told(self._address):
            self._in_thread(lambda: self._ingest(schema, table, rows))

    def _ingest(self, schema: str, table: str, rows: pa.RecordBatchReader) -> None:
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(table, rows, mode="append", db_schema_name=schema)

    def commit(self) -> None:
        """Commit; the next statement begins another transaction.

        Raises:
            SinkError: the connection was lost; whether it is committed only the marker can tell.
            SinkRefusedError: a deferred constraint refuses the rows.
        """
        with _told(self._address):
            self._connection.commit()
        self._is_new = True

    def _in_thread(self, execute: Callable[[], Answer]) -> Answer:
        """Execute something; cancel it if this thread is interrupted meanwhile."""
        running = self._thread.submit(execute)
        try:
            return running.result()
        finally:
            if not running.done():
                self._connection.adbc_cancel()

    def _begin(self) -> None:
        """Apply the settings: rows that others commit while this one waits for a lock are seen, whatever the role's."""
        self.rows("SET TRANSACTION ISOLATION LEVEL READ COMMITTED")
        self.rows(
            "SELECT set_config(name, setting, true) FROM unnest($1::text[], $2::text[]) AS wanted(name, setting) "
            "WHERE name = ANY($3::text[]) OR current_setting(name) IN ('0', 'off')",
            *(list(column) for column in (_SETTINGS | _LIMITS, (_SETTINGS | _LIMITS).values(), _SETTINGS)),
        )


@contextmanager
def _told(address: Address, *, is_connecting: bool = False) -> Iterator[None]:
    """Raise the driver's errors as the package's."""
    from adbc_driver_manager import Error

    try:
        yield
    except Error as error:
        text = _ROLE.sub(r'\1 "***"', _text_of(error))
        if is_connecting:
            is_refused = bool(_REFUSED.search(text))
            text = f"{address.without_secrets(text)}; {_advice(address, is_refused=is_refused)}"
        else:
            is_refused = _is_refused(error)
        raise (SinkRefusedError if is_refused else SinkError)(f"{address.shown}: {one_line(text)}") from None


def _advice(address: Address, *, is_refused: bool) -> str:
    """What to do if it cannot be connected to."""
    if not is_refused:
        return "check that it runs and can be reached"
    lacking = ", which names no database" if address.shown.endswith("/") else ""
    return f"correct the address{lacking}, or let the user in"


def _is_refused(error: "Error") -> bool:
    from adbc_driver_manager import AdbcStatusCode

    if error.sqlstate:
        return error.sqlstate == _PROTOCOL_VIOLATION or not error.sqlstate.startswith(_MAY_PASS)
    final = (AdbcStatusCode.INVALID_ARGUMENT, AdbcStatusCode.NOT_IMPLEMENTED, AdbcStatusCode.ALREADY_EXISTS)
    return error.status_code in final


def _text_of(error: "Error") -> str:
    """What the server said, with the column, the SQLSTATE and advice; without the statement and values of rows."""
    details = {_decoded(name): _decoded(value) for name, value in error.details}
    said = details.get("PG_DIAG_MESSAGE_PRIMARY") or _PREFIX.sub("", _REST.sub("", str(error)))
    column = _COLUMN.search(details.get("PG_DIAG_CONTEXT", ""))
    parts = [" ".join(said.split())]
    if column:
        parts.append(f" in column {column[1]}")
    if error.sqlstate:
        parts.append(f" (SQLSTATE {error.sqlstate})")
    return "".join(parts) + (f"; {_ADVICE[error.sqlstate]}" if error.sqlstate in _ADVICE else "")


def _decoded(text: str | bytes) -> str:
    return text if isinstance(text, str) else text.decode(errors="replace")  # the driver says str, and gives bytes
