"""Every file is recognised by its first bytes and read, or refused in one line; a damaged file never does harm."""

import json
import pickle
import random
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings

from batch_scoring.errors import CheckpointError
from batch_scoring.inference.checkpoints.readers import opened
from batch_scoring_tests.weight_files import ZIPPED, read_all, refusal, same_bits, saved, tensors


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(views=tensors())
def test_safetensors_are_read_as_their_own_reader_does(tmp_path: Path, views: list[torch.Tensor]) -> None:
    content = {str(number): view.detach().contiguous().clone() for number, view in enumerate(views)}
    data = safetensors.torch.save(content)
    (tmp_path / "w.safetensors").write_bytes(data)
    found = read_all(tmp_path / "w.safetensors")
    assert same_bits(found, content) and same_bits(found, safetensors.torch.load(data))


@pytest.mark.filterwarnings("ignore:.torch.jit")
def test_torchscript_is_refused(tmp_path: Path) -> None:
    torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), tmp_path / "w.pt")
    message = refusal(tmp_path / "w.pt")
    assert "TorchScript archive, which holds code" in message and "torch.save(network.state_dict(), file)" in message


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "damaged or not a checkpoint"),
        (b"hello world", "damaged or not a checkpoint"),
        (pickle.dumps({"w": 1}), "a pickle that torch.save did not write; it was not loaded"),
        (b"\x89HDF\r\n\x1a\n" + bytes(99), "an HDF5 file, as Keras writes"),
        (b'{"weight_map": {}}', "a JSON text"),
        (b"\x1f\x8b\x08" + bytes(20), "compressed by gzip"),
        (b"\x08\x07\x12\x07pytorch" + bytes(99), "damaged or not a checkpoint"),
    ],
)
def test_other_formats_are_refused_by_name(tmp_path: Path, content: bytes, says: str) -> None:
    (tmp_path / "w.pt").write_bytes(content)
    message = refusal(tmp_path / "w.pt")
    assert says in message and "expected a whole file of torch.save" in message


def test_other_zip_archives_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", w=np.ones(3))
    assert "a zip archive of another kind (w.npy …)" in refusal(tmp_path / "w.npz")


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    assert "cannot be read: No such file" in refusal(tmp_path / "nowhere.pt")
    assert "cannot be read: Is a directory" in refusal(tmp_path)


SMALL = {"w": torch.arange(5.0), "b": torch.arange(3), "n": {"v": torch.ones(2, 2).half()}, "version": "v1"}


def files(folder: Path, exported: Path) -> dict[str, bytes]:
    return {
        "zip": saved(folder, SMALL).read_bytes(),
        "legacy": saved(folder, SMALL, zipped=False).read_bytes(),
        "safetensors": safetensors.torch.save({"w": torch.arange(5.0), "b": torch.arange(3)}),
        "pt2": exported.read_bytes(),
    }


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pt2"])
def test_a_truncated_file_is_refused(tmp_path: Path, exported: tuple[Path, dict[str, torch.Tensor]], kind: str) -> None:
    whole = files(tmp_path, exported[0])[kind]
    for length in {*range(0, len(whole), max(1, len(whole) // 200)), len(whole) - 1}:
        (tmp_path / "cut").write_bytes(whole[:length])
        refusal(tmp_path / "cut")


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors", "pt2"])
@pytest.mark.filterwarnings("ignore:invalid escape sequence")
def test_flipped_bits_are_an_error_or_without_effect(
    tmp_path: Path, exported: tuple[Path, dict[str, torch.Tensor]], kind: str
) -> None:
    whole = files(tmp_path, exported[0])[kind]
    (tmp_path / "sound").write_bytes(whole)
    expected, generator, refused = read_all(tmp_path / "sound"), random.Random(0), 0
    for _ in range(600):
        data = bytearray(whole)
        data[generator.randrange(len(data))] ^= 1 << generator.randrange(8)
        (tmp_path / "w").write_bytes(data)
        try:
            found = read_all(tmp_path / "w")
        except CheckpointError as error:
            assert "\n" not in str(error) and len(str(error)) < 700
            refused += 1
        else:  # checksums cover all records of an archive; the other formats have none
            assert kind in ("legacy", "safetensors") or same_bits(found, expected)
    assert refused > 60


@pytest.mark.parametrize(
    "header",
    [
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 999]}},
        {"w": {"dtype": "F32", "shape": [4], "data_offsets": [8, 16]}},
        {"w": {"dtype": "F32", "shape": [5], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [2**40, 2**40], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}},
        {"w": {"dtype": "F99", "shape": [4], "data_offsets": [0, 16]}},
        {
            "v": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]},
            "w": {"dtype": "F32", "shape": [2], "data_offsets": [8, 16]},
        },
    ],
)
def test_safetensors_with_wrong_offsets_are_refused(tmp_path: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    (tmp_path / "w.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + bytes(16))
    refusal(tmp_path / "w.safetensors")


@ZIPPED
def test_what_is_cut_off_is_missed_even_if_nothing_needs_it(tmp_path: Path, zipped: bool) -> None:
    file = saved(tmp_path, {"w": torch.ones(3), "optimiser": torch.ones(1000)}, zipped=zipped)
    file.write_bytes(file.read_bytes()[:-10])
    with pytest.raises(CheckpointError), opened(file):
        pass
