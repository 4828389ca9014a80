"""The arguments and options of the subcommand `backfill`."""

import pytest

from batch_scoring.cli.main import main


def test_the_days_are_needed_unless_something_else_selects_them(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, missing in ((["2013-07-01"], "last"), ([], "first, last"), (["--dry-run"], "first, last")):
        assert main(["backfill", "flight_delay", *arguments]) == 2
        said = capsys.readouterr().err
        assert f"the following arguments are required: {missing} (or --stale, --failed)" in said


@pytest.mark.parametrize("arguments", ["{0} {1} --failed", "--failed {0} {1}", "--stale {0} --dry-run {1}"])
def test_options_stand_before_between_or_after_the_days(arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["backfill", "flight_delay", *arguments.format("2013-07-09", "2013-07-08").split()]) == 2
    assert "2013-07-08 is before 2013-07-09; expected FIRST and LAST in this order" in capsys.readouterr().err
