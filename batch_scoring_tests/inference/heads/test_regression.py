"""Regression: a value as it is."""

import numpy as np
import pytest
from pydantic import ValidationError

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


def test_named_values_have_a_column_each() -> None:
    head, raw = Regression(targets=("price", "days")), logits(2)
    scores = scored(head, raw)
    assert scores.schema.names == ["prediction_price", "prediction_days"] == list(head.score_columns)
    assert scores["prediction_days"].to_numpy().tolist() == raw[:, 1].astype(np.float64).tolist()
    _, bad = head.scores(block_of(head, np.array([[1, 2], [1, np.nan], [np.inf, 1]], np.float32)))
    assert bad.tolist() == [False, True, True]


@pytest.mark.parametrize("targets", [("price", "price"), ("two words",), ("",), ("proba",), ("a;b",), ("Preis €",)])
def test_names_that_make_no_columns_are_refused(targets: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="targets"):
        Regression(targets=targets)
