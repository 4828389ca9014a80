"""Nothing is learned from what is held out, and references are spread over the days."""

import pyarrow.compute as pc
import pytest

from batch_scoring.errors import UnsoundError
from batch_scoring.training import Training
from batch_scoring_tests import engineered
from batch_scoring_tests.tiny import TinyProject
from batch_scoring_tests.trained import labelled


def test_nothing_is_learned_from_rows_that_are_held_out(tiny: TinyProject) -> None:
    engineered.engineer(tiny)
    rows = labelled(days=16)
    late = pc.equal(rows["dt"], sorted(set(rows["dt"].to_pylist()))[7])
    c, y = (pc.if_else(late, value, rows[name]) for name, value in (("c", "violet"), ("y", 1e6)))
    rows = rows.set_column(4, "c", c).set_column(2, "y", y)
    tiny.spec["features"]["categorical"] = ["shade", "c"]
    tiny.write_spec()
    data = Training(tiny.pipeline, rows, held_out=8)
    assert data.vocabularies["c"] == ["blue", "green", "red"]
    assert data.fitted["y"] < 20
    assert pc.unique(data.held_out.rows["dt"]).to_pylist() == [
        day for number, day in enumerate(sorted(set(rows["dt"].to_pylist()))) if number % 8 == 7
    ]
    assert len(data) + len(data.held_out) == rows.num_rows
    assert (data.held_out.tensors["categorical"][:60, 1] == 0).all()
    assert data.held_out.rows["ratio"].to_pylist()[0] == pytest.approx(data.held_out.rows["x"][0].as_py() / (1e6 + 1))


def test_rows_are_held_out_one_by_one_where_there_are_few_days(tiny: TinyProject) -> None:
    data = Training(tiny.pipeline, tiny.rows(100), held_out=5)
    assert data.held_out.rows["id"].to_pylist() == [f"k{number:07d}" for number in range(4, 100, 5)]
    with pytest.raises(UnsoundError, match="no rows are held out; hold out every 8th day with"):
        _ = Training(tiny.pipeline, tiny.rows(100)).held_out
    for every, message in ((1, "held_out is 1; expected 2 or more"), (500, "held_out is 500, and the sample has 100")):
        with pytest.raises(UnsoundError, match=message):
            Training(tiny.pipeline, tiny.rows(100), held_out=every)
