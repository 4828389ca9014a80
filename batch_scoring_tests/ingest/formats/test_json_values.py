"""A line in Python's eyes; `test_json_lines.py` holds that Arrow alone decides."""

import pyarrow as pa
import pytest

from batch_scoring.ingest.formats import json_values

TYPES = {"s": pa.string(), "f": pa.float32(), "n": pa.int8(), "b": pa.bool_(), "d": pa.date32()}


def test_numbers_keep_the_form_in_which_they_are_written() -> None:
    fields = json_values.parse(b'{"a": 1.50, "b": 1e400, "c": NaN, "d": 99999999999999999999999, "e": -0}')
    assert list(fields.values()) == ["1.50", "1e400", "NaN", "99999999999999999999999", "-0"]
    kinds = [json_values.kind_of(value) for value in fields.values()]
    assert kinds == ["number", "number", "number", "integer", "integer"]


def test_kinds_are_those_of_json() -> None:
    fields = json_values.parse(b'{"a": null, "b": true, "c": "x", "d": [], "e": {}}')
    assert [json_values.kind_of(value) for value in fields.values()] == ["null", "boolean", "text", "array", "object"]


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        (b'{"s": "x", "f": 1, "n": 2, "b": true, "d": "2024-01-01"}', []),
        (b"{}", []),
        (b'{"s": null, "f": null}', []),
        (b'{"f": NaN, "n": 300}', []),  # beyond int8: the contract's business, cell by cell
        (b'{"s": 1, "f": "1", "n": 1.0, "b": 1, "d": 20240101}', ["s", "f", "n", "b", "d"]),
        (b'{"n": 9223372036854775808}', ["n"]),
        (b'{"n": -9223372036854775808}', []),
        (b'{"n": 00000}', None),
    ],
)
def test_misfits_are_values_of_another_kind(line: bytes, wrong: list[str] | None) -> None:
    if wrong is None:
        with pytest.raises(ValueError, match="it is not one JSON object"):
            json_values.parse(line)
    else:
        assert json_values.misfits(json_values.parse(line), TYPES) == wrong


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (b"7", "string", "7"),
        (b"true", "string", "True"),
        (b"true", "int64", "1"),
        (b'"x"', "int64", "x"),
        (b"null", "int64", None),
        (b"1.0", "bool", "1.0"),
    ],
)
def test_under_coercion_a_value_is_the_text_that_the_contract_casts(value: bytes, kind: str, text: str | None) -> None:
    found = json_values.parse(b'{"a": %b}' % value)["a"]
    assert json_values.as_text(found, pa.type_for_alias(kind)) == text


def test_long_and_unprintable_values_are_shown_on_one_short_line() -> None:
    rule, detail = json_values.explain(b'{"f": "%b\\n\\u001b[2J"}' % (b"x" * 500), TYPES, ())
    assert rule == "fields_have_declared_types" and len(detail) < 200
    assert "\n" not in json_values.explain(b'{"f": "a\\nb\\u001b"}', TYPES, ())[1]
    assert "\x1b" not in json_values.explain(b"\x1b", TYPES, ())[1]
