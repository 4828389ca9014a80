"""The last step of a day: what is done about each scored row, by the rules of the spec or by its function.

A day is decided from one state of its predictions, with the features and attributes beside them, and from the decisions
of the days before that `not_within_days` asks for. All decisions of a day are one shard, its rows in the order of
`DayRows`: who is called depends on everybody else, so a day cannot be decided in parts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.freshness import are_of, decided_from, decisions_digest
from batch_scoring.daily.publish import DayStep, Finished, Prepared, ScoredBy, check_input
from batch_scoring.daily.score import check_features
from batch_scoring.daily.stream import Batch, RowTotal
from batch_scoring.delivery.day_rows import DayRows
from batch_scoring.delivery.decisions import reading, recent
from batch_scoring.delivery.decisions.decide import decide
from batch_scoring.delivery.decisions.decided import DICTIONARY, Decided, schema
from batch_scoring.delivery.decisions.explain import Explanations, explain
from batch_scoring.delivery.decisions.user_function import decide_by_function
from batch_scoring.errors import StateError, SupersededError
from batch_scoring.ingest.key_index import hash64
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import DayInput, PublishedDay, ShardStats


@dataclass(frozen=True)
class Source:
    """The source of a day's decisions."""

    pinned: DayInput
    features: PublishedDay
    predictions: PublishedDay
    earlier: tuple[PublishedDay, ...]
    """Decisions of the days before that `not_within_days` asks for."""
    is_expired: bool = False
    """Whether retention has removed the features' rows."""

    @property
    def model(self) -> ScoredBy:
        """The model of the predictions."""
        assert self.predictions.model_version and self.predictions.model_sha256, "predictions have a model"
        return ScoredBy(self.predictions.model_version, self.predictions.model_sha256)


def read_source(step: DayStep, decisions: Decisions) -> Source:
    """Find the day's predictions in the state, and make sure that they are those of the pinned files and of the table.

    Raises:
        StateError: a step before this one has not run, ran for other input, or its table was changed by something else.
    """
    name, day = step.pipeline.name, step.day
    pinned = step.state.day_input(day)
    predictions = step.state.published_day("predictions", day)
    features = step.state.published_day("validated_features", day)
    first = f"run {name}/predictions for {day} first"
    if features is None or predictions is None:
        raise StateError(f"{name} has no predictions of {day}; {first}")
    if predictions.fingerprint != pinned.fingerprint:
        raise StateError(f"the predictions of {name} {day} come from other files than raw_input has pinned; {first}")
    is_expired = False
    for published, what in ((features, "features"), (predictions, "predictions")):
        snapshot = DayStep(step.pipeline, day, published.step).table.snapshot()
        if not snapshot.holds(published.table):
            raise StateError(f"the {what} table of {name} no longer holds {day} as it was published; {first}")
        is_expired |= len(snapshot.files) < len(published.table.files)
    earlier = tuple(recent.find(step.pipeline, decisions, day))
    return Source(pinned, features, predictions, earlier, is_expired=is_expired)


def day_rows(step: DayStep, source: Source) -> DayRows:
    """The rows to decide about.

    Raises:
        StateError: retention has removed the features, or the tables do not belong together.
    """
    check_features(step, is_expired=source.is_expired)
    return DayRows(step.pipeline, source.features, source.predictions)


def check_current(step: DayStep, decisions: Decisions, source: Source) -> None:
    """Raise if newer input, other predictions, or other decisions of the days before have come.

    Raises:
        SupersededError: the decisions must not be published.
    """
    check_input(step.pipeline, source.pinned, may_be_archived=True)
    predictions = step.state.published_day("predictions", step.day)
    if step.state.day_input(step.day).fingerprint != source.pinned.fingerprint:
        newer = "raw_input pinned other files"
    elif predictions is None or decided_from(predictions) != decided_from(source.predictions):
        newer = "the day was scored again, with another result"
    elif _identity(recent.find(step.pipeline, decisions, step.day)) != _identity(source.earlier):
        newer = "a day before it that not_within_days asks for was decided"
    else:
        return
    raise SupersededError(
        f"superseded: while {step.pipeline.name} {step.day} was decided, {newer}; nothing was published: "
        "run the day again"
    )


def shard_digest(step: DayStep, source: Source) -> str:
    """Digest of everything that the day's decisions depend on."""
    return decisions_digest(decided_from(source.predictions), step.pipeline.decisions_code, source.earlier)


def _identity(earlier: Sequence[PublishedDay]) -> list[str]:
    """The digests that identify the decisions of the days before."""
    return [shard.digest for published in earlier for shard in published.shards]


def published(step: DayStep, source: Source) -> Prepared | None:
    """The day, if it is decided already: from the same predictions and days before, by the same rules."""
    found = step.published(source.predictions.fingerprint, step.pipeline.decisions_code, source.model.sha256)
    if found is None or not are_of(found, source.predictions):
        return None
    if [shard.digest for shard in found.shards] != [shard_digest(step, source)]:
        return None
    return Prepared((), pa.schema([]), published=found)


def prepare(step: DayStep, decisions: Decisions, source: Source, run: StepContext) -> Prepared:
    """Decide a whole day; nothing is published yet.

    Raises:
        RuleError: a rule does not fit the columns.
        DecisionError: the day cannot be decided as the spec says.
    """
    if ready := published(step, source):
        run.log(f"{step.day} is decided already: {source.predictions.rows} rows of the same scores and rules")
        return ready
    pipeline, digest = step.pipeline, shard_digest(step, source)
    rows = day_rows(step, source)
    form = schema(rows.schema.field(pipeline.spec.input.key))
    shard = step.finished().find(digest)
    run.meter.end_overhead()
    if shard is None:
        with run.timed("decide"):
            decided = decide_day(pipeline, decisions, step.day, rows, source.earlier)
        why = None
        if decisions.explain:
            with run.timed("explain"):
                why = explain(pipeline, decisions, rows, decided, source.model.sha256)
        shard = _write(step, source, rows, decided, why, digest, form, run)
    return Prepared((shard,), form, settings={"earlier_days": len(source.earlier)})


def decide_day(
    pipeline: Pipeline, decisions: Decisions, day: str, rows: DayRows, earlier: Sequence[PublishedDay]
) -> Decided:
    """Decide about the rows of a day; nothing is written.

    Args:
        pipeline: of the day.
        decisions: the rules, which need not be those of the pipeline's spec.
        day: YYYY-MM-DD.
        rows: its rows.
        earlier: decisions of the days before, see `recent.find`.

    Raises:
        RuleError: a rule does not fit the columns.
        DecisionError: the day cannot be decided as the spec says, or the function does not keep its promises.
        CodeError: the function's module cannot be imported.
    """
    key, form = pipeline.spec.input.key, rows.schema
    if decisions.function:
        function = pipeline.load(decisions.function)
        everything = pa.Table.from_batches(rows.read(form.names))
        return decide_by_function(everything, date.fromisoformat(day), function, decisions, key)
    had = recent.keys(pipeline, decisions, day, earlier, form.field(key).type)
    return decide(rows.read(reading.columns(decisions)), decisions, key, form, had, salt=pipeline.name)


def _write(
    step: DayStep,
    source: Source,
    rows: DayRows,
    decided: Decided,
    why: Explanations | None,
    digest: str,
    form: pa.Schema,
    run: StepContext,
) -> Finished:
    """Write the one shard of a day's decisions."""
    at, version = pa.scalar(run.started, pa.timestamp("us", "UTC")), source.model.version
    total, received = RowTotal(), sum(shard.keys for shard in source.predictions.shards)
    with step.draft(form, DICTIONARY) as draft:
        for batch in run.timed_each("read", rows.read()):
            keys = batch.column(0)
            with run.timed("write"):
                texts = why.of(total.rows, len(keys)) if why else None
                draft.write(Batch(decided.batch(total.rows, keys, form, version, at, texts)))
            total.add(hash64(keys))
        return draft.finish(
            ShardStats(
                digest=digest,
                source=decided_from(source.predictions),
                run_id=run.id,
                rows_in=source.predictions.rows,
                rows=total.rows,
                missing_identity=(received - total.identity) % 2**64,
                keys=total.identity,
                actions=decided.action_counts,
                reasons=decided.reason_counts,
                arms=decided.arm_counts,
                groups=decided.group_counts,
            ),
            run.meter,
        )
