"""A tensor lies within its storage, or is refused before anything is read."""

import pickle
from pathlib import Path

import pytest
import torch

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.checkpoints.readers import opened
from batch_scoring.inference.checkpoints.stored import Storage
from batch_scoring_tests.weight_files import hand_made, refusal

TENSOR = (
    b"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\x00\x00\x00storagectorch\nFloatStorage\n"
    b"X\x01\x00\x00\x000X\x03\x00\x00\x00cpuK\x10tQ"
)
"""The beginning of a tensor in the storage of 16 numbers that `hand_made` writes."""


@pytest.mark.parametrize(
    ("offset", "shape", "stride", "sound"),
    [
        (0, (16,), (1,), True),
        (0, (17,), (1,), False),
        (1, (16,), (1,), False),
        (0, (4, 5), (4, 1), False),
        (0, (4, 4), (4, 1), True),
        (12, (4,), (1,), True),
        (0, (2,), (-1,), False),
        (-1, (2,), (1,), False),
        (0, (-2,), (1,), False),
        (0, (2, 2), (1,), False),
        (0, (10**15,), (0,), True),  # of one number: takes no memory
        (0, (2**62, 2**62), (0, 0), False),
        (0, (2**31,), (2**40,), False),
        (0, (), (), True),
        (16, (), (), False),
        (99, (0,), (1,), True),
        (0, (1,) * 65, (1,) * 65, False),
    ],
)
def test_a_tensor_lies_within_its_storage(
    tmp_path: Path, offset: int, shape: tuple[int, ...], stride: tuple[int, ...], sound: bool
) -> None:
    place = b"".join(pickle.dumps(part, 2)[2:-1] for part in (offset, shape, stride))
    file = hand_made(tmp_path, b"}X\x01\x00\x00\x00w" + TENSOR + place + b"\x89NtRs.")
    if sound:
        with opened(file) as content:
            assert content.value["w"].read().shape == shape  # type: ignore[index]
    else:
        message = refusal(file)
        assert (
            "of a storage of 16" in message
            or "whole numbers from 0" in message
            or "with strides" in message
            or "overflow" in message
        )


def test_a_storage_larger_than_memory_is_not_read() -> None:
    def load() -> bytes:
        raise AssertionError("it was read")

    tensor = Storage(2**50, load).tensor(torch.float32, 0, (2,), (1,))
    with pytest.raises(UnsoundError, match="more than this machine's memory"):
        tensor.read()
