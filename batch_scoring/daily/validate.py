"""The first step of a day: landing files into shards of accepted rows, one row per key; the others are quarantined.

Each landing file is cut into shards of `scoring.rows_per_shard` rows. Files are read newest first, so that of rows
with equal keys the newest file's is accepted (within a file the first), whatever the files are called.
"""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from batch_scoring.daily.publish import DayStep, Finished, FinishedShards, Prepared
from batch_scoring.daily.shard_stats import ColumnCounts
from batch_scoring.daily.stream import PLACE, ValidationStage, open_rows
from batch_scoring.errors import EntryError, FileChangedError, SupersededError
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats.rows import BATCH_ROWS, FileRows
from batch_scoring.ingest.row_validator import RowValidator
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.runtime.parallel import spare_cores
from batch_scoring.runtime.progress import Progress
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage import shards
from batch_scoring.storage.state import DayInput, LandingFile, ShardStats

_HELPERS = 3
"""Most threads that validate beside the caller's, which alone looks up keys and writes and cannot serve more."""


def prepare(step: DayStep, pinned: DayInput, run: StepContext, backoff: int = 0) -> Prepared:
    """Validate a day's rows into shards; nothing is published yet. `backoff`: how often batches are halved.

    Raises:
        ContractError: a file lacks columns that the schema requires.
        UnreadableFileError: a file turns out to be truncated while it is read.
        SupersededError: a file is gone or is no longer the pinned version.
    """
    pipeline = step.pipeline
    if validated := step.published(pinned.fingerprint, pipeline.features_code):
        run.log(f"{step.day} is validated already: {validated.rows} rows of the same files and code")
        return Prepared((), pa.schema([]), published=validated)
    contract = Contract(pipeline)
    schema = pa.schema([*contract.arrow_schema, *PLACE])
    work = _Day(step, contract, schema, run, pinned.rows, BATCH_ROWS >> backoff)
    run.meter.end_overhead()
    try:
        done = [shard for file in landing_files.newest_first(pinned.files) for shard in work.shards_of(file)]
    except (FileChangedError, FileNotFoundError, EntryError) as error:
        raise SupersededError(f"superseded: {error}; run the day again from raw_input") from error
    return Prepared(tuple(sorted(done, key=lambda shard: shard.stats.source)), schema, distinct_keys=work.distinct_keys)


class _Day:
    """The work on one day: files newest first against the keys seen so far."""

    def __init__(
        self, step: DayStep, contract: Contract, schema: pa.Schema, run: StepContext, rows: int, batch_rows: int
    ) -> None:
        self._batch_rows = batch_rows
        self._step, self._schema, self._run = step, schema, run
        self._validator = RowValidator(contract)
        self._before: FinishedShards = step.finished()
        self._progress = Progress(rows, run.log, "validated")

    @property
    def distinct_keys(self) -> int:
        """Keys among all accepted rows so far."""
        return len(self._validator.seen)

    def shards_of(self, file: LandingFile) -> Iterator[Finished]:
        """One shard for each `rows_per_shard` rows of a file; a file without rows has one shard of 0 rows."""
        pipeline = self._step.pipeline
        size = pipeline.spec.scoring.rows_per_shard
        opened = open_rows(
            pipeline.landing, file, pipeline.spec.input.csv, self._validator, self._run.log, self._batch_rows
        )
        with opened as rows:
            for start in range(0, max(file.rows, 1), size):
                base = shards.digest("features", file.path, file.content or file.token, start, pipeline.features_code)
                shard = self._reused(base) or self._validate(file, rows, start, start + size, base)
                if shard.reused:
                    self._run.meter.end_overhead()
                self._progress.advance(shard.stats.rows_in)
                yield shard

    def _reused(self, base: str) -> Finished | None:
        """An earlier run's shard of the same rows, if it dropped no duplicates then and would drop none now."""
        shard = self._before.find(_name(base, []))
        if shard is None:
            return None
        column, seen = self._validator.contract.key, self._validator.seen
        folder = self._step.table.table.folder
        batches = [batch.column(column) for batch in shards.read(folder, shard.file.path, [column])]
        if any(seen.seen(batch).any() for batch in batches):
            return None
        for batch in batches:
            seen.add(batch)
        return shard

    def _validate(self, file: LandingFile, rows: FileRows, start: int, stop: int, base: str) -> Finished:
        """Validate the next rows of a file into one shard of features."""
        contract = self._validator.contract
        validation = ValidationStage(self._validator, ColumnCounts(contract.inputs, contract.categorical))
        # a single block has nothing to run in parallel with, and handing it over costs milliseconds
        helpers = min(_HELPERS, spare_cores()) if file.rows - start > self._batch_rows else 0
        read = self._run.timed_each("read", rows.read(start, stop))
        with (
            self._step.draft(self._schema, dictionary=["source_file", *contract.categorical]) as draft,
            contextlib.closing(
                validation.run(read, file.path, start=start, is_text=rows.is_text, helpers=helpers)
            ) as batches,
        ):
            draft.write_all(batches, "validate", self._run)
            ledger = validation.ledgers[file.path]
            stats = ShardStats(
                digest=_name(base, validation.duplicates),
                source=f"{file.path}#{start:012d}",
                run_id=self._run.id,
                rows_in=ledger.received.rows,
                rows=ledger.kept.rows,
                quarantined=draft.quarantined,
                missing_identity=ledger.missing,
                keys=validation.keys.identity,
                missing=validation.counts.missing,
                categories=validation.counts.categories,
            )
            rows.refuse_changed()
            return self._before.find(stats.digest) or draft.finish(stats, self._run.meter)


def _name(base: str, dropped: list[int]) -> str:
    """A feature shard's digest: 20 digits for its source, 12 for the row numbers dropped as duplicates."""
    return base[:20] + shards.digest(*dropped)[:12]
