"""Shared work of the writing steps of a day: find finished shards, write new ones, publish the day.

`validate.py` and `score.py` produce the rows, and `delivery/decisions` what is done about them; this module resumes,
counts and publishes for all. It uses neither pandera nor torch.
"""

import contextlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import NamedTuple

import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.stream import Batch, ensure_written
from batch_scoring.daily.tables import STAGES, TABLES, quarantine_table
from batch_scoring.errors import RowsLostError, SupersededError
from batch_scoring.ingest import landing_files, quarantine
from batch_scoring.ingest.quarantine_blocks import Block
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.runtime.usage import Meter
from batch_scoring.storage import delta, shards
from batch_scoring.storage.delta import Part
from batch_scoring.storage.shards import ShardFile, ShardWriter
from batch_scoring.storage.state import ActiveModel, DayInput, PublishedDay, PublishedPart, ShardStats, State, StepName


@dataclass(frozen=True)
class Finished:
    """A shard with its quarantine: complete files, committed or not."""

    stats: ShardStats
    file: ShardFile
    quarantine: tuple[ShardFile, ...]
    reused: bool


@dataclass(frozen=True)
class Prepared:
    """All shards of a day, ready to be published; nothing of it is visible yet."""

    shards: tuple[Finished, ...]
    schema: pa.Schema
    distinct_keys: int = 0
    """Distinct keys among the rows of all shards; only counted for features."""
    settings: dict[str, int | str] = field(default_factory=dict)
    """How the work was done, for the operator."""
    published: PublishedDay | None = None
    """The published day, if it is up to date and there is nothing to do."""

    @property
    def shard_stats(self) -> tuple[ShardStats, ...]:
        """Statistics of the shards; if there is nothing to do, those of the published day."""
        return self.published.shards if self.published else tuple(shard.stats for shard in self.shards)

    @property
    def reused(self) -> int:
        """Shards that an earlier run had finished."""
        return len(self.published.shards) if self.published else sum(shard.reused for shard in self.shards)


class ScoredBy(NamedTuple):
    """The model that a day's published predictions were scored with."""

    version: str
    sha256: str


class DayStep:
    """One writing step of one day."""

    def __init__(self, pipeline: Pipeline, day: str, name: StepName) -> None:
        """Find the parts of the tables that this step owns."""
        self.pipeline, self.day, self.name = pipeline, day, name
        self.state = State(pipeline.output)
        self.table = Part(TABLES[name](pipeline), day, name)
        self.quarantine = Part(quarantine_table(pipeline), day, name, STAGES[name])

    def published(self, fingerprint: str, code: str, model_sha256: str | None = None) -> PublishedDay | None:
        """The published day, if it is of this input, code and model and both tables still hold it."""
        stats = self.state.published_day(self.name, self.day)
        if stats is None or (stats.fingerprint, stats.code) != (fingerprint, code):
            return None
        if stats.model_sha256 != model_sha256:
            return None
        unchanged = self.table.snapshot().holds(stats.table) and self.quarantine.snapshot().holds(stats.quarantine)
        return stats if unchanged else None

    def finished(self) -> "FinishedShards":
        """Shards that earlier runs have finished for this day."""
        return FinishedShards(self)

    @contextlib.contextmanager
    def draft(self, schema: pa.Schema, dictionary: Iterable[str]) -> Iterator["Draft"]:
        """Write a shard; nothing of it remains if it is not finished."""
        with contextlib.ExitStack() as files:
            writer = files.enter_context(shards.writing(self.table.table.folder, schema, dictionary))
            yield Draft(self, writer, files)

    def publish(
        self,
        prepared: Prepared,
        run: StepContext,
        *,
        fingerprint: str,
        code: str,
        model: ActiveModel | ScoredBy | None,
        features_code: str | None = None,
        followed_by: tuple[str, ...] = (),
        check_current: Callable[[], None],
    ) -> tuple[PublishedDay, bool]:
        """Commit the quarantine, then the table, then record the published day; whether anything was committed, too.

        Raises:
            RowsLostError: a row of a shard is lost or doubled, and no check has reported it.
            SupersededError: newer input or another model came first.
            SchemaChangedError, PublicationError: see `delta.publish`.
        """
        if prepared.published:
            return prepared.published, False
        shard_stats = prepared.shard_stats
        if lost := [shard.source for shard in shard_stats if not shard.is_balanced]:
            raise RowsLostError(f"rows of {', '.join(lost[:5])} are lost or doubled; nothing was published")
        lineage = {
            "run_id": run.id,
            "input_fingerprint": fingerprint,
            "code_version": code,
            "rows_in": str(sum(shard.rows_in for shard in shard_stats)),
            "rows_scored": str(sum(shard.rows for shard in shard_stats)),
            "rows_quarantined": str(sum(shard.rows_quarantined for shard in shard_stats)),
        }
        if model is not None:
            lineage |= {"model_version": model.version, "model_sha256": model.sha256}

        def commit(part: Part, files: Iterable[ShardFile], schema: pa.Schema) -> tuple[PublishedPart, bool]:
            planned = {file.identity: file for file in files}
            return delta.publish(part, planned, schema, check_current=check_current, lineage=lineage, log=run.log)

        with run.timed("commit"):
            delta.check_column_types(self.table.table, prepared.schema)
            rejected = [file for shard in prepared.shards for file in shard.quarantine]
            kept, some = commit(self.quarantine, rejected, quarantine.schema(self.pipeline.spec.input.key))
            table, more = commit(self.table, [shard.file for shard in prepared.shards], prepared.schema)
            run.meter.end_overhead()
            published = PublishedDay(
                pipeline=self.pipeline.name,
                day=self.day,
                step=self.name,
                run_id=run.id,
                finished_at=datetime.now(UTC),
                fingerprint=fingerprint,
                code=code,
                features_code=features_code,
                followed_by=followed_by,
                model_version=model.version if model else None,
                model_sha256=model.sha256 if model else None,
                shards=shard_stats,
                table=table,
                quarantine=kept,
                seconds=round(run.elapsed, 4),
                overhead=run.meter.overhead,
            )
            self.state.put_published_day(published)
        return published, some or more


class FinishedShards:
    """The complete shards of a day, by digest."""

    def __init__(self, step: DayStep) -> None:
        self._step = step
        self._files = self._complete(step.table)
        self._rejected = self._complete(step.quarantine)

    def find(self, digest: str) -> Finished | None:
        """The shard of that digest with its whole quarantine, if both are there."""
        file = self._files.get(f"{self._step.table.prefixes[0]}{digest}")
        stats = shards.read_stats(self._step.table.table.folder, file) if file else None
        if file is None or stats is None:
            return None
        found = (self._quarantine(digest, stage, sum(n.values())) for stage, n in stats.quarantined.items())
        rejected = tuple(part for part in found if part)
        if len(rejected) < len(stats.quarantined):
            return None
        return Finished(stats, replace(file, rows=stats.rows), rejected, reused=True)

    def _quarantine(self, digest: str, stage: str, rows: int) -> ShardFile | None:
        """The file with the rows that the shard sent to a stage, if it holds as many as the shard says."""
        file = self._rejected.get(f"dt={self._step.day}/stage={stage}/{digest}")
        stats = shards.read_stats(self._step.quarantine.table.folder, file) if file else None
        return replace(file, rows=rows) if file and stats and stats.rows == rows else None

    @staticmethod
    def _complete(part: Part) -> dict[str, ShardFile]:
        active = part.snapshot().files
        found: dict[str, ShardFile] = {}
        for prefix in part.prefixes:
            found |= shards.complete(part.table.folder, prefix, active)
        return found


class Draft:
    """A shard that is being written, with the rows it rejects."""

    def __init__(self, step: DayStep, writer: ShardWriter, files: contextlib.ExitStack) -> None:
        self._step, self._writer, self._files = step, writer, files
        self._key = step.pipeline.spec.input.key
        self._rejected: defaultdict[str, quarantine.Waiting] = defaultdict(quarantine.Waiting)
        self._writers: dict[str, ShardWriter] = {}
        self.quarantined: dict[str, dict[str, int]] = {}

    def write(self, batch: Batch) -> None:
        """Append rows to the shard, and those that are rejected to its quarantine."""
        self._writer.write(batch.rows)
        for rejected in batch.rejected:
            blocks, others = rejected.quarantine()
            for block in blocks:
                self.reject_block(block)
            self.reject(others)

    def write_all(self, batches: Iterable[Batch], activity: str, run: StepContext) -> None:
        """Write every batch of a stream; the time spent waiting for each counts towards the activity."""
        for batch in run.timed_each(activity, batches):
            with run.timed("write"):
                self.write(batch)

    def reject(self, rows: Iterable[quarantine.Rejected]) -> None:
        """Send rows to the quarantine."""
        for row in rows:
            quarantine.count(self.quarantined, row)
            waiting = self._rejected[row.reason.stage]
            waiting.add(row)
            if waiting.is_full:
                self._flush(row.reason.stage)

    def reject_block(self, block: Block) -> None:
        """Send many rows of one stage to the quarantine."""
        counts = self.quarantined.setdefault(block.stage, {})
        for reason, rows in block.counts.items():
            counts[reason] = counts.get(reason, 0) + rows
        self._quarantine(block.stage).write(block.rows)

    def finish(self, stats: ShardStats, meter: Meter) -> Finished:
        """Name the files by the digest of the stats: the quarantine first, because the shard vouches for it.

        Args:
            stats: of the shard; what it took is added.
            meter: ends the shard's lap when all its rows are written; moving the file to its place is in the next.

        Raises:
            RowsLostError: a file has fewer or more rows than were counted.
        """
        filed = []
        for stage in self.quarantined:
            self._flush(stage)
            rows = sum(self.quarantined[stage].values())
            own = ShardStats(digest=stats.digest, source=stats.source, run_id=stats.run_id, rows_in=rows, rows=rows)
            ensure_written(rows, self._writers[stage].rows, f"{stats.source}, stage {stage}")
            filed.append(self._writers[stage].finish(f"dt={self._step.day}/stage={stage}/", own))
        ensure_written(stats.rows, self._writer.rows, stats.source)
        self._writer.flush()
        stats = stats.model_copy(update={"usage": meter.lap()})
        file = self._writer.finish(self._step.table.prefixes[0], stats)
        return Finished(stats, file, tuple(filed), reused=False)

    def _quarantine(self, stage: str) -> ShardWriter:
        if stage not in self._writers:
            folder = self._step.quarantine.table.folder
            opened = shards.writing(folder, quarantine.schema(self._key), ["rule", "column", "source_file"])
            self._writers[stage] = self._files.enter_context(opened)
        return self._writers[stage]

    def _flush(self, stage: str) -> None:
        if rows := self._rejected[stage].take():
            self._quarantine(stage).write(quarantine.table(rows, self._key))


def check_input(pipeline: Pipeline, pinned: DayInput, *, may_be_archived: bool) -> None:
    """Raise if the landing folder no longer holds the pinned input.

    Args:
        pipeline: whose landing folder to list.
        pinned: the input that this run works on.
        may_be_archived: an empty landing folder then does not count as newer input.

    Raises:
        SupersededError: a file was added, changed or removed.
    """
    listed = landing_files.list_day(pipeline.landing, pinned.day)
    if not landing_files.is_of(pinned.fingerprint, listed) and (listed or not may_be_archived):
        raise SupersededError(
            f"superseded: the files of {pipeline.name} {pinned.day} have changed since raw_input pinned them; "
            "nothing was published: run the day again from raw_input"
        )
