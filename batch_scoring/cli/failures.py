"""The subcommand `failures`: how many runs failed, of which class, and which days have not recovered."""

import json
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, TextIO

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.runtime.printable import guarded

if TYPE_CHECKING:
    from batch_scoring.operations.failure_history import FailureStatistics
    from batch_scoring.storage.folders.folder import Folder


@click.command(cls=Subcommand)
@click.argument("pipeline", required=False, help="Name of the pipeline; all pipelines if it is left out.")
@click.option(
    "--hours",
    type=click.IntRange(1, 24 * 90),
    metavar="N",
    default=24,
    show_default=True,
    help="How far to look back; records are kept for 90 days, 2160 hours.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, with every failed run.")
def failures(pipeline: str | None, *, hours: int, as_json: bool) -> int:
    """Count failed runs by class, and list the days that have not recovered.

    A day has recovered once it is published again, an export once it is delivered. The records are read from the
    pipeline's state, so they outlive the Dagster instance. Runs that newer files have overtaken are no failures and
    are counted as superseded.
    """
    return count(pipeline, hours, guarded(sys.stdout), as_json=as_json)


@dataclass(frozen=True)
class Counted:
    """The failed runs of some pipelines."""

    since: datetime
    hours: int
    by_pipeline: Mapping[str, "FailureStatistics"]
    problems: tuple[str, ...] = ()
    """Pipelines whose state cannot be read, each with the reason."""


def count(name: str | None, hours: int, out: TextIO, *, as_json: bool = False) -> int:
    """Print the failed runs; 0, or 1 if a state cannot be read.

    Args:
        name: of the pipeline; all if None.
        hours: how far to look back.
        out: receives the result.
        as_json: print JSON.

    Raises:
        SpecError, UnknownPipelineError: there is no spec at all, or none of that name.
    """
    from batch_scoring.config.loader import survey_pipelines
    from batch_scoring.errors import UnknownPipelineError

    survey = survey_pipelines()  # broken pipelines have a history too
    outputs = {one.name: one.output for part in (survey.valid, survey.broken) for one in part}
    if name is not None and name not in outputs:
        raise UnknownPipelineError(f"no pipeline {name!r}; known pipelines: {', '.join(sorted(outputs))}")
    chosen = {name: outputs[name]} if name else dict(sorted(outputs.items()))
    counted = _counted(chosen, datetime.now(UTC) - timedelta(hours=hours), hours)
    if as_json:
        json.dump(_document(counted), out, indent=1)
        out.write("\n")
    else:
        out.writelines(f"{line}\n" for line in _lines(counted))
    return 1 if counted.problems else 0


def _counted(outputs: "Mapping[str, Folder]", since: datetime, hours: int) -> Counted:
    from batch_scoring.operations.failure_history import statistics
    from batch_scoring.storage.state import State

    found: dict[str, FailureStatistics] = {}
    problems: list[str] = []
    for name, output in outputs.items():
        state = State(output)
        try:
            state.ensure_readable()
            found[name] = statistics(state, since)
        except OSError as error:
            problems.append(f"{name}: {error}")
    return Counted(since, hours, found, tuple(problems))


def _document(counted: Counted) -> dict[str, Any]:
    return {
        "since": counted.since.isoformat(),
        "hours": counted.hours,
        "pipelines": [_of_pipeline(name, failed) for name, failed in counted.by_pipeline.items()],
        "problems": list(counted.problems),
    }


def _of_pipeline(name: str, failed: "FailureStatistics") -> dict[str, Any]:
    by_class = failed.by_class
    return {
        "pipeline": name,
        "failed": len(failed.failures),
        "recovered": len(failed.recovered),
        "recovered_ratio": failed.recovered_ratio,
        "superseded": failed.superseded,
        "most_common": by_class[0].failure if by_class else None,
        "by_class": {
            one.failure: {"runs": one.runs, "recovered": one.recovered, "last": one.last.isoformat()}
            for one in by_class
        },
        "not_recovered": [
            {"day": one.last.day, "export": one.last.export or None, "runs": one.runs, "run_id": one.last.run_id}
            for one in failed.open_failures
        ],
        "runs": [
            record.model_dump(mode="json") | {"recovered": record.run_id in failed.recovered}
            for record in failed.failures
        ],
    }


def _lines(counted: Counted) -> Iterator[str]:
    yield f"failed runs since {_time(counted.since)}, {counted.hours} hours"
    yield ""
    width = max([len("pipeline"), *(len(name) for name in counted.by_pipeline)])
    yield f"{'pipeline':<{width}}  {'failed':>7}  {'recovered':>9}  {'superseded':>10}  most common"
    for name, failed in counted.by_pipeline.items():
        share = "-" if failed.recovered_ratio is None else f"{failed.recovered_ratio:.0%}"
        common = failed.by_class[0].failure if failed.by_class else "-"
        yield f"{name:<{width}}  {len(failed.failures):>7,}  {share:>9}  {failed.superseded:>10,}  {common}"
    for name, failed in counted.by_pipeline.items():
        if failed.failures:
            yield from ("", *_of_classes(name, failed))
    yield from (f"problem: {problem}" for problem in counted.problems)


def _of_classes(name: str, failed: "FailureStatistics") -> Iterator[str]:
    """The failed runs of a pipeline by class, and its days that have not recovered."""
    yield f"{name + ', by class':<24}  {'runs':>5}  {'recovered':>9}  last"
    for one in failed.by_class:
        yield f"  {one.failure:<22}  {one.runs:>5,}  {one.recovered:>9,}  {_time(one.last)}"
    for left in failed.open_failures:
        last = left.last
        what = f"{last.day}, export {last.export}" if last.export else last.day
        runs = "" if left.runs == 1 else f", {left.runs} failed runs"
        yield f"not recovered: {what}: {last.failure_class}, {_time(last.at)}{runs}, last run {last.run_id}"
        yield f"  {last.step}: {last.message}" if last.step else f"  {last.message}"


def _time(moment: datetime) -> str:
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
