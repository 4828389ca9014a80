"""Files of weights, sound and malicious, and what the readers find in them."""

import os
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st

from batch_scoring.errors import CheckpointError
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


def refusal(file: Path) -> str:
    with pytest.raises(CheckpointError) as raised:
        read_all(file)
    assert str(file) in str(raised.value) and "\n" not in str(raised.value) and len(str(raised.value)) < 700
    return str(raised.value)


def saved(folder: Path, content: object, *, zipped: bool = True) -> Path:
    torch.save(content, folder / "w.pt", _use_new_zipfile_serialization=zipped)
    return folder / "w.pt"


def hand_made(folder: Path, instructions: bytes) -> Path:
    """An archive of torch.save with this pickle."""
    with zipfile.ZipFile(folder / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02" + instructions)
        archive.writestr("w/byteorder", "little")
        archive.writestr("w/data/0", bytes(64))
    return folder / "w.pt"


def rewritten(source: Path, target: Path, changed: dict[str, bytes]) -> None:
    """Write an archive again with other records."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for record in old.infolist():
            new.writestr(record.filename, changed.get(record.filename.partition("/")[2], old.read(record)))


def peak() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


DTYPES = [
    *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.int16, torch.int8),
    *(torch.uint8, torch.bool, torch.complex64, torch.uint16, torch.float8_e4m3fn),
]


UNTYPED = (torch.uint16, torch.float8_e4m3fn)
"""Torch itself cannot read these from a file of the older kind that it has written."""


@st.composite
def tensors(draw: st.DrawFn) -> list[torch.Tensor]:
    """Views of one storage: transposed, expanded, cut, empty, scalar; and one as a parameter."""
    dtype = draw(st.sampled_from(DTYPES))
    size = draw(st.integers(0, 24))
    raw = draw(st.binary(min_size=size * dtype.itemsize, max_size=size * dtype.itemsize))
    base = torch.frombuffer(bytearray(raw), dtype=torch.uint8) if raw else torch.empty(0, dtype=torch.uint8)
    base = base % 2 == 1 if dtype is torch.bool else base.view(dtype)
    views = [base]
    for _ in range(draw(st.integers(0, 4))):
        rows, columns = draw(st.integers(0, 5)), draw(st.integers(0, 5))
        steps = draw(st.tuples(st.integers(0, 4), st.integers(0, 4)))
        offset = draw(st.integers(0, max(size - 1, 0)))
        last = offset + (rows - 1) * steps[0] + (columns - 1) * steps[1]
        if rows and columns and last < size:
            views.append(base.as_strided((rows, columns), steps, offset))
    if size:
        views.append(base[draw(st.integers(0, size - 1))])
    if dtype.is_floating_point and dtype.itemsize > 1:
        views.append(torch.nn.Parameter(base.clone()))
    return views


ZIPPED = pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
