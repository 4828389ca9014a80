"""The subcommands of `batch-scoring`, imported one at a time, and the exit codes of their errors."""

import importlib
import os
import sys
from dataclasses import dataclass

import click

from batch_scoring.errors import BatchScoringError
from batch_scoring.runtime.printable import cleaned, guarded


@dataclass(frozen=True)
class _Entry:
    """Where a subcommand is defined, and its line in the overview."""

    module: str
    name: str
    summary: str


SUBCOMMANDS = {
    "new": _Entry(
        "batch_scoring.cli.new.command", "new", "Write a pipeline from a sample of its table, train it and score it."
    ),
    "backfill": _Entry(
        "batch_scoring.cli.backfill.command",
        "backfill",
        "Score days here, one Dagster run per day: a range, stale days, failed days.",
    ),
    "score": _Entry(
        "batch_scoring.cli.score.command",
        "score",
        "Score files without a day, local or on s3://: CSV, JSON Lines or Parquet.",
    ),
    "decide": _Entry(
        "batch_scoring.cli.decide", "decide", "Show what other rules would decide about a scored day; writes nothing."
    ),
    "export": _Entry(
        "batch_scoring.cli.export.command",
        "export",
        "Export days to the sinks of a pipeline: those that are behind, or all of them again.",
    ),
    "submit": _Entry(
        "batch_scoring.cli.remote.command", "submit", "Start a day, or a range of days, on a remote deployment."
    ),
    "status": _Entry("batch_scoring.cli.remote.command", "status", "Show a run or a backfill of a remote deployment."),
    "wait": _Entry(
        "batch_scoring.cli.remote.command", "wait", "Follow a run or a backfill of a remote deployment to its end."
    ),
    "failures": _Entry(
        "batch_scoring.cli.failures",
        "failures",
        "Count failed runs by class, and list the days that have not recovered.",
    ),
    "doctor": _Entry(
        "batch_scoring.cli.doctor.command",
        "doctor",
        "Check the deployment: report what is misconfigured and how to fix it.",
    ),
    "metrics": _Entry(
        "batch_scoring.cli.metrics.command",
        "metrics",
        "Tell Prometheus or CloudWatch how the days of all pipelines stand.",
    ),
    "cost": _Entry("batch_scoring.cli.cost", "cost", "Show what the days of a month took: CPU, GPU, memory, money."),
    "calibrate": _Entry("batch_scoring.cli.calibrate", "calibrate", "Learn the drift thresholds of a model."),
    "checkpoint": _Entry(
        "batch_scoring.cli.checkpoint", "checkpoint", "Convert a checkpoint of a trained network into a model bundle."
    ),
    "retention": _Entry(
        "batch_scoring.cli.retention",
        "retention",
        "Count what is no longer needed, or delete it: replaced files, pages, samples, rejected rows, weights.",
    ),
    "test-alert": _Entry(
        "batch_scoring.cli.send_test_alert", "test_alert", "Send a test message to every channel of ALERT_URLS."
    ),
    "repair-instance": _Entry(
        "batch_scoring.cli.repair_instance",
        "repair_instance",
        "Repair the SQLite databases of a Dagster instance that two processes created at once.",
    ),
}


class _Subcommands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(SUBCOMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        entry = SUBCOMMANDS.get(cmd_name)
        if entry is None:
            ctx.fail(f"no command {cmd_name!r}; known commands: {', '.join(SUBCOMMANDS)}")
        found: click.Command = getattr(importlib.import_module(entry.module), entry.name)
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, entry.summary) for name, entry in SUBCOMMANDS.items()])


@click.group(cls=_Subcommands, context_settings={"help_option_names": ["-h", "--help"]})
def _batch_scoring() -> None:
    """Score days of a pipeline, or files, from a shell, and maintain a deployment.

    Exit codes: 0 success, 1 something failed, 2 the command was wrong. Commands for a remote deployment also: 3 it does
    not answer, 4 the wait timed out. A command ended by Ctrl-C exits with 130, by SIGTERM with 143.
    """


def run(arguments: list[str]) -> int:
    """Run a subcommand; its exit code: 0 success, 1 something failed, 2 the command was wrong.

    Those for a remote deployment also: 3 it does not answer, 4 the wait timed out. A command ended by a signal
    exits with 128 plus its number: 130 for Ctrl-C, 143 for SIGTERM.
    """
    try:
        with cleaned(), _batch_scoring.make_context("batch-scoring", list(arguments)) as context:
            code = int(_batch_scoring.invoke(context))
        sys.stdout.flush()
    except click.exceptions.Exit as end:  # of --help
        return end.exit_code
    except click.ClickException as error:
        error.show(guarded(sys.stderr))
        return error.exit_code
    except BrokenPipeError:  # of `… | head`: nothing reads the rest
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python complains when it flushes at exit
        return 1
    except Exception as error:
        known = _exit_code(error)
        if known is None:
            raise
        guarded(sys.stderr).write(f"batch-scoring: {error}\n")
        return known
    return code


def _exit_code(error: Exception) -> int | None:
    """The exit code of an error with a complete message; None for any other."""
    if isinstance(error, BatchScoringError):
        return error.exit_code
    from dagster import DagsterInvariantViolationError  # imported late: --help does not need Dagster

    if isinstance(error, DagsterInvariantViolationError):  # DAGSTER_HOME is not a folder
        return 2
    return 1 if isinstance(error, PermissionError) else None
