"""An output is whole, or as it was."""

import errno
import os
import signal
from pathlib import Path

import pytest

from batch_scoring.errors import TakenError
from batch_scoring.storage.folders import staged_files
from batch_scoring.storage.folders.local import LocalFolder
from batch_scoring_tests.reliability.processes import site_of
from batch_scoring_tests.scored_files import BAD, SERVER, put, read, score, score_elsewhere, tree, wait_until
from batch_scoring_tests.tiny import TinyProject


def test_an_output_is_replaced_only_with_overwrite_and_leaves_no_old_quarantine(
    tiny: TinyProject, tmp_path: Path
) -> None:
    bad, good = put(tmp_path / "bad.csv", BAD), put(tmp_path / "good.parquet", tiny.rows(20))
    target = tmp_path / "out/scores.parquet"
    assert score(tiny, bad, target)[0] == 0
    before = tree(tmp_path / "out")
    code, out, err = score(tiny, good, target)
    assert (code, out) == (2, "") and "exists already; nothing is written: --overwrite replaces it" in err
    assert tree(tmp_path / "out") == before
    assert score(tiny, good, target, overwrite=True)[0] == 0
    assert list(tree(tmp_path / "out")) == ["scores.parquet"] and read(target).num_rows == 20
    target.unlink()
    put(tmp_path / "out/scores.quarantine.parquet", "somebody's")
    assert score(tiny, bad, target)[0] == 2, "also where only the other file is there"


def test_an_output_that_comes_while_another_is_scored_stands(tiny: TinyProject, tmp_path: Path) -> None:
    source, target = put(tmp_path / "a.csv", BAD), tmp_path / "out.parquet"
    network = (tiny.folder / "network.py").read_text()
    writes = f'        from pathlib import Path\n        Path({str(target)!r}).write_bytes(b"somebody else\'s")\n'
    tiny.write_code(network=network.replace("        result =", f"{writes}        result ="))
    code, out, err = score(tiny, source, target)
    assert (code, out) == (2, "") and "was written by another process meanwhile" in err
    assert target.read_bytes() == b"somebody else's" and not (tmp_path / "out.quarantine.parquet").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("target", ["out.parquet", "new/out.csv.gz", "standing.parquet"])
def test_ctrl_c_and_kill_leave_no_output_and_the_old_one_untouched(
    tiny: TinyProject, tmp_path: Path, number: signal.Signals, target: str
) -> None:
    put(tmp_path / "standing.parquet", tiny.rows(3))
    source, said = put(tmp_path / "in/a.csv", BAD), tmp_path / "said"
    said.touch()
    before = tree(tmp_path)
    arguments = (site_of(tiny), tmp_path, source, tmp_path / target, said)
    child = SERVER.Process(target=score_elsewhere, args=arguments, daemon=True)
    child.start()
    wait_until(lambda: list((tmp_path / target).parent.glob(".*.tmp")))
    os.kill(child.pid or 0, number)
    child.join(10)
    assert (child.exitcode, said.read_text()) == (128 + number, "batch-scoring: interrupted; nothing is written\n")
    said.write_text("")
    after = {name: data for name, data in tree(tmp_path).items() if "locks/" not in name and "packages" not in name}
    assert after == {name: before[name] for name in after} and len(after) >= 4


@pytest.mark.parametrize(
    ("broken", "written"),
    [("out.parquet", "out.quarantine.parquet is written, {}/out.parquet is not\n"), ("out.quarantine.parquet", "")],
)
def test_what_is_written_of_an_output_that_cannot_be_replaced_is_said(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, broken: str, written: str
) -> None:
    source = put(tmp_path / "a.csv", BAD)
    assert score(tiny, source, tmp_path / "out.parquet")[0] == 0
    whole, before = Path.replace, tree(tmp_path)

    def replace(self: Path, target: Path) -> Path:
        if target.name == broken:
            raise OSError(errno.EIO, "Input/output error", str(target))
        return whole(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    code, out, err = score(tiny, source, tmp_path / "out.parquet", overwrite=True)
    assert (code, out) == (1, "") and "Input/output error" in err and err.count("\n") == 1
    assert err.endswith(written.format(tmp_path) or "; nothing is written\n")
    assert (tree(tmp_path)["out.quarantine.parquet"] != before["out.quarantine.parquet"]) == bool(written)
    assert tree(tmp_path)["out.parquet"] == before["out.parquet"]


def test_an_old_quarantine_that_may_not_be_removed_is_named_and_the_output_is_written(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad, good = put(tmp_path / "bad.csv", BAD), put(tmp_path / "good.parquet", tiny.rows(20))
    assert score(tiny, bad, tmp_path / "out.parquet")[0] == 0

    def remove(self: LocalFolder, path: str) -> None:
        raise PermissionError(f"{path}: access denied")

    monkeypatch.setattr(LocalFolder, "remove", remove)
    code, _, err = score(tiny, good, tmp_path / "out.parquet", overwrite=True)
    assert code == 0 and read(tmp_path / "out.parquet").num_rows == 20
    assert f"{tmp_path}/out.quarantine.parquet belongs to an older output and cannot be removed" in err
    (tmp_path / "out.quarantine.parquet").unlink()
    assert score(tiny, good, tmp_path / "out.parquet", overwrite=True)[2] == "", "there is none"


def test_a_scratch_file_that_cannot_be_removed_is_no_failure_of_an_output_that_is_written(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, whole = put(tmp_path / "a.csv", BAD), Path.unlink

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self.suffix == ".tmp":
            raise PermissionError(errno.EPERM, "Operation not permitted", str(self))
        whole(self, missing_ok=missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    assert score(tiny, source, tmp_path / "out.parquet")[::2] == (0, "")
    assert read(tmp_path / "out.parquet").num_rows == 3


def test_a_signal_that_comes_while_the_output_is_shown_comes_too_late(tiny: TinyProject, tmp_path: Path) -> None:
    source, said = put(tmp_path / "a.csv", BAD), tmp_path / "said"
    arguments = (site_of(tiny), tmp_path, source, tmp_path / "out.parquet", said, True)
    child = SERVER.Process(target=score_elsewhere, args=arguments, daemon=True)
    child.start()
    child.join(30)
    assert child.exitcode == 0 and read(tmp_path / "out.parquet").num_rows == 3


def test_where_there_are_no_hard_links_an_output_is_written_and_none_is_overwritten(
    tiny: TinyProject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, target = put(tmp_path / "a.csv", BAD), tmp_path / "out/x.parquet"

    def link(_source: Path, _target: Path) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(os, "link", link)
    assert score(tiny, source, target)[0] == 0
    assert tree(tmp_path / "out").keys() == {"x.parquet", "x.quarantine.parquet"} and read(target).num_rows == 3
    place = LocalFolder(str(tmp_path / "out"))
    before = tree(tmp_path / "out")
    with staged_files.staged(place, "x.parquet") as file, pytest.raises(TakenError):
        file.scratch.write_bytes(b"other")
        file.show(replaces=False)
    monkeypatch.setattr(Path, "replace", link)
    with staged_files.staged(place, "y") as file, pytest.raises(OSError, match="not supported"):
        file.show(replaces=False)
    assert tree(tmp_path / "out") == before, "no empty file either"
