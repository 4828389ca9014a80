"""A real Redis for tests of exports: started, stopped, killed."""

import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import pytest
import redis

PASSWORD = "p@ss/w:rd#1"
"""Every character that has a meaning in an address."""

needs_redis = pytest.mark.skipif(shutil.which("redis-server") is None, reason="no redis-server on this machine")


def free_port() -> int:
    """A port that nobody listens to."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class RedisProcess:
    """A server that keeps what it has acknowledged, as one in production does."""

    def __init__(self, folder: Path, *settings: str) -> None:
        self.folder, self._settings = folder, settings
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def address(self) -> str:
        """Without user and password."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def url(self) -> str:
        """The address, as the sink takes it."""
        return self.url_of()

    def url_of(self, user: str = "", password: str = PASSWORD) -> str:
        """The address for a user."""
        return f"redis://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start, and wait until it answers."""
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)]
        command += ["--requirepass", PASSWORD, "--save", "", "--appendonly", "yes", "--appendfsync", "no"]
        self._process = subprocess.Popen([*command, *self._settings], stdout=subprocess.DEVNULL)
        until = time.monotonic() + 30
        while not self._answers():
            assert time.monotonic() < until, "redis-server does not start"
            time.sleep(0.01)

    def stop(self) -> None:
        """Kill it: it is gone without notice."""
        if self._process:
            self._process.kill()
            self._process.wait()
            self._process = None

    def client(self) -> "redis.Redis":
        """A client of the usual kind."""
        return redis.Redis.from_url(self.url, decode_responses=True)

    def __reduce__(self) -> tuple[object, ...]:
        """Another process gets what it needs to be a client."""
        return _client_of, (self.folder, self.port)

    def _answers(self) -> bool:
        try:
            with self.client() as client:
                return bool(client.ping())
        except redis.RedisError:
            return False


def _client_of(folder: Path, port: int) -> RedisProcess:
    server = RedisProcess(folder)
    server.port = port
    return server


@contextmanager
def running_redis(*settings: str) -> Iterator[RedisProcess]:
    """A running server. `settings`: options of its command line."""
    with tempfile.TemporaryDirectory(prefix="redis_") as folder:
        server = RedisProcess(Path(folder), *settings)
        server.start()
        try:
            yield server
        finally:
            server.stop()
