"""A real PostgreSQL server in a folder, for tests of exports: started, stopped, killed."""

import copy
import functools
import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg2
import pytest

PASSWORD = "p@ss/w:rd#1"
"""Every character that has a meaning in an address."""


@functools.cache
def programs() -> Path | None:
    """The folder of the newest server's programs; None if there is no server."""
    on_path = shutil.which("initdb")
    installed = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda file: int(file.parts[-3]))
    return Path(on_path).resolve().parent if on_path else installed[-1].parent if installed else None


def _is_usable() -> bool:
    return programs() is not None and (os.geteuid() != 0 or server_user() is not None)


def server_user() -> str | None:
    """Who runs the server: PostgreSQL refuses root."""
    if os.geteuid() != 0:
        return None
    known = Path("/etc/passwd").read_text("utf-8").splitlines()
    return next((name for name in ("postgres", "nobody") if any(line.startswith(f"{name}:") for line in known)), None)


def skip_without_server() -> None:
    """Skip the test where no server can run."""
    if not _is_usable():
        pytest.skip("no PostgreSQL server on this machine")


class Server:
    """A server with a superuser `owner`, whose password needs quoting in an address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.database = folder, "postgres"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        if user := server_user():
            shutil.chown(folder, user)
        password = folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        # md5: SCRAM takes ten milliseconds of CPU for each connection
        self._run("initdb", "-U", "owner", "-A", "md5", f"--pwfile={password}", "-E", "UTF8", "--locale=C", "-N")

    @property
    def url(self) -> str:
        """The address, as the owner."""
        return self.url_of("owner")

    def url_of(self, user: str, password: str = PASSWORD) -> str:
        """The address for a user."""
        return f"postgresql://{user}:{quote(password, safe='')}@127.0.0.1:{self.port}/{self.database}"

    def with_new_database(self) -> "Server":
        """The same server, with an empty database."""
        new = copy.copy(self)
        new.database = f"database_{time.monotonic_ns()}"
        self.query(f"CREATE DATABASE {new.database}")
        return new

    def start(self) -> None:
        """Start, and wait until it answers."""
        options = f"-k {self.folder} -p {self.port} -c listen_addresses=127.0.0.1 -c fsync=off -c shared_buffers=16MB"
        self._run("pg_ctl", "start", "-w", "-l", str(self.folder / "log"), "-o", options)

    def stop(self, how: str = "immediate") -> None:
        """Stop: immediate is without notice, as after a crash."""
        self._run("pg_ctl", "stop", "-w", "-m", how)

    def query(self, statement: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
        """Execute statements as the owner, each committed by itself; return the rows of the last one."""
        connection = psycopg2.connect(self.url)
        connection.autocommit = True
        try:
            with connection.cursor() as cursor:
                cursor.execute(statement, values or None)
                return cursor.fetchall() if cursor.description else []
        finally:
            connection.close()

    def _run(self, program: str, *options: str) -> None:
        folder = programs()
        assert folder is not None
        command = [folder / program, "-D", self.folder / "data", *options]
        done = subprocess.run(command, user=server_user(), cwd=self.folder, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


@contextmanager
def running_server() -> Iterator[Server]:
    """A running server, in memory if possible."""
    memory = Path("/dev/shm")
    place = Path(tempfile.mkdtemp(prefix="postgres_", dir=memory if os.access(memory, os.W_OK) else None))
    try:
        server = Server(place)
        server.start()
        yield server
        server.stop()
    finally:
        shutil.rmtree(place, ignore_errors=True)
