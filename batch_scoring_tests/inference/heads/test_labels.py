"""Labels: each has a probability of its own, and those of 0.5 or more are predicted."""

import numpy as np
import pyarrow as pa
import pytest
from pydantic import ValidationError

from batch_scoring.inference.heads.labels import Labels
from batch_scoring_tests.heads import block_of, logits, scored

HEAD = Labels(labels=("fast", "cheap", "good"))


def test_scores_are_those_of_sigmoids() -> None:
    raw = logits(3)
    truth, scores = 1 / (1 + np.exp(-raw.astype(np.float64))), scored(HEAD, raw)
    for label in range(3):
        assert scores[f"prob_label_{label}"].to_numpy() == pytest.approx(truth[:, label], abs=1e-6)
    assert scores["prediction"].to_pylist() == [np.flatnonzero(row >= 0.5).tolist() for row in truth]
    assert scores["prediction_proba"].to_numpy() == pytest.approx(np.maximum(truth, 1 - truth).mean(axis=1), abs=1e-6)


def test_a_row_may_have_no_label_or_all() -> None:
    raw = np.array([[-1, -1, -1], [1, 1, 1], [0, -1, 2]], np.float32)
    assert scored(HEAD, raw)["prediction"].to_pylist() == [[], [0, 1, 2], [0, 2]]


def test_a_row_s_confidence_keeps_its_bits_alone() -> None:
    head = Labels(labels=tuple(map(str, range(100))))
    block = block_of(head, logits(100))
    whole = head.scores(block)[0]["prediction_proba"]
    alone = [head.scores(block[:, row : row + 1])[0]["prediction_proba"][0] for row in range(200)]
    assert whole.to_pylist() == [value.as_py() for value in alone]


def test_a_row_without_a_finite_output_has_no_score() -> None:
    head = Labels(labels=("a", "b"), outputs="probabilities")
    _, bad = head.scores(block_of(head, np.array([[0, 1], [np.nan, 1], [np.inf, 1]], np.float32)))
    assert bad.tolist() == [False, True, True]


@pytest.mark.parametrize("value", [-0.25, 1.5, np.nan])
def test_what_is_not_a_probability_is_not_sound(value: float) -> None:
    rows = {name: [0.5, value] for name in HEAD.score_columns}
    assert HEAD.is_sound(pa.RecordBatch.from_pydict(rows)).tolist() == [True, False]


def test_predictions_are_counted_by_label() -> None:
    scores = scored(HEAD, np.array([[1, -1, 0], [-1, -1, -1], [-2, -1, 3]], np.float32))
    assert HEAD.class_counts(scores).tolist() == [1, 0, 2]
    whole = pa.Table.from_batches([scores, scores.slice(2)])
    assert HEAD.class_counts(whole.drop_columns("prediction")).tolist() == [1, 0, 3], "a reference has no lists"


def test_without_labels_there_is_no_head() -> None:
    with pytest.raises(ValidationError, match="labels"):
        Labels(labels=())
