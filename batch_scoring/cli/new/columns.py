"""What each column of a sample is: the key, the label, a feature, or left out, and why."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.cli.new.sample import Sample
from batch_scoring.config.validation.spec_validation import RESERVED
from batch_scoring.errors import SampleError
from batch_scoring.ingest.schema import casting

Kind = Literal["int", "float", "bool", "str", "list[float]"]

NULL_WORDS = ("NA", "N/A", "n/a", "NaN", "nan", "NULL", "null", "None", "?", "-")
"""What people write for a missing number, besides nothing."""
MOST_WORDS = 200
"""Number of distinct texts above which a column is not a category."""
ROWS_PER_WORD = 5
"""Mean number of rows of each text below which a column is not a category."""
WORDS_PER_TEXT = 4
"""Mean number of words from which a column of texts, if it is not a category, is for reading; names have fewer."""
USUAL_LENGTH = 0.95
"""Share of lists with the usual number of numbers below which a column is not one of vectors."""
MOST_CLASSES = 50
MOST_INTEGER_CLASSES = 20

_INTEGER = "^-?(?:0|[1-9][0-9]{0,17})$"
_NUMBER = r"^[+-]?(?:0|[1-9][0-9]*|(?:0|[1-9][0-9]*)?\.[0-9]+|(?:0|[1-9][0-9]*)\.)(?:[eE][+-]?[0-9]+)?$"
_DECIMAL_COMMA = r"^[+-]?[0-9]+(?:\.[0-9]{3})*,[0-9]+$"
_BOOL = "^(?i:true|false)$"
_DATE = r"^\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d.*)?$"


@dataclass(frozen=True)
class Column:
    """A column of the table, as far as its values tell."""

    name: str
    kind: Kind | None
    """The type that the schema declares; None if it cannot be declared."""
    why_not: str = ""
    """Why the column cannot be used."""
    missing: int = 0
    nulls: tuple[str, ...] = ()
    """Words that stand for a missing number."""
    low: float = 0
    high: float = 0
    """Of a number, the smallest and the largest."""
    words: tuple[str, ...] = ()
    """Of a category, all of its words, sorted."""
    distinct: int = 0
    is_text: bool = False
    """Whether the values are numbers written as text in a file that has types."""
    length: float = 0
    """Of a text, its mean number of words; of a list, the usual number of numbers."""

    @property
    def is_numeric(self) -> bool:
        """Whether the network gets it as a number."""
        return self.kind in ("int", "float", "bool")

    @property
    def is_category(self) -> bool:
        """Whether the network gets it as the code of a word."""
        return self.kind == "str" and bool(self.words)

    @property
    def is_prose(self) -> bool:
        """Whether the network reads it as a text."""
        return self.kind == "str" and not self.words and self.length >= WORDS_PER_TEXT


@dataclass(frozen=True)
class Label:
    """What the model predicts."""

    name: str
    classes: tuple[str, ...]
    """Of a classification, in the order of the network's outputs; empty for a regression."""


@dataclass(frozen=True)
class Roles:
    """The columns of a sample by what they are for."""

    key: Column
    label: Label | None
    features: tuple[Column, ...]
    left_out: tuple[tuple[str, str], ...]
    """Columns that are not used, and why."""

    @property
    def numeric(self) -> tuple[str, ...]:
        """Names of the numeric features."""
        return tuple(column.name for column in self.features if column.is_numeric)

    @property
    def categorical(self) -> tuple[str, ...]:
        """Names of the categorical features."""
        return tuple(column.name for column in self.features if column.is_category)

    @property
    def text(self) -> tuple[str, ...]:
        """Names of the features that are read as text."""
        return tuple(column.name for column in self.features if column.is_prose)

    @property
    def vectors(self) -> tuple[str, ...]:
        """Names of the features that are lists of numbers."""
        return tuple(column.name for column in self.features if column.kind == "list[float]")

    @property
    def vocabularies(self) -> dict[str, tuple[str, ...]]:
        """The words of each categorical feature, sorted."""
        return {column.name: column.words for column in self.features if column.is_category}

    @property
    def nulls(self) -> tuple[str, ...]:
        """Words that stand for a missing number in any feature."""
        return tuple(dict.fromkeys(word for column in self.features for word in column.nulls))


def tell(sample: Sample, key: str | None, label: str | None, day: str | None) -> Roles:
    """Say what each column of a sample is.

    Args:
        sample: the sample.
        key: the column that identifies a row; the only one that can, if None.
        label: the column that the model predicts, if there is one.
        day: the column with each row's day, if there is one.

    Raises:
        SampleError: no column identifies the rows, or none is left as a feature.
    """
    for option, name in (("--key", key), ("--label", label), ("--day", day)):
        if name is not None and name not in sample.rows.column_names:
            raise SampleError(f"{option} {name}: no such column; the sample has {', '.join(sample.rows.column_names)}")
    columns = {name: _column(name, sample) for name in sample.rows.column_names}
    chosen = _key(sample, columns, key, label, day)
    features = []
    left_out = [(name, "it holds objects, or arrays of others than numbers") for name in sample.nested]
    for column in columns.values():
        if column.name in (chosen.name, label, day):
            continue
        if why := column.why_not or _why_no_feature(column, len(sample.rows)):
            left_out.append((column.name, why))
        else:
            features.append(column)
    if not features:
        raise SampleError("no column is left as a feature: " + "; ".join(f"{name}: {why}" for name, why in left_out))
    return Roles(chosen, _label(sample, label) if label else None, tuple(features), tuple(left_out))


def _column(name: str, sample: Sample) -> Column:
    values = sample.rows[name].combine_chunks()
    missing = values.null_count
    if why := _why_no_name(name):
        return Column(name, None, why)
    if missing == len(values):
        return Column(name, None, "it has no values")
    kind = casting.kind_of(values.type)
    if kind == "text":
        return _of_text(name, values, sample)
    if kind == "boolean":
        return Column(name, "bool", missing=missing, distinct=pc.count_distinct(values).as_py())
    if kind in ("integer", "floating"):
        return _of_numbers(name, "int" if kind == "integer" else "float", values, missing)
    if kind == "list of numbers":
        return _of_lists(name, values.drop_null(), missing)
    return Column(name, None, f"it is {values.type}; only numbers, texts, booleans and lists of numbers are features")


def _why_no_name(name: str) -> str:
    if name in RESERVED or name.startswith("prob_class_"):
        return "the tables have a column of that name; rename it"
    if not name.strip():
        return "it has no name"
    is_plain = name.isprintable() and "${" not in name
    return "" if is_plain else "its name cannot be written in a spec; rename it"


def _of_text(name: str, texts: pa.Array, sample: Sample) -> Column:
    present = texts.drop_null()
    words = pc.is_in(present, pa.array(NULL_WORDS))
    values = present.filter(pc.invert(words))
    if len(values) and _all(values, _NUMBER):
        nulls = tuple(sorted(pc.unique(present.filter(words)).to_pylist()))
        if not sample.is_text and len(values) < len(texts):
            return Column(name, None, "its numbers are texts, and some are missing; write numbers and nulls")
        numbers = values.cast(pa.float64())
        kind: Kind = "int" if _all(values, _INTEGER) else "float"
        return _of_numbers(name, kind, numbers, len(texts) - len(values), nulls, is_text=not sample.is_text)
    for pattern, why in (
        (_DECIMAL_COMMA, "its numbers have decimal commas; write 0.5, not 0,5"),
        (_DATE, "its values are times; write what matters of them as a number: days since, or the hour"),
    ):
        if len(values) and _all(values, pattern):
            return Column(name, None, why)
    counts = sorted(pc.unique(present).to_pylist())
    missing = len(texts) - len(present)
    if sample.is_text and _all(present, _BOOL):
        return Column(name, "bool", missing=missing, distinct=len(counts))
    is_category = len(counts) <= MOST_WORDS and len(counts) * ROWS_PER_WORD <= len(texts)
    length = pc.mean(pc.count_substring_regex(present, r"\S+")).as_py()
    return Column(name, "str", "", missing, words=tuple(counts) * is_category, distinct=len(counts), length=length)


def _of_lists(name: str, lists: pa.Array, missing: int) -> Column:
    lengths = pc.list_value_length(lists).to_numpy(zero_copy_only=False)
    usual = int(np.bincount(lengths).argmax())
    is_usual = lengths == usual
    if not usual or is_usual.mean() < USUAL_LENGTH:
        found = f"its lists have {lengths.min()} to {lengths.max()} numbers"
        return Column(name, None, f"{found}; expected as many in each")
    flat = lists.filter(pa.array(is_usual)).flatten().to_numpy(zero_copy_only=False).reshape(-1, usual)
    differs = bool((flat != flat[0]).any())
    return Column(name, "list[float]", "", missing, distinct=1 + differs, length=usual)


def _of_numbers(
    name: str, kind: Kind, values: pa.Array, missing: int, nulls: tuple[str, ...] = (), *, is_text: bool = False
) -> Column:
    finite = values if pa.types.is_integer(values.type) else values.filter(pc.fill_null(pc.is_finite(values), False))
    ends = pc.min_max(finite).as_py()
    if ends["min"] is None:
        return Column(name, None, "none of its numbers is finite")
    distinct = pc.count_distinct(finite).as_py()
    return Column(name, kind, "", missing, nulls, ends["min"], ends["max"], (), distinct, is_text)


def _all(texts: pa.Array, pattern: str) -> bool:
    return bool(pc.all(pc.match_substring_regex(texts, pattern)).as_py())


def _why_no_feature(column: Column, rows: int) -> str:
    """Why a column that can be declared is no feature; empty if it is one."""
    if column.distinct < 2 and not column.missing:
        return "it has the same value in every row"
    if column.kind == "str" and not (column.is_category or column.is_prose):
        return f"it is text with {column.distinct:,} different values"
    if column.kind == "int" and column.distinct == rows and column.high - column.low < 2 * rows:
        return "it counts the rows"
    return ""


def _key(sample: Sample, columns: dict[str, Column], name: str | None, label: str | None, day: str | None) -> Column:
    rows = len(sample.rows)
    if name is None:
        others = [each for each in columns.values() if each.name not in (label, day) and not each.is_prose]
        found = [each.name for each in others if _repeated(sample, each, day) == 0]
        if len(found) != 1:
            none = "no column identifies a row (text or integers, none missing, none twice)"
            several = f"{', '.join(found)}: each of them identifies a row"
            raise SampleError(f"{several if found else none}; say which column is the key: --key NAME")
        return columns[found[0]]
    column = columns[name]
    if column.kind not in ("str", "int"):
        raise SampleError(f"--key {name}: {column.why_not or f'it is {column.kind}'}; expected text or integers")
    if column.missing:
        raise SampleError(f"--key {name}: it is missing in {column.missing:,} of {rows:,} rows")
    if repeated := _repeated(sample, column, day):
        per_day = f" of one {day}" if day else ""
        days = "" if day else ", or the column of the day, if a key has a row a day: --day NAME"
        raise SampleError(
            f"--key {name}: {repeated:,} of {rows:,} rows{per_day} repeat another row's key; expected a column that "
            f"identifies a row{days}"
        )
    return column


def _repeated(sample: Sample, column: Column, day: str | None) -> int | None:
    """Return how many rows repeat another row's key (of the same day); None if the column cannot be a key."""
    if column.kind not in ("str", "int") or column.missing:
        return None
    names = [column.name, day] if day else [column.name]
    return len(sample.rows) - len(sample.rows.select(names).group_by(names).aggregate([]))


def _label(sample: Sample, name: str) -> Label:
    if pa.types.is_nested(sample.rows.schema.field(name).type):
        raise SampleError(f"--label {name}: it holds lists; expected a class or a number in each row")
    distinct = pc.unique(sample.rows[name].cast(pa.string())).drop_null().to_pylist()
    if len(distinct) < 2:
        raise SampleError(f"--label {name}: it is the same in every row; expected at least two different values")
    numbers = _numbers(distinct)
    if numbers is None and len(distinct) > MOST_CLASSES:
        raise SampleError(
            f"--label {name}: it is text with {len(distinct):,} different values; expected at most {MOST_CLASSES} "
            "classes, or numbers"
        )
    if numbers is None:
        return Label(name, tuple(sorted(distinct)))
    are_classes = len(set(numbers)) <= MOST_INTEGER_CLASSES and all(map(float.is_integer, numbers))
    return Label(name, tuple(map(str, map(int, sorted(set(numbers))))) if are_classes else ())


def label_values(label: Label, values: pa.Array) -> pa.Array:
    """Return the values of a label as training gets them: names of classes, or numbers."""
    texts = values.cast(pa.string())
    if not label.classes:
        return texts.cast(pa.float64())
    if all(re.fullmatch("-?[0-9]+", name) for name in label.classes):
        return texts.cast(pa.float64()).cast(pa.int64()).cast(pa.string())
    return texts


def _numbers(values: Sequence[str]) -> list[float] | None:
    """Return values as finite numbers; None if one of them is none."""
    try:
        found = list(map(float, values))
    except ValueError:
        return None
    return found if all(map(math.isfinite, found)) else None


def bounds(column: Column) -> tuple[float, float]:
    """Return a generous range for a number: the sample's, widened by its own width and rounded outwards.

    What is never negative in the sample, or never positive, stays so.
    """
    width = max(column.high - column.low, abs(column.high))
    return (
        -_rounded(width - column.low) if column.low < 0 else 0.0,
        _rounded(width + column.high) if column.high > 0 else 0.0,
    )


def _rounded(value: float) -> float:
    """Return the next number of the series 1, 2, 5, 10, 20 …, for example 144 -> 200."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value)
