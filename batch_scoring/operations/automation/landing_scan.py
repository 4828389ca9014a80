"""A look at the landing folder: what storage and the instance say of some days, for the planner to decide on.

A tick lists the names directly in the landing folder, then a few days by their prefix: however many objects lie
there, its cost is bounded. A folder on disk and one on S3 are the same to it.
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
from batch_scoring.operations.automation.planner import Bounds, Landed, Memory, Plan, Stranger
from batch_scoring.operations.failures import Pauses
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage.folders import FileVersion, Folder
from batch_scoring.storage.state import State

BUDGET = 20.0
"""Seconds after which a tick looks at no further day."""
LIMIT = 40.0
"""Seconds that the store has for all that a tick asks; Dagster ends a tick after 60."""


@dataclass(frozen=True)
class Seen:
    """What a tick saw of the landing folder."""

    landed: list[Landed] = field(default_factory=list)
    strangers: list[Stranger] | None = None
    """None if nobody looked."""
    slice: list[str] = field(default_factory=list)
    left: int = 0
    """Days for which there was no time."""


@dataclass(frozen=True)
class Tick:
    """A tick's decisions, and in words what it did."""

    plan: Plan
    looked: int
    left: int
    seconds: float

    @property
    def summary(self) -> str:
        """One line for the list of ticks."""
        waiting = [f"{day}: {why}" for day, why in self.plan.waiting.items()]
        more = [f"… and {len(waiting) - 5} more days wait"] if len(waiting) > 5 else []
        left = [f"no time for {self.left} days, they come next"] if self.left else []
        looked = f"looked at {self.looked} days in {self.seconds:.1f} s"
        return "; ".join([looked, *(report.text for report in self.plan.reports), *waiting[:5], *more, *left])


def today(pipeline: Pipeline, now: float) -> date:
    """The day that it is in the pipeline's time zone; `now` in seconds since 1970."""
    return datetime.fromtimestamp(now, ZoneInfo(pipeline.spec.partitions.timezone)).date()


def bounds_of(pipeline: Pipeline, instance: dg.DagsterInstance) -> Bounds:
    """The limits of a pipeline's ticks."""
    uploads, settings = pipeline.spec.uploads, pipeline.spec.runs
    return Bounds(
        recent_days=uploads.recent_days,
        older_days=uploads.older_days,
        requests=uploads.runs_per_tick,
        pauses=Pauses(settings.retries, settings.retry_minutes * 60),
        quiet=pipeline.spec.input.complete.quiet_minutes * 60,
        # a run of some assets, that the UI has started, has the instance's maximum
        max_runtime=max(instance.run_monitoring_max_runtime_seconds or 0.0, settings.max_hours * 3600),
    )


def tick(
    pipeline: Pipeline,
    instance: dg.DagsterInstance,
    memory: Memory,
    *,
    now: float | None = None,
    sweeps: bool = True,
    odd: Sequence[Stranger] = (),
) -> Tick:
    """Look at some days and decide.

    Args:
        pipeline: whose landing folder to look at.
        instance: where its runs are.
        memory: of the tick before, with the days that somebody has named.
        now: seconds since 1970; the clock's if None.
        sweeps: whether to look at days that nobody has named, too.
        odd: what to report besides what stands in the landing folder.

    Raises:
        OSError: the store did not answer, or denies access; nothing was decided, the next tick looks again.
    """
    now, began = time.time() if now is None else now, monotonic()
    newest, bounds = today(pipeline, now), bounds_of(pipeline, instance)
    look = functools.partial(see, pipeline, memory, bounds, newest, began + BUDGET, sweeps=sweeps)
    try:
        seen = call_within(LIMIT, f"uploads of {pipeline.name}", look)
    except TimeoutError as error:
        raise TimeoutError(f"{pipeline.landing.uri}: {error}; the next tick looks again") from error
    unsettled = [day.day for day in seen.landed if day.files and not day.is_settled and not day.has_lost]
    plan = planner.plan(
        seen.landed,
        seen.slice,
        seen.strangers,
        odd,
        {day: run_history.of_day(instance, pipeline, day) for day in unsettled},
        run_history.code_in_force(pipeline),
        now,
        newest,
        bounds,
        memory.model_copy(update={"swept": now}) if sweeps else memory,
    )
    return Tick(plan, len(seen.landed), seen.left, monotonic() - began)


def see(
    pipeline: Pipeline, memory: Memory, bounds: Bounds, newest: date, stop_at: float, *, sweeps: bool = True
) -> Seen:
    """List the days of a tick and what they are settled with.

    Raises:
        OSError: the store did not answer.
    """
    named = named_days(pipeline, memory, newest)
    there, strangers = all_days(pipeline, newest) if sweeps else ([], None)
    days = sorted({*there, *named}, reverse=True)
    first, slice_ = planner.days_to_look_at(days, memory, bounds)
    listed: dict[str, list[FileVersion]] = {}
    denied: dict[str, Landed] = {}
    for day in (*first, *slice_):
        if (listed or denied) and monotonic() > stop_at:
            break
        try:
            listed[day] = pipeline.landing.look(day_folder(day))
        except PermissionError as error:  # of one day: it must not hold up the others
            denied[day] = Landed(day, (), denied=str(error))
    found = denied | {day.day: day for day in judged(pipeline, listed)}
    landed = [found[day] for day in (*first, *slice_) if day in found]
    if landed and all(day.denied for day in landed):
        # no single day's trouble: the sensor fails, which is told
        raise (PermissionError if denied else OSError)(landed[0].denied)
    return Seen(landed, strangers, slice_, len(first) + len(slice_) - len(landed))


def all_days(pipeline: Pipeline, newest: date) -> tuple[list[str], list[Stranger]]:
    """The days that have landed or were scored, and the names in the landing folder that are no days."""
    first = pipeline.spec.partitions.start
    landed, scored = pipeline.landing.children(), _state_folder(pipeline).children()
    days, strangers = planner.sort_names(landed.folders, landed.files, first, newest, landed.troubled)
    scored_days, _ = planner.sort_names(scored.folders, (), first, newest, scored.troubled)
    return [*days, *scored_days], strangers


def named_days(pipeline: Pipeline, memory: Memory, newest: date) -> list[str]:
    """The days that somebody has named or that were not quiet."""
    first = pipeline.spec.partitions.start
    named = {*memory.hinted, *memory.seen}
    return [day for day in named if not planner.why_no_day(f"dt={day}", first, newest)]


def judged(pipeline: Pipeline, listed: dict[str, list[FileVersion]]) -> list[Landed]:
    """Each day's files beside what it is settled with.

    Args:
        pipeline: whose days.
        listed: by day all files in its folder, data or not.
    """
    stands = freshness.fingerprints(pipeline, list(listed))
    return [_judged(pipeline, day, everything, stands.get(day)) for day, everything in listed.items()]


def _judged(pipeline: Pipeline, day: str, everything: Sequence[FileVersion], stands: str | None) -> Landed:
    landed = Landed(day, tuple(data_files(everything)), settled=stands)
    if landed.is_settled or not landed.files:
        return landed
    if unseen := [file for file in landed.files if file.trouble and file.trouble.may_pass]:
        return replace(landed, files=(), denied=in_words(pipeline.landing, unseen))
    missing = waits_for(pipeline.spec.input.complete, pipeline.landing, day, everything)
    pinned = State(pipeline.output).day_inputs([day]) if stands else []
    lost = any(before.fingerprint == stands and freshness.is_rest_of(landed.files, before) for before in pinned)
    return Landed(day, landed.files, missing, lost, stands)


def _state_folder(pipeline: Pipeline) -> Folder:
    return pipeline.output.subfolder("state")
