"""Casting of columns to the types that a schema requires, cell by cell.

Arrow's cast decides, but only reports whether all cells fit. Cells that do not fit are found by masks over the whole
column (a regular expression, a calendar, a range), which only flag cells that Arrow rejects; any further rejected cell
is found by bisection. If the schema coerces, a value of another kind is accepted if it is exactly representable in the
type: `360.0` is the integer 360, and 360.5 does not fit.
"""

import contextlib
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

Cast = Callable[[pa.Array], pa.Array]
Misfits = Callable[[], np.ndarray]
"""bool[rows]: cells that certainly do not fit; only called if at least one does not."""

_NUMBER = r"(?:[0-9]+\.?[0-9]*|\.[0-9]+)"
_DATE = "[0-9]{4}-(?:0[1-9]|1[0-2])-(?:0[1-9]|[12][0-9]|3[01])"
_HOUR, _MINUTE = "(?:[01][0-9]|2[0-3])", "[0-5][0-9]"
_INTEGER_TEXT = "^-?[0-9]+$"
_FLOAT_TEXT = rf"^[+-]?(?:{_NUMBER}(?:[eE][+-]?[0-9]+)?|(?i:inf|infinity|nan(?:\([0-9a-z_]*\))?))$"
_SCIENTIFIC = rf"^[+-]?{_NUMBER}[eE][+-]?[0-9]+$"
_BOOL_TEXT = "^(?i:true|false|0|1)$"
_DATE_TEXT = f"^{_DATE}$"
_TIME_TEXT = rf"^{_DATE}[ T]{_HOUR}(?::{_MINUTE}(?::{_MINUTE}(?:\.[0-9]{{1,6}})?)?)?(?:Z|[+-]{_HOUR}(?::?{_MINUTE})?)$"

_DAYS = np.array([0, 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])
_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_SAMPLE_ROWS = 256
"""Cells that are tried first: if one of them does not fit, many may not."""
_EXACT = 2**53
"""Integers up to this are exact as floats."""

_COERCED = {
    "integer": ("floating", "boolean", "text"),
    "floating": ("boolean", "text"),
    "boolean": ("integer", "floating", "text"),
    "text": ("integer", "floating", "boolean"),
    "timestamp": ("text", "date"),
    "date": ("text", "timestamp"),
}
"""Kinds of values that are accepted one by one under coercion, by the kind that the schema requires."""


def fits(found: pa.DataType, expected: pa.DataType, *, coerce: bool = False) -> bool:
    """Whether a Parquet column can be read: the same kind, integers for floats, or a kind that is coerced."""
    found = plain_type(found)
    pair = kind_of(found), kind_of(expected)
    if pair[0] == pair[1] or pair == ("integer", "floating") or pa.types.is_null(found):
        return True
    return coerce and is_coercible(found, expected)


def is_coercible(found: pa.DataType, expected: pa.DataType) -> bool:
    """Whether a column's values are accepted one by one if the schema coerces."""
    return kind_of(plain_type(found)) in _COERCED.get(kind_of(expected), ())


def plain_type(kind: pa.DataType) -> pa.DataType:
    """Return the type of the values, whether dictionary-encoded or not."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind


def kind_of(kind: pa.DataType) -> str:
    """Return the kind of a type, regardless of its width or unit."""
    for name, test in (
        ("integer", pa.types.is_integer),
        ("floating", pa.types.is_floating),
        ("boolean", pa.types.is_boolean),
        ("timestamp", pa.types.is_timestamp),
        ("date", pa.types.is_date),
    ):
        if test(kind):
            return name
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        numbers = pa.types.is_integer(kind.value_type) or pa.types.is_floating(kind.value_type)
        return "list of numbers" if numbers or pa.types.is_null(kind.value_type) else str(kind)
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind):
        return "binary"
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    return "text" if text else str(kind)


def is_beyond_text(kind: pa.DataType) -> bool:
    """Whether no cell of a CSV file can hold a value of the type."""
    return kind_of(kind) in ("list of numbers", "binary")


def cast(values: pa.Array, expected: pa.DataType, *, coerce: bool = False) -> tuple[pa.Array, np.ndarray, pa.Array]:
    """Cast a column; return it with null where a cell does not fit, those rows, and the cells that were cast."""
    if values.type == expected:
        return values, np.zeros(0, np.int64), values
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    found, wanted = kind_of(values.type), kind_of(expected)
    if found == "text" and wanted != "text":
        values = values.cast(pa.string())
        values = values if is_plain(values) else pc.utf8_trim_whitespace(values)
        return _each(values, *_of_text(values, expected, coerce=coerce))
    if coerce and is_coercible(values.type, expected):
        typed, wrong = _coerced(values, expected)
        return _with_nulls(typed, wrong), np.flatnonzero(wrong), values
    # numbers are rounded to float32 or float64, nanoseconds to microseconds
    is_rounded = wanted == "floating" or (found == "timestamp" and values.type.unit == "ns")
    return _each(values, values, lambda part: part.cast(expected, safe=not is_rounded), _beyond(values, expected))


def decode(values: pa.Array) -> tuple[pa.Array, np.ndarray]:
    """Decode bytes as text, null where a cell is not UTF-8; return it and those rows."""
    text, wrong, _ = _each(values, values, lambda part: part.cast(pa.string()), lambda: _is_not_utf8(values))
    return text, wrong


def trimmed(texts: pa.Array, nulls: pa.Array | None) -> pa.Array:
    """Return text without blanks at its ends (Unicode's, as for numbers); a cell that is then one of `nulls` is null.

    None: unchanged. Quoted cells are trimmed too: padded columns come either way, and nobody sees the difference.
    """
    if nulls is None or is_plain(texts):
        return texts
    found = pc.utf8_trim_whitespace(texts)
    changed = pc.not_equal(pc.binary_length(found), pc.binary_length(texts))
    if not pc.any(changed).as_py():
        return texts
    return pc.if_else(pc.and_(changed, pc.is_in(found, nulls)), pa.scalar(None, pa.string()), found)


def is_plain(texts: pa.Array) -> bool:
    """Whether texts consist of digits, signs, points and slashes only: nothing to trim, and no hexadecimal numbers."""
    offsets = np.frombuffer(texts.buffers()[1], np.int32)
    start, stop = offsets[texts.offset], offsets[texts.offset + len(texts)]
    data = np.frombuffer(texts.buffers()[2] or b"", np.uint8)[start:stop]
    return not len(data) or bool(data.min() >= ord("+") and data.max() <= ord("9"))


def _each(shown: pa.Array, values: pa.Array, attempt: Cast, misfits: Misfits) -> tuple[pa.Array, np.ndarray, pa.Array]:
    """Apply `attempt` to each value; return the results, the rows for which it fails, and the original cells."""
    with contextlib.suppress(pa.ArrowInvalid):
        attempt(values.slice(0, _SAMPLE_ROWS))  # Arrow formats an error for each cell, and raises one
        return attempt(values), np.zeros(0, np.int64), shown
    wrong = misfits()
    others = _with_nulls(values, wrong)
    try:
        return attempt(others), np.flatnonzero(wrong), shown
    except pa.ArrowInvalid:
        wrong[_by_bisection(others, attempt)] = True
    return attempt(_with_nulls(values, wrong)), np.flatnonzero(wrong), shown


def _by_bisection(values: pa.Array, attempt: Cast, start: int = 0) -> list[int]:
    """Find the positions of the values for which `attempt` fails, by bisection: one call if there are none."""
    try:
        attempt(values)
    except pa.ArrowInvalid:
        if len(values) == 1:
            return [start]
        middle = len(values) // 2
        left, right = values.slice(0, middle), values.slice(middle)
        return _by_bisection(left, attempt, start) + _by_bisection(right, attempt, start + middle)
    return []


def _with_nulls(values: pa.Array, wrong: np.ndarray) -> pa.Array:
    """Return `values` with null for each wrong one."""
    return pc.if_else(pa.array(wrong), pa.scalar(None, values.type), values) if wrong.any() else values


def _where(mask: pa.Array) -> np.ndarray:
    """bool[rows]: where a mask is true; null counts as false."""
    found: np.ndarray = pc.fill_null(mask, False).to_numpy(zero_copy_only=False)
    return found


# text


def _of_text(texts: pa.Array, expected: pa.DataType, *, coerce: bool) -> tuple[pa.Array, Cast, Misfits]:
    kind = kind_of(expected)
    if kind == "timestamp":
        texts = _in_utc(texts)
    elif coerce and kind == "integer":
        texts = _whole(texts)
    elif coerce and kind == "boolean":
        texts = pc.replace_substring_regex(texts, r"^([01])\.0*$", r"\1")
    attempt = _decimal if kind == "integer" and not is_plain(texts) else (lambda part: part)
    masks: dict[str, Callable[[], np.ndarray]] = {
        "integer": lambda: _is_not_integer(texts, expected),
        "floating": lambda: _is_unlike(texts, _FLOAT_TEXT),
        "boolean": lambda: _is_unlike(texts, _BOOL_TEXT),
        "date": lambda: _is_not_day(texts, _is_unlike(texts, _DATE_TEXT)),
        "timestamp": lambda: _is_not_day(texts, _is_unlike(texts, _TIME_TEXT)),
    }
    return texts, lambda part: attempt(part).cast(expected), masks[kind]


def _is_unlike(texts: pa.Array, pattern: str) -> np.ndarray:
    return _where(pc.invert(pc.match_substring_regex(texts, pattern)))


def _is_not_integer(texts: pa.Array, expected: pa.DataType) -> np.ndarray:
    wrong = _is_unlike(texts, _INTEGER_TEXT)
    digits = pc.utf8_ltrim(pc.utf8_ltrim(texts, "-"), "0")
    length = pc.binary_length(digits)
    most = pc.if_else(pc.starts_with(texts, "-"), str(2**63), str(2**63 - 1))
    wrong |= _where(pc.or_(pc.greater(length, 19), pc.and_(pc.equal(length, 19), pc.greater(digits, most))))
    if expected != pa.int64():
        wrong |= _is_out_of_range(_with_nulls(texts, wrong).cast(pa.int64()), expected)
    return wrong


def _is_not_day(texts: pa.Array, wrong: np.ndarray) -> np.ndarray:
    """Return `wrong` and the other texts that begin with an invalid day of the month."""
    likely = np.flatnonzero(~wrong & ~texts.is_null().to_numpy(zero_copy_only=False))
    days = texts.take(pa.array(likely))
    year, month, day = (
        pc.utf8_slice_codeunits(days, start, stop).cast(pa.int32()).to_numpy()
        for start, stop in ((0, 4), (5, 7), (8, 10))
    )
    is_leap = (year % 4 == 0) & ((year % 100 != 0) | (year % 400 == 0))
    wrong[likely[day > _DAYS[month] + (is_leap & (month == 2))]] = True
    return wrong


def _in_utc(texts: pa.Array) -> pa.Array:
    """Return times as text with a time zone: a time without one, or a date alone, is taken as UTC."""
    days = pc.match_substring_regex(texts, r"^\d{4}-\d\d-\d\d$")
    zoned = pc.match_substring_regex(texts, r"(?:Z|[+-]\d\d(?::?\d\d)?)$")
    in_utc = pc.binary_join_element_wise(texts, "Z", "")
    return pc.if_else(days, pc.binary_join_element_wise(texts, "T00:00Z", ""), pc.if_else(zoned, texts, in_utc))


def _decimal(texts: pa.Array) -> pa.Array:
    """Return texts of integers unchanged; Arrow would read 0x10 as 16, which is never meant.

    Raises:
        ArrowInvalid: one of them is hexadecimal.
    """
    if pc.any(pc.match_substring_regex(texts, "^[+-]?0[xX]")).as_py():
        raise pa.ArrowInvalid("hexadecimal")
    return texts


def _whole(texts: pa.Array) -> pa.Array:
    """Rewrite texts of integers in any notation as plain integers; others are unchanged."""
    texts = pc.replace_substring_regex(texts, r"^(?:\+|(-))?([0-9]+)(?:\.0*)?$", r"\1\2")
    scientific = pc.match_substring_regex(texts, _SCIENTIFIC)
    if not pc.any(scientific).as_py():
        return texts
    numbers = pc.if_else(scientific, texts, pa.scalar(None, pa.string())).cast(pa.float64())
    is_whole = pc.and_(pc.less_equal(pc.abs(numbers), float(_EXACT)), pc.equal(pc.floor(numbers), numbers))
    return pc.if_else(pc.fill_null(is_whole, False), numbers.cast(pa.int64(), safe=False).cast(pa.string()), texts)


def _is_not_utf8(values: pa.Array) -> np.ndarray:
    """bool[rows]: cells that are not UTF-8; continuation bytes are checked in all cells at once."""
    large = pa.large_binary()
    joined = pc.binary_join_element_wise(values.cast(large), pa.scalar(b"", large), pa.scalar(b"\n\n\n", large))
    spaced = pc.fill_null(joined, b"")
    offsets = np.frombuffer(spaced.buffers()[1], np.int64)[spaced.offset : spaced.offset + len(spaced) + 1]
    data = np.frombuffer(spaced.buffers()[2], np.uint8)[offsets[0] : offsets[-1]]
    due = np.zeros(len(data) + 3, bool)  # the byte must continue a character
    for ahead, (first, last) in enumerate(((0xC2, 0xF4), (0xE0, 0xF4), (0xF0, 0xF4)), start=1):
        due[ahead : len(data) + ahead] |= (data >= first) & (data <= last)
    wrong = due[: len(data)] != (data & 0xC0 == 0x80)
    wrong |= (data == 0xC0) | (data == 0xC1) | (data > 0xF4)
    before, after = data[:-1], data[1:]
    for lead, low, high in ((0xE0, 0xA0, 0xBF), (0xED, 0x80, 0x9F), (0xF0, 0x90, 0xBF), (0xF4, 0x80, 0x8F)):
        wrong[1:] |= (before == lead) & ((after < low) | (after > high))  # overlong, a surrogate, beyond Unicode
    rows = np.zeros(len(values), bool)
    rows[np.searchsorted(offsets - offsets[0], np.flatnonzero(wrong), side="right") - 1] = True
    return rows


# values


def _beyond(values: pa.Array, expected: pa.DataType) -> Misfits:
    """Return a mask for values that a narrower type of the same kind cannot represent."""
    pair = kind_of(values.type), kind_of(expected)
    if pair == ("integer", "integer"):
        return lambda: _is_out_of_range(values, expected)
    if pair == ("timestamp", "timestamp"):
        most = (2**63 - 1) // _PER_SECOND[expected.unit] * _PER_SECOND[values.type.unit]
        counts = values.cast(pa.int64())
        return lambda: _where(pc.or_(pc.greater(counts, most), pc.less(counts, -most)))
    return lambda: np.zeros(len(values), bool)


def _is_out_of_range(values: pa.Array, expected: pa.DataType) -> np.ndarray:
    """bool[rows]: integers outside the range of an integer type."""
    own, room = (np.iinfo(kind.to_pandas_dtype()) for kind in (values.type, expected))
    wrong = np.zeros(len(values), bool)
    if room.max < own.max:
        wrong |= _where(pc.greater(values, pa.scalar(room.max, values.type)))
    if room.min > own.min:
        wrong |= _where(pc.less(values, pa.scalar(room.min, values.type)))
    return wrong


def _coerced(values: pa.Array, expected: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    """Convert a column of another kind to the expected type; return it and where values cannot be converted."""
    kind = kind_of(expected)
    if kind == "integer":
        return _to_integers(values, expected)
    if kind == "boolean":
        return pc.equal(values, 1), _where(pc.invert(pc.or_(pc.equal(values, 0), pc.equal(values, 1))))
    none = np.zeros(len(values), bool)
    if kind == "floating":
        return values.cast(pa.int8()).cast(expected), none
    if kind == "text":
        return _to_text(values), none
    if kind == "timestamp":
        return values.cast(pa.timestamp("us")).cast(expected), none
    times = values.cast(pa.timestamp(values.type.unit))  # without its time zone
    days = times.cast(expected, safe=False)
    return days, _where(pc.not_equal(days.cast(times.type), times))


def _to_integers(values: pa.Array, expected: pa.DataType) -> tuple[pa.Array, np.ndarray]:
    if pa.types.is_boolean(values.type):
        return values.cast(pa.int8()).cast(expected), np.zeros(len(values), bool)
    numbers = values.cast(pa.float64())
    is_whole = pc.and_(pc.equal(pc.floor(numbers), numbers), pc.less(numbers, 2.0**63))
    wrong = _where(pc.invert(pc.and_(is_whole, pc.greater_equal(numbers, -(2.0**63)))))
    whole = _with_nulls(numbers, wrong).cast(pa.int64(), safe=False)
    wrong |= _is_out_of_range(whole, expected)
    return _with_nulls(whole, wrong).cast(expected), wrong


def _to_text(values: pa.Array) -> pa.Array:
    """Format values as Python, and so pandas, writes them."""
    if pa.types.is_boolean(values.type):
        return pc.if_else(values, "True", "False")
    if pa.types.is_integer(values.type):
        return values.cast(pa.string())
    return pa.array(
        [None if value is None or value != value else str(value) for value in values.to_pylist()], pa.string()
    )
