"""Every class, or the likeliest alone: what is written of probabilities, and which of them are none."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from batch_scoring.inference.heads.class_columns import ClassColumns, EveryClass, TopClasses
from batch_scoring.inference.heads.head import lists


def of(columns: ClassColumns, probabilities: np.ndarray) -> tuple[pa.RecordBatch, np.ndarray]:
    block = columns.block(torch.from_numpy(np.ascontiguousarray(probabilities.T, np.float32))).numpy()
    scores, bad = columns.scores(block)
    return pa.RecordBatch.from_pydict(scores), bad


def test_the_likeliest_classes_come_in_order_the_first_of_equal_ones_first() -> None:
    scores, _ = of(TopClasses(3), np.array([[0.1, 0.4, 0.4, 0.1], [0.25, 0.25, 0.25, 0.25], [0, 0, 0, 1]]))
    assert scores["top_classes"].to_pylist() == [[1, 2, 0], [0, 1, 2], [3, 0, 1]]
    assert scores["prediction"].to_pylist() == [1, 0, 3]
    assert scores["prediction_proba"].to_pylist() == pytest.approx([0.4, 0.25, 1])


def test_both_ways_of_writing_classes_agree() -> None:
    probabilities = np.random.default_rng(0).dirichlet(np.ones(6), 500)
    every, top = of(EveryClass(6), probabilities)[0], of(TopClasses(6), probabilities)[0]
    assert every["prediction"].equals(top["prediction"]) and every["prediction_proba"].equals(top["prediction_proba"])
    sorted_ones = -np.sort(-probabilities.astype(np.float32), axis=1)
    assert top["top_probs"].flatten().to_numpy().tolist() == sorted_ones.reshape(-1).tolist()


def test_a_row_with_a_class_that_is_not_finite_has_no_score() -> None:
    rows = np.array([[0.5, 0.25, 0.25], [0.5, np.nan, 0], [0.5, 0.5, -np.inf], [np.inf, 0, 0]])
    for columns in (EveryClass(3), TopClasses(1)):
        assert of(columns, rows)[1].tolist() == [False, True, True, True]


@pytest.mark.parametrize("values", [(0.5, 0.6), (1.5, -0.5), (np.nan, 0.5)])
def test_what_is_not_a_probability_is_not_sound(values: tuple[float, float]) -> None:
    rows = {"prob_class_0": [0.25, values[0]], "prob_class_1": [0.75, values[1]]}
    assert EveryClass(2).is_sound(pa.RecordBatch.from_pydict(rows)).tolist() == [True, False]


@pytest.mark.parametrize("values", [(0.25, 0.75), (1.5, 0.1), (0.5, -0.5), (0.9, 0.9), (np.nan, 0.1), (0.5, np.nan)])
def test_top_probabilities_that_do_not_descend_or_are_none_are_not_sound(values: tuple[float, float]) -> None:
    rows = lists(np.array([[0.75, 0.25], values, [0.5, 0.5]], np.float32))
    found = TopClasses(2).is_sound(pa.RecordBatch.from_pydict({"top_probs": rows}))
    assert found.tolist() == [True, False, True]
