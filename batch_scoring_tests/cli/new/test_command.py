"""The subcommand `new` as it is typed."""

from pathlib import Path

import pytest

from batch_scoring.cli import subcommands


def test_a_sample_is_required(capsys: pytest.CaptureFixture[str]) -> None:
    assert subcommands.run(["new", "x"]) == 2
    assert "Missing option '--sample'" in capsys.readouterr().err


def test_what_is_wrong_is_one_line_and_2(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert subcommands.run(["new", "flight_delay", "--sample", str(tmp_path / "a.csv")]) == 2
    said = capsys.readouterr()
    assert said.out == "" and said.err.startswith("batch-scoring: ") and said.err.count("\n") == 1
    assert "pipelines/flight_delay exists; choose another name" in said.err
