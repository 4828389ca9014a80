"""The planner behind the sensors: which days to look at, and which of them to run. No Dagster, no S3, no clock.

A day is run when its files are not those with which it is settled, whatever was requested before; so nothing that is
forgotten or fails, no cursor and no run record, can lose a file. What a tick remembers (`Memory`, the sensor's cursor)
only spares work and repeated words.
"""

import functools
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from batch_scoring.ingest.landing_files import fingerprint, is_of
from batch_scoring.operations.failures import Pauses
from batch_scoring.operations.run_history import TO_RETRY, DayRun, fingerprint_tag
from batch_scoring.storage.folders import FileVersion

CREATED = 60.0
"""Seconds within which a run that was created has been queued or started; else its launcher died before that."""
AFTER_SUCCESS = 600.0
"""Seconds before a day that was scored, and is not settled all the same, is run once more."""
WAITS = (86_400.0, 7 * 86_400.0)
"""Seconds after its newest file between which a run of an incomplete day is made, so that its failure tells people."""
ARCHIVED = timedelta(days=30)
"""Age of a day whose files are taken for archived, and not for deleted, when all of them go."""
MOST_STRANGERS = 100
MOST_TOLD = 1_000
REPORTS = 20
"""Observations of one tick; more come with the next ones."""
NOW, LATE = 10, 5
"""Dagster's priority of runs of today and yesterday, and of older days; a backfill's is 0."""


@dataclass(frozen=True)
class Bounds:
    """What limits a tick, and each day's runs."""

    recent_days: int = 7
    older_days: int = 20
    named_days: int = 50
    requests: int = 10
    quiet: float = 60.0
    """Seconds without a new file."""
    pauses: Pauses = field(default_factory=Pauses)
    """From a failed run to the next of the same files and code; after the last of them somebody has to look."""
    max_runtime: float = 21_600.0
    """Seconds after which a run that has not ended is taken for dead."""


class Memory(BaseModel):
    """What a tick leaves for the next one."""

    model_config = ConfigDict(extra="forbid")

    version: Literal[1] = 1
    older_than: str = ""
    """The oldest day of the last slice: the next one begins below it."""
    named_before: str = ""
    """The same of the days that somebody has named."""
    hinted: list[str] = []
    """Days that somebody named, and that are not dealt with yet."""
    seen: dict[str, tuple[str, float]] = {}
    """Days that are not quiet yet: the fingerprint, and when it was first seen (seconds since 1970)."""
    strangers: dict[str, str] = {}
    """Names that were reported, with the reason."""
    told: dict[str, str] = {}
    """Days of which something was reported, with a digest of it."""
    handled: list[str] = []
    """Receipts of the messages that the last tick has read: they can be deleted."""
    swept: float = 0.0
    """When days were looked at that nobody had named (seconds since 1970)."""

    @classmethod
    def read(cls, cursor: str | None) -> "Memory":
        """The memory in a sensor's cursor; a new one if there is none, or one of another make."""
        try:
            return cls.model_validate_json(cursor or "{}")
        except ValidationError:
            return cls()


@dataclass(frozen=True)
class Landed:
    """A day as the landing folder shows it."""

    day: str
    files: tuple[FileVersion, ...]
    """Data only, what is in trouble included."""
    waits_for: str = ""
    """What its marker or manifest lacks."""
    has_lost: bool = False
    """Whether its files are those with which it is settled, less some that are gone or in trouble."""
    settled: str | None = None
    """The fingerprint with which it is settled."""
    denied: str = ""
    """Why its files cannot be listed."""

    @functools.cached_property
    def fingerprint(self) -> str:
        """Of its files; asked for several times, and there may be thousands of them."""
        return fingerprint(self.files)

    @functools.cached_property
    def is_settled(self) -> bool:
        """Whether it is scored as its files stand."""
        return bool(self.files) and is_of(self.settled, self.files)


@dataclass(frozen=True)
class Stranger:
    """A name that is no day of the pipeline."""

    name: str
    reason: str


@dataclass(frozen=True)
class Request:
    """A run that is asked for."""

    day: str
    run_key: str
    fingerprint: str
    attempt: int
    """Of this fingerprint and code, from 1."""
    priority: int
    why: str


@dataclass(frozen=True)
class Report:
    """Something to be observed, once."""

    name: str
    """The day or the key."""
    text: str


@dataclass(frozen=True)
class Plan:
    """What a tick decides."""

    requests: tuple[Request, ...]
    reports: tuple[Report, ...]
    memory: Memory
    waiting: Mapping[str, str]
    """Days that are not settled and not asked for: why not yet, or why not again."""


def sort_names(
    names: Iterable[str], files: Iterable[str], first: date, today: date, troubled: Iterable[FileVersion] = ()
) -> tuple[list[str], list[Stranger]]:
    """The days among the names of a landing folder's children, newest first, and what is none of them.

    Args:
        names: of folders; what begins with `_` or `.` is nobody's.
        files: names of files beside them.
        first: first day of the pipeline.
        today: in the pipeline's time zone.
        troubled: what is neither, but has a name: one of a day is that day's trouble.
    """
    days, strangers = [], []
    for name in names:
        if name.startswith(("_", ".")):
            continue
        if reason := why_no_day(name, first, today):
            strangers.append(Stranger(f"{name}/", reason))
        else:
            days.append(name.removeprefix("dt="))
    strangers += [
        Stranger(name, "a file outside of any day; expected dt=YYYY-MM-DD/ above it")
        for name in files
        if not name.startswith(("_", "."))
    ]
    for one in troubled:
        if one.trouble and not one.path.startswith(("_", ".")):
            if why_no_day(one.path, first, today):
                strangers.append(Stranger(one.path, one.trouble.reason))
            else:
                days.append(one.path.removeprefix("dt="))
    if len(strangers) > MOST_STRANGERS:
        rest = Stranger("…", f"more names that are no days; the first {MOST_STRANGERS} of them are told")
        strangers = [*sorted(strangers, key=lambda one: one.name)[:MOST_STRANGERS], rest]
    return sorted(days, reverse=True), strangers


def why_no_day(folder: str, first: date, today: date) -> str:
    """Why a folder's name is no day of the pipeline; empty if it is one."""
    text = folder.removeprefix("dt=")
    try:
        day = date.fromisoformat(text)
    except ValueError:
        day = None
    if day is None or text == folder or text != day.isoformat():
        return "no day; expected dt=YYYY-MM-DD"
    if day < first:
        return f"before the pipeline's first day, {first}; partitions.start in the spec says so"
    if day > today:
        return "in the future; it is looked at again when its day comes in the pipeline's time zone"
    return ""


def days_to_look_at(days: Sequence[str], memory: Memory, bounds: Bounds) -> tuple[list[str], list[str]]:
    """The days of a tick: first those named, those not quiet yet and the newest; then a slice of the older ones.

    Args:
        days: all that there are, newest first.
        memory: of the tick before: where its slice ended.
        bounds: how many.
    """
    recent, older = list(days[: bounds.recent_days]), list(days[bounds.recent_days :])
    named = {*memory.hinted, *memory.seen}
    in_turn = _turn([day for day in older if day in named], memory.named_before, bounds.named_days)
    first = sorted({*recent, *in_turn}, reverse=True)
    return first, _turn([day for day in older if day not in named], memory.older_than, bounds.older_days)


def _turn(days: Sequence[str], after: str, count: int) -> list[str]:
    """The next of the days, newest first, round and round."""
    begin = next((index for index, day in enumerate(days) if day < after), 0)
    return [*days[begin:], *days[:begin]][:count]


def plan(
    landed: Sequence[Landed],
    slice_: Collection[str],
    strangers: Sequence[Stranger] | None,
    odd: Sequence[Stranger],
    runs: Mapping[str, Sequence[DayRun]],
    code: str,
    now: float,
    today: date,
    bounds: Bounds,
    memory: Memory,
) -> Plan:
    """Decide what to run and what to say.

    Args:
        landed: the days that were looked at, those first that are to be run first.
        slice_: those of them that were looked at because it was their turn.
        strangers: all names in the landing folder that are no days, each told once; None if nobody looked.
        odd: what else to tell.
        runs: of each of these days that is not settled, newest first.
        code: in force, see `runs.code_in_force`.
        now: seconds since 1970; may jump.
        today: in the pipeline's time zone.
        bounds: of this tick.
        memory: of the tick before.
    """
    after = memory.model_copy(deep=True)
    requests: list[Request] = []
    reports: list[Report] = []
    waiting: dict[str, str] = {}

    def tell(told: dict[str, str], name: str, what: str, text: str) -> None:
        if told.get(name) != what and len(reports) < REPORTS:
            told[name] = what
            reports.append(Report(name, text))

    reports += [Report(one.name, f"{one.name}: {one.reason}") for one in dict.fromkeys(odd)]
    if len(reports) > REPORTS:
        reports[REPORTS:] = [Report("…", f"{len(reports) - REPORTS} more of the kind")]
    if strangers is not None:
        there = {stranger.name for stranger in strangers}
        after.strangers = {name: reason for name, reason in after.strangers.items() if name in there}
    for stranger in strangers or ():
        tell(after.strangers, stranger.name, stranger.reason, f"{stranger.name}: {stranger.reason}")
    named, is_full = {*memory.hinted, *memory.seen}, False
    for day in landed:
        known = runs.get(day.day, ())
        if reason := _worth_telling(day, today):
            tell(after.told, day.day, "denied" if day.denied else day.fingerprint[:8], reason)
        else:
            after.told.pop(day.day, None)
        if day.denied:
            waiting[day.day] = day.denied
        elif not day.files or day.is_settled or day.has_lost:
            _forget(after, day.day)
        elif reason := _why_not_now(day, known, code, now, bounds, after):
            waiting[day.day] = reason
        elif len(requests) < bounds.requests:
            requests.append(_request(day, known, code, today))
        else:
            waiting[day.day] = f"{bounds.requests} runs a tick, this day's comes with a later one"
            is_full = True
        if not is_full and day.day in slice_:
            after.older_than = day.day
        elif not is_full and day.day in named:
            after.named_before = day.day
    after.told = dict(list(after.told.items())[-MOST_TOLD:])
    return Plan(tuple(requests), tuple(reports), after, waiting)


def _worth_telling(day: Landed, today: date) -> str:
    """What people should know of a day that is not acted on; empty if there is nothing."""
    if day.denied:
        return f"{day.day}: its files cannot be listed: {day.denied}"
    is_gone = day.settled is not None and not day.files and date.fromisoformat(day.day) > today - ARCHIVED
    if not (is_gone or day.has_lost):
        return ""
    if troubled := [f"{file.path}: {file.trouble.reason}" for file in day.files if file.trouble]:
        return f"{day.day}: files that it was scored from cannot be read any more, its scores stand; {troubled[0]}"
    which = "all of its files were" if is_gone else "some of its files were"
    return f"{day.day}: {which} deleted after it was scored; its scores stand. Run the day if they shall follow"


def _forget(memory: Memory, day: str) -> None:
    """The day needs no further look before its turn comes."""
    memory.seen.pop(day, None)
    memory.hinted = [name for name in memory.hinted if name != day]


def _why_not_now(day: Landed, runs: Sequence[DayRun], code: str, now: float, bounds: Bounds, memory: Memory) -> str:
    """Why a day that is not settled is not run now; empty if it is. Notes when its files were first seen."""
    if going := next((run for run in runs if is_in_flight(run, now, bounds)), None):
        return f"run {going.id[:8]} is {going.status}"
    if day.waits_for and not _has_waited(day, runs, now):
        return day.waits_for
    if left := _quiet_in(day, now, bounds, memory):
        return f"new files until lately: runs in {left:.0f} s if no more come"
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
    # one that went well and left the day unsettled: somebody works on the tables
    pause = bounds.pauses.after(len(failed), f"{day.day} {failed[0].id}") if failed else AFTER_SUCCESS
    left = before[0].since + pause - now
    what = f"failed {len(failed)} times" if failed else "scored, and changed by somebody"
    return f"{what}, run again in {left:.0f} s" if 0 < left <= pause else ""


def _has_waited(day: Landed, runs: Sequence[DayRun], now: float) -> bool:
    """Whether an incomplete day has waited so long that a run is to tell people; one run of just these files."""
    newest = max(file.modified.timestamp() for file in day.files)
    has_told = any(run.fingerprint == fingerprint_tag(day.fingerprint, is_complete=False) for run in runs)
    return WAITS[0] < now - newest < WAITS[1] and not has_told


def is_tried_again(run_id: str, runs: Sequence[DayRun], bounds: Bounds) -> bool:
    """Whether a sensor that is on asks for the day again after a run has failed.

    Args:
        run_id: of one of the runs. One that failed before it knew its files is followed by tries of these, if it is
            of the whole day.
        runs: of a day, newest first.
        bounds: say how many tries there are.
    """
    until = list(itertools.dropwhile(lambda run: run.id != run_id, runs))
    if until and not until[0].fingerprint:
        return until[0].is_whole and until[0].status == "failed"
    tries = _failed(_of_these_files(until[0].fingerprint, until[0].code, until)) if until else []
    if not tries or tries[0].id != run_id or tries[0].status != "failed":
        return False
    # with files that keep changing each try would be the first of its files
    in_a_row = [run for run in _failed([run for run in until if run.is_ended]) if run.is_whole]
    return max(len(tries), len(in_a_row)) < bounds.pauses.tries


def _failed(runs: Sequence[DayRun]) -> list[DayRun]:
    return list(itertools.takewhile(lambda run: run.status != "succeeded", runs))


def is_in_flight(run: DayRun, now: float, bounds: Bounds) -> bool:
    """Whether somebody is at work on it, or is about to be, as far as its record and its age tell."""
    limits = {"created": CREATED, "started": bounds.max_runtime, "to be retried": TO_RETRY}
    return run.status == "queued" or (run.status in limits and now - run.since < limits[run.status])


def _quiet_in(day: Landed, now: float, bounds: Bounds, memory: Memory) -> float:
    """Seconds until the day has been quiet for long enough; 0 if it has.

    By the store's clock or by ours: of two clocks that differ, or one that jumps, the kinder one counts, and nothing
    waits for longer than the quiet time itself.
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
    """The latest whole runs that have ended, as far as they are of just these files and this code; newest first."""
    ended = (run for run in runs if run.is_ended and run.is_whole and run.fingerprint)
    return list(itertools.takewhile(lambda run: (run.fingerprint, run.code) == (fingerprint, code), ended))


def _request(day: Landed, runs: Sequence[DayRun], code: str, today: date) -> Request:
    """The run of a day.

    Its key is remembered by Dagster for ever, so it names the run before it too: on files alone, A -> B -> A would
    never be run again. Its id and not the number of runs: records may be removed. A run that was created and never
    launched is no run: under its own key Dagster launches it.
    """
    last = next((run.id[:8] for run in runs if run.status != "created"), "first")
    is_new = date.fromisoformat(day.day) >= today - timedelta(days=1)
    attempt = len(_of_these_files(day.fingerprint, code, runs)) + 1
    why = "its files have changed since it was scored" if day.settled else "it has landed and is not scored"
    why = f"it has waited for a day: {day.waits_for}" if day.waits_for else why
    return Request(
        day=day.day,
        run_key=f"{day.day}-{day.fingerprint[:16]}-{last}",
        fingerprint=day.fingerprint,
        attempt=attempt,
        priority=NOW if is_new else LATE,
        why=why if attempt == 1 else f"{why}; try {attempt}",
    )
