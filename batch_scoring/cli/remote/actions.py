"""Submit, show and follow runs and backfills of a remote deployment.

Results are printed on stdout, one document each; progress is printed on stderr. The exit code is the result of the run:
0 succeeded, 1 failed or canceled, 2 the command was wrong, 3 the deployment does not answer, 4 the wait timed out.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import TextIO, TypeVar

from batch_scoring.cli.remote import jobs, output, runs
from batch_scoring.cli.remote.connection import Address, Remote
from batch_scoring.cli.remote.runs import MOST_DETAILED, Backfill, RemoteRun
from batch_scoring.errors import UnreachableError, WaitTimeoutError, WrongCommandError
from batch_scoring.runtime import signals

OUTAGE_LIMIT = 300.0
"""Seconds for which a deployment that has answered before may be unreachable: a web server restarts."""
FASTEST, SLOWEST = 1.0, 5.0
"""Seconds between two polls."""
IN_THE_QUEUE = 20.0
"""Seconds in the queue after which the daemon's heartbeat is checked."""
_RUNS, _BACKFILLS = "QUEUED_RUN_COORDINATOR", "BACKFILL"
"""Dagster's daemons."""

Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Subject:
    """What to show or follow: the run or backfill with an id, or the newest run of a day."""

    id: str | None = None
    pipeline: str | None = None
    day: date | None = None

    def find(self, remote: Remote) -> RemoteRun | Backfill:
        """The current state of the run or backfill.

        Raises:
            WrongCommandError: there is none.
        """
        if self.id is not None:
            return runs.find(remote, self.id)
        assert self.pipeline is not None and self.day is not None, "the command requires an id, or a pipeline and a day"
        if found := runs.newest_of_day(remote, self.pipeline, str(self.day)):
            return found
        job = jobs.find(remote, self.pipeline)
        jobs.days_within(remote, job, self.day, self.day)
        raise WrongCommandError(
            f"{self.pipeline} {self.day} has no run at {remote.address.url}; "
            f"start one: batch-scoring submit {self.pipeline} --day {self.day}"
        )


def submit(
    address: Address,
    pipeline: str,
    first: date,
    last: date | None,
    out: TextIO,
    err: TextIO,
    *,
    location: str | None = None,
    as_json: bool = False,
    waits: bool = False,
    timeout: float | None = None,
) -> int:
    """Start a day, or a backfill of a range.

    Args:
        address: of the deployment.
        pipeline: its name there.
        first: the day, or the first of the range.
        last: included; None: the one day.
        out: receives the id; with `waits`, what `wait` prints.
        err: receives the progress.
        location: the code location to look in, where several have the pipeline.
        as_json: print an object with id and url instead of the id.
        waits: then follow it as `wait` does.
        timeout: seconds to wait at most.

    Raises:
        RemoteError: nothing was started, or that is uncertain; or the wait ended before the run did.
    """
    remote = Remote(address)
    job = jobs.find(remote, pipeline, location)
    days = jobs.days_within(remote, job, first, last or first)
    look = f"batch-scoring status --pipeline {pipeline} --day {days[0]}"
    with signals.at_end(lambda: f"it may have been started, see: {look}"):
        if last is None:
            kind, found = "run", jobs.start_day(remote, job, days[0])
        else:
            kind, found = "backfill", jobs.start_days(remote, job, days)
    url = address.link(f"runs/{found}" if kind == "run" else f"runs/b/{found}")
    if waits:
        err.write(f"{kind} {found}: {url}\n")
        err.flush()
        return wait(address, Subject(found), out, err, as_json=as_json, timeout=timeout)
    if as_json:
        span = {"day": days[0]} if last is None else {"first": days[0], "last": days[-1], "days": len(days)}
        out.write(f"{json.dumps({'kind': kind, 'id': found, 'url': url, 'pipeline': pipeline, **span}, indent=2)}\n")
    else:
        out.write(f"{found}\n")
        err.write(f"{url}\n")
    try:
        silence = jobs.silent_daemon(remote, _RUNS if last is None else _BACKFILLS)
    except UnreachableError:  # the run is started: a failed check of the daemon is not an error
        silence = None
    if silence:
        err.write(f"batch-scoring: {silence}\n")
    return 0


def status(address: Address, subject: Subject, out: TextIO, *, as_json: bool = False) -> int:
    """Print the state of a run or a backfill; 1 if it failed or was canceled, else 0."""
    remote = Remote(address)
    return _show(remote, subject.find(remote), out, as_json=as_json)


def wait(
    address: Address,
    subject: Subject,
    out: TextIO,
    err: TextIO,
    *,
    as_json: bool = False,
    timeout: float | None = None,
    outage_limit: float = OUTAGE_LIMIT,
) -> int:
    """Follow a run, through its retries, or a backfill to its end; then print it as `status` does.

    Args:
        address: of the deployment.
        subject: what to follow.
        out: receives the result.
        err: receives each change.
        as_json: print the result as an object.
        timeout: seconds to wait at most; no limit if None.
        outage_limit: seconds for which the deployment may be unreachable in the meantime.

    Raises:
        WaitTimeoutError: it has not ended in time.
        RemoteError: there is nothing to follow, or the deployment is unreachable for too long.
    """
    remote = Remote(address)
    watch = _Watch(remote, err, timeout, outage_limit)
    with signals.at_end(lambda: "no longer waiting, what was started continues"):
        found = subject.find(remote)  # an address or an id that is wrong is not retried
        if isinstance(found, Backfill):
            ended: RemoteRun | Backfill = watch.backfill(found)
        else:
            ended = watch.run(found)
        return watch.patiently(lambda: _show(remote, ended, out, as_json=as_json))


class _Watch:
    """Polls a deployment, and prints what has changed."""

    def __init__(self, remote: Remote, err: TextIO, timeout: float | None, outage_limit: float) -> None:
        self._remote, self._err, self._outage_limit = remote, err, outage_limit
        self._began = time.monotonic()
        self._until = None if timeout is None else self._began + timeout
        self._timeout = timeout
        self._last = ""
        self._queued_since: float | None = None

    def run(self, run: RemoteRun) -> RemoteRun:
        """Follow a run and the retries that Dagster launches; returns the last one."""
        was_on, over_since = False, None
        while True:
            self._say(_words(run))
            self._look_at_queue(run.state in ("created", "queued"), _RUNS)
            if run.retried_as:
                run, over_since = self._read_run(run.retried_as), None
                continue
            if run.is_over:
                over_since = over_since or time.monotonic()
                seconds = time.monotonic() - over_since  # clocks may differ: the time at which the end was seen is ours
                if seconds >= run.retry_window or not (was_on or run.may_be_retried):
                    return run
            was_on = was_on or not run.is_over
            self._sleep(f"run {run.id} is {run.state}")
            run = self._read_run(run.id)

    def backfill(self, backfill: Backfill) -> Backfill:
        """Follow a backfill to its end."""
        while True:
            counts = ", ".join(f"{len(days)} {state}" for state, days in backfill.by_state.items())
            self._say(f"backfill {backfill.id}: {counts}")
            waits = not any(run.state not in ("created", "queued") for run in backfill.runs.values())
            self._look_at_queue(waits and not backfill.is_over, _RUNS if backfill.runs else _BACKFILLS)
            if backfill.is_over:
                return backfill
            self._sleep(f"backfill {backfill.id}: {counts}")
            backfill = self.patiently(lambda: runs.backfill(self._remote, backfill.id))  # noqa: B023

    def patiently(self, ask: Callable[[], Answer]) -> Answer:
        """Repeat a request until the deployment answers, for a limited time."""
        away_since = None
        while True:
            try:
                answer = ask()
            except UnreachableError as error:
                if error.is_denied:
                    raise
                away_since = away_since or time.monotonic()
                if time.monotonic() - away_since > self._outage_limit:
                    raise UnreachableError(f"{error} (tried for {self._outage_limit:.0f} s)") from error
                self._say(f"{error} (asked again for up to {self._outage_limit:.0f} s)")
                self._sleep(str(error))
            else:
                return answer

    def _read_run(self, run_id: str) -> RemoteRun:
        return self.patiently(lambda: runs.run(self._remote, run_id))

    def _say(self, text: str) -> None:
        if text != self._last:
            self._err.write(f"{datetime.now(UTC):%H:%M:%S} {text}\n")
            self._err.flush()
            self._last = text

    def _look_at_queue(self, is_queued: bool, daemon: str) -> None:
        """Warn once if nothing takes runs from the queue."""
        now = time.monotonic()
        self._queued_since = (self._queued_since or now) if is_queued else None
        if self._queued_since is None or now - self._queued_since < IN_THE_QUEUE:
            return
        self._queued_since = float("inf")
        if silence := self.patiently(lambda: jobs.silent_daemon(self._remote, daemon)):
            self._err.write(f"{datetime.now(UTC):%H:%M:%S} {silence}\n")
            self._err.flush()

    def _sleep(self, state: str) -> None:
        now = time.monotonic()
        if self._until is not None and now >= self._until:
            raise WaitTimeoutError(
                f"not finished after --timeout {self._timeout:g}: {state}; it continues without this command"
            )
        pause = min(SLOWEST, max(FASTEST, (now - self._began) / 20))
        time.sleep(pause if self._until is None else min(pause, max(self._until - now, 0.0)))


def _words(run: RemoteRun) -> str:
    text = f"run {run.id} {run.state}" + (f" ({run.failure})" if run.failure else "")
    return f"{text}; Dagster retries it as run {run.retried_as}" if run.retried_as else text


def _show(remote: Remote, found: RemoteRun | Backfill, out: TextIO, *, as_json: bool) -> int:
    address = remote.address
    if isinstance(found, RemoteRun):
        report = runs.report(remote, found)
        text = _json(output.run_object(report, address)) if as_json else output.run_page(report, address)
    else:
        failed = [run for _, run in sorted(found.runs.items()) if run.state in ("failed", "canceled")]
        reports = [runs.report(remote, run) for run in failed[:MOST_DETAILED]]
        page = output.backfill_object if as_json else output.backfill_page
        text = _json(page(found, reports, address)) if as_json else str(page(found, reports, address))
    out.write(text)
    return 1 if found.state in ("failed", "canceled") else 0


def _json(document: object) -> str:
    return f"{json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)}\n"
