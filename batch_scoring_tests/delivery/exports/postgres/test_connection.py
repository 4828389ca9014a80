import os
import signal
import threading
import traceback
from collections.abc import Callable
from urllib.parse import quote

import pyarrow as pa
import pytest

from batch_scoring.delivery.exports.postgres.connection import Connection, address_of, quoted
from batch_scoring.delivery.exports.postgres.sink import PostgresSink
from batch_scoring.errors import SinkError, SinkRefusedError
from batch_scoring_tests.postgres_server import PASSWORD, Server

SECRETS = ("owner", PASSWORD, *(part for part in ("p@ss", "w:rd", "ss/w", "rd#1", "p%40ss", "w%3Ard")))


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://bilbo:se%40cret@db.example:5432/results", "postgresql://db.example:5432/results"),
        ("postgres://bilbo@db/results\n", "postgresql://db/results"),
        ("postgresql://db/results?user=bilbo&password=secret&sslmode=require", "postgresql://db/results"),
        ("postgresql://bilbo:a:b@one:1,[::1]:2/results", "postgresql://one:1,[::1]:2/results"),
        ("postgresql:///results?host=/run/postgresql", "postgresql:///run/postgresql/results"),
        ("postgresql://bilbo:secret@%2Frun%2Fpostgresql/results", "postgresql:///run/postgresql/results"),
    ],
)
def test_an_address_is_shown_without_user_and_password(url: str, shown: str) -> None:
    address = address_of(url)
    assert address.shown == shown
    assert not any(secret in repr(address) for secret in ("bilbo", "secret", "se%40cret"))


@pytest.mark.parametrize(
    "url",
    [
        "",
        "bilbo:secret@db/results",
        "mysql://bilbo:secret@db/results",
        "postgresql+psycopg2://bilbo:secret@db/results",
        "host=db user=bilbo password=secret",
        "postgresql://bilbo:zorn@ret@db/results",
        "postgresql://bilbo:zorn/ret@db/results",
        "postgresql://bilbo:zorn?ret@db/results",
        "postgresql://bilbo:zorn#ret@db/results",
        "postgresql://bilbo:12/secret@db/results",
        "postgresql://bilbo:12?secret@db/results",
        "postgresql://bilbo:zorn ret@db/results",
        "postgresql://bilbo:zorn%zzret@db/results",
        "postgresql://bilbo:secret@db:port/results",
    ],
)
def test_an_address_that_can_be_read_in_two_ways_is_refused_and_not_told(url: str) -> None:
    with pytest.raises(SinkRefusedError, match="%40") as refused:
        address_of(url)
    told = str(refused.value)
    assert not any(part in told for part in ("bilbo", "sec", "zorn", "ret@", "results"))


def test_settings_of_an_address_win_over_the_project_s() -> None:
    url = address_of("postgresql://bilbo:secret@db/results?connect_timeout=3&sslmode=require").url
    assert "connect_timeout=3" in url and "connect_timeout=10" not in url
    assert "sslmode=require" in url and "keepalives_idle=30" in url


def test_parameters_of_an_address_reach_the_server_as_they_are(postgres: Server) -> None:
    parameters = f"user=owner&password={quote(PASSWORD, safe='')}&options=-c%20lock_timeout%3D7s&application_name=a+b"
    url = f"postgresql://127.0.0.1:{postgres.port}/{postgres.database}?{parameters}"
    with Connection(address_of(url)) as connection:
        found = connection.rows("SELECT current_setting('lock_timeout'), current_setting('application_name')")
    assert found == [("7s", "a+b")]


def test_names_are_quoted() -> None:
    assert quoted("scores", 'a "b"') == '"scores"."a ""b"""'


def _wrong_password(server: Server) -> str:
    return server.url_of("owner", PASSWORD + "x")


def _unknown_user(server: Server) -> str:
    return server.url_of("owner2")


def _unknown_database(server: Server) -> str:
    return server.url.replace(server.database, "nowhere")


def _no_database(server: Server) -> str:
    return server.url.removesuffix(server.database)


def _unknown_parameter(server: Server) -> str:
    return f"{server.url}?bogus=owner"


def _unknown_host(server: Server) -> str:
    return server.url.replace("127.0.0.1", "nowhere.invalid")


def _nothing_listens(server: Server) -> str:
    return server.url.replace(f":{server.port}/", ":1/")


@pytest.mark.parametrize(
    ("url_of", "error", "said"),
    [
        (_wrong_password, SinkRefusedError, "password authentication failed.*; correct the address"),
        (_unknown_user, SinkRefusedError, "password authentication failed"),
        (_unknown_database, SinkRefusedError, 'database "nowhere" does not exist'),
        (_no_database, SinkRefusedError, "; correct the address, which names no database, or let"),
        (_unknown_parameter, SinkRefusedError, "bogus"),
        (_unknown_host, SinkError, "could not translate host name"),
        (_nothing_listens, SinkError, "Connection refused.*; check that it runs"),
    ],
)
def test_what_prevents_a_connection_is_told_without_user_and_password(
    postgres: Server, url_of: Callable[[Server], str], error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said) as raised:
        PostgresSink(url_of(postgres), "results", "churn", "results", "id").marker("2024-01-01")
    told = "".join(traceback.format_exception(raised.value))
    assert not [secret for secret in SECRETS if secret in told.replace("owner.py", "")]
    assert str(raised.value) in list(
        PostgresSink(url_of(postgres), "results", "churn", "results", "id").problems(pa.schema([("id", pa.int64())]))
    )


MAY_PASS = {
    "08006": "connection failure",
    "25006": "read-only transaction, after a failover",
    "25P03": "idle in transaction for too long",
    "40001": "serialisation failure",
    "40P01": "deadlock",
    "53100": "disk full",
    "53200": "out of memory",
    "53300": "too many connections",
    "55P03": "lock not available",
    "57014": "statement timeout",
    "57P01": "shutdown",
    "58030": "I/O error",
}
FINAL = {
    "08P01": "a value in another type's format",
    "22001": "too long",
    "23505": "not unique",
    "23514": "no partition for the day",
    "42501": "no rights",
    "42P01": "no such table",
    "P0001": "a trigger's own",
}


def test_an_error_is_final_or_may_pass_by_its_sqlstate(postgres: Server) -> None:
    postgres.query(
        "CREATE FUNCTION fails(state text) RETURNS int LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'so it is' USING ERRCODE = state; END $$"
    )
    for state in MAY_PASS | FINAL:
        with (
            Connection(address_of(postgres.url)) as connection,
            pytest.raises(SinkError if state in MAY_PASS else SinkRefusedError, match=f": so it is.*{state}"),
        ):
            connection.rows("SELECT fails($1)", state)


def test_a_server_that_is_gone_may_be_back(postgres: Server) -> None:
    with Connection(address_of(postgres.url)) as connection:
        connection.rows("SELECT 1")
        postgres.stop()
        try:
            with pytest.raises(SinkError):
                connection.rows("SELECT 1")
            with pytest.raises(SinkError):
                connection.commit()
        finally:
            postgres.start()


def test_what_the_role_has_set_stands_and_what_it_has_not_is_limited(postgres: Server) -> None:
    postgres.query("CREATE ROLE careful LOGIN PASSWORD 'x'")
    postgres.query("ALTER ROLE careful SET statement_timeout = '7min'")
    postgres.query("ALTER ROLE careful SET synchronous_commit = off")
    postgres.query("ALTER ROLE careful SET client_encoding = LATIN1")
    postgres.query("ALTER ROLE careful SET default_transaction_isolation = serializable")
    names = ("statement_timeout", "lock_timeout", "synchronous_commit", "client_encoding", "transaction_isolation")
    with Connection(address_of(postgres.url_of("careful", "x"))) as connection:
        for _ in range(2):  # transactions
            found = [connection.rows("SELECT current_setting($1)", name)[0][0] for name in names]
            assert found == ["7min", "10min", "on", "UTF8", "read committed"]
            connection.commit()


def test_nothing_stays_of_a_transaction_that_is_not_committed(postgres: Server) -> None:
    with Connection(address_of(postgres.url)) as connection:
        connection.rows("CREATE TABLE left_alone (id int)")
    assert postgres.query("SELECT to_regclass('left_alone')") == [(None,)]


def test_ctrl_c_reaches_the_command_and_the_statement_is_cancelled(postgres: Server) -> None:
    asleep = (
        "SELECT count(*) FROM pg_stat_activity "
        "WHERE state = 'active' AND query LIKE '%pg_sleep(50)%' AND pid <> pg_backend_pid()"
    )

    def interrupt() -> None:
        while postgres.query(asleep) == [(0,)]:
            pass
        os.kill(os.getpid(), signal.SIGINT)

    with Connection(address_of(postgres.url)) as connection:
        threading.Thread(target=interrupt, daemon=True).start()
        with pytest.raises(KeyboardInterrupt):
            connection.rows("SELECT pg_sleep(50)")
    assert postgres.query(asleep) == [(0,)]
