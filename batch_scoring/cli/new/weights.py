"""What a file of weights tells of its network: names, shapes and arguments. No code in it is run."""

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from batch_scoring.errors import CheckpointError, SampleError
from batch_scoring.inference.checkpoints import arguments, entries
from batch_scoring.inference.checkpoints.readers import opened, refusing
from batch_scoring.inference.checkpoints.stored import Content, StoredTensor

_WRAPPERS = ("module", "_orig_mod")
"""Attributes under which torch's own wrappers hold a network."""
_ATTRIBUTES = ("model", "net", "network")
"""Attributes under which a module of Lightning holds its network."""
_LIGHTNING = "pytorch-lightning_version"


@dataclass(frozen=True)
class Weights:
    """The outline of a network, as far as its weights tell."""

    file: Path
    entry: str
    """The dict of the file that holds them; empty if the file itself does."""
    others: tuple[str, ...]
    """Entries with weights of the same names and shapes, such as a moving average."""
    prefix: str
    """What a wrapper has put before their names."""
    shapes: Mapping[str, tuple[int, ...]]
    """By the names without the prefix."""
    left_out: tuple[str, ...]
    """Other tensors of the entry, such as those of a loss."""
    arguments: Mapping[str, Any]
    """What the file says that the network was built with."""
    version: str | None
    """The version's name, if the file has one."""

    @property
    def outputs(self) -> int:
        """The width of the network's output, as its last weights have it."""
        return next((shape[0] for shape in reversed(list(self.shapes.values())) if shape), 0)

    @property
    def needs_arguments(self) -> bool:
        """Whether `--arguments` has to repeat them; three dimensions are taken from the file."""
        return bool(self.arguments) and tuple(self.arguments) != arguments.DIMENSIONS


def read(file: Path) -> Weights:
    """Read the outline of a file of weights.

    Raises:
        SampleError: it is none, or would run code.
    """
    file = file.expanduser().absolute()
    try:
        with opened(file) as content, refusing(file):
            return _outline(file, content)
    except CheckpointError as error:
        raise SampleError(f"--checkpoint {error}") from error


def _outline(file: Path, content: Content) -> Weights:
    found = {place: _shapes(named) for place, named in entries.state_dicts(content).items()}
    entry = max(found, key=lambda place: len(found[place]))  # of equal ones, the first
    own = content.value if isinstance(content.value, dict) else {}
    prefix = _prefix(found[entry], is_lightning=_LIGHTNING in own)
    version = own.get("version")
    return Weights(
        file=file,
        entry=entry,
        others=tuple(place for place in found if place != entry and found[place] == found[entry]),
        prefix=prefix,
        shapes={name.removeprefix(prefix): shape for name, shape in found[entry].items() if name.startswith(prefix)},
        left_out=tuple(name for name in found[entry] if not name.startswith(prefix)),
        arguments=arguments.offered(own),
        version=version if isinstance(version, str) and version else None,
    )


def _shapes(named: Mapping[str, object]) -> dict[str, tuple[int, ...]]:
    return {name: part.shape for name, part in named.items() if isinstance(part, StoredTensor)}


def _prefix(names: Iterable[str], *, is_lightning: bool) -> str:
    """What stands before the network's own names."""
    parts = [name.split(".") for name in names]
    shared = zip(*(each[:-1] for each in parts), strict=False)
    wrappers = [one[0] for one in itertools.takewhile(lambda one: {*one} <= {one[0]} & {*_WRAPPERS}, shared)]
    rest = [each[len(wrappers) :] for each in parts]
    for attribute in _ATTRIBUTES * is_lightning:
        inner = [each[1] for each in rest if each[0] == attribute and len(each) > 2]
        if len(inner) > len(rest) / 2 and not any(map(str.isdigit, inner)):  # digits: the attribute is nn.Sequential
            return "".join(f"{each}." for each in [*wrappers, attribute])
    return "".join(f"{each}." for each in wrappers)
