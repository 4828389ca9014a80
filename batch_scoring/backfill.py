"""A range of days in one process, a Dagster run a day: `batch-scoring backfill`.

A fresh process for each day would spend most of its time on imports. Each run is a proper one, with its own checks
and logs in the UI; a day that fails leaves the others alone.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from time import perf_counter
from typing import TextIO

import dagster as dg

from batch_scoring.assets import days as days_of
from batch_scoring.automation import job_name
from batch_scoring.dead_runs import end_dead_runs
from batch_scoring.digests import step_error
from batch_scoring.model import ranges
from batch_scoring.pipeline import Pipeline, find_pipeline
from batch_scoring.state import State
from batch_scoring.tables import predictions_table

_COLUMNS = f"{'day':10}  {'rows in':>10}  {'scored':>10}  {'quarantined':>11}  {'failed checks':>13}  {'rows/s':>10}"


class BackfillError(ValueError):
    """The range is not one of the pipeline."""


@dataclass(frozen=True)
class FailedCheck:
    """A check that did not pass in a day's run."""

    name: str
    """Asset and check."""
    message: str
    of_day: bool
    """Whether it is about this day; else about the model, where a later run's result takes its place."""


@dataclass(frozen=True)
class Outcome:
    """How a day's run ended."""

    day: str
    error: str | None
    """None if it succeeded."""
    failed_checks: tuple[FailedCheck, ...] = ()
    rows_in: int = 0
    scored: int = 0
    quarantined: int = 0
    seconds: float = 0.0
    unchanged: bool = False
    """Whether an earlier run had published just this."""

    @property
    def line(self) -> str:
        """The day's row in the table."""
        counts = [f"{n:,}" if not self.error else "-" for n in (self.rows_in, self.scored, self.quarantined)]
        failed = sum(check.of_day or self.error is not None for check in self.failed_checks)
        speed = f"{self.rows_in / self.seconds:,.0f}" if self.seconds else "-"
        last = "failed" if self.error else "unchanged" if self.unchanged else speed
        return f"{self.day}  {counts[0]:>10}  {counts[1]:>10}  {counts[2]:>11}  {failed:>13}  {last:>10}"


def backfill(name: str, first: date, last: date, out: TextIO) -> int:
    """Score every day from first to last; 0 if all succeeded, else 1.

    Raises:
        SpecError: there is no such pipeline.
        BackfillError: the range is empty or not within the pipeline's days.
    """
    pipeline = find_pipeline(name)
    wanted = _wanted(pipeline, first, last)
    began = perf_counter()
    outcomes: list[Outcome] = []
    with _instance(out) as instance:
        if dead := end_dead_runs(instance):
            out.write(f"marked as failed, their processes are gone: {', '.join(dead)}\n")
        job = _job(pipeline)
        out.write(f"{_COLUMNS}\n")
        for day in wanted:
            outcomes.append(run_day(pipeline, job, day, instance))
            left = (perf_counter() - began) / len(outcomes) * (len(wanted) - len(outcomes))
            out.write(f"{outcomes[-1].line}  {len(outcomes)}/{len(wanted)}, {left:.0f} s left\n")
            out.flush()
    _summarise(name, predictions_table(pipeline).folder.uri, outcomes, out)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def run_day(pipeline: Pipeline, job: dg.JobDefinition, day: str, instance: dg.DagsterInstance) -> Outcome:
    """Run the pipeline's job for one day."""
    began = perf_counter()
    quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    result = job.execute_in_process(partition_key=day, instance=instance, run_config=quiet, raise_on_error=False)
    seconds = perf_counter() - began
    checks = tuple(
        FailedCheck(
            f"{check.asset_key.to_user_string()} {check.check_name}", check.description or "", check.partition == day
        )
        for check in result.get_asset_check_evaluations()
        if not check.passed
    )
    if not result.success:
        return Outcome(day, _first_error(result), checks, seconds=seconds)
    state = State(pipeline.output)
    features, scored = state.account("validated_features", day), state.account("predictions", day)
    assert features is not None and scored is not None, "the run has succeeded"
    quarantined = features.rows_quarantined + scored.rows_quarantined
    unchanged = scored.run_id != result.run_id
    return Outcome(day, None, checks, features.rows_in, scored.rows, quarantined, seconds, unchanged)


def _summarise(name: str, table: str, outcomes: list[Outcome], out: TextIO) -> None:
    """Where the scores are, which checks failed on days that stand, which days failed."""
    scored = [outcome for outcome in outcomes if not outcome.error]
    if scored:
        out.write(f"\npredictions: {table} (a Delta table, partitioned by dt)\n")
        out.write(f"read a day:  batch_scoring.tables.read_day({name!r}, '{scored[0].day}')\n")
    said: dict[str, list[tuple[str, str]]] = {}
    for outcome in scored:
        for check in outcome.failed_checks:
            if check.of_day or outcome is outcomes[-1]:
                said.setdefault(check.name, []).append((outcome.day, check.message))
    if said:
        out.write("\nchecks that failed without stopping a day:\n")
    for check_name, days in said.items():
        span, (last, message) = ", ".join(ranges(day for day, _ in days)), days[-1]
        out.write(f"  {span}  {check_name}: {message}{f' ({last})' if len(days) > 1 else ''}\n")
    if failed := [outcome for outcome in outcomes if outcome.error]:
        out.write(f"\n{len(failed)} of {len(outcomes)} days failed:\n")
        out.writelines(f"  {outcome.day}  {outcome.error}\n" for outcome in failed)


def _wanted(pipeline: Pipeline, first: date, last: date) -> list[str]:
    known = days_of(pipeline).get_partition_keys()
    if last < first:
        raise BackfillError(f"{last} is before {first}; expected FIRST and LAST in this order")
    if not known:
        raise BackfillError(f"{pipeline.name} has no days yet: partitions.start in its spec is in the future")
    for day in (first, last):
        if day.isoformat() not in known:
            raise BackfillError(f"{day} is no day of {pipeline.name}; its days are {known[0]} … {known[-1]}")
    return [(first + timedelta(days=n)).isoformat() for n in range((last - first).days + 1)]


def _job(pipeline: Pipeline) -> dg.JobDefinition:
    from batch_scoring.definitions import deploy

    return deploy([pipeline]).resolve_job_def(job_name(pipeline))


@contextmanager
def _instance(out: TextIO) -> Iterator[dg.DagsterInstance]:
    """The instance of DAGSTER_HOME; of the working directory if a dagster.yaml stands there; else a passing one."""
    if not os.environ.get("DAGSTER_HOME") and Path("dagster.yaml").is_file():
        os.environ["DAGSTER_HOME"] = str(Path.cwd())
    if os.environ.get("DAGSTER_HOME"):
        with dg.DagsterInstance.get() as instance:
            yield instance
    else:
        out.write("DAGSTER_HOME is not set: these runs will not be seen in the UI\n")
        with dg.DagsterInstance.ephemeral() as instance:
            yield instance


def _first_error(result: dg.ExecuteInProcessResult) -> str:
    """The first failed step and the first line of its error."""
    for event in result.all_events:
        if event.is_step_failure:
            step, error = step_error(event)
            return f"{step}: {error.splitlines()[0]}"
    return "the run failed before its first step"
