"""The stream of rows: read, validate, score, write, with one ledger of every row.

    landing file -> ValidationStage.run -> Batch -> ScoringStage.run -> Batch -> a shard or a file, and the quarantine

A day runs it in two halves: `validate.py` writes the accepted rows as features, `score.py` reads them back and writes
their scores. `batch-scoring score` runs it whole. Memory stays flat except for the keys seen: rows are read and
validated ahead of the scorer, scored beside the caller and written by it, a few batches at a time.
"""

import collections
import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Protocol

import numpy as np
import pyarrow as pa

from batch_scoring.config.spec import Csv
from batch_scoring.daily import scored_rows
from batch_scoring.daily.scored_rows import Unscored
from batch_scoring.daily.shard_stats import ColumnCounts, Tally
from batch_scoring.errors import RowsLostError
from batch_scoring.inference.scorer import ScoredBatch, Scorer
from batch_scoring.ingest import landing_files
from batch_scoring.ingest.formats.rows import BATCH_ROWS, FileRows, Rows
from batch_scoring.ingest.key_index import hash64, identity, mix64
from batch_scoring.ingest.quarantine import Rejected
from batch_scoring.ingest.quarantine_blocks import Block
from batch_scoring.ingest.row_validator import RowValidator, ValidatedRows
from batch_scoring.storage import parquet
from batch_scoring.storage.folders.folder import FileVersion, Folder
from batch_scoring.storage.state import LandingFile

PLACE = (pa.field("source_file", pa.string(), False), pa.field("row_number", pa.int64(), False))
"""Columns that say where a row was read."""

ALL_ROWS = 2**62
"""More rows than any file has."""


@dataclass
class RowTotal:
    """Number of rows, and the sum of their hashes modulo 2**64: equal for equal rows, in any order."""

    rows: int = 0
    identity: int = 0

    def add(self, hashes: np.ndarray) -> None:
        """Add rows, given the hash of each."""
        self.rows += len(hashes)
        self.identity = (self.identity + identity(hashes)) % 2**64


@dataclass
class Ledger:
    """The rows of a stage: each row received is kept or rejected, exactly once.

    Validation identifies a row by its number in the file, scoring by its key. One thread may add rows received while
    another adds rows kept and rejected.
    """

    received: RowTotal = field(default_factory=RowTotal)
    kept: RowTotal = field(default_factory=RowTotal)
    rejected: RowTotal = field(default_factory=RowTotal)

    @property
    def missing(self) -> int:
        """Identity of the rows received less that of those kept and rejected, modulo 2**64: 0 if none is lost."""
        return (self.received.identity - self.kept.identity - self.rejected.identity) % 2**64

    @property
    def is_balanced(self) -> bool:
        """Whether no row is lost, duplicated or exchanged for another one."""
        return self.received.rows == self.kept.rows + self.rejected.rows and not self.missing


class RejectedRows(Protocol):
    """Rows that a stage has rejected, on their way into the quarantine."""

    def rejected(self) -> Iterator[Rejected]:
        """All of them, one by one."""

    def quarantine(self) -> tuple[list[Block], Iterator[Rejected]]:
        """The same rows: as many as can be in blocks, and the others."""


@dataclass(frozen=True)
class Batch:
    """Rows that pass through the stages together."""

    rows: pa.RecordBatch
    """Rows that go on to the next stage."""
    rejected: tuple[RejectedRows, ...] = ()
    """Rows that were rejected, by stage."""
    progress: float = 0.0
    """Fraction of the input read when they were validated; 0 where no progress bar shows it."""


class ValidationStage:
    """The first stage: rows that meet the contract are accepted, with the place where each was read."""

    def __init__(self, validator: RowValidator, counts: ColumnCounts) -> None:
        self._validator, self.counts = validator, counts
        self.ledgers: collections.defaultdict[str, Ledger] = collections.defaultdict(Ledger)
        """By file."""
        self.keys = RowTotal()
        """Of the accepted rows, by key."""
        self.duplicates: list[int] = []
        """Row numbers of the rows that were rejected because their key had been seen."""

    def run(self, read: Iterable[Rows], file: str, *, start: int, is_text: bool, helpers: int) -> Generator[Batch]:
        """Validate rows of a file as they are read.

        Args:
            read: the next rows.
            file: its path.
            start: rows before the first of them.
            is_text: whether cells are bytes that are still to be cast.
            helpers: threads that validate beside the caller's.
        """
        ledger = self.ledgers[file]
        blocks = _counted(read, start, ledger.received)
        with contextlib.closing(self._validator.validate(blocks, file, is_text=is_text, helpers=helpers)) as found:
            for validated in found:
                self._record(validated, ledger)
                yield Batch(_with_place(validated), (validated,))

    def _record(self, validated: ValidatedRows, ledger: Ledger) -> None:
        ledger.kept.add(_row_hashes(validated.numbers))
        ledger.rejected.add(_row_hashes(validated.rejected_numbers))
        self.keys.add(hash64(validated.accepted.column(validated.key)))
        self.duplicates += validated.duplicates
        self.counts.add(validated.accepted)


class ScoringStage:
    """The second stage: accepted rows that the model can score become predictions."""

    def __init__(self, scorer: Scorer, schema: pa.Schema, accepted: RowTotal, at: datetime) -> None:
        """Begin.

        Args:
            scorer: the model.
            schema: of the predictions, see `scored_rows.schema`; the key first.
            accepted: the rows to score, by key.
            at: the time to write as `scored_at`.
        """
        self._scorer, self._schema, self._key = scorer, schema, schema.names[0]
        self._at = pa.scalar(at, pa.timestamp("us", "UTC"))
        self.ledger = Ledger(received=accepted)
        self.tally = Tally(scorer.manifest)

    def run(self, batches: Generator[Batch]) -> Generator[Batch]:
        """Score accepted rows; any idle thread of the scorer reads the next batch."""
        underway: collections.deque[Batch] = collections.deque()

        def rows() -> Iterator[pa.RecordBatch]:
            for batch in batches:
                underway.append(batch)
                yield batch.rows

        with contextlib.closing(batches), contextlib.closing(self._scorer.score(rows())) as results:
            for scored in results:
                batch = underway.popleft()
                predictions = scored_rows.rows(scored, self._scorer.manifest.version, self._at, self._schema)
                unscored = Unscored(scored, self._key)
                self._record(scored, predictions, unscored)
                yield replace(batch, rows=predictions, rejected=(*batch.rejected, unscored))

    def _record(self, scored: ScoredBatch, predictions: pa.RecordBatch, unscored: Unscored) -> None:
        self.ledger.kept.add(hash64(predictions.column(self._key)))
        self.ledger.rejected.add(hash64(unscored.keys))
        self.tally.add(scored)


def ensure_written(counted: int, written: int, where: str) -> None:
    """Compare what was counted with what was written.

    Raises:
        RowsLostError: they differ.
    """
    if counted != written:
        raise RowsLostError(f"{where}: {counted} rows were counted and {written} were written: report this bug")


@contextlib.contextmanager
def open_rows(
    folder: Folder,
    file: FileVersion | LandingFile,
    csv: Csv,
    validator: RowValidator,
    note: Callable[[str], object],
    batch_rows: int = BATCH_ROWS,
) -> Iterator[FileRows]:
    """Open a file for the columns of the contract; those that the contract does not know are reported and ignored.

    Raises:
        ContractError: it lacks a column, or has it with another type.
        UnreadableFileError, FileChangedError, FileNotFoundError: see `landing_files.open_rows`.
    """
    with landing_files.open_rows(folder, file, csv, validator.contract.columns, batch_rows) as rows:
        where = f"{folder.uri}/{file.path}"
        if extra := validator.contract.unexpected(rows.schema, where, is_text=rows.is_text):
            note(f"{where}: columns that the schema does not know are ignored: {', '.join(extra)}")
        yield rows


def _counted(blocks: Iterable[Rows], start: int, received: RowTotal) -> Iterator[Rows]:
    """Add the rows of a file to a total as they are read; they are numbered without a gap."""
    for block in blocks:
        received.add(_row_hashes(np.arange(start + 1, start + len(block) + 1)))
        start += len(block)
        yield block


def _with_place(validated: ValidatedRows) -> pa.RecordBatch:
    """The accepted rows, each with where it was read."""
    place = [parquet.constant(validated.file, len(validated.numbers)), pa.array(validated.numbers, pa.int64())]
    names = [*validated.accepted.schema.names, *(field.name for field in PLACE)]
    return pa.RecordBatch.from_arrays([*validated.accepted.columns, *place], names=names)


def _row_hashes(numbers: np.ndarray) -> np.ndarray:
    return mix64(numbers.astype(np.uint64))
