"""Rows of the quarantine without an object for each: where many rows of a record batch are rejected, and most plainly.

A day of which a column is wrong in every row is to take little longer than others. A row is plain if its cells are
short and have no blanks around them; the others, and rows with nested values, are put into words one by one
(`quarantine.py`).
"""

import functools
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.ingest import quarantine
from batch_scoring.ingest.schema.contract import Rejections, Shared, Stage, plain_cells

_MANY = 512
"""Rejected rows of a record batch from which on they are worth it."""

_LONGEST = 128
"""Bytes of a plain cell."""


@dataclass(frozen=True)
class Block:
    """Rows that were rejected in one stage."""

    stage: Stage
    rows: pa.RecordBatch
    """As the quarantine table has them, in the order of their file."""
    counts: dict[str, int]
    """By reason, as accounts have them."""


def blocks_of(
    batch: pa.RecordBatch, numbers: np.ndarray, reasons: Rejections, key: str, source_file: str
) -> tuple[list[Block], np.ndarray]:
    """The plain ones of the rejected rows; and the positions of the others."""
    positions = reasons.positions
    if len(positions) < _MANY or not all(_is_simple(field.type) for field in batch.schema):
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
    """What was wrong in each of some rows, and whether it can be shown in full."""
    if group.stage == "read":  # the cell as it stands
        shown = cells[group.column].shown.take(pa.array(np.searchsorted(positions, rows)))
        return shown, _is_printable(shown)
    texts = _Texts(group.values, np.searchsorted(group.rows, rows))
    return texts.shown, texts.is_plain & _is_printable(texts.shown)


def _is_printable(texts: pa.Array) -> np.ndarray:
    """bool[rows]: texts that a terminal shows as they stand, for certain."""
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
        """As a person reads it; null if there is nothing, or too much."""

    @property
    def in_json(self) -> pa.Array:
        """As a JSON object has it."""
        if self._cells:
            return pa.array(quarantine.as_json(self._cells), pa.string())
        return self.shown.fill_null("null") if self._is_number else _as_json(self.shown)

    @functools.cached_property
    def is_plain(self) -> np.ndarray:
        """bool[rows]: what is short, with no blanks around it, so that it is shown everywhere in full."""
        wrong = pc.greater(pc.binary_length(self.shown), _LONGEST)
        if _may_have_blanks_around(self.shown):
            trimmed = pc.utf8_trim_whitespace(self.shown)
            wrong = pc.or_(wrong, pc.not_equal(pc.binary_length(trimmed), pc.binary_length(self.shown)))
        found: np.ndarray = pc.fill_null(wrong, False).to_numpy(zero_copy_only=False) | self._is_long
        return ~found


def _is_simple(kind: pa.DataType) -> bool:
    """Whether values of a type are taken here; those of nested ones, and views, are not."""
    if pa.types.is_dictionary(kind):
        return _is_simple(kind.value_type)
    return _is_text(kind) or pa.types.is_primitive(kind) or pa.types.is_decimal(kind) or pa.types.is_null(kind)


def _is_text(kind: pa.DataType) -> bool:
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    return bool(text or pa.types.is_binary(kind) or pa.types.is_large_binary(kind))


def _utf8(values: pa.Array) -> pa.Array | None:
    """The texts of a column; None if it has no texts, or one that is not UTF-8."""
    if not _is_text(values.type):
        return None
    try:
        return values.cast(pa.binary()).cast(pa.string())  # looks at the bytes
    except pa.ArrowInvalid:
        return None


def _without_long(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """A column with null for every long text, and where they are; a dictionary's are never written out."""
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
    """Texts as JSON has them. A look at all bytes is cheap, and most have nothing to escape."""
    offsets, data = _bytes_of(texts)
    data = data[offsets[0] : offsets[-1]]
    if ((data < ord(" ")) | (data == ord('"')) | (data == ord("\\"))).any():
        return pa.array(quarantine.as_json(texts.to_pylist()), pa.string())
    return pc.binary_join_element_wise('"', texts, '"', "").fill_null("null")


def _may_have_blanks_around(texts: pa.Array) -> bool:
    """Whether a text begins or ends with a byte that is a blank, or may be a part of one."""
    offsets, data = _bytes_of(texts)
    filled = np.flatnonzero(np.diff(offsets))
    edges = data[np.concatenate([offsets[filled], offsets[filled + 1] - 1])]
    return bool(((edges <= ord(" ")) | (edges >= 0x80)).any())


def _bytes_of(texts: pa.Array) -> tuple[np.ndarray, np.ndarray]:
    """int32[rows + 1] and uint8: where each text begins and ends, and all bytes."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)[texts.offset : texts.offset + len(texts) + 1]
    return offsets, np.frombuffer(texts.buffers()[2] or b"", np.uint8)


def _raw(columns: dict[str, _Texts]) -> pa.Array:
    """Each row's cells as a JSON object."""
    parts: list[object] = []
    for name, found in columns.items():
        parts += [f"{', ' if parts else '{'}{quarantine.as_json([name])[0]}: ", found.in_json]
    return pc.binary_join_element_wise(*parts, "}", "")
