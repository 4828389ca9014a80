"""Locks that show which Dagster runs still have a process.

Every process that works on a run holds a shared lock, which the kernel releases however the process ends. So a process
that acquires the lock exclusively knows that the others are gone, even if the clock was changed, a process id was
reused or the machine was restarted, and even from another container that mounts the folder. A lock that was never held
proves nothing.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection
from pathlib import Path

_ENDING = ".lock"


def folder(home: str) -> Path:
    """The folder of the run locks of an instance."""
    return Path(home, "history", "alive")


class RunLock:
    """The lock of the run that this process works on."""

    def __init__(self, place: Path) -> None:
        """`place`: the folder of the locks."""
        self._place = place
        self._run, self._lock, self._is_over = "", -1, False

    def acquire(self, run_id: str) -> None:
        """Hold the lock of a run, together with its other processes; release that of the previous run."""
        if run_id == self._run:
            return
        self.release()
        self._place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a file system without locks: the state of its runs is unknown
            self._lock = _hold(self._place / f"{run_id}{_ENDING}")
            self._run = run_id

    def note_end(self, run_id: str) -> None:
        """Note that a run has ended; its lock is held until the run's record says so, too."""
        self._is_over = self._is_over or run_id == self._run

    def release(self) -> None:
        """Release the lock; the last process of a run that has ended removes the file."""
        if self._lock < 0:
            return
        if self._is_over and _take(self._lock):
            (self._place / f"{self._run}{_ENDING}").unlink(missing_ok=True)
        os.close(self._lock)
        self._run, self._lock, self._is_over = "", -1, False


def has_process(place: Path, run_id: str) -> bool | None:
    """Whether a process works on the run; None if unknown."""
    try:
        with (place / f"{run_id}{_ENDING}").open("r+") as file:  # NFS locks only files opened for writing
            return not _take(file.fileno())
    except OSError:
        return None


def sweep(place: Path, started: Callable[[], Collection[str]]) -> None:
    """Remove the files that ended processes have left; `started`: the runs in progress."""
    there = list(place.glob(f"*{_ENDING}"))
    on = started() if there else []
    for file in there:
        if file.stem not in on:
            with contextlib.suppress(OSError), file.open("r+") as opened:
                if _take(opened.fileno()):
                    file.unlink(missing_ok=True)


def _hold(file: Path) -> int:
    """Acquire a shared lock on the file under that name."""
    while True:
        with contextlib.ExitStack() as unless_held:
            lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            unless_held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):  # removed in the meantime
                if os.path.samestat(os.fstat(lock), file.stat()):
                    unless_held.pop_all()
                    return lock


def _take(lock: int) -> bool:
    """Try to acquire the lock exclusively; return whether that succeeded."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
