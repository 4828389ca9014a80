"""Scoring a day in chunks: plan them, score each on its own, collect the results.

The steps exchange references: which shards of the features make a chunk, which files hold its scores. A step reads
everything else from the state and the tables. A chunk whose process is lost is scored again alone; the day is
published once, when all chunks are there.
"""

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from batch_scoring.config.compute import known_device
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.daily.score import FeatureShard, Source, output_schema, published, read_source, score, shard_digest
from batch_scoring.errors import StateError, SupersededError
from batch_scoring.inference.bundle import read_description
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.runtime.usage import Usage
from batch_scoring.storage.state import Document


class Began(Document):
    """The beginning of a day's work, by the step that planned it."""

    run_id: str
    at: datetime
    overhead: Usage = Usage()
    """What that step used."""


class Chunk(Document):
    """A part of a day: what one step scores."""

    features: tuple[str, ...]
    """Digests of the shards of validated features."""
    model_sha256: str
    rows: int


class ScoredShard(Document):
    """A finished shard."""

    features: str
    """Digest of the shard of features that it was scored from."""
    digest: str
    uri: str


class ScoredChunk(Document):
    """What a step has scored."""

    device: str
    """cpu or cuda."""
    batch_rows: int
    shards: tuple[ScoredShard, ...]
    overhead: Usage = Usage()
    """What its process used besides the shards."""


def plan(step: DayStep, run: StepContext) -> list[Chunk]:
    """Divide the shards that no earlier run has finished into chunks; empty if all are finished."""
    source, spec = read_source(step), step.pipeline.spec.scoring
    if published(step, source):
        run.log(f"{step.day} is scored already: {source.features.rows} rows of the same features, model and code")
        return []
    left = list(source.shards)
    if device := known_device(step.pipeline):
        finished = step.finished()
        left = [shard for shard in left if finished.find(shard_digest(step, source, shard, device)) is None]
    chunks = [
        Chunk(
            features=tuple(shard.digest for shard in part),
            model_sha256=source.model.sha256,
            rows=sum(shard.stats.rows for shard in part),
        )
        for part in divide(left, spec.max_shards, spec.rows_per_shard)
    ]
    done = f"{len(source.shards) - len(left)} of {len(source.shards)} shards are finished"
    run.log(f"{step.day}: {source.features.rows} rows, {done}; chunks of {[chunk.rows for chunk in chunks]} rows")
    return chunks


def divide(wanted: Sequence[FeatureShard], most: int, rows: int) -> list[tuple[FeatureShard, ...]]:
    """Divide shards into chunks of about equally many rows.

    Args:
        wanted: the shards.
        most: maximum number of chunks.
        rows: minimum size of a chunk, unless there are fewer.
    """
    total = sum(shard.stats.rows for shard in wanted)
    count = min(most, max(1, math.ceil(total / rows)), len(wanted))
    chunks: list[list[FeatureShard]] = [[] for _ in range(count)]
    sizes = [0] * count
    for shard in sorted(wanted, key=lambda shard: (-shard.stats.rows, shard.digest)):
        lightest = sizes.index(min(sizes))
        chunks[lightest].append(shard)
        sizes[lightest] += shard.stats.rows
    return [tuple(chunk) for chunk in chunks]


def score_chunk(step: DayStep, chunk: Chunk, run: StepContext, backoff: int) -> ScoredChunk:
    """Score the shards of a chunk.

    Raises:
        SupersededError: the features or the model have changed.
    """
    source = read_source(step)
    there = {shard.digest: shard for shard in source.shards}
    if source.model.sha256 != chunk.model_sha256 or not there.keys() >= set(chunk.features):
        raise _superseded(step)
    scored = score(step, source, [there[digest] for digest in chunk.features], run, backoff)
    run.meter.end_overhead()
    return ScoredChunk(
        device=scored.device,
        batch_rows=scored.batch_rows,
        shards=tuple(
            ScoredShard(
                features=shard.stats.source,
                digest=shard.stats.digest,
                uri=f"{step.table.table.folder.uri}/{shard.file.path}",
            )
            for shard in scored.shards
        ),
        overhead=run.meter.overhead,
    )


def collect(step: DayStep, source: Source, chunks: Sequence[ScoredChunk], run: StepContext) -> Prepared:
    """Collect all shards of a day, ready to be published; the overhead of the chunks is added to this step's.

    Raises:
        SupersededError: the chunks are of other features, another model or other code than the active ones.
        StateError: a finished shard is gone, or the chunks were scored on different kinds of device.
    """
    if ready := published(step, source):
        return ready
    run.meter.overhead = sum((chunk.overhead for chunk in chunks), run.meter.overhead)
    devices = sorted({chunk.device for chunk in chunks})
    if len(devices) > 1:
        raise StateError(
            f"the chunks of {step.pipeline.name} {step.day} were scored on {' and '.join(devices)}, whose scores "
            "differ in the last bits; set scoring.device in the spec, and run the day again"
        )
    device = devices[0] if devices else known_device(step.pipeline) or ""
    scored = {shard.features: shard for chunk in chunks for shard in chunk.shards}
    finished, done = step.finished(), []
    for features in source.shards:
        digest, reference = shard_digest(step, source, features, device), scored.get(features.digest)
        if reference and reference.digest != digest:
            raise _superseded(step)
        found = finished.find(digest)
        if found is None and reference:
            raise StateError(f"{reference.uri} is gone; run {step.pipeline.name}/predictions for {step.day} again")
        if found is None:  # and no chunk was to score it
            raise _superseded(step)
        done.append(replace(found, reused=found.stats.run_id != run.id))
    settings: dict[str, int | str] = {"device": device, "shares": len(chunks)}
    if chunks:
        settings["batch_rows"] = chunks[0].batch_rows
    manifest, _ = read_description(step.state.models.subfolder(source.model.sha256))
    return Prepared(tuple(done), output_schema(step, source, manifest), settings=settings)


def _superseded(step: DayStep) -> SupersededError:
    return SupersededError(
        f"superseded: while {step.pipeline.name} {step.day} was scored in chunks, its features or the model "
        "changed; nothing was published: run the day again"
    )
