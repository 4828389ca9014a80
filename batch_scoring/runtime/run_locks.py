"""Which runs have a process: each process that works on a run holds a lock until it ends, however it ends.

The kernel frees the lock. So who may take it knows that the processes are gone: also where the clock was set, where a
number was given to another process, after a restart of the machine, and in another container that has the folder too.
Where nobody has ever held it nothing is known.
"""

import contextlib
import fcntl
import os
from collections.abc import Callable, Collection
from pathlib import Path

_ENDING = ".lock"


def folder(home: str) -> Path:
    """Where the locks of an instance's runs are."""
    return Path(home, "history", "alive")


class Sign:
    """The lock of the run that this process works on."""

    def __init__(self, place: Path) -> None:
        """`place`: the folder of the locks."""
        self._place = place
        self._run, self._lock, self._is_over = "", -1, False

    def give(self, run_id: str) -> None:
        """Hold the lock of a run, beside its other processes; that of the run before it no longer."""
        if run_id == self._run:
            return
        self.withdraw()
        self._place.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(OSError):  # a file system without locks: nothing is known of its runs
            self._lock = _hold(self._place / f"{run_id}{_ENDING}")
            self._run = run_id

    def note_end(self, run_id: str) -> None:
        """Note that a run is over; its lock is held until that stands in its record, too."""
        self._is_over = self._is_over or run_id == self._run

    def withdraw(self) -> None:
        """Hold it no longer; of a run that is over the last process takes the file away."""
        if self._lock < 0:
            return
        if self._is_over and _take(self._lock):
            (self._place / f"{self._run}{_ENDING}").unlink(missing_ok=True)
        os.close(self._lock)
        self._run, self._lock, self._is_over = "", -1, False


def has_process(place: Path, run_id: str) -> bool | None:
    """Whether a process works on the run; None if that is not known."""
    try:
        with (place / f"{run_id}{_ENDING}").open("r+") as file:  # NFS locks what may be written alone
            return not _take(file.fileno())
    except OSError:
        return None


def sweep(place: Path, started: Callable[[], Collection[str]]) -> None:
    """Take away what ended processes have left; `started`: the runs that are not over."""
    there = list(place.glob(f"*{_ENDING}"))
    on = started() if there else []
    for file in there:
        if file.stem not in on:
            with contextlib.suppress(OSError), file.open("r+") as opened:
                if _take(opened.fileno()):
                    file.unlink(missing_ok=True)


def _hold(file: Path) -> int:
    """A shared lock on the file of that name."""
    while True:
        with contextlib.ExitStack() as unless_held:
            lock = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
            unless_held.callback(os.close, lock)
            fcntl.flock(lock, fcntl.LOCK_SH)
            with contextlib.suppress(FileNotFoundError):  # taken away in between
                if os.path.samestat(os.fstat(lock), file.stat()):
                    unless_held.pop_all()
                    return lock


def _take(lock: int) -> bool:
    """Whether nobody else holds it."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
