"""Types of parameters that several subcommands take, and how their options may be abbreviated."""

from datetime import date

import click


class _Day(click.ParamType[date]):
    """A day of a pipeline."""

    name = "YYYY-MM-DD"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """See `click.ParamType`."""
        try:
            return date.fromisoformat(value)
        except ValueError:
            self.fail(f"{value!r} is not a day; expected YYYY-MM-DD", param, ctx)


class _Month(click.ParamType[str]):
    """A month of a pipeline."""

    name = "YYYY-MM"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """See `click.ParamType`."""
        try:
            return f"{date.fromisoformat(f'{value}-01'):%Y-%m}"
        except ValueError:
            self.fail(f"{value!r} is not a month; expected YYYY-MM", param, ctx)


class _Seconds(click.ParamType[float]):
    """A positive, finite duration."""

    name = "SECONDS"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """See `click.ParamType`."""
        try:
            seconds = float(value)
        except ValueError:
            seconds = 0.0
        if not 0 < seconds < float("inf"):
            self.fail(f"{value!r} is not a number of seconds above 0", param, ctx)
        return seconds


DAY = _Day()
MONTH = _Month()
SECONDS = _Seconds()


class Subcommand(click.Command):
    """Accepts `--over` for `--overwrite`, as long as no other option begins with it."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """See `click.Command`."""
        return super().parse_args(ctx, self.in_full(ctx, args))

    def in_full(self, ctx: click.Context, arguments: list[str]) -> list[str]:
        """The arguments with each abbreviated option spelled out."""
        options = [name for parameter in self.get_params(ctx) for name in parameter.opts if name.startswith("--")]
        return [_in_full(argument, options) for argument in arguments]


def _in_full(argument: str, options: list[str]) -> str:
    name, equals, value = argument.partition("=")
    if name == "--" or not name.startswith("--") or name in options:
        return argument
    meant = [option for option in options if option.startswith(name)]
    return f"{meant[0]}{equals}{value}" if len(meant) == 1 else argument
