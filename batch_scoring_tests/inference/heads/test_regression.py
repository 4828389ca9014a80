"""Regression: a value as it is."""

import numpy as np
import pytest

from batch_scoring.inference.heads.regression import Regression
from batch_scoring_tests.heads import block_of, logits, scored

ONE = Regression()


def test_the_value_is_the_network_s() -> None:
    raw = logits(1)
    assert scored(ONE, raw)["prediction"].to_numpy().tolist() == raw[:, 0].astype(np.float64).tolist()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_without_a_finite_value_has_no_score(value: float) -> None:
    _, bad = ONE.scores(block_of(ONE, np.array([[1.0], [value]], np.float32)))
    assert bad.tolist() == [False, True]
