"""Days that are up to date and days that are stale, as storage shows, whatever was once requested.

A day is up to date with a fingerprint when the published days of both writing steps carry it, and all four transaction
versions that they record are those of the tables; and, for a day that was scored when the spec had decisions, when
these were made from its predictions. raw_input alone proves nothing: it is the first step, and a run that fails after
it would make the day look done. The Dagster instance is not consulted, so a new one loses nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from batch_scoring.config.names import DECISIONS
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.tables import TABLES, decisions_table, features_table, predictions_table, quarantine_table
from batch_scoring.daily.trailing_days import days_before
from batch_scoring.ingest import landing_files
from batch_scoring.storage import shards
from batch_scoring.storage.day_heads import identity_of
from batch_scoring.storage.delta import Part, Table, active_paths
from batch_scoring.storage.folders.folder import FileVersion
from batch_scoring.storage.folders.local import is_version
from batch_scoring.storage.state import DayInput, LandingFile, PublishedDay, State, StepName

WRITING_STEPS: tuple[StepName, ...] = ("validated_features", "predictions")


@dataclass
class StaleDays:
    """Scored days that would come out differently if they were run now."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    """Those whose landing files are gone: their features can be scored again, not validated."""

    @property
    def days(self) -> list[str]:
        """All of them, in order."""
        return sorted({day for days in self.by_reason.values() for day in days})


def fingerprints(pipeline: Pipeline, days: Sequence[str]) -> dict[str, str]:
    """The fingerprint with which each day is up to date; days that are not are left out.

    Raises:
        OSError: the store did not answer.
    """
    state = State(pipeline.output)
    by_step = [
        {published_day.day: published_day for published_day in state.published_days_of(step, days)}
        for step in WRITING_STEPS
    ]
    both = [day for day in days if all(day in published_days for published_days in by_step)]
    if not both:
        return {}
    scored = by_step[-1]
    awaited = [day for day in both if pipeline.spec.decisions and DECISIONS in scored[day].followed_by]
    decided = {decisions.day: decisions for decisions in state.published_days_of("decisions", awaited)}
    stands_at = _transactions(pipeline, decisions=bool(decided))

    def is_decided(day: str) -> bool:
        decisions = decided.get(day)
        part = DayStep(pipeline, day, "decisions").table
        return (
            decisions is not None and are_of(decisions, scored[day]) and stands_at(part) == decisions.table.transaction
        )

    found = {}
    for day in both:
        published_days = [of_day[day] for of_day in by_step]
        parts = [DayStep(pipeline, day, step) for step in WRITING_STEPS]
        if (
            len({published_day.fingerprint for published_day in published_days}) == 1
            and all(
                stands_at(step.table) == published_day.table.transaction
                and stands_at(step.quarantine) == published_day.quarantine.transaction
                for step, published_day in zip(parts, published_days, strict=True)
            )
            and (day not in awaited or is_decided(day))
        ):
            found[day] = published_days[0].fingerprint
    return found


def decided_from(predictions: PublishedDay) -> str:
    """Digest that identifies a day's predictions; its decisions record it as their source."""
    return identity_of(shard.digest for shard in predictions.shards)


def are_of(decisions: PublishedDay, predictions: PublishedDay) -> bool:
    """Whether a day's decisions were made from these predictions."""
    return all(shard.source == decided_from(predictions) for shard in decisions.shards)


def decisions_digest(source: str, code: str, earlier: Iterable[PublishedDay]) -> str:
    """Digest of everything that a day's decisions depend on.

    Args:
        source: see `decided_from`.
        code: see `Pipeline.decisions_code`.
        earlier: decisions of the days before that `not_within_days` asks for, the oldest first.
    """
    return shards.digest("decisions", source, code, *(shard.digest for day in earlier for shard in day.shards))


def decided_otherwise(pipeline: Pipeline, decided: Sequence[PublishedDay]) -> set[str]:
    """The days that were decided by other rules than now, or with other decisions of the days before."""
    decisions, code = pipeline.spec.decisions, pipeline.decisions_code
    if decisions is None:
        return set()
    before = {one.day: days_before(one.day, decisions.look_back) for one in decided}
    published = {one.day: one for one in decided}
    unread = sorted({day for days in before.values() for day in days if day not in published})
    published |= {one.day: one for one in State(pipeline.output).published_days_of("decisions", unread)}

    def is_as_now(one: PublishedDay) -> bool:
        earlier = [published[day] for day in before[one.day] if day in published]
        return one.code == code and (
            not before[one.day]
            or all(shard.digest == decisions_digest(shard.source, code, earlier) for shard in one.shards)
        )

    return {one.day for one in decided if not is_as_now(one)}


def _transactions(pipeline: Pipeline, *, decisions: bool) -> Callable[[Part], int]:
    """Number of commits of each part, from one snapshot of each table; of decisions only if they are asked for."""
    tables: list[Table] = [features_table(pipeline), quarantine_table(pipeline), predictions_table(pipeline)]
    tables += [decisions_table(pipeline)] if decisions else []
    loaded = {table.name: table.load() for table in tables}

    def version_of(part: Part) -> int:
        table = loaded[part.table.name]
        return (table.transaction_version(part.transaction) or 0) if table else 0

    return version_of


def stale_days(pipeline: Pipeline, model_sha256: str) -> StaleDays:
    """Compare the published predictions of every day with the current model, code and landing files.

    Decisions are compared with the current rules and with those of the days before that they look back at. A day that
    was never decided is not stale: it was scored before the spec had any. Nor is one whose features retention has
    removed.
    """
    listed = landing_files.list_days(pipeline.landing)
    stale, state = StaleDays(), State(pipeline.output)
    decided = state.published_days("decisions") if pipeline.spec.decisions else []
    otherwise = decided_otherwise(pipeline, decided)
    expired: set[str] = set()
    if pipeline.spec.retention.features_days:
        expired = expired_days(pipeline, "validated_features", state.published_days("validated_features"))
    for published_day in state.published_days("predictions"):
        if published_day.day in expired:
            continue
        files = listed.get(published_day.day, [])
        reasons = {
            "model": published_day.model_sha256 != model_sha256,
            "code": (published_day.code, published_day.features_code)
            != (pipeline.scoring_code, pipeline.features_code),
            "input": bool(files) and not landing_files.is_of(published_day.fingerprint, files),
            DECISIONS: published_day.day in otherwise,
        }
        if not files:
            stale.archived.add(published_day.day)
        for reason in (name for name, holds in reasons.items() if holds):
            stale.by_reason.setdefault(reason, []).append(published_day.day)
    return stale


def expired_days(pipeline: Pipeline, step: StepName, published: Sequence[PublishedDay]) -> set[str]:
    """The days whose rows retention has removed, among some that a step has published."""
    table = TABLES[step](pipeline)
    loaded = table.load()
    if loaded is None:
        return set()
    active = active_paths(loaded)
    return {
        one.day
        for one in published
        if not active.issuperset(one.table.files)  # a question about a transaction reads the log anew
        and loaded.transaction_version(Part(table, one.day, step).expiry) == one.table.transaction
    }


def is_rest_of(files: Sequence[FileVersion], pinned: DayInput) -> bool:
    """Whether the files are the pinned ones, minus some that were deleted or are unreadable, with none added.

    An unreadable folder counts as all files below it.
    """
    before = {file.path: file for file in pinned.files}
    left = [file for file in files if not file.trouble]
    names = [f"{path}/" for path in before]
    return (
        len(left) < len(before)
        and all(file.path in before and _is_as_pinned(file, before[file.path]) for file in left)
        and all(any(name.startswith(f"{file.path}/") for name in names) for file in files if file.trouble)
    )


def _is_as_pinned(file: FileVersion, pinned: LandingFile) -> bool:
    return file.size == pinned.size and is_version(file.token, pinned.token)
