"""Quarantine rows in bulk, without an object per row, for record batches in which many rows are rejected.

A day on which a column is wrong in every row should take little longer than any other. A row qualifies if its cells are
short and not surrounded by blanks; all other rows, and rows with nested values, are formatted one by one in
`quarantine.py`.
"""

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.ingest import quarantine
from batch_scoring.ingest.schema.contract import Rejections, Shared, Stage, plain_cells

_MIN_ROWS = 512
"""Minimum number of rejected rows in a record batch that makes bulk handling worthwhile."""

_LONGEST = 128
"""Maximum bytes of a cell that is handled in bulk."""


@dataclass(frozen=True)
class Block:
    """Rows rejected in one stage."""

    stage: Stage
    rows: pa.RecordBatch
    """Rows of the quarantine table, in file order."""
    counts: dict[str, int]
    """Rows by reason, as in the shard statistics."""


def blocks_of(
    batch: pa.RecordBatch, numbers: np.ndarray, reasons: Rejections, key: str, source_file: str
) -> tuple[list[Block], np.ndarray]:
    """Return the rejected rows that can be handled in bulk, and the positions of the others."""
    positions = reasons.positions
    if len(positions) < _MIN_ROWS or not all(_is_simple(field.type) for field in batch.schema):
        return [], positions
    cells = {name: _Texts(batch.column(name), positions) for name in batch.schema.names}
    is_plain = np.logical_and.reduce([column.is_plain for column in cells.values()])
    plain, odd = positions[is_plain], [positions[~is_plain]]
    raw = _raw(cells).filter(pa.array(is_plain))
    named = cells[key].shown.filter(pa.array(is_plain))
    parts: dict[Stage, list[tuple[Shared, pa.Table]]] = {}
    for group in reasons.groups:
        rows = group.rows[np.isin(group.rows, plain, assume_unique=True)]
        shown, is_shown = _values(group, rows, cells, positions)
        odd.append(rows[~is_shown])
        rows, shown = rows[is_shown], shown.filter(pa.array(is_shown))
        if len(rows):
            places = pa.array(np.searchsorted(plain, rows))
            said = [_constant(text, len(rows)) for text in (group.rule, group.column, source_file)]
            columns = [named.take(places), *said[:2], shown, said[2], pa.array(numbers[rows]), raw.take(places)]
            table = pa.Table.from_arrays(columns, schema=quarantine.schema(key))
            parts.setdefault(group.stage, []).append((group, table))
    return [_block(stage, found) for stage, found in parts.items()], np.sort(np.concatenate(odd))


def _values(
    group: Shared, rows: np.ndarray, cells: "dict[str, _Texts]", positions: np.ndarray
) -> tuple[pa.Array, np.ndarray]:
    """Return the invalid value of each of some rows, and whether it can be shown in full."""
    if group.stage == "read":  # the unconverted cell
        shown = cells[group.column].shown.take(pa.array(np.searchsorted(positions, rows)))
        return shown, _is_printable(shown)
    texts = _Texts(group.values, np.searchsorted(group.rows, rows))
    return texts.shown, texts.is_plain & _is_printable(texts.shown)


def _is_printable(texts: pa.Array) -> np.ndarray:
    """bool[rows]: whether each text is certain to be shown unchanged by a terminal."""
    odd = pc.match_substring_regex(texts, r"[^\x20-\x7e]")
    found: np.ndarray = pc.invert(pc.fill_null(odd, False)).to_numpy(zero_copy_only=False)
    return found


def _block(stage: Stage, parts: list[tuple[Shared, pa.Table]]) -> Block:
    counts: dict[str, int] = {}
    for shared, rows in parts:
        name = quarantine.reason_name(shared)
        counts[name] = counts.get(name, 0) + rows.num_rows
    table = pa.concat_tables([rows for _, rows in parts])
    if len(parts) > 1:
        table = table.sort_by("row_number")
    return Block(stage, table.combine_chunks().to_batches()[0], counts)


def _constant(text: str, rows: int) -> pa.Array:
    return pa.array([text]).take(pa.array(np.zeros(rows, np.int32)))


class _Texts:
    """A column as text."""

    def __init__(self, column: pa.Array, rows: np.ndarray) -> None:
        self._cells = list[object]()
        self._is_number = pa.types.is_integer(column.type)
        values, self._is_long = _without_long(column.take(pa.array(rows)))
        shown = values.cast(pa.string()) if self._is_number else _utf8(values)
        if shown is None:
            self._cells = plain_cells(values, np.arange(len(values)))
            shown = pa.array([None if cell is None else str(cell) for cell in self._cells], pa.string())
        self.shown: pa.Array = shown
        """Readable text; null if the cell is empty or too long."""

    @property
    def in_json(self) -> pa.Array:
        """Text as it appears in a JSON object."""
        if self._cells:
            return pa.array(quarantine.as_json(self._cells), pa.string())
        return self.shown.fill_null("null") if self._is_number else _as_json(self.shown)

    @functools.cached_property
    def is_plain(self) -> np.ndarray:
        """bool[rows]: whether a cell is short and not surrounded by blanks, and is therefore always shown in full."""
        wrong = pc.greater(pc.binary_length(self.shown), _LONGEST)
        if _may_have_blanks_around(self.shown):
            trimmed = pc.utf8_trim_whitespace(self.shown)
            wrong = pc.or_(wrong, pc.not_equal(pc.binary_length(trimmed), pc.binary_length(self.shown)))
        found: np.ndarray = pc.fill_null(wrong, False).to_numpy(zero_copy_only=False) | self._is_long
        return ~found


def _is_simple(kind: pa.DataType) -> bool:
    """Whether values of a type are handled here; nested types and views are not."""
    if pa.types.is_dictionary(kind):
        return _is_simple(kind.value_type)
    return _is_text(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _utf8(values: pa.Array) -> pa.Array | None:
    """Return the texts of a column; None if it is not text, or a value is not UTF-8."""
    if not _is_text(values.type):
        return None
    try:
        return values.cast(pa.binary()).cast(pa.string())  # validates the bytes
    except pa.ArrowInvalid:
        return None


def _without_long(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Return a column with null for each long text, and where those are; a dictionary is never expanded."""
    if pa.types.is_dictionary(values.type):
        words, is_long = _without_long(values.dictionary)
        places = values.indices.fill_null(len(words)).to_numpy()
        short = pa.DictionaryArray.from_arrays(values.indices, words).dictionary_decode()
        return short, np.append(is_long, False)[places]
    if not _is_text(values.type):
        return values, np.zeros(len(values), bool)
    is_long = pc.fill_null(pc.greater(pc.binary_length(values), _LONGEST), False)
    if pc.any(is_long).as_py():
        values = pc.if_else(is_long, pa.scalar(None, values.type), values)
    return values, is_long.to_numpy(zero_copy_only=False)


def _as_json(texts: pa.Array) -> pa.Array:
    """Escape texts for JSON. Scanning all bytes is cheap, and most texts have nothing to escape."""
    offsets, data = _bytes_of(texts)
    data = data[offsets[0] : offsets[-1]]
    if ((data < ord(" ")) | (data == ord('"')) | (data == ord("\\"))).any():
        return pa.array(quarantine.as_json(texts.to_pylist()), pa.string())
    return pc.binary_join_element_wise('"', texts, '"', "").fill_null("null")


def _may_have_blanks_around(texts: pa.Array) -> bool:
    """Whether a text begins or ends with a byte that is, or may be part of, a blank."""
    offsets, data = _bytes_of(texts)
    filled = np.flatnonzero(np.diff(offsets))
    edges = data[np.concatenate([offsets[filled], offsets[filled + 1] - 1])]
    return bool(((edges <= ord(" ")) | (edges >= 0x80)).any())


def _bytes_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """int32[rows + 1] and uint8: the offsets of the texts, and all their bytes."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return offsets, np.frombuffer(texts.buffers()[2] or b"", np.uint8)


def _raw(columns: dict[str, _Texts]) -> pa.Array:
    """Return each row's cells as a JSON object."""
    parts: list[object] = []
    for name, found in columns.items():
        parts += [f"{', ' if parts else '{'}{quarantine.as_json([name])[0]}: ", found.in_json]
    return pc.binary_join_element_wise(*parts, "}", "")
