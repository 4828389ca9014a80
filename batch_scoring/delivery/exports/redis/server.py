"""One connection to Redis, and keys that are written, counted and removed in bulk over it.

Commands are packed by Arrow, not one by one, and sent over redis-py's own connection, which knows addresses, logins and
TLS. A script writes a few hundred keys per call, so there is one answer to read instead of hundreds; a call takes about
a millisecond, during which the server answers nobody else.
"""

import contextlib
import re
import time
from collections.abc import Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.errors import SinkError, SinkRefusedError

if TYPE_CHECKING:
    from redis.exceptions import RedisError

_USER = r"(?:[^@/?#\s]*@)?"
_OPTIONS = r"(?:\?[^@#\s]*)?"
_URLS = (
    re.compile(rf"(rediss?://){_USER}((?:\[[0-9A-Fa-f:.]+\]|[^:@/?#\s\[\]]+)(?::\d+)?(?:/\d*)?){_OPTIONS}"),
    re.compile(rf"(unix://){_USER}(/[^@?#\s]+){_OPTIONS}"),
)
"""Addresses that can be read in one way only, so that no part of a password is taken for a host."""

_WRITE = b"""
local written = 0
for place, key in ipairs(KEYS) do
    if redis.call('SET', key, ARGV[place + 1], 'PX', ARGV[1], 'NX') then written = written + 1 end
end
return written
"""

_KEYS_PER_COMMAND = 250
_BYTES_PER_COMMAND = 2**20
_COMMANDS_AT_ONCE = 32
"""Commands that are sent before their answers are read."""

_SECONDS = 30
"""Timeout of an answer; `?socket_timeout=` in the address sets another."""

_OURS = {"protocol": 2, "decode_responses": False}
"""Options of the connection that an address, which others may use too, cannot change."""

CLUSTER = (
    "it is a node of a Redis Cluster, in which the keys of a version cannot be switched to as a whole; export to a "
    "Redis without cluster mode (with replicas and failover, if need be)"
)


class _Remedy(NamedTuple):
    """What an answer means for the export."""

    may_pass: bool
    text: str


_REMEDIES = {
    "OOM": _Remedy(True, "its memory is full; raise maxmemory, remove other keys, or lower ttl_hours"),
    "LOADING": _Remedy(True, "it is loading its data after a start"),
    "READONLY": _Remedy(True, "it is a replica; wait for the failover to end, or give the address of the primary"),
    "MASTERDOWN": _Remedy(True, "it is a replica without its primary; wait for the failover to end"),
    "MISCONF": _Remedy(True, "it cannot write its snapshot; see its log and its disk"),
    "NOREPLICAS": _Remedy(True, "too few replicas are connected to it"),
    "BUSY": _Remedy(True, "a script of somebody else keeps it busy"),
    "max number of clients": _Remedy(True, "it has too many clients; raise maxclients"),
    "WRONGPASS": _Remedy(False, "correct the user and the password in the address"),
    "NOAUTH": _Remedy(False, "give a password in the address"),
    **dict.fromkeys(
        ("NOPERM", "can't run this command"),
        _Remedy(False, "grant the user what is missing, as docs/guides/exports-redis.md lists it"),
    ),
    **dict.fromkeys(("MOVED", "ASK", "CROSSSLOT", "CLUSTERDOWN"), _Remedy(False, CLUSTER)),
}
"""Remedies by error code; a script's error has that of the command inside it in its text."""


def address_of(url: str) -> str:
    """An address without user, password and options.

    Raises:
        SinkRefusedError: it cannot be read.
    """
    for pattern in _URLS:
        if parts := pattern.fullmatch(url):
            return "".join(parts.groups())
    raise SinkRefusedError(
        "the address of the Redis cannot be read; write it as redis://user:password@host:port/database (rediss:// for "
        "TLS), with each of @ : / ? # % in a user name or password as %40 %3A %2F %3F %23 %25"
    )


class RedisServer:
    """One connection; it is opened by the first command, and again after an error."""

    def __init__(self, url: str) -> None:
        """Nothing is sent yet.

        Raises:
            SinkRefusedError: the address cannot be read, or redis-py is not installed.
        """
        self.address = address_of(url)
        self.was_answered = True
        """Whether the last command that failed was answered; if not, it may have been carried out all the same."""
        try:
            from redis import ConnectionPool
            from redis.backoff import NoBackoff
            from redis.retry import Retry
        except ImportError:
            raise SinkRefusedError(
                "exports to Redis need redis-py; where exports run, install it: "
                "pip install -c constraints.txt -e '.[redis]'"
            ) from None
        try:
            pool = ConnectionPool.from_url(
                url, socket_timeout=_SECONDS, socket_connect_timeout=10, retry=Retry(NoBackoff(), 0)
            )
            pool.connection_kwargs |= _OURS
            self._connection: Any = pool.make_connection()
        except (ValueError, TypeError):  # the latter for an unknown one
            raise SinkRefusedError(f"{self.address}: an option after the ? of its address cannot be read") from None
        self._password, self._user = (str(pool.connection_kwargs.get(of) or "") for of in ("password", "username"))

    def close(self) -> None:
        """Close the connection."""
        self._connection.disconnect()

    def ask(self, *command: str | bytes | int) -> Any:  # noqa: ANN401  (what a command answers)
        """Send a command and return the answer.

        Raises:
            SinkError: it does not answer, or cannot do it now.
            SinkRefusedError: it refuses.
        """
        return self.ask_each(self._connection.pack_command(*command), 1)[0]

    def ask_each(self, packed: Sequence[bytes], commands: int) -> list[Any]:
        """Send packed commands at once and return their answers; raises like `ask`."""
        from redis.exceptions import RedisError

        try:
            self._connection.send_packed_command(packed)
            return [self._connection.read_response() for _ in range(commands)]
        except RedisError as error:
            self._connection.disconnect()  # answers to later commands may be on their way
            raise self._as_sink_error(error) from None

    def info(self, section: str) -> dict[str, str]:
        """What the server says about itself."""
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def _as_sink_error(self, error: "RedisError") -> SinkError | SinkRefusedError:
        from redis.exceptions import AuthenticationError, ResponseError

        text = self._without_secrets(str(error))
        code = str(getattr(error, "status_code", None) or "")
        self.was_answered = isinstance(error, ResponseError) or bool(code)
        remedy = next(
            (found for known, found in _REMEDIES.items() if re.search(rf"\b{known}\b", f"{code} {text}")), None
        )
        if remedy is None:
            is_final = isinstance(error, ResponseError | AuthenticationError)
            by = ", by TLS" if self.address.startswith("rediss:") else ""
            remedy = _Remedy(not is_final, "" if is_final else f"check that it runs and can be reached{by}")
        message = f"{self.address}: {text.removesuffix('.')}" + (f"; {remedy.text}" if remedy.text else "")
        return SinkError(message) if remedy.may_pass else SinkRefusedError(message)

    def _without_secrets(self, text: str) -> str:
        """A server quotes users, and unknown commands with their arguments."""
        text = text.replace(self._password, "***") if self._password else text
        return re.sub(rf"\b{re.escape(self._user)}\b", "***", text) if self._user else text


@contextlib.contextmanager
def connected(url: str) -> Iterator[RedisServer]:
    """Provide a connection."""
    with contextlib.closing(RedisServer(url)) as server:
        yield server


class Keys:
    """The keys of one attempt; their packed names wait in a file to be counted or removed by."""

    def __init__(self, server: RedisServer, prefix: str, ttl: float, file: IO[bytes]) -> None:
        """Nothing is sent yet.

        Args:
            server: that will have them.
            prefix: of their names.
            ttl: seconds after which all of them vanish, counted from now.
            file: receives their names.
        """
        self._server = server
        self._prefix = prefix
        self._vanish_at = time.monotonic() + ttl
        self._file = file
        self._commands: list[tuple[int, int]] = []
        """Keys and bytes of each block of names in the file."""
        self.bytes = 0
        """Of names and values, as they were sent."""

    @property
    def sent(self) -> int:
        """Keys that were sent."""
        return sum(keys for keys, _ in self._commands)

    def write(self, names: pa.Array, values: pa.Array) -> int:
        """Write keys; return how many did not exist before."""
        named = _Arguments(_joined(self._prefix.encode(), names))
        valued = _Arguments(values)
        size = named.bytes + valued.bytes
        step = max(1, min(_KEYS_PER_COMMAND, _BYTES_PER_COMMAND * len(names) // max(size, 1)))
        self.bytes += size
        written = 0
        starts = range(0, len(names), step)
        for at in range(0, len(starts), _COMMANDS_AT_ONCE):
            parts = [slice(start, min(start + step, len(names))) for start in starts[at : at + _COMMANDS_AT_ONCE]]
            packed = b"".join(piece for part in parts for piece in self._command(named[part], valued[part], part))
            written += sum(self._server.ask_each([packed], len(parts)))
        return written

    def count(self) -> int:
        """How many of them are there, as the server counts."""
        return self._with_names(b"EXISTS")

    def remove(self) -> None:
        """Remove them; those of a server that does not answer vanish later by themselves."""
        with contextlib.suppress(SinkError, SinkRefusedError):
            self._with_names(b"UNLINK")

    def _command(self, names: memoryview, values: memoryview, part: slice) -> Iterator[bytes | memoryview]:
        keys = part.stop - part.start
        self._file.write(names)
        self._commands.append((keys, len(names)))
        milliseconds = max(1, round((self._vanish_at - time.monotonic()) * 1000))
        yield b"*%d\r\n" % (2 * keys + 4) + b"".join(map(_argument, (b"EVAL", _WRITE, b"%d" % keys)))
        yield names
        yield _argument(b"%d" % milliseconds)
        yield values

    def _with_names(self, command: bytes) -> int:
        """The sum of the answers to a command with all names."""
        self._file.seek(0)
        found = 0
        for at in range(0, len(self._commands), _COMMANDS_AT_ONCE):
            parts = self._commands[at : at + _COMMANDS_AT_ONCE]
            packed = [b"*%d\r\n" % (keys + 1) + _argument(command) + self._file.read(size) for keys, size in parts]
            found += sum(self._server.ask_each([b"".join(packed)], len(parts)))
        return found


class _Arguments:
    """Texts, each packed as an argument of a command, in one piece of memory."""

    def __init__(self, texts: pa.Array) -> None:
        lengths = pc.binary_length(texts).cast(pa.large_string())
        packed = _joined(b"$", lengths, b"\r\n", texts, b"\r\n")
        ends = np.frombuffer(packed.buffers()[1], np.int64)[packed.offset : packed.offset + len(packed) + 1]
        self._ends = [int(end) for end in ends]
        self._data = memoryview(packed.buffers()[2] or b"")

    @property
    def bytes(self) -> int:
        return self._ends[-1] - self._ends[0]

    def __getitem__(self, part: slice) -> memoryview:
        return self._data[self._ends[part.start] : self._ends[part.stop]]


def _joined(*parts: pa.Array | bytes) -> pa.Array:
    """Texts, one after the other, as bytes."""
    binary = pa.large_binary()
    texts = [pa.scalar(part, binary) if isinstance(part, bytes) else part.cast(binary) for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar(b"", binary))


def _argument(value: bytes) -> bytes:
    return b"$%d\r\n%s\r\n" % (len(value), value)
