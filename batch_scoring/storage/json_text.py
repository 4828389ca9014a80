"""Cells as JSON text, a column at a time by Arrow; what Arrow cannot write, by Python."""

import json
import math

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def json_text(values: pa.Array) -> pa.Array:
    """Each value as JSON; null for what is missing and for numbers that are not finite, which JSON does not have."""
    kind = values.type
    if pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        text = values.cast(pa.large_string())
    elif pa.types.is_float32(kind) or pa.types.is_float64(kind):
        text = pc.if_else(pc.is_finite(values), values.cast(pa.large_string()), pa.scalar(None, pa.large_string()))
    elif pa.types.is_date32(kind) or _is_plain_text(values):
        text = joined('"', _escaped(values), '"')
    elif pa.types.is_timestamp(kind):
        few = values.dictionary_encode()
        text = _each_dumped(few.dictionary).take(few.indices)
    elif (pa.types.is_list(kind) or pa.types.is_large_list(kind)) and not pa.types.is_nested(kind.value_type):
        text = _list_text(values)
    else:
        text = _each_dumped(values)
    return text.fill_null("null")


def json_lines(batch: pa.RecordBatch) -> pa.Buffer:
    """Each row as a line with an object, as Python writes it."""
    parts: list[pa.Array | str] = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        parts += [f"{', ' if parts else '{'}{json.dumps(name, ensure_ascii=False)}: ", _as_python(column)]
    lines = joined(*parts, "}\n")
    whole = pa.LargeListArray.from_arrays(pa.array([0, len(lines)], pa.int64()), lines)
    return pc.binary_join(whole, pa.scalar("", pa.large_string()))[0].as_buffer()


def joined(*parts: pa.Array | str) -> pa.Array:
    """Texts, one after the other."""
    texts = [pa.scalar(part, pa.large_string()) if isinstance(part, str) else part for part in parts]
    return pc.binary_join_element_wise(*texts, pa.scalar("", pa.large_string()))


def _as_python(column: pa.Array) -> pa.Array:
    """Cells as JSON, with all digits of a fraction: those of the double that a number of 32 bits is."""
    if not pa.types.is_floating(column.type):
        return json_text(column)
    texts = ["null" if value is None or not math.isfinite(value) else repr(value) for value in column.to_pylist()]
    return pa.array(texts, pa.large_string())


def _list_text(values: pa.Array) -> pa.Array:
    """Lists as JSON; null for what is missing."""
    lengths = pc.list_value_length(values)
    ends = np.concatenate([[0], np.cumsum(lengths.fill_null(0).to_numpy())])
    lists = pa.LargeListArray.from_arrays(pa.array(ends, pa.int64()), json_text(values.flatten()))
    whole = joined("[", pc.binary_join(lists, pa.scalar(", ", pa.large_string())), "]")
    return pc.if_else(lengths.is_valid(), whole, pa.scalar(None, pa.large_string()))


def _is_plain_text(values: pa.Array) -> bool:
    """Whether this is text without control characters, which need more than a backslash in front."""
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return False
    return not pc.any(pc.match_substring_regex(values, r"[\x00-\x1f]")).as_py()


def _escaped(values: pa.Array) -> pa.Array:
    text = pc.replace_substring(values.cast(pa.large_string()), "\\", "\\\\")
    return pc.replace_substring(text, '"', '\\"')


def _each_dumped(values: pa.Array) -> pa.Array:
    return pa.array([_dumped(value) for value in values.to_pylist()], pa.large_string())


def _dumped(value: object) -> str | None:
    """One value as Python writes it; dates and times in ISO 8601."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return None
    return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_iso)


def _iso(value: object) -> str:
    return value.isoformat() if hasattr(value, "isoformat") else str(value)
