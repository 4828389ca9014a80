"""Days, durations and abbreviated options, as every subcommand reads them."""

from datetime import date

import click
import pytest
from click.testing import CliRunner

from batch_scoring.cli.parameters import DAY, MONTH, SECONDS, Subcommand


@click.command(cls=Subcommand)
@click.argument("days", type=DAY, nargs=-1)
@click.option("--wait", is_flag=True)
@click.option("--overwrite", is_flag=True)
@click.option("--overview", is_flag=True)
@click.option("--timeout", type=SECONDS)
def command(days: tuple[date, ...], **options: object) -> None:
    click.echo(f"{[str(day) for day in days]} {sorted((name, given) for name, given in options.items() if given)}")


def run(line: str) -> tuple[int, str]:
    done = CliRunner().invoke(command, line.split())
    return done.exit_code, done.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("2024-01-01 --wait 2024-01-02", "['2024-01-01', '2024-01-02'] [('wait', True)]"),
        ("--timeout 1.5 2024-01-01", "['2024-01-01'] [('timeout', 1.5)]"),
        ("--time=2", "[] [('timeout', 2.0)]"),
        ("--w --overw", "[] [('overwrite', True), ('wait', True)]"),
        ("-- 2024-01-01", "['2024-01-01'] []"),
    ],
)
def test_options_stand_anywhere_and_may_be_abbreviated(line: str, found: str) -> None:
    assert run(line) == (0, found)


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("2024-1-1", "'2024-1-1' is not a day; expected YYYY-MM-DD"),
        ("2024-02-30", "'2024-02-30' is not a day; expected YYYY-MM-DD"),
        ("--timeout 0", "'0' is not a number of seconds above 0"),
        ("--timeout -5", "'-5' is not a number of seconds above 0"),
        ("--timeout inf", "'inf' is not a number of seconds above 0"),
        ("--timeout nan", "'nan' is not a number of seconds above 0"),
        ("--timeout soon", "'soon' is not a number of seconds above 0"),
        ("--over", "No such option '--over'"),
    ],
)
def test_what_is_none_of_them_is_a_usage_error(line: str, says: str) -> None:
    code, said = run(line)
    assert code == 2 and says in said


@pytest.mark.parametrize("text", ["2024-13", "2024", "2024-03-01", "march"])
def test_a_month_that_is_none_is_refused(text: str) -> None:
    assert MONTH.convert("2024-03", None, None) == "2024-03"
    with pytest.raises(click.BadParameter, match=f"'{text}' is not a month; expected YYYY-MM"):
        MONTH.convert(text, None, None)
