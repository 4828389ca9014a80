"""Quantiles: a column for each level under a name of its own, and the middle one as the prediction."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring_tests.heads import logits, scored

HEAD = Quantiles(levels=(0.05, 0.5, 0.95))


@pytest.mark.parametrize(
    ("levels", "names"),
    [
        ((0.05, 0.5, 0.95), ("quantile_05", "quantile_50", "quantile_95")),
        ((0.025, 0.25, 0.975), ("quantile_025", "quantile_25", "quantile_975")),
        ((0.001, 0.01, 0.1, 0.9, 0.999), ("quantile_001", "quantile_01", "quantile_10", "quantile_90", "quantile_999")),
        ((1e-7, 0.5), ("quantile_0000001", "quantile_50")),
    ],
)
def test_a_column_is_named_by_the_decimals_of_its_level(levels: tuple[float, ...], names: tuple[str, ...]) -> None:
    assert Quantiles(levels=levels).of_levels == names


@pytest.mark.parametrize(
    ("levels", "column"), [((0.05, 0.5, 0.95), 1), ((0.5, 0.9), 0), ((0.1, 0.4, 0.8), 1), ((0.1, 0.9), 1)]
)
def test_the_prediction_is_the_median_or_the_middle_level(levels: tuple[float, ...], column: int) -> None:
    raw = logits(len(levels))
    scores = scored(Quantiles(levels=levels), raw)
    assert scores["prediction"].to_numpy().tolist() == raw[:, column].astype(np.float64).tolist()
    assert scores.num_columns == 1 + len(levels)


@pytest.mark.parametrize("levels", [(0.5,), (), (0.9, 0.1), (0.5, 0.5), (0.0, 0.5), (0.5, 1.0), (0.5, float("nan"))])
def test_levels_that_are_none_are_refused(levels: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="levels"):
        Quantiles(levels=levels)


def test_crossing_quantiles_are_found_and_are_no_broken_scores() -> None:
    values = np.array([[1, 2, 3], [1, 1, 1], [2, 1, 3], [1, 3, 2]], float)
    rows = pa.RecordBatch.from_pydict({"prediction": values[:, 1], **dict(zip(HEAD.of_levels, values.T, strict=True))})
    assert HEAD.is_crossed(rows).tolist() == [False, False, True, True]
    assert HEAD.is_sound(rows).all()


def test_drift_looks_at_every_quantile_once() -> None:
    assert HEAD.score_columns == ("prediction", "quantile_05", "quantile_95")
