"""What a shard's footer says of its rows."""

import pyarrow as pa

from batch_scoring.daily.shard_stats import ColumnCounts


def test_categories_are_counted_as_the_scorer_spells_them_whatever_their_type() -> None:
    flags, words = pa.array([True, False, True, None]), pa.array(["a", "b", "a", None]).dictionary_encode()
    counts = ColumnCounts(("flag", "word"), ("flag", "word"))
    for _ in range(2):
        counts.add(pa.RecordBatch.from_pydict({"flag": flags, "word": words}))
    assert counts.categories == {"flag": {"true": 4, "false": 2}, "word": {"a": 4, "b": 2}}
    assert counts.missing == {"flag": 2, "word": 2}
