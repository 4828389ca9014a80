"""What a file of weights holds, described before any tensor is read.

Readers give descriptions; only the tensors that the network needs are ever read, so an optimiser's state beside them
costs nothing.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeGuard

from batch_scoring.errors import UnsoundError

if TYPE_CHECKING:
    import torch

MOST_DIMENSIONS = 64
"""Of a tensor; torch's own limit."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file."""

    shape: tuple[int, ...]
    read: Callable[[], "torch.Tensor"]


class OpaqueObject(dict[Any, Any]):
    """Stands for an object whose class is not imported: its name, its items and attributes, none of its behaviour."""

    def __init__(self, name: str) -> None:
        """`name`: the class or function that would have made it."""
        super().__init__()
        self.name = name


@dataclass(frozen=True)
class Content:
    """A file's content: plain values, dicts and lists, `StoredTensor` and `OpaqueObject`."""

    value: object
    foreign: tuple[str, ...] = ()
    """Classes and functions that the file names and that were not imported."""


class Storage:
    """Bytes that tensors are views of, read once and only when one of these is wanted."""

    def __init__(self, size: int, load: Callable[[], bytes]) -> None:
        """`size`: in bytes."""
        self.size = size
        self._load = load

    @cached_property
    def _content(self) -> "torch.Tensor":
        import torch

        if self.size > os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"):
            raise UnsoundError(f"a storage has {self.size:,} bytes, more than this machine's memory")
        content = bytearray(self._load())  # a copy: torch wants memory that can be written, and aligned
        if len(content) != self.size:
            raise UnsoundError(f"a storage has {len(content)} bytes; expected {self.size}")
        return torch.frombuffer(content, dtype=torch.uint8) if content else torch.empty(0, dtype=torch.uint8)

    def part(self, offset: int, size: int) -> "Storage":
        """The storage of some of the bytes."""
        if not (_is_count(offset) and _is_count(size) and offset + size <= self.size):
            raise UnsoundError(f"bytes {offset} to {offset} + {size} of a storage of {self.size}")
        return Storage(size, lambda: bytes(self._content[offset : offset + size].numpy()))

    def tensor(self, dtype: "torch.dtype", offset: object, shape: object, stride: object) -> StoredTensor:
        """Describe a view of the storage, which has to lie within it.

        Raises:
            UnsoundError: it does not, or the description is malformed.
        """
        shape, stride = _counts(shape), _counts(stride)
        if len(shape) != len(stride) or not _is_count(offset):
            raise UnsoundError(f"a tensor of shape {shape} with strides {stride} that begins nowhere")
        items = self.size // dtype.itemsize
        end = offset + 1 + sum((count - 1) * step for count, step in zip(shape, stride, strict=True))
        if 0 not in shape and end > items:
            raise UnsoundError(
                f"a tensor of shape {shape} with strides {stride} ends at item {end} of a storage of {items}"
            )
        return StoredTensor(shape, lambda: self._view(dtype, offset, shape, stride))

    def _view(
        self, dtype: "torch.dtype", offset: int, shape: tuple[int, ...], stride: tuple[int, ...]
    ) -> "torch.Tensor":
        import torch

        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        whole = self._content[: self.size // dtype.itemsize * dtype.itemsize]
        # any byte but 0 and 1 would make a bool that is neither
        flat = whole != 0 if dtype is torch.bool else whole.view(dtype)
        return flat.as_strided(shape, stride, offset)


def _counts(values: object) -> tuple[int, ...]:
    if not isinstance(values, tuple | list) or len(values) > MOST_DIMENSIONS or not all(map(_is_count, values)):
        raise UnsoundError(f"a tensor whose shape or strides are not up to {MOST_DIMENSIONS} whole numbers from 0")
    return tuple(values)


def _is_count(value: object) -> TypeGuard[int]:
    return type(value) is int and 0 <= value < 2**63
