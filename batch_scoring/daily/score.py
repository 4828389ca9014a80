"""The second step of a day: shards of features into shards of predictions, by the active model.

What a day is scored from is one state of its features and one model. Each shard that no earlier run has finished is
scored; whether one step scores all of them or each of several a chunk (`fan_out.py`) makes no difference. A row that
the model cannot score goes to the quarantine, stage score, with the reason.
"""

import contextlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass

import pyarrow as pa

from batch_scoring.config import compute
from batch_scoring.daily import scored_rows
from batch_scoring.daily.model_code import model_code
from batch_scoring.daily.publish import DayStep, Finished, FinishedShards, Prepared, check_input
from batch_scoring.daily.stream import PLACE, Batch, RowTotal, ScoringStage
from batch_scoring.daily.tables import features_table
from batch_scoring.errors import StateError, SupersededError
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring.inference.scorer import ONE_THREAD, Scorer
from batch_scoring.runtime.progress import Progress
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage import shards
from batch_scoring.storage.parquet import READ_ROWS
from batch_scoring.storage.state import ActiveModel, DayInput, PublishedDay, ShardStats

TEXT_ROWS = 16_384
"""Rows that are read at a time for a model of texts, which hold many times the bytes of numbers."""


@dataclass(frozen=True)
class FeatureShard:
    """A shard of validated features."""

    stats: ShardStats
    path: str
    """Its file, relative to the features table."""

    @property
    def digest(self) -> str:
        """Digest that identifies its rows."""
        return self.stats.digest


class Source:
    """The source of a day's scores: one state of its features, one model."""

    def __init__(
        self, pinned: DayInput, features: PublishedDay, model: ActiveModel, *, is_expired: bool = False
    ) -> None:
        """`is_expired`: whether retention has removed the features' rows."""
        self.pinned, self.features, self.model, self.is_expired = pinned, features, model, is_expired
        files = {shards.identity_of(path): path for path in features.table.files}
        self.shards = tuple(
            FeatureShard(stats, files[f"dt={features.day}/{stats.digest}"]) for stats in features.shards
        )


def read_source(step: DayStep) -> Source:
    """Find the day's features and the model in the state, and make sure that they belong together.

    Raises:
        StateError: a step before this one has not run, ran for other input, or its table was changed by something else.
    """
    name, day = step.pipeline.name, step.day
    pinned, model = step.state.day_input(day), step.state.model()
    features = step.state.published_day("validated_features", day)
    first = f"run {name}/validated_features for {day} first"
    if features is None:
        raise StateError(f"{name} has no validated features of {day}; {first}")
    if features.fingerprint != pinned.fingerprint:
        raise StateError(
            f"the validated features of {name} {day} come from other files than raw_input has pinned; {first}"
        )
    if features.code != step.pipeline.features_code:
        raise StateError(f"the validated features of {name} {day} come from another schema or other settings; {first}")
    snapshot = DayStep(step.pipeline, day, "validated_features").table.snapshot()
    if not snapshot.holds(features.table):
        raise StateError(f"the features table of {name} no longer holds {day} as it was validated; {first}")
    return Source(pinned, features, model, is_expired=len(snapshot.files) < len(features.table.files))


def check_features(step: DayStep, *, is_expired: bool) -> None:
    """Raise if retention has removed the features that a step is about to read.

    Raises:
        StateError: it has.
    """
    if is_expired:
        raise StateError(
            f"retention has removed the features of {step.pipeline.name} {step.day} (features_days in the spec); "
            "what is published of the day stays, and it cannot be scored or decided again"
        )


def check_current(step: DayStep, source: Source) -> None:
    """Raise if newer input, other features or another model have come.

    Raises:
        SupersededError: the new scores must not be published.
    """
    check_input(step.pipeline, source.pinned, may_be_archived=True)
    pinned = step.state.day_input(step.day)
    features = step.state.published_day("validated_features", step.day)
    active = step.state.model()
    if pinned.fingerprint != source.pinned.fingerprint:
        newer = "raw_input pinned other files"
    elif features is None or _digests(features) != _digests(source.features):
        newer = "the features were validated again, with another result"
    elif active.sha256 != source.model.sha256:
        newer = f"model {active.version} became active"
    else:
        return
    raise SupersededError(
        f"superseded: while {step.pipeline.name} {step.day} was scored with model {source.model.version}, {newer}; "
        "nothing was published: run the day again"
    )


def _digests(features: PublishedDay) -> set[str]:
    """What the features' rows depend on, whichever run has written them."""
    return {shard.digest for shard in features.shards}


def published(step: DayStep, source: Source) -> Prepared | None:
    """The day, if it is scored already: with the same features, model and code, and unchanged tables."""
    scored = step.published(source.features.fingerprint, step.pipeline.scoring_code, source.model.sha256)
    if scored is None or {shard.source for shard in scored.shards} != _digests(source.features):
        return None
    return Prepared((), pa.schema([]), published=scored)


def shard_digest(step: DayStep, source: Source, features: FeatureShard, device: str) -> str:
    """Digest of everything that a scored shard's rows depend on; `device`: cpu or cuda."""
    return shards.digest("predictions", features.digest, source.model.sha256, step.pipeline.scoring_code, device)


def load_model(step: DayStep, model: ActiveModel) -> LoadedModel:
    """The active model, from its copy in the state, proven by its golden rows on the device that scores.

    Raises:
        BundleError: the copy is damaged, or this machine computes other scores than the one that wrote it.
        ScoringError: the device is not there.
    """
    code = model_code(step.pipeline)
    return load_bundle(step.state.models.subfolder(model.sha256), code, compute.device(step.pipeline))


@dataclass(frozen=True)
class ScoredShards:
    """Feature shards with their scores: complete files, not yet visible to any reader."""

    shards: tuple[Finished, ...]
    schema: pa.Schema
    """Schema of their rows."""
    device: str
    """cpu or cuda."""
    batch_rows: int
    """Rows of one forward pass."""


def prepare(step: DayStep, source: Source, run: StepContext, backoff: int = 0) -> Prepared:
    """Score a whole day in one step; nothing is published yet. `backoff`: how often batches are halved."""
    if ready := published(step, source):
        run.log(f"{step.day} is scored already: {source.features.rows} rows of the same features, model and code")
        return ready
    scored = score(step, source, source.shards, run, backoff)
    settings: dict[str, int | str] = {"device": scored.device, "batch_rows": scored.batch_rows}
    return Prepared(scored.shards, scored.schema, settings=settings)


def score(
    step: DayStep, source: Source, wanted: Sequence[FeatureShard], run: StepContext, backoff: int = 0
) -> ScoredShards:
    """Score feature shards; those that an earlier run has finished are reused.

    Raises:
        StateError: retention has removed the features.
    """
    check_features(step, is_expired=source.is_expired)
    with run.timed("load_model"):
        model, batch_rows = load_model(step, source.model), step.pipeline.spec.scoring.batch_rows
        scorer = Scorer(model, device=compute.device(step.pipeline), batch_rows=batch_rows)
        scorer.halve(backoff)
    run.meter.computes_on(scorer.device)
    run.meter.end_overhead()
    eager = f"; eager layers: {scorer.why_eager}" if scorer.why_eager else ""
    alone = "" if scorer.runs_side_by_side else f"; {ONE_THREAD}"
    run.log(f"model {source.model.version} on {scorer.device}, {scorer.pass_size} per forward pass{eager}{alone}")
    day = _Day(step, source, run, scorer, (TEXT_ROWS if scorer.manifest.text else READ_ROWS) >> backoff)
    progress, done = Progress(sum(features.stats.rows for features in wanted), run.log, "scored"), []
    for features in wanted:
        done.append(shard := day.shard_of(features))
        if shard.reused:
            run.meter.end_overhead()
        progress.advance(shard.stats.rows_in)
    run.meter.computes_on("cpu")
    return ScoredShards(tuple(done), day.schema, scorer.device, scorer.batch_rows)


class _Day:
    """The work on one day: feature shards through one scorer."""

    def __init__(self, step: DayStep, source: Source, run: StepContext, scorer: Scorer, read_rows: int) -> None:
        self._step, self._source, self._run, self._scorer = step, source, run, scorer
        self._read_rows = read_rows
        self._before: FinishedShards = step.finished()
        self.schema = output_schema(step, source, scorer.manifest)

    def shard_of(self, features: FeatureShard) -> Finished:
        """The shard of predictions of a feature shard: an earlier run's, or a new one."""
        digest = shard_digest(self._step, self._source, features, self._scorer.device)
        return self._before.find(digest) or self._score(features, digest)

    def _score(self, features: FeatureShard, digest: str) -> Finished:
        """Score one feature shard into one shard of predictions."""
        accepted = RowTotal(features.stats.rows, features.stats.keys)
        scoring = ScoringStage(self._scorer, self.schema, accepted, at=self._run.started)
        with (
            self._step.draft(self.schema, dictionary=scored_rows.DICTIONARY) as draft,
            contextlib.closing(scoring.run(self._read(features))) as batches,
        ):
            draft.write_all(batches, "score", self._run)
            return draft.finish(
                ShardStats(
                    digest=digest,
                    source=features.digest,
                    run_id=self._run.id,
                    rows_in=scoring.ledger.received.rows,
                    rows=scoring.ledger.kept.rows,
                    quarantined=draft.quarantined,
                    missing_identity=scoring.ledger.missing,
                    keys=scoring.ledger.kept.identity,
                    **scoring.tally.figures(),
                ),
                self._run.meter,
            )

    def _read(self, features: FeatureShard) -> Generator[Batch]:
        """The rows of a feature shard: the key, what the model needs, and where each was read first."""
        scorer, folder = self._scorer, features_table(self._step.pipeline).folder
        columns = [*dict.fromkeys((self.schema.names[0], *scorer.columns, *(field.name for field in PLACE)))]
        few = [*(name for name in scorer.manifest.categorical if name in columns), "source_file"]
        read = shards.read(folder, features.path, columns, few, self._read_rows)
        for rows in self._run.timed_each("read", read):
            yield Batch(rows)


def output_schema(step: DayStep, source: Source, manifest: Manifest) -> pa.Schema:
    """The rows of predictions, without the partition column."""
    features = shards.schema(features_table(step.pipeline).folder, source.shards[0].path)
    return scored_rows.schema(features.field(step.pipeline.spec.input.key), manifest)
