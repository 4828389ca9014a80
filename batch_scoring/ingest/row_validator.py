"""Validation of the rows of a file: each is accepted or rejected, once, with a reason.

The contract validates a block of rows by itself; of rows with equal keys the one that is admitted first is accepted, so
files are read newest first. Days and files at the command line are validated alike: `daily/stream.py` runs this.
"""

import contextlib
import itertools
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from batch_scoring.ingest import key_index, quarantine, quarantine_blocks
from batch_scoring.ingest.formats.rows import Rows
from batch_scoring.ingest.schema.contract import Contract, Rejections, ValidationResult
from batch_scoring.runtime.parallel import in_order


@dataclass(frozen=True)
class ValidatedRows:
    """A block of rows of one file, split."""

    accepted: pa.RecordBatch
    """The key, then the features, typed."""
    numbers: np.ndarray
    """int64: the row number of each accepted row."""
    duplicates: tuple[int, ...]
    """Row numbers of those that were rejected because their key had been seen."""
    block: Rows
    reasons: Rejections
    """By position in the block, of the rows that could be parsed and are rejected."""
    key: str
    file: str

    def rejected(self) -> Iterator[quarantine.Rejected]:
        """Every row of the block that is not accepted."""
        for row in self.block.broken:
            yield quarantine.from_broken(row, self.file)
        yield from quarantine.from_rows(self.block.batch, self.block.numbers, self.reasons, self.key, self.file)

    def quarantine(self) -> tuple[list[quarantine_blocks.Block], Iterator[quarantine.Rejected]]:
        """The same rows: as many as can be in blocks, and the others."""
        place = self.block.batch, self.block.numbers
        blocks, others = quarantine_blocks.blocks_of(*place, self.reasons, self.key, self.file)
        rows = quarantine.from_rows(*place, self.reasons, self.key, self.file, others)
        return blocks, itertools.chain((quarantine.from_broken(row, self.file) for row in self.block.broken), rows)

    @property
    def rejected_numbers(self) -> np.ndarray:
        """int64: the row number of each rejected row, in no order."""
        return np.concatenate([self.block.numbers[self.reasons.positions], self.block.broken.numbers])


class RowValidator:
    """A contract with the keys that have been accepted so far."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.seen = key_index.KeyIndex()

    def validate(
        self, blocks: Iterable[Rows], file: str, *, is_text: bool, helpers: int
    ) -> Generator[ValidatedRows, None, None]:
        """Validate the next blocks; those of the newest file come first.

        The contract is applied in as many threads more (`runtime/parallel.py`); keys are looked up here, in order.
        """

        def result(block: Rows) -> tuple[Rows, ValidationResult]:
            return block, self.contract.validate(block.batch, is_text=is_text)

        with contextlib.closing(in_order(result, blocks, helpers)) as results:
            for block, found in results:
                yield self.admit(block, found, file)

    def admit(self, block: Rows, result: ValidationResult, file: str) -> ValidatedRows:
        """Turn away those of the accepted rows whose key has been seen; the keys of the others are seen from now on."""
        key, accepted = self.contract.key, result.accepted
        first = self.seen.add(accepted.column(key))
        reasons = result.rejected
        numbers = block.numbers[result.positions]
        duplicates: tuple[int, ...] = ()
        if not first.all():
            repeated = np.flatnonzero(~first)
            reasons.add("duplicate", "key_is_unique", key, result.positions[repeated], accepted.column(key), repeated)
            duplicates = tuple(numbers[repeated].tolist())
            accepted, numbers = accepted.take(pa.array(np.flatnonzero(first))), numbers[first]
        return ValidatedRows(accepted, numbers, duplicates, block, reasons, key, file)
