"""Search for a network's weights in a file: the entry that holds them, and what stands before their names.

Training code saves state dicts under any name, and its wrappers put a prefix before the weights' own names:
DataParallel `module.`, Lightning the attribute's name, torch.compile `_orig_mod.`. Whatever they are called, the right
choice makes the names exactly those of the network. If two do, the user has to choose: an average of the weights fits
as well as the weights.
"""

import itertools
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeGuard

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.stored import Content, OpaqueObject, StoredTensor
from batch_scoring.runtime.printable import some

if TYPE_CHECKING:
    import torch

PLAIN = "model_state_dict"
"""The entry that needs no words: where torch's own documentation puts the weights."""

_DEPTH = 3
"""Of dicts within dicts that are searched."""

_MOST_PREFIXES = 20
"""Tried for one entry, the most frequent first."""


@dataclass(frozen=True)
class Choice:
    """A network's weights in a file."""

    entry: str
    """The dict that holds them, its names joined by dots; empty if the file itself does."""
    prefix: str
    """Removed from their names."""
    added: str
    """Put before their names: the attribute of the pipeline's class that holds the network."""
    names: Mapping[str, str]
    """Names in the file, by those in the network."""
    tensors: Mapping[str, StoredTensor]
    """All tensors of the entry, by their names in the file."""

    @property
    def left_out(self) -> tuple[str, ...]:
        """Tensors without the prefix, such as the weights of a loss."""
        return tuple(sorted(self.tensors.keys() - set(self.names.values())))

    def describe(self) -> str:
        """What was found, in one line; empty if the weights are where they usually are, under their own names."""
        parts = (
            f"entry {self.entry}" * (self.entry not in ("", PLAIN)),
            f"prefix {self.prefix} removed" * bool(self.prefix),
            f"prefix {self.added} added" * bool(self.added),
            f"left out {some(self.left_out)}" * bool(self.left_out),
        )
        return ", ".join(filter(None, parts))

    def read(self) -> dict[str, "torch.Tensor"]:
        """Read the tensors, by the network's names."""
        return {name: self.tensors[found].read() for name, found in self.names.items()}


def choose(content: Content, network: "torch.nn.Module", entry: str | None = None, prefix: str | None = None) -> Choice:
    """Find the network's weights.

    Args:
        content: of the file.
        network: of the pipeline's class; may be on the meta device.
        entry: the only one to look at, if not None.
        prefix: the only one to try, if not None.

    Returns:
        The only choice that fits; if there is none, the nearest, for which `weights.build` says what does not fit.

    Raises:
        UnsoundError: there are no weights, or several choices fit.
    """
    own = network.state_dict(keep_vars=True)
    found = state_dicts(content)
    if entry is not None and entry not in found:
        raise UnsoundError(f"it has no tensors in the entry {entry}; it has them in {some(map(_shown, found))}")
    places = [entry] if entry is not None else list(found)
    choices = _distinct(choice for place in places for choice in _choices(place, found[place], own, prefix))
    if not choices:
        raise UnsoundError(_nothing_in_common(found, places, own, prefix))
    fitting = [choice for choice in choices if _has_names(choice, own) and _has_shapes(choice, own)]
    if len(fitting) > 1:
        raise UnsoundError(f"several of its entries fit the network: {some(map(_options, fitting), ' or ')}")
    nearest = fitting[0] if fitting else max(choices, key=lambda choice: len(choice.names.keys() & own.keys()))
    _check_readable(nearest, found[nearest.entry], own)
    return nearest


def state_dicts(content: Content) -> dict[str, dict[str, Any]]:
    """Find all dicts that hold tensors by name, each once, by its place.

    Raises:
        UnsoundError: there are none.
    """
    value = content.value
    if not isinstance(value, dict):
        raise UnsoundError(f"it holds a {type(value).__name__}; expected a state dict, or a dict with one")
    if found := dict(_within(value, "", _DEPTH, set())):
        return found
    modules = [part.name for part in (value, *value.values()) if _is_module(part)]
    if modules:
        raise UnsoundError(
            f"it holds a whole module, {some(modules)}, which only its own code can load; expected a state dict: "
            "where that code is, torch.save(network.state_dict(), file)"
        )
    raise UnsoundError(f"it holds no tensors by name but {some(map(str, value)) or 'nothing'}; expected a state dict")


def _is_module(value: object) -> TypeGuard[OpaqueObject]:
    """Whether a value stands for a torch.nn.Module that was pickled as a whole."""
    return isinstance(value, OpaqueObject) and "_modules" in value


def _within(value: object, place: str, depth: int, seen: set[int]) -> Iterator[tuple[str, dict[str, Any]]]:
    if not isinstance(value, dict) or id(value) in seen or not depth or _is_module(value):
        return
    seen.add(id(value))
    named = {name: part for name, part in value.items() if isinstance(name, str)}
    if any(isinstance(part, StoredTensor) for part in named.values()):
        yield place, named
    for name, part in named.items():
        yield from _within(part, f"{place}.{name}" if place else name, depth - 1, seen)


def _choices(
    entry: str, found: Mapping[str, Any], own: Mapping[str, "torch.Tensor"], only: str | None
) -> Iterator[Choice]:
    """Yield the choices in one entry that have at least one name in common with the network."""
    tensors = {name: part for name, part in found.items() if isinstance(part, StoredTensor)}
    for added in _common_prefixes(own):
        wanted = {name.removeprefix(added) for name in own}
        for prefix in _prefixes(tensors, wanted) if only is None else [only]:
            chosen = (name for name in tensors if name.startswith(prefix))
            names = {added + name.removeprefix(prefix): name for name in chosen}
            if names:
                yield Choice(entry, prefix, added, names, tensors)


def _common_prefixes(names: Collection[str]) -> list[str]:
    """The prefixes that all names share, with dots at their ends; the first is none."""
    common = itertools.takewhile(
        lambda parts: len(set(parts)) == 1, zip(*(name.split(".")[:-1] for name in names), strict=False)
    )
    return ["", *itertools.accumulate(f"{parts[0]}." for parts in common)]


def _prefixes(found: Iterable[str], wanted: Collection[str]) -> list[str]:
    """What stands before the names that are wanted, the most frequent first."""
    counts = Counter(name[:start] for name in found for start in _starts(name) if name[start:] in wanted)
    return [prefix for prefix, _ in counts.most_common(_MOST_PREFIXES)]


def _starts(name: str) -> list[int]:
    """Where the parts of a name between dots begin."""
    return [0, *(place + 1 for place, letter in enumerate(name) if letter == ".")]


def _distinct(choices: Iterable[Choice]) -> list[Choice]:
    """Without those that choose the same tensors under the same names as another."""
    first: dict[object, Choice] = {}
    for choice in choices:
        first.setdefault((choice.entry, frozenset(choice.names.items())), choice)
    return list(first.values())


def _has_names(choice: Choice, own: Mapping[str, "torch.Tensor"]) -> bool:
    """Whether the names are those of the network; of tied weights one is enough."""
    there = {id(own[name]) for name in choice.names if name in own}
    return choice.names.keys() <= own.keys() and all(id(value) in there for value in own.values())


def _has_shapes(choice: Choice, own: Mapping[str, "torch.Tensor"]) -> bool:
    from torch.nn.parameter import is_lazy

    return all(
        is_lazy(own[name]) or tuple(own[name].shape) == choice.tensors[found].shape
        for name, found in choice.names.items()
    )


def _check_readable(choice: Choice, found: Mapping[str, Any], own: Mapping[str, "torch.Tensor"]) -> None:
    """Check that no weight is there in a form that is not read."""
    for name in own.keys() - choice.names.keys():
        there = choice.prefix + name.removeprefix(choice.added)
        if isinstance(part := found.get(there), OpaqueObject):
            raise UnsoundError(f"{there} is an object of {part.name}; expected a dense tensor")


def _nothing_in_common(
    found: Mapping[str, Mapping[str, Any]], places: Iterable[str], own: Collection[str], prefix: str | None
) -> str:
    if prefix is not None:
        return f"it has no tensors whose names begin with {prefix}"
    entries = (f"{_shown(place)} ({some(found[place], ', ')})" for place in places)
    return f"none of its names is one of the network's ({some(own)}); it has {some(entries, ', ')}"


def _shown(entry: str) -> str:
    return entry or "the file itself"


def _options(choice: Choice) -> str:
    return f"--entry {choice.entry or repr('')}" + f" --prefix {choice.prefix}" * bool(choice.prefix)
