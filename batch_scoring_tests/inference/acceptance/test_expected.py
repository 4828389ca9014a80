"""The training code's own outputs refuse a bundle that would give others: by key, whatever their order."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.expected import columns_of
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.labels import Labels
from batch_scoring.inference.heads.regression import Regression
from batch_scoring_tests.networks import NUMERIC, WORDS, Base, made, own_outputs, refusal, table, write

NETWORK = made(Base)
ROWS = table()


def softmax(outputs: np.ndarray) -> np.ndarray:
    shares = np.exp(outputs)
    return shares / shares.sum(axis=1, keepdims=True)


OUTPUTS = own_outputs(NETWORK, ROWS)
CHANCES = softmax(OUTPUTS)


def logits(rows: slice = slice(None), **more: Any) -> pa.Table:  # noqa: ANN401
    columns = {"id": ROWS["id"].to_pylist()[rows], **{f"output_{k}": OUTPUTS[rows, k] for k in (0, 1)}}
    return pa.table(columns | more)


@pytest.mark.parametrize(
    "expected",
    [
        logits(),
        logits(slice(20, 40)),
        logits(slice(None, None, -1)),
        logits(dt=ROWS["dt"]),
        logits(dt=ROWS["dt"].cast(pa.timestamp("us"))),
        logits().drop_columns("output_0"),
        pa.table({"id": ROWS["id"], "prob_class_0": CHANCES[:, 0], "prob_class_1": CHANCES[:, 1]}),
        pa.table({"id": ROWS["id"], "prob_class_1": np.round(CHANCES[:, 1].astype(np.float64), 4)}),
        ROWS.append_column("prob_class_1", pa.array(CHANCES[:, 1])),
    ],
)
def test_the_networks_own_outputs_are_as_expected(tmp_path: Path, expected: pa.Table) -> None:
    write(tmp_path, NETWORK, expected=expected)


def test_golden_rows_that_are_not_in_the_reference_are_compared_too(tmp_path: Path) -> None:
    golden = table(64, start=1_000)
    own = own_outputs(NETWORK, golden)[:, 1]
    changes = {"golden": golden.drop_columns("dt")}
    write(tmp_path / "b", NETWORK, expected=pa.table({"id": golden["id"], "output_1": own}), **changes)
    message = refusal(tmp_path / "c", NETWORK, expected=pa.table({"id": golden["id"], "output_1": own + 1}), **changes)
    assert "64 of 64 rows are not as expected:\n  id k1000: output_1 is " in message


def labels_from_zero(rows: pa.Table) -> np.ndarray:
    """As a LabelEncoder codes: every row has the code of the word before."""
    codes = [[max(0, WORDS.index(word))] if word in WORDS else [0] for word in rows["c"].to_pylist()]
    return own(numbers(rows), codes)


def other_order(rows: pa.Table) -> np.ndarray:
    return own(numbers(rows)[:, ::-1].copy(), codes(rows))


def scaled_outside(rows: pa.Table) -> np.ndarray:
    return own((numbers(rows) - 0.2) / 1.3, codes(rows))


def numbers(rows: pa.Table) -> np.ndarray:
    return rows.select([f"x{index}" for index in range(NUMERIC)]).to_pandas().to_numpy(np.float32)


def codes(rows: pa.Table) -> list[list[int]]:
    return [[WORDS.index(word) + 1 if word in WORDS else 0] for word in rows["c"].to_pylist()]


def own(numeric: np.ndarray, categorical: list[list[int]], network: nn.Module = NETWORK) -> np.ndarray:
    with torch.inference_mode():
        return network(torch.from_numpy(numeric.astype(np.float32)), torch.tensor(categorical)).numpy()


@pytest.mark.parametrize("way", [labels_from_zero, other_order, scaled_outside])
@pytest.mark.parametrize("kind", ["outputs", "probabilities"])
def test_rows_that_are_not_as_expected_are_named(
    tmp_path: Path, way: Callable[[pa.Table], np.ndarray], kind: str
) -> None:
    theirs, name = way(ROWS), "output_1"
    if kind == "probabilities":
        theirs, name = softmax(theirs), "prob_class_1"
    message = refusal(tmp_path, NETWORK, expected=pa.table({"id": ROWS["id"], name: theirs[:, 1]}))
    wrong = np.flatnonzero(np.abs(theirs - (OUTPUTS if kind == "outputs" else CHANCES))[:, 1] > 3e-4)
    assert len(wrong) > 40, "the trial is one"
    assert f" of 96 rows are not as expected:\n  id k{wrong[0]}: {name} is " in message
    assert f", expected {theirs[wrong[0], 1]:.6g}\n  id k" in message and re.search(r"\n  and \d\d more\n", message)
    assert (
        "\n  - the order of the features;\n  - scaling and missing values: all that the training code does" in message
    )


def test_an_expected_regression_is_its_value(tmp_path: Path) -> None:
    network = made(type("One", (Base,), {"outputs": 1}))
    values = own_outputs(network, ROWS)[:, 0] * 1.0
    changes = {"task": "regression", "classes": []}
    for name in ("prediction", "output_0"):
        write(tmp_path / name, network, expected=pa.table({"id": ROWS["id"], name: values}), **changes)
    expected = pa.table({"id": ROWS["id"], "prediction": values + 0.01})
    assert "96 of 96 rows are not as expected" in refusal(tmp_path, network, expected=expected, **changes)


def test_small_values_are_compared_by_their_size(tmp_path: Path) -> None:
    """Daily returns of some millionths: four decimals would make them all alike."""

    class Returns(Base):
        outputs = 1

        def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
            return 1e-5 * super().forward(numeric, categorical)

    network, changes = made(Returns), {"task": "regression", "classes": []}
    values = own_outputs(network, ROWS)[:, 0]
    write(tmp_path / "a", network, expected=pa.table({"id": ROWS["id"], "prediction": values}), **changes)
    expected = pa.table({"id": ROWS["id"], "prediction": -values})
    assert "96 of 96 rows are not as expected" in refusal(tmp_path / "b", network, expected=expected, **changes)


@pytest.mark.parametrize(
    ("expected", "says"),
    [
        (logits(slice(0, 0)), "has no rows"),
        (
            logits().rename_columns(["id", "logit_0", "logit_1"]),
            "has the columns id, logit_0, logit_1; expected the key",
        ),
        (logits().rename_columns(["loan", "output_0", "output_1"]), "has the key columns none in common"),
        (logits(output_0=["much"] * 96), "column output_0 is string; expected numbers"),
        (logits(output_0=[None, *OUTPUTS[1:, 0]]), "1 of 96 values of output_0 are null, NaN or infinite"),
        (logits(output_1=np.full(96, np.nan)), "96 of 96 values of output_1 are null, NaN or infinite"),
        (logits(id=[None, *ROWS["id"].to_pylist()[1:]]), "has rows without id"),
        (logits(id=["k0", *ROWS["id"].to_pylist()[1:95], "k0"]), "has rows of one id twice: 'k0'"),
        (logits(id=["k999", *ROWS["id"].to_pylist()[1:]]), "has rows whose id is in neither reference nor golden"),
        (logits(id=range(96)), "has rows whose id is in neither reference nor golden"),
        (logits(dt=["yesterday"] * 96), "column dt is string; expected dates"),
    ],
)
def test_expected_rows_that_cannot_be_compared_are_refused(tmp_path: Path, expected: pa.Table, says: str) -> None:
    assert f"expected: {says}" in refusal(tmp_path, NETWORK, expected=expected)


def test_a_key_of_several_days_needs_the_day(tmp_path: Path) -> None:
    """A customer who comes again: other features, the same key."""
    rows = ROWS.set_column(0, "id", [[f"k{number % 60}" for number in range(96)]])
    expected = pa.table({"id": rows["id"], "dt": rows["dt"], "output_1": OUTPUTS[:, 1]})
    changes = {"reference": rows, "golden": rows.slice(0, 64).drop_columns("dt")}
    write(tmp_path / "b", NETWORK, expected=expected, **changes)
    message = refusal(tmp_path / "c", NETWORK, expected=expected.slice(0, 60).drop_columns("dt"), **changes)
    assert "has rows whose id occurs in several rows of the reference; give dt too: 'k0', 'k1'" in message


TWO, THREE = Classification(classes=("no", "yes")), Classification(classes=("a", "b", "c"))
ONE = Classification(classes=("no", "yes"), logits=1)
OWN = Classification(classes=("no", "yes"), outputs="probabilities")


@pytest.mark.parametrize(
    ("head", "values", "names"),
    [
        (TWO, [[0.2, -3.0], [0.9, 0.1]], ["output_0", "output_1"]),
        (TWO, [[0.2, 0.8], [0.9, 0.1]], ["prob_class_0", "prob_class_1"]),
        (TWO, [[0.2, 0.9], [0.9, 0.1]], ["output_0", "output_1"]),  # their sums are not 1
        (TWO, [0.2, 0.9], ["prob_class_1"]),
        (THREE, [[0.2, 0.3, 0.5]], ["prob_class_0", "prob_class_1", "prob_class_2"]),
        (ONE, [0.2, 4.0], ["output_0"]),
        (ONE, [[0.2], [0.4]], ["prob_class_1"]),
        (OWN, [[0.2, 0.8]], ["prob_class_0", "prob_class_1"]),
        (OWN, [0.2, 0.8], ["prob_class_1"]),
        (Labels(labels=("x", "y")), [[0.9, 0.9]], ["prob_label_0", "prob_label_1"]),
        (Regression(), [0.2, 0.8], ["output_0"]),
        (Regression(targets=("p", "q")), [[0.5, 0.5]], ["output_0", "output_1"]),
    ],
)
def test_values_of_each_row_are_outputs_or_scores(head: Head, values: list[Any], names: list[str]) -> None:
    given = np.array(values)
    found = columns_of(given, head, [f"output_{index}" for index in range(head.width)])
    assert [*found] == names
    assert np.array_equal(np.column_stack([*found.values()]), given.reshape(len(given), -1))


def test_values_that_are_neither_are_refused() -> None:
    message = (
        r"expected has the shape \(2, 3\); the network has 2 outputs a row, and the scores are prob_class_0, prob_"
    )
    with pytest.raises(UnsoundError, match=message):
        columns_of(np.ones((2, 3)), TWO, ["output_0", "output_1"])
    with pytest.raises(UnsoundError, match=r"expected has the shape \(2, 2\); the network has 1 output a row$"):
        columns_of(np.ones((2, 2)), Regression(), ["output_0"])
    with pytest.raises(UnsoundError, match=r"expected has the shape \(2,\); the network has 3 outputs"):
        columns_of(np.array([0.2, 0.9]), THREE, ["output_0", "output_1", "output_2"])
