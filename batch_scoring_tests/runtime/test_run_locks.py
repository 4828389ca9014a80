"""The lock of a run: held while any of its processes lives."""

import errno
import fcntl
import os
from pathlib import Path

import pytest

from batch_scoring.runtime import run_locks


def test_two_processes_of_a_run_hold_its_lock_together(tmp_path: Path) -> None:
    parent, child = run_locks.RunLock(tmp_path), run_locks.RunLock(tmp_path)
    parent.acquire("run")
    child.acquire("run")
    parent.release()
    assert run_locks.has_process(tmp_path, "run")
    child.release()
    assert run_locks.has_process(tmp_path, "run") is False
    parent.acquire("run")
    parent.note_end("run")
    assert run_locks.has_process(tmp_path, "run"), "until its record says so"
    parent.acquire("next")
    assert run_locks.has_process(tmp_path, "run") is None and run_locks.has_process(tmp_path, "next")


def test_a_file_system_that_locks_only_what_may_be_written_knows_the_processes_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NFS does."""
    flock = fcntl.flock

    def of_nfs(file: int, operation: int) -> None:
        if operation & fcntl.LOCK_EX and fcntl.fcntl(file, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDONLY:
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        flock(file, operation)

    lock = run_locks.RunLock(tmp_path)
    lock.acquire("run")
    monkeypatch.setattr(fcntl, "flock", of_nfs)
    assert run_locks.has_process(tmp_path, "run") is True
    lock.release()
    assert run_locks.has_process(tmp_path, "run") is False
    run_locks.sweep(tmp_path, lambda: [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_system_without_locks_keeps_no_file_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(file: int, operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", refuses)
    open_files, lock = Path("/proc/self/fd"), run_locks.RunLock(tmp_path)
    before = len(list(open_files.iterdir()))
    for _ in range(5):
        lock.acquire("run")
    assert len(list(open_files.iterdir())) == before
    assert run_locks.has_process(tmp_path, "run") is None
