"""Arguments come from the command or from the file; otherwise the message offers what the file has."""

from typing import Any

import pytest

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.arguments import find
from batch_scoring.inference.checkpoints.stored import OpaqueObject


class Net:
    def __init__(self, input_dim: int, hidden_dims: list[int], *, dropout: float = 0.1) -> None: ...


class Plain:
    def __init__(self, input_dim: int, hidden_dim: int, output_dim: int) -> None: ...


class Nothing:
    def __init__(self, width: int = 3, **more: object) -> None: ...


def refusal(content: object, network_class: type) -> str:
    with pytest.raises(UnsoundError) as raised:
        find(content, network_class, None)
    return str(raised.value)


def test_the_commands_arguments_count() -> None:
    assert find({"input_dim": 3}, Net, {"input_dim": 4}) == {"input_dim": 4}
    assert find(None, Net, {}) == {}


def test_the_files_dimensions_are_the_arguments() -> None:
    dimensions = {"input_dim": 3, "hidden_dim": 4, "output_dim": 2}
    assert find({**dimensions, "epoch": 7}, Plain, None) == dimensions


def test_a_class_that_needs_none_gets_none() -> None:
    assert find({}, Nothing, None) == {}


@pytest.mark.parametrize("place", ["hyper_parameters", "config"])
def test_what_the_file_has_is_offered(place: str) -> None:
    opaque = OpaqueObject("lightning.AttributeDict")
    opaque.update({"hidden_dims": [64, 32], "input_dim": 8, "dropout": 0.3, "criterion": OpaqueObject("Loss")})
    expected = """Net needs input_dim, hidden_dims: name --arguments '{"input_dim": 8, "hidden_dims": [64, 32]}'"""
    assert refusal({place: opaque}, Net) == expected


def test_what_it_does_not_have_is_left_open() -> None:
    assert refusal({}, Net).endswith("""--arguments '{"input_dim": …, "hidden_dims": …}'""")


def test_hostile_values_are_not_printed() -> None:
    nested: list[Any] = []
    for _ in range(60):  # as JSON it would be 2 ** 60 brackets
        nested = [nested, nested]
    content: dict[str, Any] = {"input_dim": nested, "hidden_dims": "x" * 10**7}
    content["again"] = content
    assert len(refusal(content, Net)) < 300
    assert "input_dim is a list; expected a whole number" in refusal(
        {**content, "hidden_dim": 1, "output_dim": 2}, Plain
    )
