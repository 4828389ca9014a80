"""A fitted state comes back as it was; what is not data is refused in one line that says what to write."""

from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as of_numpy

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs import fitted

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
ARRAYS = of_numpy.arrays(
    st.sampled_from(
        ["bool", "int8", "int16", "int32", "int64", "uint8", "float16", "float32", "float64", ">f8", ">i4"]
    ),
    of_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4),
).filter(lambda values: values.dtype.kind != "f" or not np.isnan(values).any())
TABLES = st.lists(st.tuples(st.integers(-(2**63), 2**63 - 1) | st.none(), st.text() | st.none()), max_size=5).map(
    lambda rows: pa.table(
        {
            "number": pa.array([number for number, _ in rows], pa.int64()),
            "word": pa.array([word for _, word in rows], pa.large_string()),
        }
    )
)
NAMES = st.from_regex(r"[A-Za-z_][A-Za-z_0-9]{0,8}", fullmatch=True)


@given(st.dictionaries(NAMES, VALUES | ARRAYS | TABLES, max_size=5))
def test_a_state_comes_back_as_it_was(state: dict[str, Any]) -> None:
    files = fitted.dump(state)
    assert all(map(fitted.is_of_fitted, files))
    again = fitted.load(files | {"bundle.json": b"{", "golden.parquet": b""})
    assert again.keys() == state.keys()
    for name, value in state.items():
        if isinstance(value, np.ndarray):
            assert again[name].shape == value.shape
            assert again[name].dtype == value.dtype.newbyteorder("=")
            assert np.array_equal(again[name], value)
        elif isinstance(value, pa.Table):
            assert again[name].equals(value, check_metadata=True)
        else:
            assert again[name] == value
            assert type(again[name]) is type(value)
    assert fitted.dump(again) == files, "the digest of a bundle that is written again is the same"


def test_numbers_of_numpy_and_tuples_become_those_of_json() -> None:
    state = {"mean": np.float32(0.5), "count": np.int64(3), "edges": (1, 2), "on": np.bool_(True)}
    again = fitted.load(fitted.dump(state))
    assert again == {"mean": 0.5, "count": 3, "edges": [1, 2], "on": True}
    assert list(map(type, again.values())) == [float, int, list, bool]


def test_views_and_infinite_edges_of_bins_are_kept() -> None:
    edges = np.array([-np.inf, 0.0, 1.0, np.inf])[::-1]
    assert np.array_equal(fitted.load(fitted.dump({"edges": edges}))["edges"], edges)


class Scaler:
    """An object with a state."""


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({"scaler": Scaler()}, "scaler of the fitted state is a Scaler, and not data: expected numbers, texts"),
        ({"f": len}, "f of the fitted state is a builtin_function_or_method, and not data: a function belongs"),
        ({"a": {"b": [lambda x: x]}}, r"a\.b\[0\] of the fitted state is a function"),
        ({"mean": float("nan")}, "mean of the fitted state is nan; expected a finite number"),
        ({"means": [1.0, float("inf")]}, r"means\[1\] of the fitted state is inf"),
        ({"mean": np.float32("nan")}, "mean of the fitted state is nan"),
        ({"means": np.array([1.0, np.nan])}, "means of the fitted state has 1 values that are NaN"),
        ({"words": np.array(["a"])}, r"words of the fitted state is an array of <U1; .*\.tolist\(\)"),
        ({"things": np.array([Scaler()])}, "things of the fitted state is an array of object"),
        ({"z": np.array([1j])}, "z of the fitted state is an array of complex128"),
        (
            {"a": {"b": np.zeros(2)}},
            r"a\.b of the fitted state is a ndarray, and not data: an array or table has",
        ),
        ({"codes": {3: 1}}, r"codes of the fitted state has the key 3; expected text"),
        ({3: 1}, "a value under 3; expected names that are text"),
        ({"frame": pd.DataFrame({"a": [1]})}, r"is a DataFrame, and not data: give pa\.Table\.from_pandas"),
        ({"s": pd.Series([1])}, r"is a Series, and not data: give \.to_dict\(\)"),
        ({"t": torch.zeros(1)}, r"is a Tensor, and not data: give \.numpy\(\)"),
        ({"words": {"a"}}, "is a set, and not data: give a sorted list"),
        ({"q": pa.scalar(1)}, r"is a Int64Scalar, and not data: give \.as_py\(\)"),
        ({"q": pa.array([1])}, r"is a Int64Array, and not data: give \.to_pylist\(\)"),
        ({"../x": pa.table({"a": [1]})}, "cannot name a file"),
        ({"t": pa.table({"a": [float("nan")]})}, r"t\.a of the fitted state has NaN; a missing value is null"),
        ({"t": pa.table([[1], [2]], names=["a", "a"])}, "t of the fitted state has two columns a"),
        ([1], "fit returned a list; expected a dict"),
        (None, "fit returned a NoneType"),
    ],
)
def test_what_is_not_data_is_refused_in_one_line(state: object, message: str) -> None:
    with pytest.raises(UnsoundError, match=message) as refused:
        fitted.dump(state)
    assert "\n" not in str(refused.value)


def test_a_state_that_contains_itself_is_refused() -> None:
    endless: list[object] = []
    endless.append(endless)
    with pytest.raises(UnsoundError, match="means of the fitted state contains itself"):
        fitted.dump({"means": endless})


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({fitted.VALUES: b"{"}, "fitted.json cannot be read"),
        ({fitted.VALUES: b"[1]"}, "fitted.json cannot be read: expected an object"),
        ({fitted.ARRAYS: b"\xff" * 20}, "fitted.safetensors cannot be read"),
        ({"fitted.t.parquet": b"PAR1"}, "fitted.t.parquet cannot be read"),
        (fitted.dump({"a": 1}) | {fitted.ARRAYS: fitted.dump({"a": np.zeros(1)})[fitted.ARRAYS]}, "in another file"),
    ],
)
def test_damaged_files_are_named(files: dict[str, bytes], message: str) -> None:
    with pytest.raises(UnsoundError, match=message) as refused:
        fitted.load(files)
    assert "\n" not in str(refused.value)
