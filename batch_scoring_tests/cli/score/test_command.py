"""The options of the subcommand `score`."""

import pytest

from batch_scoring.cli.main import main


def test_an_unknown_pipeline_is_one_line_and_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["score", "--pipeline", "nix", "--input", "a.csv", "--output", "b.csv"]) == 2
    assert capsys.readouterr().err.startswith("batch-scoring: no pipeline 'nix'; known pipelines: ")
