"""Run the days of a backfill in one process, one Dagster run per day.

A new process for each day would spend most of its time on imports. Each run is an ordinary one, with its own checks and
logs in the UI. A day that fails does not affect the others; a day that another process is working on comes last.
"""

import functools
import math
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import date
from time import perf_counter
from typing import TextIO

import dagster as dg

from batch_scoring.cli import day_runs
from batch_scoring.cli.backfill import day_locks, selection
from batch_scoring.cli.backfill.selection import Choice, Wanted
from batch_scoring.cli.instance import opened
from batch_scoring.config.compute import in_this_process
from batch_scoring.config.days import ranges
from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.names import job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.tables import predictions_table
from batch_scoring.defs.metadata import asset_key
from batch_scoring.errors import BundleError, ComputeError, HeldError, StateError
from batch_scoring.inference.bundle import read_sha256
from batch_scoring.ingest.landing_files import list_day
from batch_scoring.operations import failure_records
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.runtime import signals
from batch_scoring.storage.state import State, StepName

_COLUMNS = f"{'day':10}  {'rows in':>10}  {'scored':>10}  {'quarantined':>11}  {'failed checks':>13}  {'rows/s':>10}"


@dataclass(frozen=True)
class DayCheck:
    """A check that did not pass in a day's run."""

    name: str
    """Asset and check."""
    message: str
    of_day: bool
    """Whether it is about this day; otherwise about the model, where the result of a later run replaces it."""


@dataclass(frozen=True)
class DayOutcome:
    """How a day's run ended."""

    day: str
    error: str | None
    """None if it succeeded."""
    failed_checks: tuple[DayCheck, ...] = ()
    rows_in: int = 0
    scored: int = 0
    quarantined: int = 0
    seconds: float = 0.0
    unchanged: bool = False
    """Whether an earlier run had published the same rows."""
    by_another: bool = False
    """Whether a run of another process did the work in the meantime."""

    @property
    def line(self) -> str:
        """The day's row in the table."""
        counts = [f"{n:,}" if not self.error else "-" for n in (self.rows_in, self.scored, self.quarantined)]
        failed = sum(check.of_day or self.error is not None for check in self.failed_checks)
        checks = "-" if self.error and not failed else f"{failed}"
        speed = f"{self.rows_in / self.seconds:,.0f}" if self.seconds else "-"
        done = "by another" if self.by_another else "unchanged" if self.unchanged else speed
        last = "failed" if self.error else done
        return f"{self.day}  {counts[0]:>10}  {counts[1]:>10}  {counts[2]:>11}  {checks:>13}  {last:>10}"


def backfill(
    name: str,
    first: date | None,
    last: date | None,
    out: TextIO,
    *,
    stale: bool = False,
    failed: bool = False,
    dry_run: bool = False,
) -> int:
    """Score every day from first to last; 0 if all succeeded, else 1.

    Args:
        name: of the pipeline.
        first: the pipeline's first day if None.
        last: included; the pipeline's last day if None.
        out: receives the progress and the result.
        stale: of these days only those that are stale.
        failed: of these days only those that have failed; with `stale` those that are one of the two.
        dry_run: print which days would be run and why, and write nothing.

    Raises:
        ComputeError: runs of this deployment need pods.
        SpecError: no pipeline has that name.
        RangeError: the range is empty or not within the pipeline's days.
        BundleError, StateError, OSError: the days cannot be determined.
    """
    return (show if dry_run else score)(find_pipeline(name), Wanted(first, last, stale, failed), out)


def show(pipeline: Pipeline, wanted: Wanted, out: TextIO) -> int:
    """Print which days would be run and why."""
    days = selection.days_within(pipeline, wanted)
    with opened() as instance:
        if wanted.is_range:
            chosen = selection.explain(pipeline, days, instance)
        else:
            chosen = selection.choose(pipeline, days, wanted, instance)
    out.writelines(f"{choice.day}  {choice.why}\n" for choice in chosen)
    if not chosen:
        out.write(_nothing(pipeline, days, wanted))
    return 0


def score(pipeline: Pipeline, wanted: Wanted, out: TextIO) -> int:
    """Run the selected days, those that another process is working on last. 0 if all succeeded, else 1."""
    began = time.time()
    days = selection.days_within(pipeline, wanted)
    with opened() as instance:
        if instance.run_launcher.supports_check_run_worker_health:
            raise ComputeError(
                "the daemon of this deployment looks for a pod of every run, and would consider those of this command "
                f"dead; use batch-scoring submit {pipeline.name} --from {days[0]} --to {days[-1]}"
            )
        if dead := end_dead_runs(instance):
            out.write(f"marked as failed, because their processes are gone: {', '.join(dead)}\n")
            failure_records.record_runs(instance, dead, pipeline)
        chosen = selection.choose(pipeline, days, wanted, instance)
        if not chosen:
            out.write(_nothing(pipeline, days, wanted))
            return 0
        if instance.is_ephemeral:
            out.write("DAGSTER_HOME is not set: these runs will not be seen in the UI\n")
        out.write(f"{_COLUMNS}\n")
        out.flush()
        # days of a range are run whatever their state; days selected by their state may have another one by now
        doubts_after = began if wanted.is_range else -math.inf
        work = _Work(pipeline, _job(pipeline), instance, doubts_after)
        outcomes = list[DayOutcome]()
        with signals.at_end(functools.partial(_continuation, pipeline, wanted, days[-1], chosen, outcomes)):
            _run_all(work, chosen, outcomes, out)
    _print_summary(pipeline, outcomes, out)
    return 1 if any(outcome.error for outcome in outcomes) else 0


def _run_all(work: "_Work", chosen: Sequence[Choice], outcomes: list[DayOutcome], out: TextIO) -> None:
    """Run the days one after the other, and report how each ended, in `outcomes` too."""
    began = perf_counter()
    put_off: list[Choice] = []

    def add(outcome: DayOutcome) -> None:
        outcomes.append(outcome)
        left = (perf_counter() - began) / len(outcomes) * (len(chosen) - len(outcomes))
        out.write(f"{outcome.line}  {len(outcomes)}/{len(chosen)}, {left:.0f} s left\n")
        out.flush()

    for choice in chosen:
        try:
            add(work.attempt(choice))
        except HeldError as held:
            put_off.append(choice)
            out.write(f"{choice.day}  postponed: {held}\n")
            out.flush()
    for choice in put_off:
        add(work.wait_for(choice))


def _continuation(
    pipeline: Pipeline, wanted: Wanted, last: str, chosen: Sequence[Choice], outcomes: Sequence[DayOutcome]
) -> str:
    """The days that had failed when the command was interrupted, and the command that runs the others."""
    done, failed = {outcome.day for outcome in outcomes}, [outcome.day for outcome in outcomes if outcome.error]
    left = [choice.day for choice in chosen if choice.day not in done]
    if not left:
        return "all days are done"
    span = [min(left), last] if wanted.last or wanted.is_range else [min(left)]
    options = [f"--{name}" for name in ("stale", "failed") if getattr(wanted, name)]
    said = f"{len(failed)} of {len(done)} days failed: {', '.join(ranges(failed))}; " if failed else ""
    return f"{said}continue with: {shlex.join(['batch-scoring', 'backfill', pipeline.name, *span, *options])}"


class _Work:
    """Runs days while other processes may be working on the same ones."""

    def __init__(
        self, pipeline: Pipeline, job: dg.JobDefinition, instance: dg.DagsterInstance, doubts_after: float
    ) -> None:
        """`doubts_after`: a day that another process unlocked after this time (seconds since 1970) may be done."""
        self._pipeline, self._job, self._instance, self._doubts_after = pipeline, job, instance, doubts_after

    def attempt(self, choice: Choice) -> DayOutcome:
        """Run a day.

        Raises:
            HeldError: another process is working on it.
        """
        if choice.steps == ():
            return DayOutcome(choice.day, choice.why)
        with day_locks.hold(self._pipeline, choice.day) as left_at:
            if run := day_locks.launched_run(self._pipeline, self._instance, choice.day):
                raise HeldError(f"run {run.id[:8]} is {run.status}")
            return self._run(choice, may_be_done=left_at > self._doubts_after)

    def wait_for(self, choice: Choice) -> DayOutcome:
        """Wait until no other process is working on a day, and run it if there is something left to do."""
        with day_locks.hold(self._pipeline, choice.day, waits=True):
            day_locks.wait_for_launched(self._pipeline, self._instance, choice.day)
            return self._run(choice, may_be_done=True)

    def _run(self, choice: Choice, *, may_be_done: bool) -> DayOutcome:
        if may_be_done and self._is_up_to_date(choice.day):
            return replace(_published(self._pipeline, choice.day), by_another=True)
        return run_day(self._pipeline, self._job, choice.day, self._instance, choice.steps)

    def _is_up_to_date(self, day: str) -> bool:
        """Whether a run of the day would write nothing; if that cannot be determined, the run reports why."""
        try:
            listed = {day: list_day(self._pipeline.landing, day)}
            return day in selection.up_to_date(self._pipeline, listed, read_sha256(self._pipeline.bundle))
        except (BundleError, StateError, OSError):
            return False


def run_day(
    pipeline: Pipeline,
    job: dg.JobDefinition,
    day: str,
    instance: dg.DagsterInstance,
    steps: Sequence[str] | None = None,
) -> DayOutcome:
    """Run the pipeline's job, or some of its assets, for one day; the run is canceled if the command is interrupted."""
    began = perf_counter()
    keys = None if steps is None else [asset_key(pipeline, step) for step in steps]
    result = day_runs.run_here(job, day, instance, "batch-scoring backfill", keys)
    seconds = perf_counter() - began
    checks = tuple(
        DayCheck(
            f"{check.asset_key.to_user_string()} {check.check_name}", check.description or "", check.partition == day
        )
        for check in result.get_asset_check_evaluations()
        if not check.passed
    )
    if not result.success:
        return DayOutcome(day, day_runs.first_error(result), checks, seconds=seconds)
    last_steps: tuple[StepName, ...] = ("predictions", "decisions") if pipeline.spec.decisions else ("predictions",)
    written = [State(pipeline.output).published_day(step, day) for step in last_steps]
    unchanged = all(published_day is not None and published_day.run_id != result.run_id for published_day in written)
    return replace(_published(pipeline, day), failed_checks=checks, seconds=seconds, unchanged=unchanged)


def _published(pipeline: Pipeline, day: str) -> DayOutcome:
    """The outcome of a published day: its row counts."""
    state = State(pipeline.output)
    features, scored = state.published_day("validated_features", day), state.published_day("predictions", day)
    assert features is not None and scored is not None, "a run has succeeded"
    quarantined = features.rows_quarantined + scored.rows_quarantined
    return DayOutcome(day, None, rows_in=features.rows_in, scored=scored.rows, quarantined=quarantined)


def _print_summary(pipeline: Pipeline, outcomes: Sequence[DayOutcome], out: TextIO) -> None:
    """Print where the scores are, which checks failed on published days, and which days failed."""
    table = predictions_table(pipeline).folder.uri
    scored = [outcome for outcome in outcomes if not outcome.error]
    if scored:
        out.write(f"\npredictions: {table} (a Delta table, partitioned by dt)\n")
        out.write(f"read a day:  batch_scoring.tables.read_day({pipeline.name!r}, '{scored[0].day}')\n")
    failures: dict[str, list[tuple[str, str]]] = {}
    for outcome in scored:
        for check in outcome.failed_checks:
            if check.of_day or outcome is outcomes[-1]:
                failures.setdefault(check.name, []).append((outcome.day, check.message))
    if failures:
        out.write("\nchecks that failed without stopping a day:\n")
    for check_name, days in failures.items():
        span, (last, message) = ", ".join(ranges(day for day, _ in days)), days[-1]
        out.write(f"  {span}  {check_name}: {message}{f' ({last})' if len(days) > 1 else ''}\n")
    if failed := [outcome for outcome in outcomes if outcome.error]:
        out.write(f"\n{len(failed)} of {len(outcomes)} days failed:\n")
        out.writelines(f"  {outcome.day}  {outcome.error}\n" for outcome in failed)


def _nothing(pipeline: Pipeline, days: Sequence[str], wanted: Wanted) -> str:
    return f"nothing to do: no day of {pipeline.name} from {days[0]} to {days[-1]} {wanted.words}\n"


def _job(pipeline: Pipeline) -> dg.JobDefinition:
    from batch_scoring.definitions import deploy

    with in_this_process():  # here Ctrl-C ends a step, and only a step with its own pod is retried
        return deploy([pipeline]).resolve_job_def(job_name(pipeline))
