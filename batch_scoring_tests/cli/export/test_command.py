"""The arguments and options of the subcommand `export`."""

import pytest

from batch_scoring.cli.main import main


@pytest.mark.parametrize("span", ["", "2013-07-01", "standby 2013-07-01", "a 2013-07-01 2013-07-02 b"])
def test_an_export_and_both_days_follow_the_pipeline(span: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "flight_delay", *span.split()]) == 2
    said = capsys.readouterr().err
    assert "[NAME] FIRST LAST" in said
    assert not span or "the first and the last day; a single day is both" in said


def test_a_day_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "flight_delay", "calls", "2013-07-01", "yesterday"]) == 2
    assert "'yesterday' is not a day; expected YYYY-MM-DD" in capsys.readouterr().err


def test_the_help_says_what_the_exit_code_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", "--help"]) == 0
    said = capsys.readouterr().out
    assert "PIPELINE [NAME] FIRST LAST" in said and "makes the exit code 1" in " ".join(said.split())
