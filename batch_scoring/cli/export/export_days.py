"""Export days in one process, one Dagster run per export and day, the oldest day first.

What is behind is known from storage alone; only that is run, unless it is asked for again. A sink that fails three days
in a row is not asked for the others; days that cannot be exported whatever the sink are left out.
"""

import functools
import json
import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from typing import Literal, TextIO

import dagster as dg

from batch_scoring.cli import day_runs
from batch_scoring.cli.backfill.selection import Wanted, days_within
from batch_scoring.cli.instance import opened
from batch_scoring.config.compute import in_this_process
from batch_scoring.config.delivery_spec import AnyExport
from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.names import export_asset, exports_job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.metadata import asset_key
from batch_scoring.delivery.exports import pending, published
from batch_scoring.delivery.exports.expiry import whys_gone
from batch_scoring.delivery.exports.pending import PendingDay
from batch_scoring.delivery.exports.selection import reads_features
from batch_scoring.errors import ComputeError, RangeError
from batch_scoring.operations import failure_records
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.runtime import signals
from batch_scoring.storage.state import ExportReceipt, PublishedDay, State

MOST_FAILURES = 3
"""Days that an export may fail in a row before its other days are given up."""

_AS_PUBLISHED = "as published"

_COLUMNS = f"{'day':10}  {'export':20}  {'outcome':12}  {'rows':>12}"


@dataclass(frozen=True)
class Task:
    """An export of a day."""

    export: str
    day: str
    why: str
    """Why it is exported, or why there is nothing to do."""
    is_open: bool
    """Whether there is something to do."""
    waits_for: str = ""
    """Why it cannot be exported now, whatever the sink; empty if it can."""


@dataclass(frozen=True)
class Done:
    """What became of an export of a day."""

    export: str
    day: str
    outcome: Literal["exported", "unchanged", "superseded", "kept", "failed", "not tried"]
    rows: int | None = None
    where: tuple[str, ...] = ()
    error: str = ""

    @property
    def has_failed(self) -> bool:
        """Whether the day still has to be exported."""
        return self.outcome in ("failed", "not tried")

    @property
    def line(self) -> str:
        """Its row in the table."""
        rows = "-" if self.rows is None else f"{self.rows:,}"
        remark = self.error or ", ".join(self.where)
        return f"{self.day}  {self.export:20}  {self.outcome:12}  {rows:>12}  {remark}".rstrip()


@dataclass(frozen=True)
class Request:
    """What the command was asked for."""

    pipeline: Pipeline
    names: tuple[str, ...]
    name: str | None
    """The export that was named."""
    days: tuple[str, ...]
    again: bool = False


def export(
    name: str,
    export_name: str | None,
    first: date,
    last: date,
    out: TextIO,
    *,
    again: bool = False,
    dry_run: bool = False,
    as_json: bool = False,
) -> int:
    """Export the days of a range; 0 if all succeeded, else 1.

    Args:
        name: of the pipeline.
        export_name: in its spec; all if None.
        first: first day.
        last: last day, included.
        out: receives the result.
        again: export days that are exported already, too.
        dry_run: print what would be exported and why, and write nothing.
        as_json: print one JSON object.

    Raises:
        ComputeError: runs of this deployment need pods.
        RangeError: there is no such export, or the range is empty or not within the pipeline's days.
        SpecError, UnknownPipelineError: no pipeline has that name.
        OSError: the store did not answer.
    """
    pipeline = find_pipeline(name)
    names = _names(pipeline, export_name)
    request = Request(pipeline, names, export_name, tuple(days_within(pipeline, Wanted(first, last))), again)
    tasks = list(_tasks(request))
    if dry_run:
        _show(request, tasks, out, as_json=as_json)
        return 0
    outcomes = _export(request, tasks, out, as_json=as_json)
    return 1 if any(done.has_failed for done in outcomes) else 0


def _names(pipeline: Pipeline, name: str | None) -> tuple[str, ...]:
    there = tuple(pipeline.spec.exports)
    if not there:
        raise RangeError(f"{pipeline.name} has no exports; add a section exports to its pipeline.yaml")
    if name is not None and name not in there:
        raise RangeError(f"{pipeline.name} has no export {name!r}; its exports are: {', '.join(there)}")
    return (name,) if name else there


def _tasks(request: Request) -> Iterator[Task]:
    """Every export of every day, by day, with what there is to do."""
    documents = {  # first: a day that is published meanwhile has none, neither here nor in its receipt
        of: {day.day: day for day in State(request.pipeline.output).published_days_of(of, request.days)}
        for of in {request.pipeline.spec.exports[name].of for name in request.names}
    }
    behind = {name: _behind(request, name) for name in request.names}
    receipts = {
        name: published.receipts_by_day(State(request.pipeline.output), name, request.days) for name in request.names
    }
    exported = {name: documents[request.pipeline.spec.exports[name].of] for name in request.names}
    gone = {name: _gone(request, name, exported[name].values()) for name in request.names if request.again}
    for day in request.days:
        for name in request.names:
            export = request.pipeline.spec.exports[name]
            if not published.is_day_of(export, day):
                yield Task(name, day, f"no day of this export, which has days: {', '.join(export.days)}", False)
            elif day not in exported[name]:
                yield Task(name, day, f"has no {export.of} yet", False)
            elif found := behind[name].get(day):
                stays = "; what was exported stays" if _stays(request, export, receipts[name].get(day)) else ""
                yield Task(name, day, _with_reason(f"{found.why}{stays}", found.waits_for), True, found.waits_for)
            else:
                why, why_not = _as_published(receipts[name].get(day)), gone.get(name, {}).get(day, "")
                yield Task(name, day, _with_reason(why, why_not), request.again, why_not)


def _stays(request: Request, export: AnyExport, receipt: ExportReceipt | None) -> bool:
    """Whether a correction changes nothing in the sink."""
    is_there = receipt is not None and published.is_there(receipt, export)
    return is_there and export.corrections == "keep" and not request.again


def _behind(request: Request, name: str) -> dict[str, PendingDay]:
    return {found.day: found for found in pending.among(request.pipeline, name, request.days)}


def _gone(request: Request, name: str, exported: Iterable[PublishedDay]) -> dict[str, str]:
    """The days whose rows retention has removed, with why they cannot be exported again."""
    read = [*exported]
    if reads_features(request.pipeline, name):
        read += State(request.pipeline.output).published_days_of("validated_features", request.days)
    return whys_gone(request.pipeline, read)


def _with_reason(why: str, why_not: str) -> str:
    return f"{why}, but {why_not}" if why_not else why


def _as_published(receipt: ExportReceipt | None) -> str:
    assert receipt is not None, "a day that is not behind has a receipt"
    return f"{receipt.outcome} {_AS_PUBLISHED}, {receipt.rows:,} rows by run {receipt.run_id[:8]}"


def _show(request: Request, tasks: Sequence[Task], out: TextIO, *, as_json: bool) -> None:
    if as_json:
        _dump(request, out, days=[asdict(task) for task in tasks])
        return
    for task in tasks:
        mark = "export" if task.is_open else "-"
        out.write(f"{task.day}  {task.export:20}  {mark:6}  {task.why}\n")


def _export(request: Request, tasks: Sequence[Task], out: TextIO, *, as_json: bool) -> list[Done]:
    """Run the exports that there are, and print what became of them."""
    outcomes: list[Done] = []
    left = [task for task in tasks if task.is_open]
    with opened() as instance:
        _ensure_here(request, instance)
        failure_records.record_runs(instance, end_dead_runs(instance), request.pipeline)
        if left and not as_json:
            out.write(f"{_COLUMNS}\n")
        with signals.at_end(functools.partial(_continuation, request, left, outcomes)):
            for done in _run_all(request, left, instance):
                outcomes.append(done)
                if not as_json:
                    out.write(f"{done.line}\n")
                    out.flush()
    if as_json:
        _dump(request, out, days=[asdict(done) for done in outcomes])
    else:
        _print_summary(request, tasks, outcomes, out)
    return outcomes


def _ensure_here(request: Request, instance: dg.DagsterInstance) -> None:
    """Refuse if runs of this command would be taken for dead ones."""
    if instance.run_launcher.supports_check_run_worker_health:
        raise ComputeError(
            "the daemon of this deployment looks for a pod of every run, and would consider those of this command "
            f"dead; start the job {exports_job_name(request.pipeline)} in the UI instead"
        )


def _run_all(request: Request, tasks: Sequence[Task], instance: dg.DagsterInstance) -> Iterator[Done]:
    if not tasks:
        return
    job, failures = _job(request.pipeline), dict.fromkeys(request.names, 0)
    for task in tasks:
        if task.waits_for:
            yield Done(task.export, task.day, "not tried", error=task.waits_for)
            continue
        if failures[task.export] >= MOST_FAILURES:
            yield Done(task.export, task.day, "not tried", error=f"{MOST_FAILURES} days before have failed")
            continue
        done = _run(request, job, task, instance)
        failures[task.export] = failures[task.export] + 1 if done.has_failed else 0
        yield done


def _run(request: Request, job: dg.JobDefinition, task: Task, instance: dg.DagsterInstance) -> Done:
    key = asset_key(request.pipeline, export_asset(task.export))
    config = {"ops": {key.to_python_identifier(): {"config": {"again": request.again}}}}
    result = day_runs.run_here(job, task.day, instance, "batch-scoring export", [key], config)
    receipt = State(request.pipeline.output).receipt(task.export, task.day) if result.success else None
    if receipt is None:
        return Done(task.export, task.day, "failed", error=day_runs.first_error(result))
    return Done(task.export, task.day, receipt.outcome, receipt.rows, receipt.where)


def _job(pipeline: Pipeline) -> dg.JobDefinition:
    from batch_scoring.definitions import deploy

    with in_this_process():
        return deploy([pipeline]).resolve_job_def(exports_job_name(pipeline))


def _continuation(request: Request, tasks: Sequence[Task], outcomes: Sequence[Done]) -> str:
    """The command that exports what was not exported when this one was interrupted."""
    days = [task.day for task in tasks[len(outcomes) :]] + [done.day for done in outcomes if done.has_failed]
    if not days:
        return "everything is exported"
    options = ["--again"] if request.again else []
    name = [request.name] if request.name else []
    words = ["batch-scoring", "export", request.pipeline.name, *name, min(days), max(days), *options]
    return f"continue with: {shlex.join(words)}"


def _print_summary(request: Request, tasks: Sequence[Task], outcomes: Sequence[Done], out: TextIO) -> None:
    idle = [task for task in tasks if not task.is_open]
    if not outcomes:
        reasons = sorted({task.why.partition(",")[0] for task in idle})
        out.write(f"nothing to do from {request.days[0]} to {request.days[-1]}: {'; '.join(reasons)}\n")
        if any(_AS_PUBLISHED in reason for reason in reasons):
            out.write("no sink was asked; --again exports what is exported already, too\n")
    failed = [done for done in outcomes if done.has_failed]
    if failed:
        out.write(f"\n{len(failed)} of {len(outcomes)} exports failed:\n")
        out.writelines(f"  {done.day}  {done.export}: {done.error}\n" for done in failed)


def _dump(request: Request, out: TextIO, **content: object) -> None:
    json.dump({"pipeline": request.pipeline.name, **content}, out, indent=1)
    out.write("\n")
