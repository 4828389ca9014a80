"""The connection to a real Redis: what is told of its errors, and keys in bulk."""

import io
import socket
import threading
from collections.abc import Iterator

import pyarrow as pa
import pytest

from batch_scoring.delivery.exports.redis import server as redis_server
from batch_scoring.delivery.exports.redis.server import Keys, RedisServer, address_of, connected
from batch_scoring.errors import SinkError, SinkRefusedError
from batch_scoring_tests.redis_process import PASSWORD, RedisProcess, free_port, needs_redis, running_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisProcess]:
    with running_redis() as server:
        yield server


@pytest.fixture
def server(redis: RedisProcess) -> Iterator[RedisServer]:
    with connected(redis.url) as opened:
        yield opened


def texts(*values: str) -> pa.Array:
    return pa.array(values, pa.large_string())


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("redis://cache", "redis://cache"),
        ("redis://user:geheim@cache:6380/2", "redis://cache:6380/2"),
        ("rediss://:p%40%2F@[::1]:6379/0?ssl_cert_reqs=none", "rediss://[::1]:6379/0"),
        ("redis://cache?password=geheim", "redis://cache"),
        ("unix://user:geheim@/run/redis.sock?db=1", "unix:///run/redis.sock"),
    ],
)
def test_an_address_is_told_without_user_and_password(url: str, address: str) -> None:
    assert address_of(url) == RedisServer(url).address == address


@pytest.mark.parametrize(
    "password", ["12/geheim", "12#geheim", "12?geheim", "ge@heim", "12:geheim/", " geheim", "geheim\n"]
)
def test_a_password_that_would_be_taken_for_a_host_is_refused_and_not_quoted(password: str) -> None:
    with pytest.raises(SinkRefusedError, match=r"cannot be read; write it as redis://.*%40") as caught:
        RedisServer(f"redis://user:{password}@cache:6379/0")
    assert "heim" not in str(caught.value)
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("option", ["socket_timeout", "pgbouncer"])
def test_an_option_that_cannot_be_read_or_is_unknown_is_refused_without_its_value(option: str) -> None:
    with pytest.raises(SinkRefusedError, match="redis://cache: an option") as caught:
        RedisServer(f"redis://user:geheim@cache?{option}=geheim")
    assert "geheim" not in str(caught.value)


@needs_redis
def test_an_option_that_other_programs_need_changes_nothing(redis: RedisProcess) -> None:
    with connected(f"{redis.url}?decode_responses=True") as server:
        server.ask("HSET", "é", "field", "ü")
        assert server.ask("HGET", "é", "field") == "ü".encode()
        assert server.info("server")["redis_version"]
    assert redis.client().hget("é", "field") == "ü"


def test_no_server() -> None:
    port = free_port()
    with pytest.raises(SinkError, match=f"redis://localhost:{port}: .*check that it runs and can be reached"):
        RedisServer(f"redis://localhost:{port}").ask("PING")


def test_no_server_by_tls() -> None:
    with pytest.raises(SinkError, match="check that it runs and can be reached, by TLS"):
        RedisServer(f"rediss://localhost:{free_port()}").ask("PING")


@needs_redis
def test_a_wrong_password_is_refused(redis: RedisProcess) -> None:
    with pytest.raises(SinkRefusedError, match="disabled; correct the user and the password") as caught:
        RedisServer(redis.url_of("svc", "geheim")).ask("PING")
    assert "geheim" not in str(caught.value)
    assert "svc" not in str(caught.value)
    with pytest.raises(SinkRefusedError, match="give a password"):
        RedisServer(redis.address).ask("PING")


@needs_redis
def test_a_database_that_does_not_exist_is_refused(redis: RedisProcess) -> None:
    with pytest.raises(SinkRefusedError, match="DB index is out of range"):
        RedisServer(f"{redis.url.removesuffix('/0')}/99").ask("PING")


@needs_redis
def test_missing_rights_are_refused_without_the_user_s_name(redis: RedisProcess) -> None:
    with redis.client() as client:
        client.acl_setuser("svc", enabled=True, passwords=[f"+{PASSWORD}"], commands=["+ping"])
    with (
        pytest.raises(SinkRefusedError, match="grant the user what is missing") as caught,
        connected(redis.url_of("svc")) as server,
    ):
        server.ask("GET", "x")
    assert "svc" not in str(caught.value)


@needs_redis
def test_what_a_server_quotes_of_the_password_is_not_told(server: RedisServer) -> None:
    with pytest.raises(SinkRefusedError, match=r"unknown command 'LOGIN'.*\*\*\*") as caught:
        server.ask("LOGIN", PASSWORD)
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "error", "remedy"),
    [
        ("LOADING Redis is loading the dataset in memory", SinkError, "it is loading"),
        ("READONLY You can't write against a read only replica.", SinkError, "wait for the failover"),
        ("MASTERDOWN Link with MASTER is down", SinkError, "wait for the failover"),
        ("OOM command not allowed when used memory > 'maxmemory'.", SinkError, "its memory is full"),
        ("ERR Error running script (call to f_1): @user_script:4: -OOM command not allowed", SinkError, "is full"),
        ("MISCONF Redis is configured to save RDB snapshots", SinkError, "cannot write its snapshot"),
        ("NOREPLICAS Not enough good replicas to write.", SinkError, "too few replicas"),
        ("BUSY Redis is busy running a script.", SinkError, "keeps it busy"),
        ("ERR max number of clients reached", SinkError, "too many clients"),
        ("MOVED 3999 127.0.0.1:6381", SinkRefusedError, "without cluster mode"),
        ("CROSSSLOT Keys in request don't hash to the same slot", SinkRefusedError, "without cluster mode"),
        ("CLUSTERDOWN Hash slot not served", SinkRefusedError, "without cluster mode"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", SinkRefusedError, "WRONGTYPE"),
    ],
)
def test_every_answer_says_whether_it_may_pass_and_what_to_do(answer: str, error: type[Exception], remedy: str) -> None:
    with Answering(f"-{answer}\r\n") as port, connected(f"redis://localhost:{port}") as server:
        with pytest.raises(error, match=remedy):
            server.ask("PING")
        assert server.was_answered


def test_a_user_that_the_server_names_is_not_told() -> None:
    with (
        Answering("-NOPERM User svc has no permissions to run the 'eval' command\r\n") as port,
        connected(f"redis://svc:geheim@localhost:{port}") as server,
        pytest.raises(SinkRefusedError, match=r"User \*\*\* has no permissions.*grant the user what is missing"),
    ):
        server.ask("PING")


def test_a_server_that_hangs_up_may_have_done_it() -> None:
    with Answering("") as port, connected(f"redis://localhost:{port}") as server:
        with pytest.raises(SinkError, match="check that it runs"):
            server.ask("PING")
        assert not server.was_answered


def test_a_server_that_does_not_answer_in_time() -> None:
    with Answering(None) as port, connected(f"redis://localhost:{port}?socket_timeout=0.2") as server:
        with pytest.raises(SinkError, match="Timeout reading"):
            server.ask("PING")
        assert not server.was_answered


@needs_redis
def test_a_refused_command_among_others_leaves_no_answer_behind(server: RedisServer) -> None:
    packed = b"".join(
        b"*%d\r\n" % len(command) + b"".join(map(redis_server._argument, command)) for command in COMMANDS
    )
    with pytest.raises(SinkRefusedError):
        server.ask_each([packed], len(COMMANDS))
    assert server.ask("ECHO", "next") == b"next"


COMMANDS = ([b"ECHO", b"a"], [b"NONSENSE"], [b"ECHO", b"b"])


@needs_redis
def test_keys_are_written_with_any_text_and_a_common_end(redis: RedisProcess, server: RedisServer) -> None:
    keys = Keys(server, "k:", 100, io.BytesIO())
    names, values = texts("", "a", "ü\r\n$3", "\x00"), texts('"x"', "[]", "\r\n", "é")
    assert keys.write(names, values) == keys.count() == keys.sent == 4
    with redis.client() as client:
        assert client.mget(*(f"k:{name}" for name in names.to_pylist())) == values.to_pylist()
        at_once = client.pipeline()
        for name in names.to_pylist():
            at_once.pttl(f"k:{name}")
        left = at_once.execute()
        assert max(left) - min(left) <= 2
        assert 90_000 < min(left) <= 100_000
        client.delete("k:a")
        assert keys.count() == 3
        client.set("k:other", "1")
        keys.remove()
        assert client.keys("k:*") == ["k:other"]


@needs_redis
def test_keys_written_later_do_not_outlive_the_first(
    redis: RedisProcess, server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter((0.0, 1.0, 61.0))
    monkeypatch.setattr(redis_server.time, "monotonic", lambda: next(clock, 61.0))
    keys = Keys(server, "late:", 100, io.BytesIO())
    keys.write(texts("first"), texts("1"))
    keys.write(texts("last"), texts("1"))
    with redis.client() as client:
        assert client.ttl("late:first") == pytest.approx(99, abs=1)
        assert client.ttl("late:last") == pytest.approx(39, abs=1)


@needs_redis
def test_many_keys_and_large_values_go_in_commands_of_bounded_size(
    server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[int] = []
    ask_each = server.ask_each
    monkeypatch.setattr(
        server, "ask_each", lambda packed, commands: sent.append(commands) or ask_each(packed, commands)
    )
    keys = Keys(server, "many:", 100, io.BytesIO())
    assert keys.write(texts(*map(str, range(9000))), texts(*["1"] * 9000)) == 9000
    assert sent == [32, 4]  # of 250 keys each
    sent.clear()
    assert keys.write(texts("a", "b", "c"), texts(*["x" * 2**20] * 3)) == 3
    assert sent == [3]
    assert keys.count() == 9003


@needs_redis
def test_a_key_that_exists_is_not_counted_as_written(server: RedisServer) -> None:
    keys = Keys(server, "twice:", 100, io.BytesIO())
    assert keys.write(texts("a", "a", "b"), texts("1", "2", "3")) == 2


class Answering:
    """A server that gives one answer to whatever is sent; None: none at all."""

    def __init__(self, answer: str | None) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._thread = threading.Thread(target=self._serve)

    def __enter__(self) -> int:
        self._thread.start()
        return int(self._listener.getsockname()[1])

    def __exit__(self, *exception: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection:
                while b"PING" not in (sent := connection.recv(4096)) and sent:
                    connection.sendall(b"+OK\r\n" * sent.count(b"*"))  # who the client is
                if self._answer is None:
                    connection.recv(4096)
                else:
                    connection.sendall(self._answer.encode())
