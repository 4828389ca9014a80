"""Classification: the columns of classes, and what is counted of them."""

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from batch_scoring.inference.heads.classification import Classification
from batch_scoring_tests.heads import block_of, logits, scored

TWO, THREE = Classification(classes=("no", "yes")), Classification(classes=("a", "b", "c"))


def test_one_class_is_refused_with_what_a_single_output_becomes() -> None:
    with pytest.raises(ValidationError, match="at least two"):
        Classification(classes=("leaves",))


@pytest.mark.parametrize("head", [TWO, THREE])
def test_scores_are_those_of_a_softmax(head: Classification) -> None:
    raw = logits(head.width)
    scores, truth = scored(head, raw), np.exp(raw) / np.exp(raw).sum(axis=1, keepdims=True)
    for index in range(head.width):
        assert scores[f"prob_class_{index}"].to_numpy() == pytest.approx(truth[:, index], abs=1e-6)
    assert scores["prediction"].to_pylist() == raw.argmax(axis=1).tolist()
    assert scores["prediction_proba"].to_numpy() == pytest.approx(truth.max(axis=1), abs=1e-6)


def test_the_first_of_equal_classes_is_predicted() -> None:
    assert scored(THREE, np.array([[1, 1, 1], [0, 2, 2]]))["prediction"].to_pylist() == [0, 1]


def test_a_row_without_a_finite_output_has_no_score() -> None:
    raw = np.array([[1, 2, 3], [np.nan, 1, 1], [np.inf, 0, 0], [-np.inf] * 3, [-np.inf, 0, 0]], np.float32)
    _, bad = THREE.scores(block_of(THREE, raw))
    assert bad.tolist() == [False, True, True, True, False]


def test_of_two_classes_one_probability_is_looked_at() -> None:
    assert (TWO.score_columns, TWO.telling_column) == (("prob_class_1",), "prob_class_1")
    assert THREE.score_columns == ("prob_class_0", "prob_class_1", "prob_class_2")
    assert THREE.telling_column == "prediction_proba"


@pytest.mark.parametrize("values", [(0.5, 0.6), (1.5, -0.5), (np.nan, 0.5)])
def test_what_is_not_a_probability_is_counted(values: tuple[float, float]) -> None:
    rows = {"prob_class_0": [0.25, values[0]], "prob_class_1": [0.75, values[1]]}
    assert TWO.is_sound(pa.RecordBatch.from_pydict(rows)).tolist() == [True, False]


def test_predictions_are_counted_by_class() -> None:
    assert THREE.class_counts(pa.array([2, 2, 0])).tolist() == [1, 0, 2]


def test_the_activation_does_not_change_what_it_is_given() -> None:
    raw = torch.ones(2, 64)
    TWO.activate(raw)
    assert torch.equal(raw, torch.ones(2, 64))
