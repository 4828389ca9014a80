"""Selection of the days that a backfill runs, with the reason: a range, stale days, failed days.

Stale days are those that the check `days_are_current` lists. Failed days are known to the instance and, if that was
emptied, from the records in the state.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime

import dagster as dg

from batch_scoring.config.names import daily_assets, rescored
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.daily.freshness import stale_days
from batch_scoring.defs.metadata import days as days_of
from batch_scoring.errors import RangeError
from batch_scoring.inference.bundle import read_sha256
from batch_scoring.ingest import landing_files
from batch_scoring.operations import failure_history, run_history
from batch_scoring.operations.alerting import messages
from batch_scoring.operations.dead_runs import find_dead_runs
from batch_scoring.operations.retention.plan import FAILURES_FOR
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.state import State

Listed = Mapping[str, Sequence[FileVersion]]


@dataclass(frozen=True)
class Wanted:
    """The request: every day of a range, or the stale or failed days of the range (without one: of all days)."""

    first: date | None = None
    last: date | None = None
    """Included."""
    stale: bool = False
    failed: bool = False

    @property
    def is_range(self) -> bool:
        """Whether every day of the range is selected, whatever its state."""
        return not (self.stale or self.failed)

    @property
    def words(self) -> str:
        """The condition that selects a day."""
        words = [word for word, is_asked in (("is stale", self.stale), ("has failed", self.failed)) if is_asked]
        return " or ".join(words)


@dataclass(frozen=True)
class Choice:
    """A day to run."""

    day: str
    why: str = ""
    steps: tuple[str, ...] | None = None
    """Assets to run, all of the daily job if None; () if the day cannot be run, and `why` says what is missing."""


def days_within(pipeline: Pipeline, wanted: Wanted) -> list[str]:
    """The days of the range, in order; without bounds all days of the pipeline.

    Raises:
        RangeError: the range is empty or not within the pipeline's days.
    """
    known = days_of(pipeline).get_partition_keys()
    if wanted.first and wanted.last and wanted.last < wanted.first:
        raise RangeError(f"{wanted.last} is before {wanted.first}; expected FIRST and LAST in this order")
    if not known:
        raise RangeError(f"{pipeline.name} has no days yet: partitions.start in its spec is in the future")
    first, last = (str(day) if day else other for day, other in ((wanted.first, known[0]), (wanted.last, known[-1])))
    for day in (first, last):
        if day not in known:
            raise RangeError(
                f"{day} is not a day of {pipeline.name}; its days are {known[0]} (partitions.start in its spec) … "
                f"{known[-1]}"
            )
    return [day for day in known if first <= day <= last]


def choose(pipeline: Pipeline, days: Sequence[str], wanted: Wanted, instance: dg.DagsterInstance) -> list[Choice]:
    """The selected days, in order. For a plain range only `explain` gives reasons.

    Raises:
        BundleError, StateError: the stale days cannot be determined; see `freshness.stale_days`.
        OSError: the store did not answer.
    """
    if wanted.is_range:
        return [Choice(day) for day in days]
    failed = failures(pipeline, _listed(pipeline, days), instance) if wanted.failed else {}
    stale = _stale(pipeline, days) if wanted.stale else {}
    return [_merged(day, failed.get(day), stale.get(day)) for day in days if day in failed or day in stale]


def explain(pipeline: Pipeline, days: Sequence[str], instance: dg.DagsterInstance) -> list[Choice]:
    """The state that a run of each day would find.

    Raises:
        BundleError, StateError, OSError: see `choose`.
    """
    listed = _listed(pipeline, days)
    failed, stale = failures(pipeline, listed, instance), _stale(pipeline, days)
    idle = up_to_date(pipeline, {day: listed.get(day, ()) for day in days}, read_sha256(pipeline.bundle))
    scored = {published_day.day for published_day in State(pipeline.output).published_days_of("predictions", days)}

    def why(day: str) -> str:
        if day not in listed:
            return "its landing files are gone; its scores are kept" if day in scored else "no file has landed"
        if day in idle:
            return "up to date: nothing would be written"
        if day in failed or day in stale:
            return _merged(day, failed.get(day), stale.get(day)).why
        return "scored, and changed since" if day in scored else "landed, never scored"

    return [Choice(day, why(day)) for day in days]


def up_to_date(pipeline: Pipeline, listed: Listed, model_sha256: str) -> set[str]:
    """The days whose run would write nothing: up to date with the listed files, the active model and the current code.

    A day without files may be archived: it is up to date whatever files it was scored from.

    Raises:
        OSError: the store did not answer.
    """
    scored_from = freshness.fingerprints(pipeline, list(listed))
    state, days = State(pipeline.output), list(scored_from)
    validated = {
        published_day.day: published_day.code for published_day in state.published_days_of("validated_features", days)
    }
    in_force = (pipeline.scoring_code, pipeline.features_code, model_sha256)
    found = state.published_days_of("decisions", days) if pipeline.spec.decisions else []
    otherwise = freshness.decided_otherwise(pipeline, found)
    decided = {decisions.day: decisions for decisions in found if decisions.day not in otherwise}
    return {
        published_day.day
        for published_day in state.published_days_of("predictions", days)
        if (published_day.code, published_day.features_code, published_day.model_sha256) == in_force
        and validated.get(published_day.day) == pipeline.features_code
        and (
            pipeline.spec.decisions is None
            or (published_day.day in decided and freshness.are_of(decided[published_day.day], published_day))
        )
        and (
            not listed[published_day.day]
            or landing_files.is_of(scored_from[published_day.day], listed[published_day.day])
        )
    }


def failures(pipeline: Pipeline, listed: Listed, instance: dg.DagsterInstance) -> dict[str, str]:
    """Days that have landed, are not up to date with these files, and failed in their last run: the run and its error.

    The state records the blocking check that stopped a day, and failures of the last 90 days; the instance knows all of
    its runs, also those that could record nothing.

    Raises:
        OSError: the store did not answer.
    """
    scored_from = freshness.fingerprints(pipeline, list(listed))
    open_days = [day for day, files in listed.items() if not landing_files.is_of(scored_from.get(day), files)]
    recorded, dead = _recorded(pipeline) | _stopped(pipeline, open_days), find_dead_runs(instance)
    found = {day: _failed_run(pipeline, day, instance, dead) or recorded.get(day) for day in open_days}
    return {day: f"failed: {failure}" for day, failure in found.items() if failure}


def _failed_run(pipeline: Pipeline, day: str, instance: dg.DagsterInstance, dead: Iterable[str]) -> str | None:
    """The day's last finished run, if it failed. A successful run of only some assets does not count."""
    for run in run_history.of_day(instance, pipeline, day):
        if run.status in ("failed", "refused", "to be retried") or run.id in dead:
            return f"run {run.id[:8]}, {_error(instance, run.id)}"
        if run.status == "succeeded" and run.is_whole:
            return None
    return None


def _error(instance: dg.DagsterInstance, run_id: str) -> str:
    """Why a run failed, in one line."""
    record = instance.get_run_record_by_id(run_id)
    ended = messages.read(instance, record) if record else None
    if ended and ended.step_error:
        step, error = ended.step_error
        return f"{step}: {error.splitlines()[0]}"
    return ended.last_words.splitlines()[0] if ended and ended.last_words else "its process is gone"


def _recorded(pipeline: Pipeline) -> dict[str, str]:
    """The days with a recorded failure from which they have not recovered: the run, and its error."""
    known = failure_history.statistics(State(pipeline.output), datetime.now(UTC) - FAILURES_FOR)
    return {
        failure.last.day: f"run {failure.last.run_id[:8]}, {pipeline.name}/{failure.last.step}: {failure.last.message}"
        for failure in known.open_failures
        if not failure.last.export
    }


def _stopped(pipeline: Pipeline, days: Sequence[str]) -> dict[str, str]:
    """The days that a blocking check stopped: the run, and the check's message."""
    state, found = State(pipeline.output), dict[str, str]()
    for asset in (step for step in daily_assets(pipeline) if step in run_history.whole(pipeline)):
        for said in state.checks_of(asset, days):
            for name, record in said.checks.items():
                if record.stopped:
                    message = (record.message.splitlines() or ["no message"])[0]
                    found[said.day] = f"run {said.run_id[:8]}, {pipeline.name}/{asset}: {name}: {message}"
    return found


def _stale(pipeline: Pipeline, days: Iterable[str]) -> dict[str, Choice]:
    """The days that `days_are_current` lists.

    Days whose landing files are archived cannot be validated again. Their features are scored again, as the check
    recommends; if those come from other code, only the files help.
    """
    stale, within = stale_days(pipeline, read_sha256(pipeline.bundle)), set(days)
    archived = sorted(stale.archived.intersection(stale.days))
    validated = State(pipeline.output).published_days_of("validated_features", archived)
    usable = {published_day.day for published_day in validated if published_day.code == pipeline.features_code}
    found = {}
    for day in within.intersection(stale.days):
        why = "stale: " + ", ".join(reason for reason, listed in stale.by_reason.items() if day in listed)
        if day not in stale.archived:
            found[day] = Choice(day, why)
        elif day in usable:
            why += "; its landing files are gone: its features are scored again"
            found[day] = Choice(day, why, rescored(pipeline))
        else:
            why += "; cannot be run: its landing files are gone, and its features are of another schema or settings"
            found[day] = Choice(day, f"{why}; land the files again", ())
    return found


def _merged(day: str, failed: str | None, stale: Choice | None) -> Choice:
    if failed is None:
        assert stale is not None, "one of them is the reason"
        return stale
    return Choice(day, f"{failed}; {stale.why}" if stale else failed)


def _listed(pipeline: Pipeline, days: Iterable[str]) -> dict[str, list[FileVersion]]:
    """The data files of the days that have landed."""
    within = set(days)
    return {day: files for day, files in landing_files.list_days(pipeline.landing).items() if day in within}
