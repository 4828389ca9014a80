from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from batch_scoring.config.section import Location, Name, Reference, Section, Share, time_zone


class Limits(Section):
    """A section."""

    share: Share = 0.5


def refusal(kind: Any, value: object) -> str:  # noqa: ANN401  (an annotation)
    with pytest.raises(ValidationError) as caught:
        TypeAdapter(kind).validate_python(value)
    return str(caught.value.errors()[0]["msg"])


@pytest.mark.parametrize("location", ["a/b", "/data", "s3://bucket", "s3://bucket/a", "/a/../b", "a..b/c"])
def test_a_location_is_below_the_data_root_absolute_or_on_s3(location: str) -> None:
    assert TypeAdapter(Location).validate_python(location) == location


@pytest.mark.parametrize(
    ("location", "said"),
    [
        ("../a", "leaves the data root"),
        ("a/../../b", "leaves the data root"),
        ("a\\..\\b", "leaves the data root"),
        ("s3://bucket/../a", "leaves the data root"),
        ("s3:///a", "unsupported storage"),
        ("gs://bucket/a", "unsupported storage"),
        ("file:///a", "unsupported storage"),
    ],
)
def test_any_other_location_is_refused(location: str, said: str) -> None:
    assert said in refusal(Location, location)


@pytest.mark.parametrize("name", ["Call", "1st", "two words", "_call", "a-b", ""])
def test_a_name_is_lower_case_letters_digits_and_underscores(name: str) -> None:
    assert TypeAdapter(Name).validate_python("call_2") == "call_2"
    assert "should match pattern" in refusal(Name, name)


@pytest.mark.parametrize("reference", ["schema", "schema.Rows", "a.b:C", ":Rows", "schema:", "1a:B"])
def test_a_reference_is_a_module_and_an_attribute(reference: str) -> None:
    assert TypeAdapter(Reference).validate_python("schema:Rows") == "schema:Rows"
    assert "should match pattern" in refusal(Reference, reference)


def test_a_section_has_no_unknown_fields_does_not_change_and_holds_finite_numbers() -> None:
    assert "not permitted" in refusal(Limits, {"shares": 0.5})
    assert "finite" in refusal(Limits, {"share": float("nan")})
    assert "less than or equal to 1" in refusal(Limits, {"share": 1.5})
    with pytest.raises(ValidationError, match="frozen"):
        Limits().share = 0.1


@pytest.mark.parametrize("name", ["Mars/Olympus", "America", "", "../etc/passwd", "CEST"])
def test_a_time_zone_is_one_of_iana(name: str) -> None:
    assert time_zone("America/New_York") == "America/New_York"
    with pytest.raises(ValueError, match="not an IANA time zone; expected a name such as UTC"):
        time_zone(name)
