"""Files of weights, sound and malicious, and what the readers find in them."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from batch_scoring.inference.checkpoints.readers import opened, refusing
from batch_scoring.inference.checkpoints.stored import StoredTensor


class SideEffect:
    """Unpickling it makes a folder."""

    def __init__(self, proof: Path) -> None:
        self.proof = proof

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[str]]:
        return os.mkdir, (str(self.proof),)


def read_all(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file, by their place in dots."""
    with opened(file) as content, refusing(file):
        return {place: tensor.read().clone() for place, tensor in _tensors(content.value, "", 0)}


def _tensors(value: object, place: str, depth: int) -> Iterator[tuple[str, StoredTensor]]:
    if isinstance(value, StoredTensor):
        yield place, value
    elif depth < 5 and isinstance(value, dict | list | tuple):
        for name, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(part, f"{place}.{name}" if place else str(name), depth + 1)


def flat(value: object, place: str = "") -> dict[str, torch.Tensor]:
    """The tensors of what torch itself has loaded, by the same places."""
    if isinstance(value, torch.Tensor):
        return {place: value.detach()}
    if not isinstance(value, dict | list | tuple):
        return {}
    parts = value.items() if isinstance(value, dict) else enumerate(value)
    return {
        name: tensor
        for key, part in parts
        for name, tensor in flat(part, f"{place}.{key}" if place else str(key)).items()
    }


def same_bits(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> bool:
    """Whether names, types, shapes and all bits are equal."""
    return found.keys() == expected.keys() and all(_bits(found[name]) == _bits(expected[name]) for name in expected)


def _bits(tensor: torch.Tensor) -> tuple[torch.dtype, tuple[int, ...], bytes]:
    flat = torch.empty(tensor.numel(), dtype=tensor.dtype)
    flat.copy_(tensor.reshape(-1))
    return tensor.dtype, tuple(tensor.shape), flat.view(torch.uint8).numpy().tobytes() if len(flat) else b""
