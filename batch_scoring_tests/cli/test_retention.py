"""The subcommand `retention`."""

import json
import os
from pathlib import Path

import pytest

from batch_scoring.cli.main import main
from batch_scoring.cli.retention import size
from batch_scoring.config import loader
from batch_scoring_tests.reliability.scenarios import score
from batch_scoring_tests.tiny import DAY, TinyProject, normalised


@pytest.fixture
def old(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A pipeline with three files that were replaced ten days ago, the only one that the command sees."""
    for start in (0, 1000):
        tiny.land(DAY, tiny.rows(50, start))
        score(tiny.pipeline, DAY, "r")
    for file in Path(tiny.pipeline.output.uri, "tables").rglob("*"):
        if file.is_file():
            stamp = file.stat().st_mtime - 10 * 86400
            os.utime(file, (stamp, stamp))
    monkeypatch.setattr(loader, "PIPELINES", tiny.packages)
    monkeypatch.setattr(loader.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    return tiny


def files(tiny: TinyProject) -> set[Path]:
    return set(Path(tiny.pipeline.output.uri, "tables").rglob("*"))


def test_the_command_says_what_may_go_and_deletes_only_when_asked(
    old: TinyProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    before = files(old)
    assert main(["retention", old.name]) == 0
    said = normalised(capsys.readouterr().out).splitlines()
    assert said[0].startswith("tiny in ") and said[0].endswith(": can be removed")
    assert said[3].split()[:4] == ["superseded", "7", "days", "2"]
    assert said[3].endswith("tables/validated_features 1, tables/predictions 1")
    assert said[5].split() == ["reports", "ever", "0", "0", "B"]
    assert said[6].split() == ["samples", "ever", "0", "0", "B"]
    assert said[12].startswith(f"  tables/validated_features/dt={DAY}/") and ", unused since before 20" in said[12]
    assert said[-1] == "nothing was removed; to do so: batch-scoring retention tiny --delete"
    assert files(old) == before

    assert main(["retention", old.name, "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["deleted"], told["problems"], told["kinds"]["superseded"]["files"]) == (False, [], 2)
    assert {file["kind"] for file in told["files"]} == {"superseded"} and files(old) == before

    assert main(["retention", old.name, "--delete", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    root = Path(old.pipeline.output.uri)
    assert told["deleted"] and before - files(old) == {root / file["path"] for file in told["files"]}
    assert main(["retention", old.name, "--delete"]) == 0
    assert normalised(capsys.readouterr().out).splitlines()[0].endswith(": removed")


def test_the_command_fails_where_something_is_unsure_and_says_what(
    old: TinyProject, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for entry in Path(old.pipeline.output.uri, "tables").rglob("_delta_log/*.json"):
        os.utime(entry, (1.7e9, 1.7e9))
    before = files(old)
    assert main(["retention", old.name, "--delete"]) == 1
    said = capsys.readouterr().out
    assert "problem: nothing was removed, the clock is in doubt: nothing was published for " in said
    assert files(old) == before
    assert main(["retention", old.name, "--delete", "--clock-is-right"]) == 0
    assert len(before - files(old)) == 2
    assert main(["retention", "nobody"]) == 2
    assert "no pipeline 'nobody'; known pipelines: tiny" in normalised(capsys.readouterr().err)


def test_sizes_are_for_people() -> None:
    assert [size(n) for n in (0, 999, 1000, 12_345_678, 5 * 10**15)] == [
        "0 B",
        "999 B",
        "1.0 kB",
        "12.3 MB",
        "5000.0 TB",
    ]
