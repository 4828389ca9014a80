"""Files of torch.save are read bit by bit as torch reads them, whatever else is in them."""

import argparse
import collections
import enum
import functools
import pickle
from collections import Counter, OrderedDict
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring.inference.checkpoints.readers import opened
from batch_scoring_tests.weight_files import UNTYPED, ZIPPED, flat, read_all, refusal, same_bits, saved, tensors


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    content=st.dictionaries(
        st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12),
        st.one_of(tensors(), st.integers(), st.floats(), st.text(max_size=20), st.none(), st.booleans()),
        max_size=5,
    ),
    zipped=st.booleans(),
)
def test_files_of_torch_save_are_read_as_torch_reads_them(
    tmp_path: Path, content: dict[str, Any], zipped: bool
) -> None:
    file = saved(tmp_path, {"state": OrderedDict(content), "n": 1}, zipped=zipped)
    expected = flat({"state": content})
    assert same_bits(read_all(file), expected)
    if zipped or not any(value.dtype in UNTYPED for value in expected.values()):
        assert same_bits(flat(torch.load(file, weights_only=True)), expected)
    with opened(file) as found:
        plain = {name: value for name, value in content.items() if not isinstance(value, list)}
        assert isinstance(found.value, dict) and found.foreign == ()
        kept = {name: value for name, value in found.value["state"].items() if name in plain}
        assert repr(kept) == repr(plain), "numbers and texts are kept too, NaN included"


@ZIPPED
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_every_protocol_of_pickle_is_read(tmp_path: Path, zipped: bool, protocol: int) -> None:
    content = {
        "w": torch.arange(6.0).view(2, 3).t(),
        "long": 2**70,
        "set": {1},
        "frozen": frozenset({2}),
        "b": b"x" * 300,
    }
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    assert same_bits(read_all(tmp_path / "w.pt"), {"w": content["w"]})


class Scaler:
    """A class of the training code, which scoring does not have."""

    def __init__(self) -> None:
        self.mean = np.float64(1.5)
        self.table = np.arange(3)


@ZIPPED
def test_objects_beside_the_weights_are_named_and_not_made(tmp_path: Path, zipped: bool) -> None:
    weights = {"w": torch.randn(3)}
    content = {
        "state_dict": weights,
        "scaler": Scaler(),
        "at": Path("x"),
        "counts": Counter("aab"),
        "dtype": torch.half,
    }
    file = saved(tmp_path, content, zipped=zipped)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(file, weights_only=True)
    assert same_bits(read_all(file), {"state_dict.w": weights["w"]})
    with opened(file) as found:
        assert f"{__name__}.Scaler" in found.foreign and "numpy._core.multiarray.scalar" in found.foreign


def test_an_optimisers_state_is_not_read(tmp_path: Path) -> None:
    file = saved(tmp_path, {"w": torch.randn(3), "optimiser": torch.zeros(1_000_000)})
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1  # within the optimiser's zeros
    file.write_bytes(data)
    with opened(file) as content:
        assert content.value["w"].read().shape == (3,)  # type: ignore[index]
    assert "damaged" in refusal(file)


SPARSE = torch.eye(3).to_sparse()


def test_sparse_tensors_are_left_out(tmp_path: Path) -> None:
    assert read_all(saved(tmp_path, {"sparse": SPARSE, "w": torch.ones(1)})).keys() == {"w"}


class Names(dict[str, Any]):
    """A state dict of a class of its own."""


class Mode(enum.Enum):
    TRAINING = 1


@pytest.mark.filterwarnings("ignore:.*quantized tensor")
@ZIPPED
@pytest.mark.parametrize("protocol", [2, 5])
def test_whatever_training_code_saves_beside_the_weights_is_passed_over(
    tmp_path: Path, zipped: bool, protocol: int
) -> None:
    marked = torch.nn.Parameter(torch.randn(2))
    marked.note = "an attribute"  # type: ignore[attr-defined]
    weights = {"w": torch.randn(3).t(), "p": marked}
    optimiser = torch.optim.Adam([marked])
    content = {
        "args": argparse.Namespace(width=3, widths=[1, 2]),
        "state": Names(weights),
        "objects": [
            Mode.TRAINING,
            Decimal("1.5"),
            datetime(2024, 1, 1, tzinfo=UTC),
            range(3),
            1 + 2j,
            slice(1),
            bytearray(b"x"),
        ],
        "functions": [functools.partial(print, 1), len, torch.nn.functional.relu, torch.float16, torch.device("cpu")],
        "containers": [collections.deque([1]), collections.defaultdict(list, a=[1]), {(1, 2): 3}, {1}, frozenset("a")],
        "numpy": [np.arange(3), np.float32(1), np.array(["a"])],
        "optimiser": optimiser.state_dict(),
        "quantised": torch.quantize_per_tensor(torch.ones(5), 0.1, 0, torch.qint32),
        "sparse": torch.eye(2).to_sparse(),
        "conjugate": torch.ones(2, dtype=torch.complex64).conj(),
        "size": torch.Size([1, 2]),
    }
    torch.save(content, tmp_path / "w.pt", pickle_protocol=protocol, _use_new_zipfile_serialization=zipped)
    found = read_all(tmp_path / "w.pt")
    assert same_bits(found, {"state.w": weights["w"], "state.p": marked.detach()})
    with opened(tmp_path / "w.pt") as opened_content:
        assert isinstance(opened_content.value, dict)
        assert opened_content.value["args"] == {"width": 3, "widths": [1, 2]}
        assert (
            f"{__name__}.Names" in opened_content.foreign and "torch._utils._rebuild_qtensor" in opened_content.foreign
        )
