"""The asset validated_features: the day's accepted rows, typed, one row a key; the others go to the quarantine.

Each landing file is cut into shards of `scoring.rows_per_shard` rows. Files are read newest first, so that of rows
with equal keys the newest file's is accepted (within a file the first), whatever the files are called.
"""

import contextlib
from collections import Counter
from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Features
from batch_scoring.daily.publish import DayStep, Finished, FinishedShards, Prepared, Run, check_input
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.metadata import (
    asset_key,
    asset_options,
    column_schema,
    data_version,
    days,
    figures,
    preview,
    ui_table,
)
from batch_scoring.errors import EntryError, FileChangedError, SupersededError
from batch_scoring.ingest import key_index, landing_files, quarantine
from batch_scoring.ingest.formats.rows import BATCH_ROWS, FileRows
from batch_scoring.ingest.row_validator import Judge, Judged
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.monitoring.checks import feature_checks
from batch_scoring.monitoring.checks.feature_checks import rejected_by_reason
from batch_scoring.operations.failures import step_run
from batch_scoring.operations.run_history import halvings
from batch_scoring.runtime.parallel import spare_cores
from batch_scoring.runtime.progress import Progress
from batch_scoring.storage import parquet, shards
from batch_scoring.storage.state import Account, DayInput, LandingFile, ShardAccount
from batch_scoring.tables import features_table

CATEGORIES = 50_000
"""Values of a column that a shard's account names: more than any vocabulary has."""

_HELPERS = 3
"""Threads at most that judge blocks: admitting and writing them is one thread's, and no more keep up with it."""

LINEAGE_FIELDS = (pa.field("source_file", pa.string(), False), pa.field("row_number", pa.int64(), False))


def validated_features(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key, code = asset_key(pipeline, "validated_features"), pipeline.features_code

    @dg.asset(
        key=key,
        description=f"{__doc__}\n\nOne row a `{pipeline.spec.input.key}` and day: exactly what the model will see.",
        deps=[asset_key(pipeline, "raw_input")],
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, feature_checks.CHECKS, days(pipeline)),
        code_version=code,
        metadata={
            "dagster/column_schema": _columns(pipeline),
            "dagster/uri": features_table(pipeline).folder.uri,
            "dagster/table_name": f"{pipeline.name}.validated_features",
        },
        **asset_options(pipeline, "validated_features", kinds={"pandera", "deltalake"}),
    )
    def _validated_features(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        with step_run(context) as run:
            step = DayStep(pipeline, context.partition_key, "validated_features")
            pinned = step.state.day_input(context.partition_key)
            halved = halvings(context.instance, pipeline, context.partition_key, context.retry_number)
            prepared = prepare(step, pinned, run, halved)
            findings = feature_checks.findings(step, prepared, pinned)
            yield from report(pipeline, key, findings, run.id, context.partition_key)
            account, committed = step.publish(
                prepared,
                run,
                fingerprint=pinned.fingerprint,
                code=code,
                model=None,
                check_current=lambda: check_input(pipeline, pinned, may_be_archived=False),
            )
            metadata = describe(step, prepared, account, committed) | figures(run, account.rows_in)
            yield dg.MaterializeResult(metadata=metadata, data_version=data_version(account))

    return _validated_features


def prepare(step: DayStep, pinned: DayInput, run: Run, halvings: int = 0) -> Prepared:
    """Validate a day's rows into shards, in batches that are halved so often; nothing is published yet.

    Raises:
        ContractError: a file has not the columns that the schema demands.
        UnreadableFileError: a file breaks off while it is read.
        SupersededError: a file is gone or no longer the version that was pinned.
    """
    pipeline = step.pipeline
    if account := step.published(pinned.fingerprint, pipeline.features_code):
        run.log(f"{step.day} is validated already: {account.rows} rows of the same files and code")
        return Prepared((), pa.schema([]), published=account)
    contract = Contract(pipeline)
    schema = pa.schema([*contract.arrow_schema, *LINEAGE_FIELDS])
    work = _Validation(step, contract, schema, run, pinned.rows, BATCH_ROWS >> halvings)
    try:
        done = [shard for file in landing_files.newest_first(pinned.files) for shard in work.shards_of(file)]
    except (FileChangedError, FileNotFoundError, EntryError) as error:
        raise SupersededError(f"superseded: {error}; run the day again from raw_input") from error
    return Prepared(
        tuple(sorted(done, key=lambda shard: shard.account.source)), schema, distinct_keys=work.distinct_keys
    )


class _Validation:
    """The work on one day: files newest first against the keys seen so far."""

    def __init__(
        self, step: DayStep, contract: Contract, schema: pa.Schema, run: Run, rows: int, batch_rows: int
    ) -> None:
        self._batch_rows = batch_rows
        self._step, self._schema, self._run = step, schema, run
        self._judge = Judge(contract)
        self._before: FinishedShards = step.finished()
        self._progress = Progress(rows, run.log, "validated")

    @property
    def distinct_keys(self) -> int:
        """Keys among all accepted rows so far."""
        return len(self._judge.seen)

    def shards_of(self, file: LandingFile) -> Iterator[Finished]:
        """One shard for each `rows_per_shard` rows of a file; a file without rows has one shard of 0 rows."""
        pipeline = self._step.pipeline
        size = pipeline.spec.scoring.rows_per_shard
        csv, columns = pipeline.spec.input.csv, self._judge.contract.columns
        with landing_files.open_rows(pipeline.landing, file, csv, columns, self._batch_rows) as rows:
            where = f"{pipeline.landing.uri}/{file.path}"
            extra = self._judge.contract.unexpected(rows.schema, where, is_text=rows.is_text)
            if extra:
                self._run.log(f"{where}: columns that the schema does not know are ignored: {', '.join(extra)}")
            for start in range(0, max(file.rows, 1), size):
                base = shards.digest("features", file.path, file.content or file.token, start, pipeline.features_code)
                shard = self._reused(base) or self._validate(file, rows, start, start + size, base)
                self._progress.advance(shard.account.rows_in)
                yield shard

    def _reused(self, base: str) -> Finished | None:
        """An earlier run's shard of the same rows, if it dropped no duplicates then and would drop none now."""
        shard = self._before.find(_name(base, []))
        if shard is None:
            return None
        column, seen = self._judge.contract.key, self._judge.seen
        folder = self._step.table.table.folder
        batches = [batch.column(column) for batch in shards.read(folder, shard.file.path, [column])]
        if any(seen.seen(batch).any() for batch in batches):
            return None
        for batch in batches:
            seen.add(batch)
        return shard

    def _validate(self, file: LandingFile, rows: FileRows, start: int, stop: int, base: str) -> Finished:
        dropped: list[int] = []
        rows_in = accepted = 0
        identities = 0
        counts = ColumnCounts(self._step.pipeline.spec.features)
        few = ["source_file", *self._step.pipeline.spec.features.categorical]
        with self._step.draft(self._schema, dictionary=few) as draft:
            # a single block has nothing to run beside, and handing it over costs milliseconds
            helpers = min(_HELPERS, spare_cores()) if file.rows - start > self._batch_rows else 0
            read = self._run.timed_each("read", rows.read(start, stop))
            blocks = self._judge.judge(read, file.path, is_text=rows.is_text, helpers=helpers)
            with contextlib.closing(blocks):
                for judged in self._run.timed_each("validate", blocks):
                    with self._run.timed("write"):
                        draft.accept(_with_lineage(judged))
                        blocks_of_rejected, others = judged.quarantine()
                        for block in blocks_of_rejected:
                            draft.reject_block(block)
                        draft.reject(others)
                    counts.add(judged.accepted)
                    dropped += judged.duplicates
                    rows_in += len(judged.block)
                    accepted += len(judged.numbers)
                    identities += key_index.row_identity(judged.accounted)
            expected = key_index.row_identity(np.arange(start + 1, start + rows_in + 1))
            account = ShardAccount(
                digest=_name(base, dropped),
                source=f"{file.path}#{start:012d}",
                run_id=self._run.id,
                rows_in=rows_in,
                rows=accepted,
                quarantined=draft.quarantined,
                missing_identity=(expected - identities) % 2**64,
                keys=draft.keys,
                missing=counts.missing,
                categories=counts.categories,
            )
            rows.refuse_changed()
            return self._before.find(account.digest) or draft.finish(account)


def _with_lineage(judged: Judged) -> pa.RecordBatch:
    """The accepted rows, each with where it came from."""
    lineage = [parquet.constant(judged.file, len(judged.numbers)), pa.array(judged.numbers, pa.int64())]
    names = [*judged.accepted.schema.names, *(field.name for field in LINEAGE_FIELDS)]
    return pa.RecordBatch.from_arrays([*judged.accepted.columns, *lineage], names=names)


class ColumnCounts:
    """Missing values and categories of a shard's rows, so that no check reads the rows again."""

    def __init__(self, features: Features) -> None:
        self.missing = dict.fromkeys(features.names, 0)
        self._categories: dict[str, Counter[str]] = {name: Counter() for name in features.categorical}

    def add(self, rows: pa.RecordBatch) -> None:
        """Count accepted rows."""
        for name in self.missing:
            self.missing[name] += rows.column(name).null_count
        for name, counter in self._categories.items():
            counts = pc.value_counts(rows.column(name).drop_null())
            words = counts.field("values").cast(pa.string())  # as the scorer and the reference spell them
            for word, count in zip(words.to_pylist(), counts.field("counts").to_pylist(), strict=True):
                counter[quarantine.shortened(word, quarantine.CELL_CHARACTERS)] += count

    @property
    def categories(self) -> dict[str, dict[str, int]]:
        """Rows by column and value, the most frequent first."""
        return {name: dict(counter.most_common(CATEGORIES)) for name, counter in self._categories.items()}


def describe(step: DayStep, prepared: Prepared, account: Account, committed: bool) -> dict[str, dg.MetadataValue]:
    """What an operator asks of the day's features."""
    reasons = [
        {"stage": stage, "reason": reason, "rows": rows} for (stage, reason), rows in rejected_by_reason(account.shards)
    ]
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(account.rows),
        "dagster/size_bytes": dg.MetadataValue.int(account.table.bytes),
        "rows_in": dg.MetadataValue.int(account.rows_in),
        "rows": dg.MetadataValue.int(account.rows),
        "rows_quarantined": dg.MetadataValue.int(account.rows_quarantined),
        "files": dg.MetadataValue.int(len(account.table.files)),
        "shards_reused": dg.MetadataValue.int(prepared.reused),
        "committed": dg.MetadataValue.bool(committed),
        "table_version": dg.MetadataValue.int(account.table.version),
        "fingerprint": dg.MetadataValue.text(account.fingerprint),
        **({"quarantine": ui_table(reasons)} if reasons else {}),
        **preview(step, account),
    }


def _name(base: str, dropped: list[int]) -> str:
    """A feature shard's digest: 20 digits for its source, 12 for the row numbers dropped as duplicates."""
    return base[:20] + shards.digest(*dropped)[:12]


def _columns(pipeline: Pipeline) -> dg.TableSchema:
    spec = pipeline.spec
    return column_schema(
        [
            (spec.input.key, "key", "names the row; unique in a day"),
            *((name, "numeric", "feature; null if missing") for name in spec.features.numeric),
            *((name, "categorical", "feature; null if missing") for name in spec.features.categorical),
            ("source_file", "string", "landing file of the row"),
            ("row_number", "int64", "row in that file, from 1"),
            ("dt", "date", "the day"),
        ]
    )
