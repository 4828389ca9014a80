"""Names that a person or a database would mistake are refused."""

import pytest
from pydantic import TypeAdapter, ValidationError

from batch_scoring.inference.heads.names import Name, Names


@pytest.mark.parametrize(
    ("names", "said"),
    [(("a", "b", "a"), "'a' occurs twice; expected every name once"), ((), ""), (("a", "A", " a"), "")],
)
def test_every_name_stands_once(names: tuple[str, ...], said: str) -> None:
    try:
        assert TypeAdapter(Names).validate_python(names) == names
    except ValidationError as error:
        assert said and said in str(error)
    else:
        assert not said


@pytest.mark.parametrize("name", ["", "a\x1b[2J", "x" * 201, "a\nb", "\x00"])
def test_a_name_is_short_and_can_be_printed(name: str) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Name).validate_python(name)
