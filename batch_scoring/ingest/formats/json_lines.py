"""The rows of a JSON Lines file: one object on each line; a field that an object lacks is null.

Arrow reads a block of lines into the declared types, and stops at the first line that does not fit. Such a block is
halved until that line stands alone: it is rejected, and no other row with it. Arrow itself knows no lines (it reads two
objects on one line, and one over two, as three rows), so lines that do not begin and end like an object never reach it:
then no object can span lines, and as many rows as lines are one row on each. A `null` in the place of an object would
end the process: https://github.com/apache/arrow/issues/47409.

Rows are numbered by line, and every line is a row; only blank lines at the end of the file are not.
"""

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.json

from batch_scoring.ingest.formats import json_values
from batch_scoring.ingest.formats.json_values import BLANKS, Fields
from batch_scoring.ingest.formats.rows import BrokenRow, BrokenRows, Rows
from batch_scoring.ingest.formats.text_stream import BOM, Blocks, StreamedRows, Text
from batch_scoring.ingest.schema import casting

if TYPE_CHECKING:
    from batch_scoring.ingest.schema.compiled import Column

Part: TypeAlias = tuple[np.ndarray, pa.Table]
"""Positions of lines, and their rows."""

BLOCK = 8 * 1024 * 1024
"""Bytes parsed at a time; also the maximum length of a line."""
HEAD_LINES = 1_000
"""Number of first lines that tell which fields a file has."""

_NO_LINES = "expected one JSON object on each line"
_FEW = 1_024
"""Number of lines, one of them bad, that are looked at one by one before they are halved further."""
_LF, _CR = ord("\n"), ord("\r")


@dataclass(frozen=True)
class Lines:
    """Consecutive lines of a block."""

    block: bytes
    starts: np.ndarray
    """int64: where each line begins."""
    ends: np.ndarray
    """int64: where each line ends, before its line ending."""

    def __len__(self) -> int:
        """Number of lines."""
        return len(self.starts)

    def part(self, start: int, stop: int) -> "Lines":
        """Return some of the lines."""
        return Lines(self.block, self.starts[start:stop], self.ends[start:stop])

    def text(self, position: int) -> bytes:
        """Return a line without its line ending."""
        return self.block[self.starts[position] : self.ends[position]]

    def joined(self, positions: np.ndarray) -> bytes:
        """Return some of the lines, ascending."""
        if positions[-1] - positions[0] == len(positions) - 1:
            return self.block[self.starts[positions[0]] : self.ends[positions[-1]]]
        return b"\n".join(map(self.text, positions.tolist()))

    @property
    def objects(self) -> np.ndarray:
        """Positions of the lines that begin and end like an object, whatever blanks are around it."""
        data = np.frombuffer(self.block, np.uint8)
        likely = (data[self.starts] == ord("{")) & (data[self.ends - 1] == ord("}"))
        for at in np.flatnonzero(~likely).tolist():
            content = self.text(at).strip(BLANKS)
            likely[at] = content.startswith(b"{") and content.endswith(b"}")
        return np.flatnonzero(likely)


def lines_of(block: bytes) -> Lines:
    """Find the lines of a block; a line ends with a line feed, or a carriage return and a line feed."""
    data = np.frombuffer(block, np.uint8)
    feeds = np.flatnonzero(data == _LF)
    ends = feeds if not block or block.endswith(b"\n") else np.append(feeds, len(block))
    starts = np.append(0, feeds + 1)[: len(ends)]
    return Lines(block, starts, ends - ((ends > starts) & (data[ends - 1] == _CR)))


class JsonLines(StreamedRows):
    """The rows of an open JSON Lines file."""

    is_text = False

    def __init__(
        self, stream: BinaryIO, size: int, *, compressed: bool, columns: "Iterable[str] | Mapping[str, Column] | None"
    ) -> None:
        """Look at the first lines for the names of the fields.

        Args:
            stream: the open file.
            size: of the file, in bytes.
            compressed: whether it is a gzip file.
            columns: columns to read, with their declarations; without them, in the types of the first lines. All that
                are neither arrays nor objects if None.
        """
        super().__init__(Text(stream, compressed=compressed), size)
        self._source = Blocks(self._text, BLOCK, _NO_LINES, line_feeds_only=True)
        self._first = self._source.take().removeprefix(BOM)
        if self._first.count(b"\n") < HEAD_LINES:  # a block ends at a line end, and the last line may have none
            self._first += self._source.take()
        lines = lines_of(self._first)
        found = json_values.inferred_types(map(lines.text, range(min(len(lines), HEAD_LINES))))
        declared: Mapping[str, Column] = columns if isinstance(columns, Mapping) else {}
        self.schema = _file_schema(found, declared)
        wanted = [name for name in found if not pa.types.is_nested(found[name])] if columns is None else columns
        self._types = {name: declared[name].type if name in declared else found.get(name, pa.null()) for name in wanted}
        self._coerced = {name for name in self._types if name in declared and declared[name].coerce}
        self._arrow_schema = pa.schema([(name, _type_in_json(kind)) for name, kind in self._types.items()])

    def _count(self) -> int:
        return sum(len(lines_of(block)) for block in self._blocks())

    def _blocks(self) -> Iterator[bytes]:
        """Yield blocks of whole lines, without the blank lines at the end of the file."""
        while block := self._first or self._source.take():
            self._first = b""
            content = len(block.rstrip(BLANKS))
            end = (block.find(b"\n", content) + 1 or len(block)) if content else 0
            if not self._source.is_last:
                self._source.give_back(block[end:])
            if end:
                yield block[:end]
        self._source.verify()

    def _numbered(self) -> Iterator[Rows]:
        first = 1
        for block in self._blocks():
            lines = lines_of(block)
            for start in range(0, len(lines), self.batch_rows):
                part = lines.part(start, start + self.batch_rows)
                yield self._parsed(part, first)
                first += len(part)

    def _parsed(self, lines: Lines, first: int) -> Rows:
        """Return lines as rows; `first` is the number of the first one."""
        parts = list(self._readable(lines, lines.objects, self._arrow_schema))
        if self._coerced and sum(len(at) for at, _ in parts) < len(lines):
            parts = self._with_coercible(lines, parts)
        batch, read = _in_order(parts, self._arrow_schema)
        numbers = first + np.setdiff1d(np.arange(len(lines)), read, assume_unique=True)
        return Rows(batch, first + read, BrokenRows(numbers, lambda number: self._broken(lines, number, first)))

    def _readable(self, lines: Lines, at: np.ndarray, schema: pa.Schema) -> Iterator[Part]:
        """Yield those of the lines at `at` that Arrow can read, in parts without an unreadable line, ascending."""
        if not len(at):
            return
        table = _read(lines.joined(at), schema)
        if table is not None and table.num_rows == len(at):
            yield at, table
        elif len(at) > 1:
            fitting = at if len(at) > _FEW else self._without_misfits(lines, at, schema)
            middle = len(fitting) // 2
            yield from self._readable(lines, fitting[:middle], schema)
            yield from self._readable(lines, fitting[middle:], schema)

    def _without_misfits(self, lines: Lines, at: np.ndarray, schema: pa.Schema) -> np.ndarray:
        """Return `at` without the lines that Arrow certainly refuses: alone, each would take two calls of it."""
        types = {name: self._types[name] for name in schema.names}

        def is_misfit(line: bytes) -> bool:
            with contextlib.suppress(ValueError):
                return bool(json_values.misfits(json_values.parse(line), types))
            return False

        return at[[not is_misfit(lines.text(position)) for position in at.tolist()]]

    def _with_coercible(self, lines: Lines, parts: list[Part]) -> list[Part]:
        """Return the parts and the lines that fit under coercion; columns that coerce are then text, for the contract.

        Of these lines Arrow reads the other columns, so that it decides about every line.
        """
        refused = np.setdiff1d(lines.objects, np.concatenate([np.zeros(0, np.int64), *(at for at, _ in parts)]))
        found = {position: fields for position in refused.tolist() if (fields := self._coercible(lines.text(position)))}
        others = pa.schema([field for field in self._arrow_schema if field.name not in self._coerced])
        added = [
            (at, self._with_text(table, [found[position] for position in at.tolist()]))
            for at, table in self._readable(lines, np.array(list(found), np.int64), others)
        ]
        if not added:
            return parts
        return [(at, table.cast(added[0][1].schema)) for at, table in parts] + added

    def _coercible(self, line: bytes) -> Fields | None:
        """Return the fields of a line if all of them fit under coercion."""
        try:
            fields = json_values.parse(line)
        except ValueError:
            return None
        if not json_values.is_utf8(line):  # its text as Python sees it is not what stands there
            return None
        misfits = json_values.misfits(fields, self._types)
        fits = all(
            name in self._coerced and json_values.is_coercible(fields[name], self._types[name]) for name in misfits
        )
        return fields if fits else None

    def _with_text(self, table: pa.Table, rows: list[Fields]) -> pa.Table:
        """Return a table with the columns that coerce, as text."""
        columns = [
            pa.array([json_values.as_text(row.get(name), self._types[name]) for row in rows], pa.string())
            if name in self._coerced
            else table.column(name)
            for name in self._types
        ]
        return pa.Table.from_arrays(columns, list(self._types))

    def _broken(self, lines: Lines, number: int, first: int) -> BrokenRow:
        line = lines.text(number - first)
        rule, detail = json_values.explain(line, self._types, self._coerced)
        text = line.decode("utf-8", "backslashreplace")
        return BrokenRow(number, f"line {number}: {detail or _refusal(line, self._arrow_schema)}", text, rule)


def _file_schema(found: Mapping[str, pa.DataType], declared: "Mapping[str, Column]") -> pa.Schema:
    """Return the columns of a file: its fields, and those that may be missing, which are null then.

    A file without a single object lacks no column: each of its lines is rejected for its own reason.
    """
    absent = [column for column in declared.values() if column.name not in found and (column.nullable or not found)]
    fields = {name: declared[name].type if name in declared else kind for name, kind in found.items()}
    return pa.schema([*fields.items(), *((column.name, column.type) for column in absent)])


def _type_in_json(kind: pa.DataType) -> pa.DataType:
    """Return the type in which Arrow reads values of a declared type; the contract casts them to it, cell by cell."""
    wide = {"integer": pa.int64(), "floating": pa.float64(), "timestamp": pa.string(), "date": pa.string()}
    return wide.get(casting.kind_of(kind), kind)


def _read(text: bytes, schema: pa.Schema) -> pa.Table | None:
    """Return the rows of some lines; None if one of them cannot be read."""
    try:
        return _parse(text, schema)
    except pa.ArrowInvalid:
        return None


def _parse(text: bytes, schema: pa.Schema) -> pa.Table:
    return pa.json.read_json(
        pa.BufferReader(text),
        read_options=pa.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
        parse_options=pa.json.ParseOptions(explicit_schema=schema, unexpected_field_behavior="ignore"),
    )


def _refusal(line: bytes, schema: pa.Schema) -> str:
    """Return why Arrow does not read a line in which Python sees nothing wrong."""
    try:
        _parse(line, schema)
    except pa.ArrowInvalid as error:
        return str(error).removeprefix("JSON parse error: ").removesuffix(" in row 0")
    return _NO_LINES


def _in_order(parts: list[Part], schema: pa.Schema) -> tuple[pa.RecordBatch, np.ndarray]:
    """Return all parts as one record batch, in order of their positions, and these."""
    if not parts:
        return pa.RecordBatch.from_pylist([], schema), np.zeros(0, np.int64)
    positions = np.concatenate([at for at, _ in parts])
    table = pa.concat_tables([table for _, table in parts])
    if (np.diff(positions) < 0).any():
        table = table.take(pa.array(np.argsort(positions)))
    [batch] = table.combine_chunks().to_batches()
    return batch, np.sort(positions)
