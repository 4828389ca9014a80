"""Which days a backfill runs, and why: a range, those that are stale, those that have failed.

Stale days are those of the check `days_are_current`. All of it but the runs that failed comes from storage.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date

import dagster as dg

from batch_scoring.config.names import DAILY_ASSETS
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.daily.freshness import stale_days
from batch_scoring.defs.metadata import days as days_of
from batch_scoring.errors import RangeError
from batch_scoring.inference.bundle import read_sha256
from batch_scoring.ingest import landing_files
from batch_scoring.operations import run_history
from batch_scoring.operations.alerting import messages
from batch_scoring.operations.dead_runs import find_dead_runs
from batch_scoring.storage.folders import FileVersion
from batch_scoring.storage.state import State

SCORING_STEPS = ("model", "predictions")
"""Of a day whose landing files are archived: its features stand, and are scored again."""

Listed = Mapping[str, Sequence[FileVersion]]


@dataclass(frozen=True)
class Wanted:
    """What was asked for: a range of days, or those of it, else of all days, that are stale or have failed."""

    first: date | None = None
    last: date | None = None
    """Included."""
    stale: bool = False
    failed: bool = False

    @property
    def is_range(self) -> bool:
        """Whether every day of the range is meant, whatever its state."""
        return not (self.stale or self.failed)

    @property
    def words(self) -> str:
        """What a day must be to be meant."""
        words = [word for word, is_asked in (("is stale", self.stale), ("has failed", self.failed)) if is_asked]
        return " or ".join(words)


@dataclass(frozen=True)
class Choice:
    """A day that is to be run."""

    day: str
    why: str = ""
    steps: tuple[str, ...] = DAILY_ASSETS
    """Assets to run; none if it cannot be run, `why` says what is missing."""


def days_within(pipeline: Pipeline, wanted: Wanted) -> list[str]:
    """The days of the range, in order; without bounds those of the pipeline.

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
            raise RangeError(f"{day} is no day of {pipeline.name}; its days are {known[0]} … {known[-1]}")
    return [day for day in known if first <= day <= last]


def choose(pipeline: Pipeline, days: Sequence[str], wanted: Wanted, instance: dg.DagsterInstance) -> list[Choice]:
    """Those of the days that are meant, in order. Why each of them is, of a mere range only `explain` says.

    Raises:
        BundleError, StateError: what is stale cannot be said; see `freshness.stale_days`.
        OSError: the store did not answer.
    """
    if wanted.is_range:
        return [Choice(day) for day in days]
    failed = failures(pipeline, _listed(pipeline, days), instance) if wanted.failed else {}
    stale = _stale(pipeline, days) if wanted.stale else {}
    return [_merged(day, failed.get(day), stale.get(day)) for day in days if day in failed or day in stale]


def explain(pipeline: Pipeline, days: Sequence[str], instance: dg.DagsterInstance) -> list[Choice]:
    """What a run of each day would find.

    Raises:
        BundleError, StateError, OSError: see `choose`.
    """
    listed = _listed(pipeline, days)
    failed, stale = failures(pipeline, listed, instance), _stale(pipeline, days)
    idle = standing(pipeline, {day: listed.get(day, ()) for day in days}, read_sha256(pipeline.bundle))
    scored = {account.day for account in State(pipeline.output).accounts_of("predictions", days)}

    def why(day: str) -> str:
        if day not in listed:
            return "its landing files are gone; its scores stand" if day in scored else "no file has landed"
        if day in idle:
            return "settled: nothing would be written"
        if day in failed or day in stale:
            return _merged(day, failed.get(day), stale.get(day)).why
        return "scored, and changed by somebody" if day in scored else "landed, never scored"

    return [Choice(day, why(day)) for day in days]


def standing(pipeline: Pipeline, listed: Listed, model_sha256: str) -> set[str]:
    """The days whose run would write nothing: settled with the files listed, by the model and the code in force.

    Of a day without files, which may be archived, any files that it was scored from will do.

    Raises:
        OSError: the store did not answer.
    """
    settled_with = freshness.fingerprints(pipeline, list(listed))
    state, days = State(pipeline.output), list(settled_with)
    validated = {account.day: account.code for account in state.accounts_of("validated_features", days)}
    in_force = (pipeline.scoring_code, pipeline.features_code, model_sha256)
    return {
        account.day
        for account in state.accounts_of("predictions", days)
        if (account.code, account.features_code, account.model_sha256) == in_force
        and validated.get(account.day) == pipeline.features_code
        and (not listed[account.day] or landing_files.is_of(settled_with[account.day], listed[account.day]))
    }


def failures(pipeline: Pipeline, listed: Listed, instance: dg.DagsterInstance) -> dict[str, str]:
    """Days that have landed, are not settled with these files, and failed when they were run last: the run, its error.

    A blocking check that has stopped a day stands in the state; other failures only the instance knows.

    Raises:
        OSError: the store did not answer.
    """
    settled_with = freshness.fingerprints(pipeline, list(listed))
    open_days = [day for day, files in listed.items() if not landing_files.is_of(settled_with.get(day), files)]
    stopped, dead = _stopped(pipeline, open_days), find_dead_runs(instance)
    found = {day: _failed_run(pipeline, day, instance, dead) or stopped.get(day) for day in open_days}
    return {day: f"failed: {failure}" for day, failure in found.items() if failure}


def _failed_run(pipeline: Pipeline, day: str, instance: dg.DagsterInstance, dead: Iterable[str]) -> str | None:
    """The day's last run that has ended, if it failed. A run of some assets alone that went well mends nothing."""
    for run in run_history.of_day(instance, pipeline, day):
        if run.status in ("failed", "refused", "to be retried") or run.id in dead:
            return f"run {run.id[:8]}, {_error(instance, run.id)}"
        if run.status == "succeeded" and run.is_whole:
            return None
    return None


def _error(instance: dg.DagsterInstance, run_id: str) -> str:
    """What a run failed of, in a line."""
    record = instance.get_run_record_by_id(run_id)
    ended = messages.read(instance, record) if record else None
    if ended and ended.step_error:
        step, error = ended.step_error
        return f"{step}: {error.splitlines()[0]}"
    return ended.last_words.splitlines()[0] if ended and ended.last_words else "its process is gone"


def _stopped(pipeline: Pipeline, days: Sequence[str]) -> dict[str, str]:
    """The days that a blocking check has stopped: by which run, and what it said."""
    state, found = State(pipeline.output), dict[str, str]()
    for asset in (step for step in DAILY_ASSETS if step in run_history.WHOLE):
        for said in state.checks_of(asset, days):
            for name, record in said.checks.items():
                if record.stopped:
                    message = (record.message.splitlines() or ["no message"])[0]
                    found[said.day] = f"run {said.run_id[:8]}, {pipeline.name}/{asset}: {name}: {message}"
    return found


def _stale(pipeline: Pipeline, days: Iterable[str]) -> dict[str, Choice]:
    """The days that `days_are_current` lists.

    Those whose landing files are archived cannot be validated again. Their features are scored again, as the check
    recommends; if these are of other code, nothing helps but the files.
    """
    stale, within = stale_days(pipeline, read_sha256(pipeline.bundle)), set(days)
    archived = sorted(stale.archived.intersection(stale.days))
    validated = State(pipeline.output).accounts_of("validated_features", archived)
    usable = {account.day for account in validated if account.code == pipeline.features_code}
    found = {}
    for day in within.intersection(stale.days):
        why = "stale: " + ", ".join(reason for reason, listed in stale.by_reason.items() if day in listed)
        if day not in stale.archived:
            found[day] = Choice(day, why)
        elif day in usable:
            found[day] = Choice(day, f"{why}; its landing files are gone: its features are scored again", SCORING_STEPS)
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
    """The data files of those of the days that have landed."""
    within = set(days)
    return {day: files for day, files in landing_files.list_days(pipeline.landing).items() if day in within}
