"""What each column of a sample is, by its values."""

import re
from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.cli.new.columns import Column, bounds, label_values, tell
from batch_scoring.cli.new.sample import Sample
from batch_scoring.errors import SampleError
from batch_scoring_tests.cli.new.conftest import Read

ROWS = 60


def rows(**values: Any) -> list[dict[str, Any]]:  # noqa: ANN401  (a value, or a function of the row's number)
    """Rows with a key, and columns from values or functions of a row's number."""
    made = {"id": lambda n: f"k{n}", **values}
    return [{name: value(n) if callable(value) else value for name, value in made.items()} for n in range(ROWS)]


def column_of(sample: Sample, name: str = "c") -> Column | str:
    """The feature, or why it is none."""
    roles = tell(sample, "id", None, None)
    left = dict(roles.left_out)
    return left[name] if name in left else next(column for column in roles.features if column.name == name)


FEATURES = {
    "integers": (lambda n: n % 7, ("int", 0, 0, 6, ())),
    "decimals": (lambda n: n / 4, ("float", 0, 0, 14.75, ())),
    "signs and exponents": (lambda n: "-1.5e3" if n % 2 else "+.5", ("float", 0, -1500, 0.5, ())),
    "blanks for missing numbers": (lambda n: " " if n % 10 == 0 else n % 3, ("int", 6, 0, 2, ())),
    "words for missing numbers": (lambda n: ("NA", "?", "-")[n % 3] if n < 6 else n % 3, ("int", 6, 0, 2, "-?NA")),
    "true and false": (lambda n: "True" if n % 2 else "false", ("bool", 0, 0, 0, ())),
    "yes and no": (lambda n: "yes" if n % 2 else "no", ("str", 0, 0, 0, ())),
    "codes with zeros before them": (lambda n: f"00{n % 5}", ("str", 0, 0, 0, ())),
    "a word, or nothing": (lambda n: "yes" if n % 2 else "", ("str", 30, 0, 0, ())),
    "numbers beside words": (lambda n: "many" if n % 2 else 7, ("str", 0, 0, 0, ())),
}


@pytest.mark.parametrize("case", FEATURES)
def test_a_column_of_a_csv_file_is_what_its_values_are(sampled: Read, case: str) -> None:
    made, (kind, missing, low, high, nulls) = FEATURES[case]
    column = column_of(sampled(rows(c=made)))
    assert isinstance(column, Column), column
    assert (column.kind, column.missing, column.low, column.high) == (kind, missing, low, high)
    assert "".join(column.nulls) == "".join(nulls)
    assert column.is_numeric == (kind != "str")


LEFT_OUT = {
    "the same value": (7, "it has the same value in every row"),
    "nothing": ("", "it has no values"),
    "free text": (lambda n: f"text {n}", "it is text with 60 different values"),
    "many words": (lambda n: f"word {n // 2}", "it is text with 30 different values"),
    "a counter": (lambda n: n + 1000, "it counts the rows"),
    "days": (lambda n: f"2024-01-{n % 28 + 1:02d}", "its values are times"),
    "times": ("2024-01-01T10:00:00Z", "its values are times"),
    "decimal commas": (lambda n: f"{n},5", "its numbers have decimal commas; write 0.5, not 0,5"),
}


@pytest.mark.parametrize("case", LEFT_OUT)
def test_a_column_that_cannot_be_a_feature_is_left_out_with_the_reason(sampled: Read, case: str) -> None:
    made, why = LEFT_OUT[case]
    assert str(column_of(sampled(rows(c=made, x=lambda n: n / 3)))).startswith(why)


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("dt", "the tables have a column of that name; rename it"),
        ("prob_class_1", "the tables have a column of that name; rename it"),
        ("", "it has no name"),
        ("${HOME}", "its name cannot be written in a spec; rename it"),
        ("a\tb", "its name cannot be written in a spec; rename it"),
    ],
)
def test_a_name_that_a_pipeline_cannot_have_is_left_out(sampled: Read, name: str, why: str) -> None:
    assert column_of(sampled(rows(**{name: lambda n: n % 3}, x=lambda n: n / 3)), name) == why


def test_files_with_types_are_believed(sampled: Read) -> None:
    found = sampled(
        rows(
            i=lambda n: n % 4 if n % 5 else None,
            f=lambda n: n / 2,
            b=lambda n: n % 2 == 0,
            s=lambda n: "ab"[n % 2],
            number=lambda n: str(n / 2),
            some=lambda n: str(n / 2) if n else "",
            deep=lambda n: {"a": n},
        ),
        "a.parquet",
    )
    kinds = {name: getattr(column_of(found, name), "kind", None) for name in "ifbs"}
    assert kinds == {"i": "int", "f": "float", "b": "bool", "s": "str"}
    number = column_of(found, "number")
    assert isinstance(number, Column) and number.is_text and number.kind == "float"
    assert column_of(found, "some") == "its numbers are texts, and some are missing; write numbers and nulls"
    assert "only numbers, texts, booleans and lists of numbers" in str(column_of(found, "deep"))


# texts and lists of numbers


def sentence(n: int) -> str:
    return f"the parcel {n} has not come"


def test_texts_of_several_words_are_read_and_names_are_not(sampled: Read) -> None:
    sample = sampled(rows(note=sentence, name=lambda n: f"Anna Maria {n // 2}", kind=lambda n: sentence(n % 4)))
    roles = tell(sample, None, None, None)  # and no text is the key
    assert (roles.key.name, roles.text, roles.categorical) == ("id", ("note",), ("kind",))
    assert roles.left_out == (("name", "it is text with 30 different values"),)
    assert roles.vocabularies == {"kind": tuple(map(sentence, range(4)))}


VECTORS = {
    "floats": (lambda n: [n / 7, 1.5], ("list[float]", 0, 2)),
    "integers first": (lambda n: [1, 2, 3] if n < 30 else [0.5, 1, n], ("list[float]", 0, 3)),
    "some missing": (lambda n: [n, 1] if n % 3 else None, ("list[float]", 20, 2)),
    "one of another length": (lambda n: [n, 1] if n else [1], ("list[float]", 0, 2)),
}


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet"])
@pytest.mark.parametrize("case", VECTORS)
def test_lists_of_as_many_numbers_are_vectors(sampled: Read, name: str, case: str) -> None:
    made, expected = VECTORS[case]
    floats = lambda n: made(n) and [*map(float, made(n))]  # noqa: E731
    found = column_of(sampled(rows(c=made if name == "a.jsonl" else floats), name))
    assert isinstance(found, Column), found
    assert (found.kind, found.missing, found.length) == expected


LISTS_LEFT_OUT = {
    "of other lengths": (lambda n: [1.0] * (n % 4 + 1), "its lists have 1 to 4 numbers; expected as many in each"),
    "empty": (lambda n: [], "its lists have 0 to 0 numbers"),
    "of words": (lambda n: ["a"], "it holds objects, or arrays of others than numbers"),
    "the same": (lambda n: [1, 2], "it has the same value in every row"),
}


@pytest.mark.parametrize("case", LISTS_LEFT_OUT)
def test_lists_that_are_no_vectors_are_left_out(sampled: Read, case: str) -> None:
    made, why = LISTS_LEFT_OUT[case]
    assert str(column_of(sampled(rows(c=made, x=lambda n: n / 3), "a.jsonl"))).startswith(why)


def test_a_list_is_no_label(sampled: Read) -> None:
    with pytest.raises(SampleError, match="--label c: it holds lists; expected a class or a number in each row"):
        tell(sampled(rows(c=lambda n: [n, 1], x=lambda n: n / 3), "a.jsonl"), "id", "c", None)


# key


def test_the_only_column_that_identifies_the_rows_is_the_key(sampled: Read) -> None:
    sample = sampled(rows(x=lambda n: n / 3, c=lambda n: n % 3))
    assert tell(sample, None, None, None).key.name == "id"


KEYS = {
    "several": (
        {"n": lambda n: n},
        None,
        "id, n: each of them identifies a row; say which column is the key: --key NAME",
    ),
    "none": ({"id": "k"}, None, "no column identifies a row (text or integers, none missing, none twice); say which"),
    "unknown": ({}, "no", "--key no: no such column; the sample has id, x"),
    "repeated": (
        {"c": lambda n: n % 3},
        "c",
        "--key c: 57 of 60 rows repeat another row's key; expected a column that",
    ),
    "missing": ({"c": lambda n: f"k{n}" if n else ""}, "c", "--key c: it is missing in 1 of 60 rows"),
    "a decimal": ({}, "x", "--key x: it is float; expected text or integers"),
}


@pytest.mark.parametrize("case", KEYS)
def test_a_key_that_identifies_no_row_is_refused_in_one_line(sampled: Read, case: str) -> None:
    values, key, reason = KEYS[case]
    sample = sampled(rows(**values, x=lambda n: n / 3))
    with pytest.raises(SampleError, match=re.escape(reason)):
        tell(sample, key, None, None)


def test_a_key_may_come_again_on_another_day(sampled: Read) -> None:
    sample = sampled(rows(id=lambda n: f"k{n // 2}", day=lambda n: f"2024-01-0{n % 2 + 1}", x=lambda n: n / 3))
    assert tell(sample, None, None, "day").key.name == "id"
    with pytest.raises(SampleError, match=r"--key id: 30 of 60 rows repeat .*the column of the day.*: --day NAME"):
        tell(sample, "id", None, None)


# label

LABELS = {
    "words": (lambda n: "yes" if n % 2 else "no", ("no", "yes"), ["no", "yes"]),
    "zero and one": (lambda n: n % 2, ("0", "1"), ["0", "1"]),
    "integers as decimals": (lambda n: float(n % 3) if n % 2 else n % 3, ("0", "1", "2"), ["0", "1"]),
    "ten, not 1 0": (lambda n: n % 12, tuple(map(str, range(12))), ["0", "1"]),
    "numbers": (lambda n: n / 3, (), [0.0, 1 / 3]),
    "many integers": (lambda n: n * 3, (), [0.0, 3.0]),
}


@pytest.mark.parametrize("case", LABELS)
def test_a_label_is_classes_or_a_number(sampled: Read, case: str) -> None:
    made, classes, first = LABELS[case]
    sample = sampled(rows(c=made, x=lambda n: n / 3))
    label = tell(sample, "id", "c", None).label
    assert label is not None and label.classes == classes
    assert label_values(label, sample.rows["c"].combine_chunks()).to_pylist()[:2] == pytest.approx(first)


def test_a_label_of_booleans_has_two_classes(sampled: Read) -> None:
    label = tell(sampled(rows(c=lambda n: n % 2 == 0, x=lambda n: n / 3), "a.jsonl"), "id", "c", None).label
    assert label is not None and label.classes == ("false", "true")
    assert label_values(label, pa.array([True, None])).to_pylist() == ["true", None]


@pytest.mark.parametrize(
    ("made", "reason"),
    [
        (lambda n: f"text {n}", "it is text with 60 different values; expected at most 50 classes, or numbers"),
        ("yes", "it is the same in every row; expected at least two different values"),
    ],
)
def test_a_label_that_nothing_can_learn_is_refused(sampled: Read, made: object, reason: str) -> None:
    with pytest.raises(SampleError, match=reason):
        tell(sampled(rows(c=made, x=lambda n: n / 3)), "id", "c", None)


def test_a_sample_without_a_feature_is_refused_with_all_reasons(sampled: Read) -> None:
    with pytest.raises(SampleError, match="no column is left as a feature: c: it has the same value in every row"):
        tell(sampled(rows(c=1)), "id", None, None)


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 72, (0, 200)),
        (18.25, 118.75, (0, 500)),
        (-3.3, 3.6, (-20, 20)),
        (0, 0.004, (0, 0.01)),
        (-9, -1, (-20, 0)),
        (1e9, 3e9, (0, 1e10)),
        (-180, 180, (-1000, 1000)),
    ],
)
def test_a_range_is_wide_and_round_and_keeps_its_sign(low: float, high: float, expected: tuple[float, float]) -> None:
    found = bounds(Column("x", "float", low=low, high=high))
    assert found == pytest.approx(expected)
    assert found[0] <= low and high <= found[1]
