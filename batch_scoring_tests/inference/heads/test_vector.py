"""Vector: the network's numbers as a list, and their length."""

import numpy as np
import pytest

from batch_scoring.inference.heads.vector import Vector
from batch_scoring_tests.heads import block_of, logits, scored

HEAD = Vector(size=100)


def test_the_numbers_are_the_network_s() -> None:
    raw = logits(100)
    scores = scored(HEAD, raw)
    assert np.array_equal(np.array(scores["embedding"].to_pylist(), np.float32), raw)
    assert scores["norm"].to_numpy() == pytest.approx(np.sqrt((raw.astype(np.float64) ** 2).sum(axis=1)), rel=1e-6)
    assert str(scores["embedding"].type) == "list<element: float>"


def test_a_row_s_length_keeps_its_bits_alone() -> None:
    block = block_of(HEAD, logits(100))
    alone = [HEAD.scores(block[:, row : row + 1])[0]["norm"][0].as_py() for row in range(200)]
    assert HEAD.scores(block)[0]["norm"].to_pylist() == alone


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_row_without_a_finite_length_has_no_score(value: float) -> None:
    """3e38 is finite, the length of a hundred of them is not."""
    _, bad = HEAD.scores(block_of(HEAD, np.stack([np.ones(100), np.full(100, value)])))
    assert bad.tolist() == [False, True]
