"""The network's own outputs: encoded row by row as the contract says, whatever the columns' types."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.manifest import LoadedModel, Manifest
from batch_scoring_tests.networks import Base, made, own_outputs, table


def manifest(**changes: Any) -> Manifest:  # noqa: ANN401
    options = {
        "name": "n",
        "version": "v",
        "task": "regression",
        "arguments": {},
        "numeric": ("x",),
        "categorical": {},
        "classes": (),
        "training": {},
        "metrics": {},
        "files": {},
    }
    return Manifest(**(options | changes))


def loaded(description: Manifest) -> LoadedModel:
    return LoadedModel(description, "", made(Base))


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20))
def test_whole_numbers_are_rounded_once(values: list[int | None]) -> None:
    """Also beside a missing one: two roundings, by way of float64, may give the neighbour."""
    found = eager.inputs(loaded(manifest()), pa.table({"x": pa.array(values, pa.int64())})).matrices["numeric"]
    for value, number in zip(values, found[:, 0], strict=True):
        assert np.isnan(number) if value is None else number == np.int64(value).astype(np.float32)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array([True, None, False]), [1, np.nan, 0]),
        (pa.array([1.5, None, np.nan]), [1.5, np.nan, np.nan]),
        (pa.array([1e300, -1e300, 0.0]), [np.inf, -np.inf, 0]),
        (pa.array([1, 2, 3], pa.uint8()), [1, 2, 3]),
        (pa.chunked_array([[1.0], [None, 2.0]]), [1, np.nan, 2]),
    ],
)
def test_numbers_of_every_type(column: pa.Array, expected: list[float]) -> None:
    found = eager.inputs(loaded(manifest()), pa.table({"x": column})).matrices["numeric"]
    assert found.dtype == np.float32 and np.array_equal(found[:, 0], np.array(expected, np.float32), equal_nan=True)


@pytest.mark.parametrize(
    ("column", "expected"),
    [
        (pa.array(["b", "a", None, "z"]), [2, 1, 0, 0]),
        (pa.array(["b", "a", None, "z"]).dictionary_encode(), [2, 1, 0, 0]),
        (pa.array([7, 3, None, 7]), [3, 0, 0, 3]),
        (pa.array([True, False, None, True]), [4, 0, 0, 4]),
    ],
)
def test_words_of_every_type(column: pa.Array, expected: list[int]) -> None:
    model = manifest(numeric=(), categorical={"c": ("a", "b", "7", "true")})
    found = eager.inputs(loaded(model), pa.table({"c": column})).matrices["categorical"]
    assert found.dtype == np.int64 and found[:, 0].tolist() == expected


def test_a_column_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(UnsoundError, match="column x is string; expected numbers"):
        eager.inputs(loaded(manifest()), pa.table({"x": ["1"]}))
    with pytest.raises(UnsoundError, match=r"column c is list<item: int64>; expected text"):
        eager.inputs(loaded(manifest(numeric=(), categorical={"c": ("a",)})), pa.table({"c": [[1]]}))
    with pytest.raises(UnsoundError, match="there is no column x; there are y"):
        eager.inputs(loaded(manifest()), pa.table({"y": [1]}))


def test_rows_beyond_one_pass_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, rows = made(Base), table(150)
    model = manifest(
        task="classification",
        classes=("a", "b"),
        numeric=("x0", "x1", "x2", "x3"),
        categorical={"c": ("red", "green", "blue")},
    )
    monkeypatch.setattr(eager, "ROWS", 64)
    assert np.allclose(
        eager.outputs(LoadedModel(model, "", network), rows), own_outputs(network, rows), rtol=0, atol=1e-6
    )
