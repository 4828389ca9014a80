"""What a network gives for the rows of its bundle is its own; a network that is not fit for one is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.regression import Regression
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.networks import Base, loaded, made, own_outputs, refusal, table, write


def test_golden_and_reference_hold_what_the_network_gives(tmp_path: Path) -> None:
    """Not what the scorer gives: a fault of the scorer would vouch for itself."""
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
    assert "the scorer gives " in message and " for reference row 70 (id 'k70'), the network as trained " in message


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
        (Squeezed, {}, "output has shape (64,) for 64 rows; expected (64, 2): a row for each row, a column for each"),
        (Base, {"classes": ["a", "b", "c"]}, "output has shape (64, 2) for 64 rows; expected (64, 3)"),
        (Pair, {}, "the network returns a tuple; expected one tensor of shape (64, 2)"),
        (Whole, {}, "the network returns numbers of torch.int64; expected torch.float32"),
        (Imaginary, {}, "the network returns numbers of torch.complex64; expected torch.float32"),
        (Keyed, {"arguments": {"factors": {0: 2.0}}}, "the golden rows differ by"),
        (Base, {"arguments": HOLDS_ITSELF}, "arguments: it contains itself, or is nested too deeply"),
        (Base, {"version": "v1\x1b[2J"}, r"version: 'v1\x1b[2J' has characters that cannot be printed"),
        (Base, {"version": "v" * 1000}, "version: String should have at most 200 characters"),
        (
            Base,
            {"golden": pa.concat_tables([table(1)] * 64).drop_columns("dt")},
            "golden: the network gives the same outputs for all rows",
        ),
        (Raising, {}, "golden: the network raises RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
        (
            Base,
            {"task": "ranking"},
            "bundle.json would not be a manifest: task: Input tag 'ranking' found using 'kind'",
        ),
        (Base, {"metrics": {"auc": float("nan")}}, "metrics.auc: Input should be a finite number, found nan"),
        (Base, {"training": {"when": object()}}, "bundle.json would not be JSON: "),
        (Base, {"golden_tolerance": 1e30}, "golden_tolerance (1e+30) does not check golden outputs from"),
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


@pytest.mark.parametrize("task", [Regression(), Classification(classes=("no", "yes"), logits=1)])
def test_one_output_may_come_without_its_dimension(tmp_path: Path, task: Head) -> None:
    """The scorer's passes never have a single row, so `squeeze()` removes no other dimension."""
    network = made(Squeezed)
    write(tmp_path, network, task=task, classes=())
    model, rows = loaded(tmp_path, network), table(70)
    assert Scorer(model, device="cpu").outputs(rows)[:, 0] == pytest.approx(own_outputs(network, rows), abs=1e-6)
    assert Scorer(model, device="cpu").score_batch(rows.slice(0, 1).to_batches()[0]).failed == ()
