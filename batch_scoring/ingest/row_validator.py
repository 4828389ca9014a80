"""Validation of rows: each row that is read is either accepted, or rejected with a reason.

The contract validates each block of rows separately. Of rows with equal keys the first one is accepted, so files are
read newest first. A day's rows and those of files on the command line are validated in the same way.
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
    """A block of rows of one file, split into accepted and rejected rows."""

    accepted: pa.RecordBatch
    """The key and the features, typed."""
    numbers: np.ndarray
    """int64: the number of each accepted row."""
    duplicates: tuple[int, ...]
    """Numbers of the rows that were rejected because their key had been seen before."""
    block: Rows
    reasons: Rejections
    """Reasons of the rejected rows that could be parsed, by position in the block."""
    key: str
    file: str

    def rejected(self) -> Iterator[quarantine.Rejected]:
        """Yield every row of the block that was not accepted."""
        for row in self.block.broken:
            yield quarantine.from_broken(row, self.file)
        yield from quarantine.from_rows(self.block.batch, self.block.numbers, self.reasons, self.key, self.file)

    def quarantine(self) -> tuple[list[quarantine_blocks.Block], Iterator[quarantine.Rejected]]:
        """Return the same rows: as many as possible in blocks, and the others one by one."""
        place = self.block.batch, self.block.numbers
        blocks, others = quarantine_blocks.blocks_of(*place, self.reasons, self.key, self.file)
        rows = quarantine.from_rows(*place, self.reasons, self.key, self.file, others)
        return blocks, itertools.chain((quarantine.from_broken(row, self.file) for row in self.block.broken), rows)

    @property
    def rejected_numbers(self) -> np.ndarray:
        """int64: the number of each rejected row, in no particular order."""
        return np.concatenate([self.block.numbers[self.reasons.positions], self.block.broken.numbers])


class RowValidator:
    """A contract, and the keys that have been accepted so far."""

    def __init__(self, contract: Contract) -> None:
        self.contract = contract
        self.seen = key_index.KeyIndex()

    def validate(
        self, blocks: Iterable[Rows], file: str, *, is_text: bool, helpers: int
    ) -> Generator[ValidatedRows, None, None]:
        """Validate the next blocks; blocks of the newest file must come first.

        The contract is applied in `helpers` additional threads; the check for duplicate keys then follows in order.
        """

        def validated(block: Rows) -> tuple[Rows, ValidationResult]:
            return block, self.contract.validate(block.batch, is_text=is_text)

        with contextlib.closing(in_order(validated, blocks, helpers)) as results:
            for block, found in results:
                yield self.admit(block, found, file)

    def admit(self, block: Rows, result: ValidationResult, file: str) -> ValidatedRows:
        """Reject accepted rows whose key has been seen before, and remember the keys of the others."""
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
