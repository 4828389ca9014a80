"""What a shard's footer says of its rows."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.daily.shard_stats import ColumnCounts, Tally
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.scorer import ScoredBatch
from batch_scoring_tests.heads import HEADS, outputs, scored


def test_categories_are_counted_as_the_scorer_spells_them_whatever_their_type() -> None:
    flags, words = pa.array([True, False, True, None]), pa.array(["a", "b", "a", None]).dictionary_encode()
    counts = ColumnCounts(("flag", "word"), ("flag", "word"))
    for _ in range(2):
        counts.add(pa.RecordBatch.from_pydict({"flag": flags, "word": words}))
    assert counts.categories == {"flag": {"true": 4, "false": 2}, "word": {"a": 4, "b": 2}}
    assert counts.missing == {"flag": 2, "word": 2}


@pytest.mark.parametrize("head", HEADS.values(), ids=HEADS)
def test_scores_are_summed_and_counted_as_their_head_says(head: Head) -> None:
    scores = scored(head, outputs(head))
    tally = Tally(SimpleNamespace(task=head))  # type: ignore[arg-type]
    for rows in (scores.slice(0, 50), scores.slice(50)):
        tally.add(ScoredBatch(rows, rows))
    figures = tally.figures()
    assert list(figures["sums"]) == list(figures["squares"]) == list(head.measured)
    for name, total in figures["sums"].items():
        values = scores[name].to_numpy().astype(np.float64)
        assert (total, figures["squares"][name]) == pytest.approx((values.sum(), (values**2).sum()))
    assert sum(figures["histogram"]) == (scores.num_rows if head.probabilities else 0)
    predicted = [[one] if isinstance(one, int) else one for one in scores.column(0).to_pylist()]
    counts = Counter(str(label) for row in predicted for label in row) if head.class_names else {}
    assert {name: rows for name, rows in figures["classes"].items() if rows} == counts
    assert len(figures["classes"]) == len(head.class_names) and figures["not_probabilities"] == 0
    rows = [] if not head.has_quantiles else [scores[name].to_numpy() for name in head.columns[1:]]
    assert figures["quantiles_crossed"] == sum(any(np.diff(row) < 0) for row in zip(*rows, strict=True))
