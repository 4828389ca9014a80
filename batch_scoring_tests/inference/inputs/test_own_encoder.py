"""The pipeline's own encoder: arrays of one shape, bad rows named, no other row touched."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from batch_scoring.errors import ScoringError
from batch_scoring.inference.inputs.own_encoder import OwnEncoder
from batch_scoring_tests.pictures import SIDE, encode, pictures


def learnt(function: Callable[..., Any] = encode) -> OwnEncoder:
    return OwnEncoder.learn(function, {}, pictures(64))


def test_what_it_gives_is_learnt_from_rows() -> None:
    encoder = learnt()
    assert {name: (each.shape, each.type) for name, each in encoder.gives.items()} == {
        "image": ((1, SIDE, SIDE), "float32")
    }
    assert encoder.row_bytes == 4 * SIDE * SIDE
    assert encoder.blank(3)["image"].shape == (3, 1, SIDE, SIDE)


def test_rows_that_cannot_be_decoded_are_named_and_the_others_are_as_without_them() -> None:
    batch = pictures(300)
    cells = batch["photo"].to_pylist()
    for row in (0, 77, 299):
        cells[row] = b"no picture"
    cells[5] = None
    bad = batch.set_column(2, "photo", pa.array(cells, pa.binary()))
    encoder = learnt()
    found, expected = encoder.blank(320), encoder.blank(320)
    failed = encoder.encode(bad, found)
    assert not encoder.encode(batch, expected)
    assert [(row.position, row.rule) for row in failed] == [(row, "encode_raises") for row in (0, 5, 77, 299)]
    assert failed[0].detail.startswith("ValueError: cannot reshape array of size 10")
    good = np.setdiff1d(np.arange(300), [0, 5, 77, 299])
    assert np.array_equal(found["image"][good], expected["image"][good])


def test_a_function_that_always_raises_is_at_fault() -> None:
    def broken(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
        raise KeyError("photo")

    encoder = OwnEncoder(broken, {}, pictures(1).schema, learnt().gives)
    with pytest.raises(ScoringError, match="raises for more than 100 rows of a record batch: the function is at fault"):
        encoder.encode(pictures(300), encoder.blank(320))


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (None, "returned a NoneType; expected a dict of arrays"),
        ({}, "returned a dict; expected a dict of arrays"),
        ({"image": np.zeros((3, 2))}, "returned 3 rows of image for 64 rows; expected one for each"),
        ({"image": "text"}, "returned image as <U4"),
        ({"image": np.array([f"{n}" for n in range(64)])}, "returned image as <U2"),
        ({"image": [[1], [2, 3]]}, "returned image, which is no array"),
    ],
)
def test_what_is_no_array_is_an_error_that_says_so(result: object, message: str) -> None:
    with pytest.raises(ScoringError, match=message):
        OwnEncoder.learn(lambda rows, fitted: result, {}, pictures(64))


def test_another_shape_than_in_training_is_an_error() -> None:
    encoder = OwnEncoder(
        lambda rows, fitted: {"image": np.zeros((rows.num_rows, 2), np.int64)}, {}, pictures(1).schema, learnt().gives
    )
    with pytest.raises(
        ScoringError,
        match=r"returned image int64\[rows, 2\]; when the bundle was written, image float32\[rows, 1, 6, 6\]",
    ):
        encoder.encode(pictures(5), learnt().blank(64))


def test_float64_is_rounded_once_and_torch_tensors_are_taken() -> None:
    encoder = OwnEncoder.learn(
        lambda rows, fitted: {"a": torch.ones(rows.num_rows, 2), "b": np.full(rows.num_rows, 0.1)}, {}, pictures(64)
    )
    found = encoder.blank(64)
    encoder.encode(pictures(64), found)
    assert found["b"][0] == np.float32(0.1) and found["a"].shape == (64, 2)
