"""The network's own outputs: encoded row by row as the contract says, whatever the columns' types."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders import open_folder
from batch_scoring_tests.broken_bundles import change_manifest
from batch_scoring_tests.networks import Base, loaded, made, own_outputs, refusal, table, write


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


@given(st.lists(st.one_of(st.none(), st.integers(-(2**63), 2**63 - 1)), min_size=1, max_size=20))
def test_whole_numbers_are_rounded_once(values: list[int | None]) -> None:
    """Also beside a missing one: two roundings, by way of float64, may give the neighbour."""
    found, _ = eager.matrices(manifest(), pa.table({"x": pa.array(values, pa.int64())}))
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
    found, _ = eager.matrices(manifest(), pa.table({"x": column}))
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
    _, found = eager.matrices(model, pa.table({"c": column}))
    assert found.dtype == np.int64 and found[:, 0].tolist() == expected


def test_a_column_that_cannot_be_encoded_is_named() -> None:
    with pytest.raises(UnsoundError, match="column x is string; expected numbers"):
        eager.matrices(manifest(), pa.table({"x": ["1"]}))
    with pytest.raises(UnsoundError, match=r"column c is list<item: int64>; expected text"):
        eager.matrices(manifest(numeric=(), categorical={"c": ("a",)}), pa.table({"c": [[1]]}))
    with pytest.raises(UnsoundError, match="there is no column x; there are y"):
        eager.matrices(manifest(), pa.table({"y": [1]}))


def test_golden_and_reference_hold_what_the_network_gives(tmp_path: Path) -> None:
    """Not what the engine gives: a fault of the engine would vouch for itself."""
    network = made(Base)
    write(tmp_path, network)
    bundle = read_bundle(open_folder(str(tmp_path)))
    golden = own_outputs(network, bundle.golden)
    assert np.array_equal(golden, np.column_stack([bundle.golden[f"output_{index}"].to_numpy() for index in (0, 1)]))
    chances = torch.softmax(torch.from_numpy(own_outputs(network, bundle.reference)), dim=1).numpy()
    reference = bundle.reference
    assert np.array_equal(reference["prediction"].to_numpy(), chances.argmax(axis=1))
    for name, expected in (("prob_class_0", chances[:, 0]), ("prob_class_1", chances[:, 1])):
        assert reference.schema.field(name).type == pa.float32() and np.array_equal(
            reference[name].to_numpy(), expected
        )
    assert np.array_equal(reference["prediction_proba"].to_numpy(), chances.max(axis=1))


def test_rows_beyond_one_pass_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    network, rows = made(Base), table(150)
    model = manifest(
        task="classification",
        classes=("a", "b"),
        numeric=("x0", "x1", "x2", "x3"),
        categorical={"c": ("red", "green", "blue")},
    )
    monkeypatch.setattr(eager, "ROWS", 64)
    assert np.allclose(eager.outputs(network, model, rows), own_outputs(network, rows), rtol=0, atol=1e-6)


def test_an_engine_that_gives_other_outputs_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On rows of the reference alone: the golden rows agree."""
    outputs = Scorer.outputs

    def spoilt(self: Scorer, rows: pa.Table) -> np.ndarray:
        found = outputs(self, rows)
        if len(found) > 64:
            found[70, 1] += 1e-3
        return found

    monkeypatch.setattr(Scorer, "outputs", spoilt)
    message = refusal(tmp_path, made(Base))
    assert "the engine gives " in message and " for reference row 70 (id 'k70'), the network as trained " in message


class Squeezed(Base):
    outputs = 1

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return super().forward(numeric, categorical).squeeze()


class Pair(Base):
    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:  # type: ignore[override]
        return super().forward(numeric, categorical), numeric


class Keyed(Base):
    """JSON has no keys but texts."""

    def __init__(self, factors: dict[int, float] | None = None) -> None:
        super().__init__()
        self.factors = {0: 2.0} if factors is None else factors

    def body(self, values: torch.Tensor) -> torch.Tensor:
        return values * self.factors.get(0, 1.0)


HOLDS_ITSELF: dict[str, Any] = {}
HOLDS_ITSELF["more"] = HOLDS_ITSELF


class Raising(Base):
    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied\nand more")


class Whole(Base):
    """Classes, not logits."""

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return super().forward(numeric, categorical).mul(10).long()


class Imaginary(Base):
    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return super().forward(numeric, categorical) * 1j


REGRESSION = {"task": "regression", "classes": []}


@pytest.mark.parametrize(
    ("kind", "changes", "says"),
    [
        (Squeezed, REGRESSION, "output has shape (64,) for 64 rows; expected (64, 1)"),
        (Base, {"classes": ["a", "b", "c"]}, "output has shape (64, 2) for 64 rows; expected (64, 3)"),
        (Pair, {}, "the network returns a tuple; expected one tensor of shape (64, 2)"),
        (Whole, {}, "the network returns numbers of torch.int64; expected torch.float32"),
        (Imaginary, {}, "the network returns numbers of torch.complex64; expected torch.float32"),
        (Keyed, {"arguments": {"factors": {0: 2.0}}}, "the golden rows differ by"),
        (Base, {"arguments": HOLDS_ITSELF}, "arguments: it holds itself, or lists in lists without end"),
        (Base, {"version": "v1\x1b[2J"}, r"version: 'v1\x1b[2J' has characters that cannot be printed"),
        (Base, {"version": "v" * 1000}, "version: String should have at most 200 characters"),
        (
            Base,
            {"golden": pa.concat_tables([table(1)] * 64).drop_columns("dt")},
            "golden: the network gives the same outputs for all rows",
        ),
        (Raising, {}, "golden: the network raises RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (Base, {"task": "ranking"}, "bundle.json would be no manifest: task: Input should be 'classification' or"),
        (Base, {"metrics": {"auc": float("nan")}}, "metrics.auc: Input should be a finite number, found nan"),
        (Base, {"training": {"when": object()}}, "bundle.json would be no JSON: "),
        (Base, {"golden_tolerance": 1e30}, "golden_tolerance (1e+30) is no check of golden outputs from"),
        (Base, {"classes": ["yes"]}, "classes are ['yes']; a classification has at least two"),
        (Base, {"reference": table(0)}, "reference: it has no rows"),
        (Base, {"reference": table().drop_columns("x2")}, "reference: it has no column x2"),
        (Base, {"golden": table(64).drop_columns("x2")}, "golden: there is no column x2"),
        (Base, {"reference": table().append_column("prediction", [[1] * 96])}, "reference: it has prediction already"),
        (Base, {"golden": table(64).append_column("x1", [[1.0] * 64])}, "golden: it has two columns x1"),
        (Base, {"arguments": {"depth": 3}}, "Base(**{'depth': 3}) failed: TypeError"),
    ],
)
def test_what_is_wrong_with_a_network_is_a_refusal(
    tmp_path: Path, kind: type[Base], changes: dict[str, Any], says: str
) -> None:
    assert says in refusal(tmp_path, made(kind), **changes)


def test_reference_rows_without_a_finite_output_are_refused_by_name(tmp_path: Path) -> None:
    class Rooted(Base):
        def body(self, values: torch.Tensor) -> torch.Tensor:
            return (values[:, :1] + 0.9).sqrt() * values

    network = made(Rooted)
    rows = table(4_000)
    bad = np.isnan(own_outputs(network, rows)).any(axis=1)
    assert 0 < bad.sum() < 3_000, "the trial is one"
    good = rows.filter(pa.array(~bad)).slice(0, 64).drop_columns("dt")
    message = refusal(tmp_path, network, reference=rows, golden=good)
    assert f"no score for {bad.sum()} of 4000 reference rows" in message and f"'k{np.flatnonzero(bad)[0]}'" in message


def test_a_bundle_of_before_loads_as_before(tmp_path: Path) -> None:
    """A plain number is absolute, and stays what it is in the file."""
    network = made(Base)
    write(tmp_path, network)
    change_manifest(tmp_path, lambda m: {**m, "golden_tolerance": 1e-5})
    model = loaded(tmp_path, network)
    assert model.manifest.golden_tolerance == 1e-5
    assert (model.manifest.tolerance.absolute, model.manifest.tolerance.relative) == (1e-5, 0.0)
    change_manifest(tmp_path, lambda m: {name: value for name, value in m.items() if name != "golden_tolerance"})
    assert loaded(tmp_path, network).manifest.golden_tolerance == 1e-5
