"""Who works on a day: another backfill on this machine, or a run that Dagster has launched.

A backfill locks a file of its own for each day while it works on it. The kernel frees the lock when the process ends,
however it ends, so a killed one blocks nobody. Nothing depends on it but time: two runs of one day never double a row.
Users who do not share a folder for temporary files, and other machines, do not see each other's claims.
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

import dagster as dg

from batch_scoring import runs, triggers, uploads
from batch_scoring.dead_runs import end_dead_runs
from batch_scoring.pipeline import Pipeline
from batch_scoring.runs import DayRun

POLL = 1.0
"""Seconds between two looks at a run that is waited for."""
SILENCE = 180.0
"""Seconds without a heartbeat after which nobody takes runs from the queue; a living daemon sends one every 30."""


class HeldError(RuntimeError):
    """Another process works on the day; the message says which."""


@contextlib.contextmanager
def hold(pipeline: Pipeline, day: str, *, waits: bool = False) -> Iterator[float]:
    """Claim a day for as long as the block lasts.

    Args:
        pipeline: whose day; pipelines with the same output are one.
        day: as YYYY-MM-DD.
        waits: wait until nobody else holds it.

    Yields:
        When somebody on this machine last took or left it (seconds since 1970), 0 if that is not known.

    Raises:
        HeldError: another process holds it, and this one does not wait.
        PermissionError: the folder of the claims is another user's.
    """
    file = _folder() / f"{_name(pipeline, day)}.lock"
    while True:
        descriptor = os.open(file, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            _lock(descriptor, waits)
            found = os.fstat(descriptor)
            if _stands(file, found):  # else whoever cleans the folder took it away, and the next one locks a new file
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode(), 0)
                yield found.st_mtime if found.st_size else 0.0
                now = time.time_ns()  # the kernel's own stamps are some milliseconds late
                os.utime(descriptor, ns=(now, now))
                return
        finally:
            os.close(descriptor)


def launched_run(pipeline: Pipeline, instance: dg.DagsterInstance, day: str) -> DayRun | None:
    """The run of the day that Dagster has launched, or is about to launch, and that is not over."""
    bounds = uploads.bounds_of(pipeline, instance)
    for run in runs.of_day(instance, pipeline, day):
        may_live = run.is_launched and triggers.is_in_flight(run, time.time(), bounds)
        if may_live and (run.status == "started" or _daemon_lives(instance)):
            return run
    return None


def wait_for_launched(pipeline: Pipeline, instance: dg.DagsterInstance, day: str) -> None:
    """Return when no run that Dagster has launched is at work on the day."""
    while launched_run(pipeline, instance, day):
        time.sleep(POLL)
        end_dead_runs(instance)  # without a daemon nobody else notices that its process is gone


def _daemon_lives(instance: dg.DagsterInstance) -> bool:
    """Whether somebody starts what is queued; on a laptop the daemon may have stopped long ago."""
    heartbeats = instance.get_daemon_heartbeats().values()
    return any(heartbeat.timestamp > time.time() - SILENCE for heartbeat in heartbeats)


def _folder() -> Path:
    """This user's folder of claims."""
    folder = Path(tempfile.gettempdir(), f"batch_scoring-{os.getuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise PermissionError(
            f"{folder} is another user's or no folder; expected a folder of user {os.getuid()}, for the claims of "
            "backfills: remove it, or let TMPDIR name another folder for temporary files"
        )
    return folder


def _name(pipeline: Pipeline, day: str) -> str:
    place = pipeline.output
    uri = str(Path(place.uri).resolve()) if place.is_local else place.uri  # one folder, whatever links lead to it
    return hashlib.sha256(f"{uri}\0{day}".encode()).hexdigest()[:32]


def _lock(descriptor: int, waits: bool) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if waits else fcntl.LOCK_NB))
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode()
        raise HeldError(f"process {holder} works on it" if holder else "another process works on it") from None


def _stands(file: Path, found: os.stat_result) -> bool:
    """Whether the file that was opened is still the one of that name."""
    try:
        return os.path.samestat(file.stat(), found)
    except FileNotFoundError:
        return False
