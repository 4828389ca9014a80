"""One stream from input files to scored and rejected rows, with an account of every row; the work of `command.py`.

    files, newest first -> judge -> Scorer -> predictions; what is rejected on the way -> quarantine

Memory is flat but for the keys seen (`keys.py`). Rows are read and judged ahead of the scorer, scored beside the caller
and written by it (`overlap.py`).
"""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import TypeAlias

import numpy as np
import pyarrow as pa

from batch_scoring.cli.score.addresses import Input
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import scored_rows
from batch_scoring.defs.asset_checks import Finding
from batch_scoring.defs.assets import model
from batch_scoring.defs.assets.validated_features import ColumnCounts
from batch_scoring.inference.bundle import prove, read_bundle
from batch_scoring.inference.scorer import ALONE, Scored, Scorer
from batch_scoring.ingest import key_index, landing_files, quarantine
from batch_scoring.ingest.row_validator import Judge, Judged
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.monitoring.checks import feature_checks, prediction_checks
from batch_scoring.runtime.progress import Bar
from batch_scoring.storage.state import ShardAccount

Write: TypeAlias = Callable[[pa.RecordBatch], None]

_ALL = 2**62
"""More rows than any file has."""


@dataclass(frozen=True)
class Block:
    """Rows that are with the scorer."""

    judged: Judged
    share: float
    """Of the input that had been read by the time that they were judged."""


class Ledger:
    """Every row of every file, by its number: read once, settled once. One thread may read while another settles."""

    def __init__(self) -> None:
        self._rows: dict[str, int] = {}
        self._read: dict[str, int] = {}  # row identities by file; no value here is touched by both threads
        self._settled: dict[str, int] = {}

    @property
    def rows_in(self) -> int:
        """Rows that have been read."""
        return sum(list(self._rows.values()))

    def read(self, file: str, rows: int) -> None:
        """The next rows of a file have been read."""
        first = self._rows.get(file, 0) + 1
        self._rows[file] = first + rows - 1
        self._read[file] = self._read.get(file, 0) + key_index.row_identity(np.arange(first, first + rows))

    def settle(self, file: str, numbers: np.ndarray) -> None:
        """Rows of a file have been written, as scored or as rejected."""
        self._settled[file] = self._settled.get(file, 0) + key_index.row_identity(numbers)

    @property
    def damaged(self) -> list[str]:
        """Files of which a row is lost or doubled: their sums of row identities, modulo 2**64, are not equal."""
        files = sorted(self._read.keys() | self._settled.keys())
        return [file for file in files if (self._read.get(file, 0) - self._settled.get(file, 0)) % 2**64]


class Rejections:
    """The rejected rows on their way into a file, which is begun with the first of them."""

    def __init__(self, open_file: Callable[[], Write], key: str, ledger: Ledger) -> None:
        self._open, self._key, self._ledger = open_file, key, ledger
        self._write: Write | None = None
        self._waiting = quarantine.Waiting()
        self.counts: dict[str, dict[str, int]] = {}
        self.examples: dict[tuple[str, str], quarantine.Rejected] = {}
        """The first row by stage and reason."""

    @property
    def rows(self) -> int:
        """All of them."""
        return sum(sum(reasons.values()) for reasons in self.counts.values())

    def add(self, rows: Iterator[quarantine.Rejected]) -> None:
        """Take rows."""
        for row in rows:
            quarantine.count(self.counts, row)
            self.examples.setdefault((row.reason.stage, quarantine.reason_name(row.reason)), row)
            self._waiting.add(row)
            if self._waiting.is_full:
                self.flush()

    def flush(self) -> None:
        """Write what waits."""
        if not self._waiting:
            return
        self._write = self._write or self._open()
        rows = self._waiting.take()
        self._write(quarantine.file_rows(rows, self._key))
        for file in {row.source_file for row in rows}:
            numbers = [row.row_number for row in rows if row.source_file == file]
            self._ledger.settle(file, np.array(numbers, np.int64))


class Stream:
    """The work on one input: what has been read, judged, scored and written so far."""

    def __init__(self, pipeline: Pipeline, source: Input, note: Callable[[str], object]) -> None:
        """Take up the contract and the model.

        Raises:
            ContractError, CodeError: the schema is none, or the pipeline's code does not import.
            BundleError: the model is damaged, of other features, or computes other scores here.
            ScoringError: the device is not there.
        """
        self._pipeline, self._source, self._note = pipeline, source, note
        self.bundle = read_bundle(pipeline.bundle)
        model.refuse_other_features(pipeline, self.bundle)
        scoring = pipeline.spec.scoring
        loaded = prove(self.bundle, pipeline.load(pipeline.spec.model.network), scoring.device)
        self.scorer = Scorer(loaded, device=scoring.device, batch_rows=scoring.batch_rows)
        if self.scorer.why_eager:
            note(f"the network's layers are eager: {self.scorer.why_eager}")
        if not self.scorer.runs_side_by_side:
            note(ALONE)
        self.judge = Judge(Contract(pipeline))
        self.key = self.judge.contract.key
        self.ledger = Ledger()
        self.counts = ColumnCounts(pipeline.spec.features)
        self.tally = scored_rows.Tally(self.scorer.manifest)
        self.accepted = self.scored = 0
        self.accepted_keys = self.written_keys = self.failed_keys = 0
        """Sums of key hashes, modulo 2**64: of rows that are to be scored, with and without a score."""
        self._waiting: collections.deque[Block] = collections.deque()

    @property
    def schema(self) -> pa.Schema:
        """Of the predictions."""
        return scored_rows.schema(self.judge.contract.arrow_schema.field(self.key), self.scorer.manifest)

    def run(self, write: Write, rejections: Rejections, at: datetime, bar: Bar) -> None:
        """Read, judge, score and write all rows.

        Raises:
            ContractError: a file lacks a column, or has it with another type.
            UnreadableFileError, FileChangedError, FileNotFoundError: a file is no whole file, or not what it was.
            ScoringError: the model is at fault.
        """
        schema, version = self.schema, self.scorer.manifest.version
        stamp = pa.scalar(at, pa.timestamp("us", "UTC"))
        with contextlib.closing(self._blocks()) as blocks, contextlib.closing(self.scorer.score(blocks)) as results:
            for scored in results:
                block = self._waiting.popleft()
                judged = block.judged
                write(batch := scored_rows.rows(scored, version, stamp, schema))
                self._count(judged, scored, batch)
                rejections.add(judged.rejected())
                rejections.add(scored_rows.failed(scored, self.key))
                bar.show(block.share, self.ledger.rows_in)
        rejections.flush()

    def _blocks(self) -> Generator[pa.RecordBatch, None, None]:
        """Accepted rows with where each came from, block by block; runs in whichever thread of the scorer reads."""
        done = 0
        for file in self._source.files:
            where = f"{self._source.folder.uri}/{file.path}"
            csv, columns = self._pipeline.spec.input.csv, self.judge.contract.columns
            with landing_files.open_rows(self._source.folder, file, csv, columns) as rows:
                if extra := self.judge.contract.unexpected(rows.schema, where, is_text=rows.is_text):
                    self._note(f"{where}: columns that the schema does not know are ignored: {', '.join(extra)}")
                name = pa.array([file.path])
                read = self.judge.judge(rows.read(0, _ALL), file.path, is_text=rows.is_text, helpers=1)
                with contextlib.closing(read) as blocks:
                    for judged in blocks:
                        self.ledger.read(file.path, len(judged.block))
                        self.accepted_keys += key_index.identity(key_index.hash64(judged.accepted.column(self.key)))
                        share = (done + rows.share * file.size) / max(self._source.size, 1)
                        self._waiting.append(Block(judged, share))
                        places = pa.DictionaryArray.from_arrays(np.zeros(len(judged.numbers), np.int8), name)
                        batch = judged.accepted.append_column("source_file", places)
                        yield batch.append_column("row_number", pa.array(judged.numbers, pa.int64()))
            done += file.size

    def _count(self, judged: Judged, scored: Scored, written: pa.RecordBatch) -> None:
        """Account for a block's rows: what was to be scored, and what is written."""
        self.accepted += judged.accepted.num_rows
        self.scored += written.num_rows
        self.counts.add(judged.accepted)
        self.tally.add(scored)
        self.ledger.settle(judged.file, scored.rows.column("row_number").to_numpy())
        self.written_keys += key_index.identity(key_index.hash64(written.column(self.key)))
        self.failed_keys += scored_rows.failed_keys(scored, self.key)

    def findings(self, quarantined: dict[str, dict[str, int]], run_id: str) -> list[Finding]:
        """What the checks say, before anything is shown; those that compare with days before have nothing to say."""
        source, thresholds, manifest = self._source.uri, self._pipeline.spec.checks, self.scorer.manifest
        features = ShardAccount(
            digest="",
            source=source,
            run_id=run_id,
            rows_in=self.ledger.rows_in,
            rows=self.accepted,
            quarantined={stage: n for stage, n in quarantined.items() if stage in quarantine.STAGES_OF_FEATURES},
            categories=self.counts.categories,
        )
        predictions = ShardAccount(
            digest="",
            source=source,
            run_id=run_id,
            rows_in=self.accepted,
            rows=self.scored,
            keys=self.written_keys % 2**64,
            quarantined={stage: n for stage, n in quarantined.items() if stage in quarantine.STAGES_OF_PREDICTIONS},
            missing_identity=(self.accepted_keys - self.written_keys - self.failed_keys) % 2**64,
            **self.tally.figures(),
        )
        return [
            self._conservation(features, predictions),
            self._uniqueness(),
            feature_checks.acceptance([features]),
            feature_checks.quarantine_size([features, predictions], thresholds, features.rows_in),
            feature_checks.known_categories(feature_checks.categories_of([features]), manifest.categorical, thresholds),
            prediction_checks.probabilities([predictions], self.accepted),
        ]

    def _conservation(self, features: ShardAccount, predictions: ShardAccount) -> Finding:
        rejected = features.rows_quarantined + predictions.rows_quarantined
        damaged = self.ledger.damaged
        sound = features.rows_in == self.scored + rejected and not damaged and not predictions.missing_identity
        where = f"; rows are lost or doubled of {', '.join(damaged) or 'the accepted ones'}: report this" * (not sound)
        return Finding(
            "rows_are_conserved",
            sound,
            f"{features.rows_in} rows read, {self.scored} scored, {rejected} in the quarantine{where}",
            {"rows_in": features.rows_in, "rows": self.scored, "rows_quarantined": rejected},
            observed=self.scored + rejected,
            expected=f"{features.rows_in} rows",
        )

    def _uniqueness(self) -> Finding:
        distinct = len(self.judge.seen)
        return Finding(
            "keys_are_unique", distinct == self.accepted, f"{self.accepted} accepted rows have {distinct} distinct keys"
        )
