"""The arguments and options of the subcommand `metrics`."""

import sys

import pytest

import batch_scoring.cli.metrics
from batch_scoring.cli.main import main


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("", "expected where the metrics go: --port, --textfile, --cloudwatch, or --once to print them"),
        ("--once --port 9464", "--once ends after one reading, --port serves until it is ended"),
        ("--port 70000", "70000"),
        ("--textfile .", "is a directory"),
        ("--textfile=", "--textfile: expected the path of a file"),
    ],
)
def test_a_wrong_command_is_explained(options: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["metrics", *options.split()]) == 2
    assert said in " ".join(capsys.readouterr().err.split())


def test_without_the_extra_the_error_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("batch_scoring.cli.metrics.run", "batch_scoring.metrics.prometheus"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    monkeypatch.delattr(batch_scoring.cli.metrics, "run", raising=False)
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    assert main(["metrics", "--once"]) == 2
    assert "pip install -c constraints.txt -e '.[metrics]'" in " ".join(capsys.readouterr().err.split())
