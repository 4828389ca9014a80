"""Remote runs and backfills as one screen of text or one JSON object.

The fields of the objects are an interface: new ones may be added, none is renamed or removed. Times are ISO 8601 in
UTC, days YYYY-MM-DD; unknown values are null.

A run:

    kind            "run"
    id, url         of the run; its page in the UI
    pipeline, day   the pipeline and the day that it scores
    job             as Dagster knows it
    state           created, queued, starting, started, canceling; at the end succeeded, failed, canceled
    failure         the failure class, if the run has one
    created_at, started_at, ended_at, seconds
    retry_of        id of the run that it retries; retried_as: id of the retry that Dagster launched
    rows            {"in", "scored", "quarantined"}: of a published run, otherwise as far as it got
    rows_per_second of the scoring step
    model_version   of the active model
    metrics         asset -> name -> number: all numbers of the run's materialisations
    failed_checks   [{"asset", "check", "severity": "WARN" or "ERROR", "message"}]
    errors          [{"step": null for the run itself, "message": its first line}]
    tags            those whose names begin with batch_scoring/

A backfill:

    kind            "backfill"
    id, url, pipeline, created_at, ended_at
    state           requested, started; at the end succeeded (every day), failed, canceled
    days            state -> days; states of runs, and requested or "not started" for days that have none
    failed          a run's object for each failed or canceled day, for the first 20 of them; failed_count: of all
    error           why the backfill itself has stopped
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from batch_scoring.cli.remote.connection import Address
from batch_scoring.cli.remote.runs import Backfill, RunReport, StepError
from batch_scoring.config.days import ranges
from batch_scoring.operations import failed_runs
from batch_scoring.operations.run_history import CODE, FINGERPRINT
from batch_scoring.runtime.printable import without_class

LINE_LENGTH = 500
"""Most characters of a line."""
_DULL = {FINGERPRINT, CODE, failed_runs.TAG, failed_runs.RECORDED_FOR}
"""Tags that the page omits: useless to people, or shown elsewhere on it."""


def run_object(report: RunReport, address: Address) -> dict[str, Any]:
    """A run as a JSON object."""
    run = report.run
    return {
        "kind": "run",
        "id": run.id,
        "url": address.link(f"runs/{run.id}"),
        "pipeline": run.pipeline or None,
        "day": run.day,
        "job": run.job,
        "state": run.state,
        "failure": run.failure,
        "created_at": _iso(run.created_at),
        "started_at": _iso(run.started_at),
        "ended_at": _iso(run.ended_at),
        "seconds": _seconds(report),
        "retry_of": run.retry_of,
        "retried_as": run.retried_as,
        "rows": report.rows,
        "rows_per_second": report.rows_per_second,
        "model_version": report.model_version,
        "metrics": report.metrics,
        "failed_checks": [vars(check) for check in report.failed_checks],
        "errors": [vars(error) for error in report.errors],
        "tags": {name: run.tags[name] for name in sorted(run.tags) if name.startswith("batch_scoring/")},
    }


def backfill_object(backfill: Backfill, failed: Sequence[RunReport], address: Address) -> dict[str, Any]:
    """A backfill as a JSON object; `failed`: reports of its failed days."""
    return {
        "kind": "backfill",
        "id": backfill.id,
        "url": address.link(f"runs/b/{backfill.id}"),
        "pipeline": backfill.pipeline or None,
        "state": backfill.state,
        "created_at": _iso(backfill.created_at),
        "ended_at": _iso(backfill.ended_at),
        "days": backfill.by_state,
        "failed": [run_object(report, address) for report in failed],
        "failed_count": failed_count(backfill),
        "error": backfill.error,
    }


def run_page(report: RunReport, address: Address) -> str:
    """A run as one screen of text."""
    run, object_ = report.run, run_object(report, address)
    what = f"{run.pipeline or run.job} {run.day or ''}".rstrip()
    end = f" ({run.failure})" if run.failure else ""
    lines = [f"{what}: {run.state}{end}", f"  run         {run.id}"]
    if run.retry_of:
        lines.append(f"  retry of    {run.retry_of}")
    if run.retried_as:
        lines.append(f"  retried as  {run.retried_as}")
    times = [
        f"{word} {stamp(at)}"
        for word, at in (("created", run.created_at), ("started", run.started_at), ("ended", run.ended_at))
        if at is not None and not (word == "created" and run.started_at)
    ]
    seconds = object_["seconds"]
    lines.append(f"  time        {', '.join(times)}{'' if seconds is None else f', {seconds:,.1f} s'}")
    if counts := _counts(report):
        lines.append(f"  rows        {counts}")
    if report.model_version:
        lines.append(f"  model       {report.model_version}")
    tags = [f"{name.partition('/')[2]}: {value}" for name, value in object_["tags"].items() if name not in _DULL]
    if tags:
        lines.append(f"  tags        {', '.join(tags)}")
    if report.failed_checks:
        lines.append("  failed checks")
        lines += [f"    {c.asset} {c.check} ({c.severity}): {c.message}" for c in report.failed_checks]
    if run.failure == "superseded":
        lines.append(
            "  superseded  newer files arrived meanwhile; if the day's sensor is running, it runs the day again"
        )
    lines += [f"  error       {_in_words(error)}" for error in _news(report)]
    lines.append(f"  {object_['url']}")
    return _text(lines)


def backfill_page(backfill: Backfill, failed: Sequence[RunReport], address: Address) -> str:
    """A backfill as one screen of text."""
    span = f" {backfill.days[0]} … {backfill.days[-1]}" if backfill.days else ""
    lines = [f"{backfill.pipeline}{span}: {backfill.state}", f"  backfill    {backfill.id}"]
    end = f", ended {stamp(backfill.ended_at)}" if backfill.ended_at else ""
    lines.append(f"  time        created {stamp(backfill.created_at)}{end}")
    for state, days in backfill.by_state.items():
        lines.append(f"  {state:<11} {len(days)}: {', '.join(ranges(days))}")
    if backfill.error:
        lines.append(f"  error       {backfill.error}")
    if failed:
        lines.append("  failed days")
    for report in failed:
        run = report.run
        why = [f"{c.asset} {c.check}: {c.message}" for c in report.failed_checks if c.severity == "ERROR"]
        why += [_in_words(error) for error in _news(report)]
        klass = f" ({run.failure})" if run.failure else ""
        lines.append(f"    {run.day}{klass}  {'; '.join(why) or run.state}")
    if (rest := failed_count(backfill) - len(failed)) > 0:
        lines.append(f"    and {rest} more; status --pipeline {backfill.pipeline} --day D says why")
    lines.append(f"  {address.link(f'runs/b/{backfill.id}')}")
    return _text(lines)


def failed_count(backfill: Backfill) -> int:
    """Number of days whose run failed or was canceled."""
    return sum(len(backfill.by_state.get(state, ())) for state in ("failed", "canceled"))


def stamp(at: float) -> str:
    """A time in readable form."""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _text(lines: Sequence[str]) -> str:
    flat = (line.replace("\n", " ") for line in lines)
    return "".join(f"{line if len(line) <= LINE_LENGTH else line[: LINE_LENGTH - 1] + '…'}\n" for line in flat)


def _counts(report: RunReport) -> str:
    words = [f"{count:,} {word}" for word, count in report.rows.items() if count is not None]
    if words and report.rows_per_second:
        words.append(f"{report.rows_per_second:,.0f} rows/s")
    return ", ".join(words)


def _news(report: RunReport) -> list[StepError]:
    """The errors that no failed check explains: a blocking check fails its step with its own message."""
    said = [check.message for check in report.failed_checks]
    return [error for error in report.errors if not any(text.splitlines()[0] in error.message for text in said)]


def _in_words(error: StepError) -> str:
    message = without_class(error.message)
    return f"{error.step}: {message}" if error.step else message


def _seconds(report: RunReport) -> float | None:
    run = report.run
    if run.started_at is None or run.ended_at is None:
        return None
    return round(run.ended_at - run.started_at, 3)


def _iso(at: float | None) -> str | None:
    return None if at is None else datetime.fromtimestamp(at, UTC).isoformat(timespec="milliseconds")
