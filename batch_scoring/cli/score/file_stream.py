"""Files through the stream of `daily/stream.py`, without a day; the work of `command.py`.

files, newest first -> Validation -> Scoring -> predictions; what is rejected on the way -> quarantine
"""

import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import replace
from datetime import datetime
from typing import TypeAlias

import pyarrow as pa

from batch_scoring.cli.score.locations import InputFiles
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import scored_rows
from batch_scoring.daily.model_code import model_code
from batch_scoring.daily.shard_stats import ColumnCounts
from batch_scoring.daily.stream import ALL_ROWS, Batch, ScoringStage, ValidationStage, ensure_written, open_rows
from batch_scoring.inference.bundle import prove, read_bundle
from batch_scoring.inference.registry import ensure_declared_features
from batch_scoring.inference.scorer import ONE_THREAD, Scorer
from batch_scoring.ingest import quarantine
from batch_scoring.ingest.row_validator import RowValidator
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.monitoring.checks import feature_checks, prediction_checks
from batch_scoring.monitoring.finding import Finding
from batch_scoring.runtime.progress import Bar
from batch_scoring.storage.state import ShardStats

Write: TypeAlias = Callable[[pa.RecordBatch], None]


class QuarantineFile:
    """Writer of the rejected rows; it begins its file with the first of them."""

    def __init__(self, open_file: Callable[[], Write], key: str) -> None:
        self._open, self._key = open_file, key
        self._write: Write | None = None
        self._waiting = quarantine.Waiting()
        self._written = 0
        self.counts: dict[str, dict[str, int]] = {}
        self.examples: dict[tuple[str, str], quarantine.Rejected] = {}
        """The first row by stage and reason."""

    def add(self, rows: Iterator[quarantine.Rejected]) -> None:
        """Take rows."""
        for row in rows:
            quarantine.count(self.counts, row)
            self.examples.setdefault((row.reason.stage, quarantine.reason_name(row.reason)), row)
            self._waiting.add(row)
            if self._waiting.is_full:
                self._flush()

    def _flush(self) -> None:
        if not self._waiting:
            return
        self._write = self._write or self._open()
        rows = quarantine.file_rows(self._waiting.take(), self._key)
        self._write(rows)
        self._written += rows.num_rows

    def finish(self) -> None:
        """Write the last of them.

        Raises:
            RowsLostError: not all that were taken are in the file.
        """
        self._flush()
        counted = sum(sum(reasons.values()) for reasons in self.counts.values())
        ensure_written(counted, self._written, "the quarantine")


class Stream:
    """The work on one input: what has been read, validated, scored and written so far."""

    def __init__(self, pipeline: Pipeline, source: InputFiles, at: datetime, note: Callable[[str], object]) -> None:
        """Load the contract and the model.

        Args:
            pipeline: whose.
            source: the files.
            at: the time to write as `scored_at`.
            note: receives what a person should know.

        Raises:
            ContractError, CodeError: the schema is not valid, or the pipeline's code does not import.
            BundleError: the model is damaged, of other features, or computes other scores here.
            ScoringError: the device is missing.
        """
        self._pipeline, self._source, self._note = pipeline, source, note
        self.bundle = read_bundle(pipeline.bundle)
        ensure_declared_features(pipeline, self.bundle)
        scoring = pipeline.spec.scoring
        loaded = prove(self.bundle, model_code(pipeline), scoring.device)
        self.scorer = Scorer(loaded, device=scoring.device, batch_rows=scoring.batch_rows)
        if self.scorer.why_eager:
            note(f"the network's layers are eager: {self.scorer.why_eager}")
        if not self.scorer.runs_side_by_side:
            note(ONE_THREAD)
        self._validator = RowValidator(Contract(pipeline))
        self.key = self._validator.contract.key
        self.schema = scored_rows.schema(self._validator.contract.arrow_schema.field(self.key), self.scorer.manifest)
        """Of the predictions."""
        contract = self._validator.contract
        self.validation = ValidationStage(self._validator, ColumnCounts(contract.inputs, contract.categorical))
        self.scoring = ScoringStage(self.scorer, self.schema, accepted=self.validation.keys, at=at)

    @property
    def rows_in(self) -> int:
        """Rows that have been read."""
        return sum(ledger.received.rows for ledger in list(self.validation.ledgers.values()))

    def run(self, write: Write, rejections: QuarantineFile, bar: Bar) -> None:
        """Read, validate, score and write all rows.

        Raises:
            ContractError: a file lacks a column, or has it with another type.
            UnreadableFileError, FileChangedError, FileNotFoundError: a file is incomplete, or has changed.
            ScoringError: the model is at fault.
        """
        with contextlib.closing(self.scoring.run(self._validated())) as batches:
            for batch in batches:
                write(batch.rows)
                for rejected in batch.rejected:
                    rejections.add(rejected.rejected())
                bar.show(batch.progress, self.rows_in)
        rejections.finish()

    def _validated(self) -> Generator[Batch]:
        """Accepted rows, file by file; runs in whichever thread of the scorer reads."""
        folder, csv, done = self._source.folder, self._pipeline.spec.input.csv, 0
        for file in self._source.files:
            with open_rows(folder, file, csv, self._validator, self._note) as rows:
                read = rows.read(0, ALL_ROWS)
                validated = self.validation.run(read, file.path, start=0, is_text=rows.is_text, helpers=1)
                with contextlib.closing(validated) as batches:
                    for batch in batches:
                        share = (done + rows.share * file.size) / max(self._source.size, 1)
                        yield replace(batch, progress=share)
            done += file.size

    def findings(self, quarantined: dict[str, dict[str, int]], run_id: str) -> list[Finding]:
        """The findings of the checks, before anything becomes visible; without those that compare with earlier days."""
        source, thresholds, manifest = self._source.uri, self._pipeline.spec.checks, self.scorer.manifest
        validation, ledger = self.validation, self.scoring.ledger
        features = ShardStats(
            digest="",
            source=source,
            run_id=run_id,
            rows_in=self.rows_in,
            rows=ledger.received.rows,
            quarantined={stage: n for stage, n in quarantined.items() if stage in quarantine.STAGES_OF_FEATURES},
            categories=validation.counts.categories,
        )
        predictions = ShardStats(
            digest="",
            source=source,
            run_id=run_id,
            rows_in=ledger.received.rows,
            rows=ledger.kept.rows,
            keys=ledger.kept.identity,
            quarantined={stage: n for stage, n in quarantined.items() if stage in quarantine.STAGES_OF_PREDICTIONS},
            missing_identity=ledger.missing,
            **self.scoring.tally.figures(),
        )
        return [
            self._conservation(features, predictions),
            self._uniqueness(),
            feature_checks.acceptance([features]),
            feature_checks.quarantine_size([features, predictions], thresholds, features.rows_in),
            feature_checks.known_categories(feature_checks.categories_of([features]), manifest.categorical, thresholds),
            prediction_checks.probabilities([predictions], predictions.rows_in, manifest),
        ]

    def _conservation(self, features: ShardStats, predictions: ShardStats) -> Finding:
        rejected = features.rows_quarantined + predictions.rows_quarantined
        scored = predictions.rows
        damaged = sorted(file for file, ledger in self.validation.ledgers.items() if not ledger.is_balanced)
        sound = features.rows_in == scored + rejected and not damaged and self.scoring.ledger.is_balanced
        where = f"; rows are lost or doubled of {', '.join(damaged) or 'the accepted ones'}: report this bug" * (
            not sound
        )
        return Finding(
            "rows_are_conserved",
            sound,
            f"{features.rows_in} rows read, {scored} scored, {rejected} in the quarantine{where}",
            {"rows_in": features.rows_in, "rows": scored, "rows_quarantined": rejected},
            observed=scored + rejected,
            expected=f"{features.rows_in} rows",
        )

    def _uniqueness(self) -> Finding:
        distinct, accepted = len(self._validator.seen), self.validation.keys.rows
        return Finding(
            "keys_are_unique", distinct == accepted, f"{accepted} accepted rows have {distinct} distinct keys"
        )
