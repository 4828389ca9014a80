"""What probes write for a moment is removed, whatever becomes of them."""

import threading
from pathlib import Path

import pytest

from batch_scoring.cli.doctor import probe_files
from batch_scoring.errors import StoppedError


def test_what_a_probe_writes_is_removed_when_it_ends_or_raises(tmp_path: Path) -> None:
    file = tmp_path / probe_files.new_name()
    with pytest.raises(KeyError), probe_files.trace(str(file), file.unlink):
        file.touch()
        raise KeyError
    assert not file.exists() and probe_files.remove_all() == []


def test_the_end_of_the_command_removes_what_a_hanging_probe_has_written_and_lets_none_begin(tmp_path: Path) -> None:
    file, late = tmp_path / probe_files.new_name(), tmp_path / probe_files.new_name()
    written, release = threading.Event(), threading.Event()

    def remove() -> None:
        with pytest.raises(StoppedError), probe_files.trace(str(late), late.unlink):
            late.touch()
        file.unlink()

    def hang() -> None:
        with probe_files.trace(str(file), remove):
            file.touch()
            written.set()
            release.wait(30)

    probe = threading.Thread(target=hang)
    probe.start()
    assert written.wait(30)
    assert probe_files.remove_all(0.1) == [] and list(tmp_path.iterdir()) == []
    release.set()
    probe.join(30)


def test_what_cannot_be_removed_in_time_is_named(tmp_path: Path) -> None:
    release = threading.Event()
    with probe_files.trace(str(tmp_path / "stays"), lambda: release.wait(30)):
        assert probe_files.remove_all(0.05) == [str(tmp_path / "stays")]
        release.set()
