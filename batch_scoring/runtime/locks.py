"""Locks between the processes of one user on one machine, released by the kernel however a process ends.

A lock is a file in this user's temporary folder, held with `flock`, so a killed process blocks nobody. Users with
another temporary folder, and other machines, do not see each other's locks.
"""

import contextlib
import fcntl
import hashlib
import os
import stat
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from batch_scoring.errors import HeldError


@contextlib.contextmanager
def hold(*name: str, waits: bool = False) -> Iterator[float]:
    """Hold a lock for the duration of the block.

    Args:
        name: what is locked, in one or more parts.
        waits: wait until it is free.

    Yields:
        When it was last acquired or released on this machine (seconds since 1970), 0 if unknown.

    Raises:
        HeldError: another process holds it, and `waits` is false.
        PermissionError: another user owns the folder of the locks.
    """
    file = _folder() / f"{hashlib.sha256(chr(0).join(name).encode()).hexdigest()[:32]}.lock"
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, waits)
            found = os.fstat(descriptor)
            if _stands(file, found):  # else the folder was cleaned up: the next process locks a new file
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                yield found.st_mtime if found.st_size else 0.0
                now = time.time_ns()  # the kernel's own timestamps lag by some milliseconds
                os.utime(descriptor, ns=(now, now))
                return
        finally:
            os.close(descriptor)


def _folder() -> Path:
    """This user's folder of locks."""
    folder = Path(tempfile.gettempdir(), f"batch_scoring-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(
            f"{folder} belongs to another user or is not a folder; expected a folder of user {os.getuid()}, for the "
            "locks of batch-scoring: remove it, or let TMPDIR name another folder for temporary files"
        )
    return folder


def _lock(descriptor: int, waits: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode()
        raise HeldError(
            f"process {holder} is working on it" if holder else "another process is working on it"
        ) from None


def _stands(file: Path, found: os.stat_result) -> bool:
    """Whether the opened file is still the one under that name."""
    try:
        return os.path.samestat(file.stat(), found)
    except FileNotFoundError:
        return False
