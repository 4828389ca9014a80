"""Scan of the landing folder: the state of some days in storage and in the instance, as input of the planner.

A tick lists the names directly in the landing folder, then a few days by prefix, so its cost is bounded however many
objects there are. Folders on disk and on S3 are treated alike.
"""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime
from time import monotonic
from zoneinfo import ZoneInfo

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.ingest.completeness import waits_for
from batch_scoring.ingest.landing_files import data_files, day_folder, in_words
from batch_scoring.operations import run_history
from batch_scoring.operations.automation import planner
from batch_scoring.operations.automation.planner import Bounds, Landed, TickPlan, TickState, UnexpectedObject
from batch_scoring.operations.retry_policy import Pauses
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.state import State

BUDGET = 20.0
"""Seconds after which a tick examines no further day."""
LISTING_TIMEOUT = 40.0
"""Timeout in seconds of all listings of a tick; Dagster's limit for a tick is 60."""


@dataclass(frozen=True)
class Seen:
    """State of the landing folder in a tick."""

    landed: list[Landed] = field(default_factory=list)
    unexpected: list[UnexpectedObject] | None = None
    """None if not scanned."""
    slice: list[str] = field(default_factory=list)
    left: int = 0
    """Number of days for which no time was left."""


@dataclass(frozen=True)
class Tick:
    """A tick's decisions, and its summary."""

    plan: TickPlan
    looked: int
    left: int
    seconds: float

    @property
    def summary(self) -> str:
        """One line for Dagster's list of ticks."""
        waiting = [f"{day}: {why}" for day, why in self.plan.waiting.items()]
        more = [f"… and {len(waiting) - 5} more days wait"] if len(waiting) > 5 else []
        left = [f"no time for {self.left} days, the next tick begins with them"] if self.left else []
        looked = f"examined {self.looked} days in {self.seconds:.1f} s"
        return "; ".join([looked, *(report.text for report in self.plan.reports), *waiting[:5], *more, *left])


def today(pipeline: Pipeline, now: float) -> date:
    """Today's date in the pipeline's time zone; `now` in seconds since 1970."""
    return datetime.fromtimestamp(now, ZoneInfo(pipeline.spec.partitions.timezone)).date()


def bounds_of(pipeline: Pipeline, instance: dg.DagsterInstance) -> Bounds:
    """The limits of a pipeline's ticks."""
    uploads, settings, decisions = pipeline.spec.uploads, pipeline.spec.runs, pipeline.spec.decisions
    look_back = decisions.look_back if decisions else 0
    return Bounds(
        recent_days=max(uploads.recent_days, look_back + 1 if look_back else 0),
        look_back=look_back,
        older_days=uploads.older_days,
        requests=uploads.runs_per_tick,
        pauses=Pauses(settings.retries, settings.retry_minutes * 60),
        quiet=pipeline.spec.input.complete.quiet_minutes * 60,
        # the instance's maximum holds for a run of some assets that was started in the UI
        max_runtime=max(instance.run_monitoring_max_runtime_seconds or 0.0, settings.max_hours * 3600),
    )


def tick(
    pipeline: Pipeline,
    instance: dg.DagsterInstance,
    memory: TickState,
    *,
    now: float | None = None,
    sweeps: bool = True,
    odd: Sequence[UnexpectedObject] = (),
) -> Tick:
    """Examine some days and plan their runs.

    Args:
        pipeline: whose landing folder is scanned.
        instance: holds its runs.
        memory: of the previous tick, with the days named since.
        now: seconds since 1970; the current time if None.
        sweeps: whether to scan days that were not named, too.
        odd: further unexpected objects to report.

    Raises:
        OSError: the store did not answer, or denied access; nothing was decided, the next tick tries again.
    """
    now, began = time.time() if now is None else now, monotonic()
    newest, bounds = today(pipeline, now), bounds_of(pipeline, instance)
    look = functools.partial(see, pipeline, memory, bounds, newest, began + BUDGET, sweeps=sweeps)
    try:
        seen = call_within(LISTING_TIMEOUT, f"uploads of {pipeline.name}", look)
    except TimeoutError as error:
        raise TimeoutError(f"{pipeline.landing.uri}: {error}; the next tick tries again") from error
    unsettled = [day.day for day in seen.landed if day.files and not day.is_up_to_date and not day.has_lost]
    plan = planner.plan(
        seen.landed,
        seen.slice,
        seen.unexpected,
        odd,
        {day: run_history.of_day(instance, pipeline, day) for day in unsettled},
        run_history.current_code(pipeline),
        now,
        newest,
        bounds,
        memory.model_copy(update={"swept": now}) if sweeps else memory,
    )
    return Tick(plan, len(seen.landed), seen.left, monotonic() - began)


def see(
    pipeline: Pipeline, memory: TickState, bounds: Bounds, newest: date, stop_at: float, *, sweeps: bool = True
) -> Seen:
    """List the days of a tick, with the fingerprints that they were scored from.

    Raises:
        OSError: the store did not answer.
    """
    named = named_days(pipeline, memory, newest)
    there, unexpected = all_days(pipeline, newest) if sweeps else ([], None)
    days = sorted({*there, *named}, reverse=True)
    first, slice_ = planner.days_to_examine(days, memory, bounds)
    listed: dict[str, list[FileVersion]] = {}
    denied: dict[str, Landed] = {}
    for day in (*first, *slice_):
        if (listed or denied) and monotonic() > stop_at:
            break
        try:
            listed[day] = pipeline.landing.look(day_folder(day))
        except PermissionError as error:  # of one day: the others are still examined
            denied[day] = Landed(day, (), denied=str(error))
    found = denied | {day.day: day for day in compared(pipeline, listed)}
    landed = [found[day] for day in (*first, *slice_) if day in found]
    if landed and all(day.denied for day in landed):
        # more than a single day is affected: the sensor fails, which raises an alert
        raise (PermissionError if denied else OSError)(landed[0].denied)
    return Seen(landed, unexpected, slice_, len(first) + len(slice_) - len(landed))


def all_days(pipeline: Pipeline, newest: date) -> tuple[list[str], list[UnexpectedObject]]:
    """Days that have landed or were scored, and unexpected objects in the landing folder."""
    first = pipeline.spec.partitions.start
    landed, scored = pipeline.landing.children(), _state_folder(pipeline).children()
    days, unexpected = planner.sort_names(landed.folders, landed.files, first, newest, landed.troubled)
    scored_days, _ = planner.sort_names(scored.folders, (), first, newest, scored.troubled)
    return [*days, *scored_days], unexpected


def named_days(pipeline: Pipeline, memory: TickState, newest: date) -> list[str]:
    """Days that were named, or whose files were still arriving."""
    first = pipeline.spec.partitions.start
    named = {*memory.hinted, *memory.seen}
    return [day for day in named if not planner.why_no_day(f"dt={day}", first, newest)]


def compared(pipeline: Pipeline, listed: dict[str, list[FileVersion]]) -> list[Landed]:
    """Compare each day's files with those that it was scored from.

    Args:
        pipeline: of the days.
        listed: all files in each day's folder, data or not.
    """
    scored_from = freshness.fingerprints(pipeline, list(listed))
    return [_compared(pipeline, day, everything, scored_from.get(day)) for day, everything in listed.items()]


def _compared(pipeline: Pipeline, day: str, everything: Sequence[FileVersion], scored_from: str | None) -> Landed:
    landed = Landed(day, tuple(data_files(everything)), scored_from=scored_from)
    if landed.is_up_to_date or not landed.files:
        return landed
    if unseen := [file for file in landed.files if file.trouble and file.trouble.may_pass]:
        return replace(landed, files=(), denied=in_words(pipeline.landing, unseen))
    missing = waits_for(pipeline.spec.input.complete, pipeline.landing, day, everything)
    pinned = State(pipeline.output).day_inputs([day]) if scored_from else []
    lost = any(before.fingerprint == scored_from and freshness.is_rest_of(landed.files, before) for before in pinned)
    return Landed(day, landed.files, missing, lost, scored_from)


def _state_folder(pipeline: Pipeline) -> Folder:
    return pipeline.output.subfolder("state")
