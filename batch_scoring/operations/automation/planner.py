"""Planner of the sensors: which days to examine, and which of them to run. Pure: no Dagster, no S3, no clock.

A day is run when its files differ from those that it was scored from, whatever was requested before. So no lost cursor
or run record, and no failure, can lose a file. The memory of a tick (`TickState`, the sensor's cursor) only
saves work and repeated reports.
"""

import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from batch_scoring.ingest.landing_files import fingerprint, is_of
from batch_scoring.operations.retry_policy import Pauses
from batch_scoring.operations.run_history import TO_RETRY, DayRun, fingerprint_tag
from batch_scoring.storage.folders.folder import FileVersion

CREATED = 60.0
"""Seconds within which a created run is queued or started; else its launcher has died."""
AFTER_SUCCESS = 600.0
"""Seconds before a day that was scored, but is still not up to date, is run once more."""
INCOMPLETE_WINDOW = (86_400.0, 7 * 86_400.0)
"""Seconds after the newest file between which an incomplete day is run, so that its failure raises an alert."""
ARCHIVED = timedelta(days=30)
"""Age from which a day without files counts as archived, not as deleted."""
MOST_UNEXPECTED = 100
MOST_REPORTED = 1_000
REPORTS = 20
"""Most reports of one tick; the rest follows in the next ones."""
NOW, LATE = 10, 5
"""Dagster's priority of a run of today or yesterday, and of an older day; a backfill has 0."""


@dataclass(frozen=True)
class Bounds:
    """Limits of a tick and of each day's runs."""

    recent_days: int = 7
    older_days: int = 20
    named_days: int = 50
    requests: int = 10
    quiet: float = 60.0
    """Seconds without a new file."""
    pauses: Pauses = field(default_factory=Pauses)
    """Between failed runs of the same files and code; after the last one, the day needs a person."""
    max_runtime: float = 21_600.0
    """Seconds after which a run that has not ended counts as dead."""
    look_back: int = 0
    """Days before whose decisions a day's own depend on: it waits for those of them that are run."""


class TickState(BaseModel):
    """State that a tick leaves for the next one."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    older_than: str = ""
    """Oldest day of the last slice: the next one begins below it."""
    named_before: str = ""
    """The same for the named days."""
    hinted: list[str] = []
    """Days that were named and are not handled yet."""
    seen: dict[str, tuple[str, float]] = {}
    """Days with files still arriving: fingerprint, and when it was first seen (seconds since 1970)."""
    strangers: dict[str, str] = {}
    """Unexpected objects that were reported, with the reason."""
    told: dict[str, str] = {}
    """Days that were reported, with a digest of the report."""
    handled: list[str] = []
    """Receipts of the messages that the last tick read: they can be deleted."""
    swept: float = 0.0
    """When the landing folder was last scanned (seconds since 1970)."""

    @classmethod
    def read(cls, cursor: str | None) -> "TickState":
        """Parse a sensor's cursor; empty if there is none, or one of another version."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True)
class Landed:
    """State of a day in the landing folder."""

    day: str
    files: tuple[FileVersion, ...]
    """Data files only, unreadable ones included."""
    waits_for: str = ""
    """What it lacks by its marker or manifest."""
    has_lost: bool = False
    """Whether some of the files that it was scored from are missing or unreadable, and none was added."""
    scored_from: str | None = None
    """Fingerprint of the files that it was scored from."""
    denied: str = ""
    """Why its files cannot be listed."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of its files; cached, as there may be thousands of them."""
        return fingerprint(self.files)

    @functools.cached_property
    def is_up_to_date(self) -> bool:
        """Whether it was scored from its current files."""
        return bool(self.files) and is_of(self.scored_from, self.files)


@dataclass(frozen=True)
class UnexpectedObject:
    """A name in the landing folder, or in a message, that is not a day of the pipeline."""

    name: str
    reason: str


@dataclass(frozen=True)
class DayRequest:
    """A requested run."""

    day: str
    run_key: str
    fingerprint: str
    attempt: int
    """Counts the runs of this fingerprint and code, from 1."""
    priority: int
    why: str


@dataclass(frozen=True)
class Notice:
    """An observation to report once."""

    name: str
    """The day, or the name of the object."""
    text: str


@dataclass(frozen=True)
class TickPlan:
    """Decisions of a tick."""

    requests: tuple[DayRequest, ...]
    reports: tuple[Notice, ...]
    memory: TickState
    waiting: Mapping[str, str]
    """Days that are not up to date and not requested, with the reason."""


def sort_names(
    names: Iterable[str], files: Iterable[str], first: date, today: date, troubled: Iterable[FileVersion] = ()
) -> tuple[list[str], list[UnexpectedObject]]:
    """Sort the children of a landing folder into days, newest first, and unexpected objects.

    Args:
        names: of folders; those that begin with `_` or `.` are ignored.
        files: names of files beside them.
        first: first day of the pipeline.
        today: in the pipeline's time zone.
        troubled: entries that cannot be read; one with the name of a day belongs to that day.
    """
    days, unexpected = [], []
    for name in names:
        if name.startswith(("_", ".")):
            continue
        if reason := why_no_day(name, first, today):
            unexpected.append(UnexpectedObject(f"{name}/", reason))
        else:
            days.append(name.removeprefix("dt="))
    unexpected += [
        UnexpectedObject(name, "a file outside of any day; expected dt=YYYY-MM-DD/ above it")
        for name in files
        if not name.startswith(("_", "."))
    ]
    for one in troubled:
        if one.trouble and not one.path.startswith(("_", ".")):
            if why_no_day(one.path, first, today):
                unexpected.append(UnexpectedObject(one.path, one.trouble.reason))
            else:
                days.append(one.path.removeprefix("dt="))
    if len(unexpected) > MOST_UNEXPECTED:
        rest = UnexpectedObject("…", f"more names that are not days; the first {MOST_UNEXPECTED} of them are listed")
        unexpected = [*sorted(unexpected, key=lambda one: one.name)[:MOST_UNEXPECTED], rest]
    return sorted(days, reverse=True), unexpected


def why_no_day(folder: str, first: date, today: date) -> str:
    """Why a folder name is not a day of the pipeline; empty if it is one."""
    text = folder.removeprefix("dt=")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or text == folder or text != day.isoformat():
        return "not a day; expected dt=YYYY-MM-DD"
    if day < first:
        return f"before the pipeline's first day, {first}; see partitions.start in the spec"
    if day > today:
        return "in the future; it is examined when that day begins in the pipeline's time zone"
    return ""


def days_to_examine(days: Sequence[str], memory: TickState, bounds: Bounds) -> tuple[list[str], list[str]]:
    """The days of a tick: first the named, the still arriving and the newest; then a slice of the older ones.

    Args:
        days: all of them, newest first.
        memory: of the previous tick, with the end of its slice.
        bounds: of the numbers of days.
    """
    recent, older = list(days[: bounds.recent_days]), list(days[bounds.recent_days :])
    named = {*memory.hinted, *memory.seen}
    in_turn = _turn([day for day in older if day in named], memory.named_before, bounds.named_days)
    first = sorted({*recent, *in_turn}, reverse=True)
    return first, _turn([day for day in older if day not in named], memory.older_than, bounds.older_days)


def _turn(days: Sequence[str], after: str, count: int) -> list[str]:
    """The next days in rotation, newest first."""
    begin = next((index for index, day in enumerate(days) if day < after), 0)
    return [*days[begin:], *days[:begin]][:count]


def plan(
    landed: Sequence[Landed],
    slice_: Collection[str],
    unexpected: Sequence[UnexpectedObject] | None,
    odd: Sequence[UnexpectedObject],
    runs: Mapping[str, Sequence[DayRun]],
    code: str,
    now: float,
    today: date,
    bounds: Bounds,
    memory: TickState,
) -> TickPlan:
    """Decide which days to run and what to report.

    Args:
        landed: the days that were examined, in the order in which they are to be run.
        slice_: those of them that were examined in rotation.
        unexpected: all unexpected objects in the landing folder, each reported once; None if it was not scanned.
        odd: further unexpected objects.
        runs: of each of these days that is not up to date, newest first.
        code: the current one, see `run_history.current_code`.
        now: seconds since 1970; the clock may jump.
        today: in the pipeline's time zone.
        bounds: of this tick.
        memory: of the previous tick.
    """
    after = memory.model_copy(deep=True)
    requests: list[DayRequest] = []
    reports: list[Notice] = []
    waiting: dict[str, str] = {}

    def report(reported: dict[str, str], name: str, what: str, text: str) -> None:
        if reported.get(name) != what and len(reports) < REPORTS:
            reported[name] = what
            reports.append(Notice(name, text))

    reports += [Notice(one.name, f"{one.name}: {one.reason}") for one in dict.fromkeys(odd)]
    if len(reports) > REPORTS:
        reports[REPORTS:] = [Notice("…", f"{len(reports) - REPORTS} more of the kind")]
    if unexpected is not None:
        there = {one.name for one in unexpected}
        after.strangers = {name: reason for name, reason in after.strangers.items() if name in there}
    for one in unexpected or ():
        report(after.strangers, one.name, one.reason, f"{one.name}: {one.reason}")
    named, is_full = {*memory.hinted, *memory.seen}, False
    to_run = [day for day in landed if day.files and not (day.denied or day.is_up_to_date or day.has_lost)]
    not_now = {day.day: _why_not_now(day, runs.get(day.day, ()), code, now, bounds, after) for day in to_run}
    going = {day for day, known in runs.items() if any(is_in_flight(run, now, bounds) for run in known)}
    undecided = going.union(day for day, reason in not_now.items() if not reason)
    for day in landed:
        known = runs.get(day.day, ())
        if reason := _worth_reporting(day, today):
            report(after.told, day.day, "denied" if day.denied else day.fingerprint[:8], reason)
        else:
            after.told.pop(day.day, None)
        if day.denied:
            waiting[day.day] = day.denied
        elif day.day not in not_now:
            _forget(after, day.day)
        elif reason := not_now[day.day] or _waits_for_earlier(day.day, undecided, bounds.look_back):
            waiting[day.day] = reason
        elif len(requests) < bounds.requests:
            requests.append(_request(day, known, code, today))
        else:
            waiting[day.day] = f"at most {bounds.requests} runs per tick, this day's follows in a later one"
            is_full = True
        if not is_full and day.day in slice_:
            after.older_than = day.day
        elif not is_full and day.day in named:
            after.named_before = day.day
    after.told = dict(list(after.told.items())[-MOST_REPORTED:])
    return TickPlan(tuple(requests), tuple(reports), after, waiting)


def _worth_reporting(day: Landed, today: date) -> str:
    """What to report of a day that is not run; empty if nothing."""
    if day.denied:
        return f"{day.day}: its files cannot be listed: {day.denied}"
    is_gone = day.scored_from is not None and not day.files and date.fromisoformat(day.day) > today - ARCHIVED
    if not (is_gone or day.has_lost):
        return ""
    if troubled := [f"{file.path}: {file.trouble.reason}" for file in day.files if file.trouble]:
        return f"{day.day}: files that it was scored from cannot be read any more, its scores are kept; {troubled[0]}"
    which = "all of its files were" if is_gone else "some of its files were"
    return f"{day.day}: {which} deleted after it was scored; its scores are kept. Run the day to score it without them"


def _forget(memory: TickState, day: str) -> None:
    """Drop a day from memory until its turn in the rotation."""
    memory.seen.pop(day, None)
    memory.hinted = [name for name in memory.hinted if name != day]


def _why_not_now(day: Landed, runs: Sequence[DayRun], code: str, now: float, bounds: Bounds, memory: TickState) -> str:
    """Why a day that is not up to date is not run now; empty if it is. Notes when its files were first seen."""
    if going := next((run for run in runs if is_in_flight(run, now, bounds)), None):
        return f"run {going.id[:8]} is {going.status}"
    if day.waits_for and not _has_waited(day, runs, now):
        return day.waits_for
    if left := _quiet_in(day, now, bounds, memory):
        return f"files arrived recently: runs in {left:.0f} s if no more arrive"
    before = _of_these_files(day.fingerprint, code, runs)
    failed = _failed(before)
    if failed and failed[0].status == "refused":
        _forget(memory, day.day)
        return f"refused by its checks in run {failed[0].id[:8]}: waits for other files or other code"
    if len(failed) >= bounds.pauses.tries:
        _forget(memory, day.day)
        return f"given up after {len(failed)} failed runs of these files, the last is {failed[0].id[:8]}"
    if not before:
        return ""
    # a run that succeeded, but the day is not up to date: something else changes the tables
    pause = bounds.pauses.after(len(failed), f"{day.day} {failed[0].id}") if failed else AFTER_SUCCESS
    left = before[0].since + pause - now
    what = f"failed {len(failed)} times" if failed else "scored, but changed since"
    return f"{what}, run again in {left:.0f} s" if 0 < left <= pause else ""


def _waits_for_earlier(day: str, undecided: Collection[str], look_back: int) -> str:
    """Why a day waits for decisions that its own look back at; empty if it does not.

    Days before that only wait themselves, for files or after a failure, do not count: they could delay it for days.
    """
    earliest = str(date.fromisoformat(day) - timedelta(look_back))
    awaited = min((other for other in undecided if earliest <= other < day), default="")
    return f"its decisions look back at {awaited}, which is decided first" if awaited else ""


def _has_waited(day: Landed, runs: Sequence[DayRun], now: float) -> bool:
    """Whether an incomplete day has waited so long that it is run, to raise an alert; once for the same files."""
    newest = max(file.modified.timestamp() for file in day.files)
    has_alerted = any(run.fingerprint == fingerprint_tag(day.fingerprint, is_complete=False) for run in runs)
    return INCOMPLETE_WINDOW[0] < now - newest < INCOMPLETE_WINDOW[1] and not has_alerted


def is_retried(run_id: str, runs: Sequence[DayRun], bounds: Bounds) -> bool:
    """Whether a running sensor requests the day again after a failed run.

    Args:
        run_id: of one of the runs. A run of the whole day that failed before it knew its files is always retried.
        runs: of a day, newest first.
        bounds: with the number of retries.
    """
    until = list(itertools.dropwhile(lambda run: run.id != run_id, runs))
    if until and not until[0].fingerprint:
        return until[0].is_whole and until[0].status == "failed"
    tries = _failed(_of_these_files(until[0].fingerprint, until[0].code, until)) if until else []
    if not tries or tries[0].id != run_id or tries[0].status != "failed":
        return False
    # if the files keep changing, each attempt is the first with its files
    in_a_row = [run for run in _failed([run for run in until if run.is_ended]) if run.is_whole]
    return max(len(tries), len(in_a_row)) < bounds.pauses.tries


def _failed(runs: Sequence[DayRun]) -> list[DayRun]:
    return list(itertools.takewhile(lambda run: run.status != "succeeded", runs))


def is_in_flight(run: DayRun, now: float, bounds: Bounds) -> bool:
    """Whether the run is in progress, or about to start, by its record and age."""
    limits = {"created": CREATED, "started": bounds.max_runtime, "to be retried": TO_RETRY}
    return run.status == "queued" or (run.status in limits and now - run.since < limits[run.status])


def _quiet_in(day: Landed, now: float, bounds: Bounds, memory: TickState) -> float:
    """Seconds until the quiet time has passed; 0 if it has.

    By the store's clock or ours, whichever is earlier: if they differ or jump, no day waits longer than the quiet time.
    """
    name = day.fingerprint
    seen_as, since = memory.seen.get(day.day, ("", now))
    if seen_as != name or since > now:
        since = now
    memory.seen[day.day] = (name, since)
    newest = max(file.modified.timestamp() for file in day.files)
    left = max(0.0, bounds.quiet - max(now - since, now - newest))
    if not left:
        del memory.seen[day.day]
    return left


def _of_these_files(fingerprint: str, code: str, runs: Sequence[DayRun]) -> list[DayRun]:
    """The latest ended runs of the whole day with just these files and this code, newest first."""
    ended = (run for run in runs if run.is_ended and run.is_whole and run.fingerprint)
    return list(itertools.takewhile(lambda run: (run.fingerprint, run.code) == (fingerprint, code), ended))


def _request(day: Landed, runs: Sequence[DayRun], code: str, today: date) -> DayRequest:
    """Request the run of a day.

    Dagster never runs the same key twice, so the key contains the previous run, too: by files alone, A -> B -> A would
    not be run again. It contains that run's id, not the number of runs, as records may be deleted. A run that was
    created but not launched does not count: under its own key Dagster launches it.
    """
    last = next((run.id[:8] for run in runs if run.status != "created"), "first")
    is_new = date.fromisoformat(day.day) >= today - timedelta(days=1)
    attempt = len(_of_these_files(day.fingerprint, code, runs)) + 1
    why = "its files have changed since it was scored" if day.scored_from else "it has landed and is not scored"
    why = f"it has waited for a day: {day.waits_for}" if day.waits_for else why
    return DayRequest(
        day=day.day,
        run_key=f"{day.day}-{day.fingerprint[:16]}-{last}",
        fingerprint=day.fingerprint,
        attempt=attempt,
        priority=NOW if is_new else LATE,
        why=why if attempt == 1 else f"{why}; attempt {attempt}",
    )
