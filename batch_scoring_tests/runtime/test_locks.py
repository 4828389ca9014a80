"""Locks between the processes of a user: held once, and free as soon as their holder is gone."""

import os
import tempfile
import threading
import time
from pathlib import Path

import pytest

from batch_scoring.errors import HeldError
from batch_scoring.runtime import locks


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The user's folder of locks, in one for temporary files that is the test's own."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    return tmp_path / f"batch_scoring-{os.getuid()}"


def test_a_lock_is_held_once_and_says_by_whom_and_when_it_was_free_again() -> None:
    with locks.hold("output", "a") as before:
        assert before == 0.0
        with pytest.raises(HeldError, match=f"process {os.getpid()} is working on it"), locks.hold("output", "a"):
            pass
        with locks.hold("output", "b"), locks.hold("outputa"):
            pass
    released = time.time()
    with locks.hold("output", "a") as before:
        assert released - 5 < before <= released


def test_a_lock_is_free_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), locks.hold("a"):
        raise ZeroDivisionError
    with locks.hold("a"):
        pass


def test_who_waits_for_a_lock_whose_file_was_cleaned_away_takes_the_new_one(folder: Path) -> None:
    seen: list[str] = []

    def second() -> None:
        with locks.hold("a", waits=True):
            try:
                with locks.hold("a"):
                    seen.append("held twice")
            except HeldError as held:
                seen.append(str(held))

    waiting = threading.Thread(target=second, daemon=True)
    with locks.hold("a"):
        waiting.start()
        time.sleep(0.1)
        assert seen == []
        for file in folder.iterdir():
            file.unlink()
    waiting.join(10)
    assert seen == [f"process {os.getpid()} is working on it"]


def test_a_folder_that_may_be_another_users_is_refused(folder: Path, tmp_path: Path) -> None:
    folder.symlink_to(tmp_path)
    with pytest.raises(PermissionError, match="remove it, or let TMPDIR name another folder"), locks.hold("a"):
        pass
