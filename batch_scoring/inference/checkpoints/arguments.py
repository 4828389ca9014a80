"""The arguments that build the network's class again, from the command or from the file.

They are never guessed: where the file has values of the arguments' names, such as Lightning's `hyper_parameters`, the
message of the refusal offers them.
"""

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from keyword import iskeyword
from typing import Any

from batch_scoring.errors import UnsoundError
from batch_scoring.runtime.printable import some

DIMENSIONS = ("input_dim", "hidden_dim", "output_dim")
"""Entries of a file that are taken as the arguments, if it has all of them."""

ENTRIES = ("hyper_parameters", "hparams", "model_args", "arguments", "args", "kwargs", "model_config", "config")
"""Entries under which training code keeps what it built the network with; the first is Lightning's."""

_MOST_SIZES = 1_000
"""Items of a list that is an argument."""


def find(content: object, network_class: Callable[..., object], given: dict[str, Any] | None) -> dict[str, Any]:
    """Return the arguments for a class.

    Args:
        content: the file's.
        network_class: of the pipeline.
        given: by the command.

    Raises:
        UnsoundError: there are none, and the class needs some; or an entry of the file is not a whole number.
    """
    if given is not None:
        return given
    own = content if isinstance(content, dict) else {}
    present = [name for name in DIMENSIONS if name in own]
    if len(present) == len(DIMENSIONS):
        return {name: _whole(name, own[name]) for name in DIMENSIONS}
    needed = _needed(network_class)
    if present and set(present) < set(needed) <= set(DIMENSIONS):
        missing = ", ".join(name for name in needed if name not in present)
        raise UnsoundError(
            f"has no {missing}; it has {some(map(str, own))}: add it to the dict that torch.save writes, or "
            "name all of them with --arguments"
        )
    if needed:
        raise UnsoundError(
            f"{getattr(network_class, '__name__', 'the network')} needs {', '.join(needed)}: name "
            f"--arguments '{_example(needed, content)}'"
        )
    return {}


def offered(content: Mapping[Any, Any]) -> dict[str, Any]:
    """The arguments that a file has of itself: the three dimensions, or those of the first entry that holds some."""
    if all(name in content for name in DIMENSIONS):
        return {name: content[name] for name in DIMENSIONS}
    for entry in ENTRIES:
        if isinstance(held := content.get(entry), dict):
            named = {name: value for name, value in held.items() if isinstance(name, str) and _is_argument(name)}
            return {name: value for name, value in named.items() if _is_json(value)}
    return {}


def _is_argument(name: str) -> bool:
    return name.isidentifier() and not iskeyword(name) and name != "self"


def _is_json(value: object) -> bool:
    """Whether a value is a short one, or a list of them such as the sizes of vocabularies; JSON has no NaN."""
    if isinstance(value, list | tuple):
        return len(value) <= _MOST_SIZES and all(map(_is_json, value))
    return _is_short(value) and not (isinstance(value, float) and not math.isfinite(value))


def _whole(name: str, value: object) -> int:
    if type(value) is not int or value < 1:
        raise UnsoundError(f"{name} is {shown(value)}; expected a whole number from 1")
    return value


def _needed(network_class: Callable[..., object]) -> list[str]:
    """The arguments without a default."""
    try:
        parameters = inspect.signature(network_class).parameters.values()
    except (TypeError, ValueError):  # a class may have none that can be read; it will say itself what it needs
        return []
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [each.name for each in parameters if each.default is each.empty and each.kind not in variable]


def _example(needed: list[str], content: object) -> str:
    """JSON with the file's own values where it has any of the arguments' names."""
    found = {name: json.dumps(value) for name, value in _values(content, 3, set()) if name in needed}
    return "{" + ", ".join(f'"{name}": {found.get(name, "…")}' for name in needed) + "}"


def _values(content: object, depth: int, seen: set[int]) -> Iterator[tuple[str, object]]:
    """Yield the numbers, texts and short lists of them in a file's dicts, each dict once."""
    if not isinstance(content, dict) or id(content) in seen or not depth:
        return
    seen.add(id(content))
    for name, value in content.items():
        yield from _values(value, depth - 1, seen)
        if isinstance(name, str) and (_is_short(value) or _is_short_list(value)):
            yield name, value


def shown(value: object) -> str:
    """A value from a file, for a message."""
    return repr(value) if _is_short(value) else f"a {type(value).__name__}"


def _is_short(value: object) -> bool:
    """Whether a value is a number or a text that a message can show."""
    if isinstance(value, str):
        return len(value) < 100
    return value is None or isinstance(value, float) or (isinstance(value, int) and value.bit_length() < 64)


def _is_short_list(value: object) -> bool:
    return isinstance(value, list | tuple) and len(value) < 20 and all(map(_is_short, value))
