"""Caps of one action: what is hashed, and what a cap leaves."""

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.delivery.decisions import arms, caps
from batch_scoring.delivery.decisions.caps import Groups, rank

ROWS = 200_000


class Hashing:
    """Counts the keys that are hashed."""

    def __init__(self) -> None:
        self.keys = 0

    def __call__(self, rows: np.ndarray) -> np.ndarray:
        self.keys += len(rows)
        return arms.digests(pa.array(rows), "s")


@pytest.fixture
def scores() -> np.ndarray:
    return np.random.default_rng(3).permutation(ROWS) / ROWS


def test_only_rows_that_reach_the_cut_are_hashed(scores: np.ndarray) -> None:
    hashing = Hashing()

    ranked = rank(np.arange(ROWS), scores, hashing, most=1_000, share=0.05)

    assert np.count_nonzero(~ranked.control) == 1_000
    assert hashing.keys == caps.BLOCK


def test_without_a_hold_out_only_equal_scores_are_hashed(scores: np.ndarray) -> None:
    hashing = Hashing()
    scores[scores < 10 / ROWS] = 0.5 / ROWS

    ranked = rank(np.arange(ROWS), scores, hashing)

    assert len(ranked.rows) == ROWS
    assert hashing.keys == 10


def test_rows_of_a_full_group_are_not_hashed(scores: np.ndarray) -> None:
    hashing = Hashing()
    groups = Groups(np.zeros(ROWS, np.int32), 1, most=5)

    ranked = rank(np.arange(ROWS), scores, hashing, [groups], share=0.5)

    assert np.count_nonzero(~ranked.control) == 5
    assert [len(over) for over in ranked.over_group] == [ROWS - len(ranked.rows)]
    assert hashing.keys == caps.BLOCK


def test_ranks_are_those_of_the_scores(scores: np.ndarray) -> None:
    some = np.flatnonzero(scores > 0.25)

    ranked = rank(some, scores, Hashing(), most=50_000)

    assert np.array_equal(ranked.rows, np.argsort(-scores)[:50_000])
    assert np.array_equal(np.sort(ranked.over_cap), np.setdiff1d(some, ranked.rows))


def test_equal_scores_are_in_one_block_however_many(monkeypatch: pytest.MonkeyPatch) -> None:
    scores = np.repeat([0.9, 0.5, 0.1], 5_000)
    monkeypatch.setattr(caps, "BLOCK", 4)

    ranked = rank(np.arange(15_000), scores, Hashing(), most=12_000)

    ties = arms.digests(pa.array(np.arange(15_000)), "s")["tie"]
    assert np.array_equal(ranked.rows, np.lexsort((ties, -scores))[:12_000])
