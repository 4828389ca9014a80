"""Classification: the columns of classes, and what is counted of them."""

from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from batch_scoring.inference.heads.classification import Classification
from batch_scoring_tests.heads import block_of, logits, scored

TWO, THREE = Classification(classes=("no", "yes")), Classification(classes=("a", "b", "c"))
ONE_LOGIT = Classification(classes=("no", "yes"), logits=1)


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


def test_predictions_are_counted_by_class() -> None:
    assert THREE.class_counts(pa.table({"prediction": [2, 2, 0]})).tolist() == [1, 0, 2]


def test_the_activation_does_not_change_what_it_is_given() -> None:
    raw = torch.ones(2, 64)
    TWO.activate(raw)
    assert torch.equal(raw, torch.ones(2, 64))


def test_one_logit_has_the_columns_and_scores_of_two_classes() -> None:
    raw = logits(1)
    ours, theirs = scored(ONE_LOGIT, raw), scored(TWO, np.hstack([np.zeros_like(raw), raw]))
    assert ours.equals(theirs) and ONE_LOGIT.width == 1
    assert ours["prob_class_1"].to_numpy() == pytest.approx(1 / (1 + np.exp(-raw[:, 0])), abs=1e-6)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"classes": ("a", "b", "c"), "logits": 1}, "logits is 1, but there are 3 classes"),
        ({"classes": ("a", "b"), "logits": 2}, "logits"),
        ({"classes": ("a", "b"), "top": 3}, "top is 3, but there are 2 classes"),
        ({"classes": ("a", "b"), "top": -1}, "top"),
        ({"classes": ("a", "b"), "outputs": "shares"}, "outputs"),
    ],
)
def test_fields_that_do_not_fit_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Classification(**fields)


@pytest.mark.parametrize(("classes", "top", "columns"), [(50, None, 52), (51, None, 4), (51, 0, 53), (3, 2, 4)])
def test_many_classes_are_written_as_the_likeliest_ones(classes: int, top: int | None, columns: int) -> None:
    head = Classification(classes=tuple(map(str, range(classes))), top=top)
    assert len(head.columns) == columns
    if columns == 4:
        assert head.columns == ("prediction", "prediction_proba", "top_classes", "top_probs")
        assert head.score_columns == ("prediction_proba",) == head.expected_columns


def test_probabilities_of_the_network_are_not_activated() -> None:
    raw = np.array([[0.1, 0.9], [0.5, 0.5]], np.float32)
    head = Classification(classes=("no", "yes"), outputs="probabilities")
    assert scored(head, raw)["prob_class_1"].to_numpy().tolist() == raw[:, 1].tolist()
    _, bad = head.scores(block_of(head, np.array([[np.inf, -np.inf], [np.nan, 0], [1, np.inf], [0.5, 0.5]])))
    assert bad.tolist() == [True, True, True, False]
