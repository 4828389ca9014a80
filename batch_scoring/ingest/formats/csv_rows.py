"""The rows of a CSV file, as text.

`csv_records.py` finds the records of a block, Arrow splits them into cells; the number of rows that Arrow returns for
each block is compared with the number of records found. Rows are numbered from 1 after the header; blank lines are not
counted. The error message of a row that cannot be parsed begins with its line number, as a text editor shows it.
"""

import functools
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.csv

from batch_scoring.config.spec import Csv
from batch_scoring.errors import UnreadableFileError
from batch_scoring.ingest.formats.csv_records import Dialect, Fault, Records, count_lines, records
from batch_scoring.ingest.formats.rows import ALL_ROWS, BrokenRow, BrokenRows, Rows
from batch_scoring.ingest.formats.text_stream import BOM, Blocks, StreamedRows, Text

BLOCK = 8 * 1024 * 1024
"""Bytes parsed at a time; also the maximum length of a row in a CSV file."""
_OPEN_QUOTE = "a quote may be left open; close it and upload the file again"
_ASCII = bytes([*range(128), *b"?" * 128])
"""For `bytes.translate`: replaces non-ASCII bytes; delimiters, quotes and line breaks keep their value and place."""


class CsvRows(StreamedRows):
    """The rows of an open CSV file."""

    is_text = True

    def __init__(
        self, stream: BinaryIO, csv: Csv, size: int, *, compressed: bool, columns: Iterable[str] | None = None
    ) -> None:
        """Read the header.

        Args:
            stream: the open file.
            csv: its dialect.
            size: size of the file in bytes.
            compressed: whether it is a gzip file.
            columns: columns to read; all if None.
        """
        super().__init__(Text(stream, compressed=compressed), size)
        self._csv, self._dialect = csv, Dialect(csv)
        self._source = Blocks(self._text, BLOCK, _OPEN_QUOTE)
        self._names = self._header()
        self.schema = pa.schema([(name, pa.binary()) for name in self._names])
        wanted = self._names if columns is None else set(columns)
        self._wanted = [name for name in self._names if name in wanted] or self._names[:1]
        self._rows = 0  # rows in the blocks parsed so far

    def _count(self) -> int:
        for _ in self._numbered_rows:
            pass
        return self._rows

    def _header(self) -> list[str]:
        """Return the column names, from the first line that is not blank."""
        block = self._source.take()
        content = block.removeprefix(BOM)
        first = content.find(b"\n", len(content) - len(content.lstrip(b"\r\n"))) + 1
        found = records(content[:first], self._dialect, is_last=False) if first else None
        if not found:  # it spans several lines, or is never terminated
            found = records(content, self._dialect, is_last=self._source.is_last)
        if not found:
            if found.open_at is not None:
                raise UnreadableFileError(self._open_quote(1))
            raise UnreadableFileError("it has no header line: upload it again")
        if fault := found.faults.get(0):
            raise UnreadableFileError(f"its header: {fault.detail}; correct the header and upload it again")
        end = int(found.ends[0])
        self._lines = count_lines(content[:end])  # lines parsed so far
        self._first = content[end:]  # not given back: what is taken again must end in what is read then
        header = found.rewritten.get(0, content[found.starts[0] : end])
        names = list(self._arrow(header, pa.csv.ReadOptions(use_threads=False), {}).schema.names)
        return [name.strip() for name in names] if self._csv.trim else names

    def _numbered(self) -> Iterator[Rows]:
        while block := self._first or self._source.take():
            self._first = b""
            rows = self._parsed(block)
            self._rows += len(rows)
            if len(rows):
                yield from self._parts(rows)
        self._source.verify()

    def _parts(self, rows: Rows) -> Iterator[Rows]:
        """Yield the rows in parts of at most `batch_rows`, each with the broken rows that precede its last row."""
        if rows.batch.num_rows <= self.batch_rows:
            yield rows
            return
        start = 0
        for stop in [*rows.numbers[self.batch_rows - 1 : -1 : self.batch_rows].tolist(), ALL_ROWS]:
            yield rows.between(start, stop)
            start = stop

    def _parsed(self, block: bytes) -> Rows:
        if self._dialect.is_simple(block):
            lines = count_lines(block)
            try:
                batch = self._cells(block)
            except pa.ArrowInvalid:  # a row with too few or too many cells
                batch = None
            if batch is not None and batch.num_rows == lines:
                self._lines += lines
                return Rows(batch, np.arange(self._rows + 1, self._rows + lines + 1))
        return self._parsed_by_record(block)

    def _parsed_by_record(self, block: bytes) -> Rows:
        """Parse a block that contains quotes, escapes, blank lines, or rows that cannot be parsed."""
        found = records(block, self._dialect, is_last=self._source.is_last)
        if found.open_at is not None:
            if self._source.is_last:
                raise UnreadableFileError(self._open_quote(self._lines + found.line_count + 1))
            self._source.give_back(block[found.open_at :])
        kept, text = found.sound()
        try:
            batch = self._cells(text)
        except pa.ArrowInvalid:
            ragged, batch = self._skipping_ragged(kept, text)
            found.faults |= ragged
            kept, sound = found.sound()
            if not text.isascii():
                batch = self._cells(sound)
        if batch.num_rows != len(kept):
            raise UnreadableFileError(
                f"lines {self._lines + 1} to {self._lines + found.line_count} contain {len(kept)} rows, but "
                f"{batch.num_rows} were parsed: rows would be lost or duplicated; please report this bug"
            )
        row, line = self._rows + 1, self._lines + 1
        broken = BrokenRows(
            np.array(sorted(found.faults), np.int64) + row,
            lambda number: _broken_row(found, number - row, number, line),
        )
        self._lines += found.line_count
        return Rows(batch, row + kept, broken)

    def _skipping_ragged(self, kept: np.ndarray, text: bytes) -> tuple[dict[int, Fault], pa.RecordBatch]:
        """Return the records with more or fewer cells than the header, and the cells of all other records.

        Arrow reports such a row as text and fails if it is not UTF-8; so it is given ASCII, and returns no cells.
        """
        faults: dict[int, Fault] = {}

        def skip(row: pa.csv.InvalidRow) -> str:
            faults[int(kept[row.number - 1])] = _ragged(row.actual_columns, row.expected_columns)
            return "skip"

        return faults, self._cells(text if text.isascii() else text.translate(_ASCII), skip)

    def _cells(self, text: bytes, on_invalid: object = None) -> pa.RecordBatch:
        """Return the cells of records, unconverted."""
        wanted = pa.schema([(name, pa.binary()) for name in self._wanted])
        if not text:
            return pa.RecordBatch.from_pylist([], wanted)
        options = pa.csv.ReadOptions(use_threads=False, block_size=len(text) + 1, column_names=self._names)
        table = self._arrow(text, options, dict.fromkeys(self._wanted, pa.binary()), on_invalid)
        batches = table.combine_chunks().to_batches()
        return batches[0] if batches else pa.RecordBatch.from_pylist([], wanted)

    def _arrow(
        self, text: bytes, options: pa.csv.ReadOptions, types: dict[str, pa.DataType], on_invalid: object = None
    ) -> pa.Table:
        return pa.csv.read_csv(
            pa.BufferReader(text),
            read_options=options,
            parse_options=pa.csv.ParseOptions(
                delimiter=self._csv.delimiter,
                quote_char=self._csv.quote_char or False,
                escape_char=self._csv.escape or False,
                newlines_in_values=self._csv.newlines,
                invalid_row_handler=on_invalid,
            ),
            convert_options=pa.csv.ConvertOptions(
                column_types=types,
                include_columns=list(types),
                null_values=list(self._csv.null_values),
                strings_can_be_null=True,
                quoted_strings_can_be_null=False,
                check_utf8=False,
            ),
        )

    def _open_quote(self, line: int) -> str:
        return (
            f"a quote that opens on line {line} is never closed, so this row swallows the rest of the file; close the "
            "quote, or upload the whole file if this one is truncated"
        )


def _broken_row(found: Records, at: int, number: int, first_line: int) -> BrokenRow:
    fault = found.faults[at]
    detail = f"line {first_line + int(found.lines[at])}: {fault.detail}"
    return BrokenRow(number, detail, found.text(at).decode("utf-8", "backslashreplace"), fault.rule)


@functools.lru_cache(maxsize=256)
def _ragged(cells: int, expected: int) -> Fault:
    return Fault("cells_match_header", f"{cells} cell{'s' * (cells != 1)}, but the header has {expected}")
