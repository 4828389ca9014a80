"""The column `why`: beside the right rows, whatever the shards and the rows without a score."""

import numpy as np
import pyarrow as pa
import pytest

from batch_scoring.delivery.decisions import explain
from batch_scoring.delivery.decisions.explain import Explanations
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.occlusion import Occlusion
from batch_scoring.inference.scorer import Scorer
from batch_scoring_tests.tiny import DAY, TinyProject

ROWS = 120

FUNCTION = """
import pyarrow as pa
import pyarrow.compute as pc

def decide(rows, day):
    high = pc.greater_equal(rows["prob_class_1"], pc.mean(rows["prob_class_1"]))
    return pa.table({"action": pc.if_else(high, "call", "mail"), "reason": pc.if_else(high, "high", "low")})
"""


@pytest.fixture
def decided(tiny: TinyProject) -> TinyProject:
    """A day in several shards, of which some rows have no score, with explained decisions."""
    tiny.spec["scoring"]["rows_per_shard"] = 32
    tiny.spec["decisions"] = {"actions": {"call": {"most": 40}, "mail": {"at_least": 0.4}}, "explain": 2}
    tiny.deliver("v1", seed=5)
    rows = tiny.rows(ROWS)
    broken = pa.array([666.0 if n in (3, 40, 41) else x for n, x in enumerate(rows["x"].to_pylist())])
    tiny.land(DAY, rows.set_column(1, "x", broken))
    assert tiny.run().success
    return tiny


def expected(tiny: TinyProject, keys: list[str]) -> dict[str, str]:
    """The reasons of rows as they landed, each explained by itself."""
    folder = tiny.pipeline.bundle
    model = load_bundle(folder, tiny.pipeline.load("network:Net"), "cpu")
    occlusion = Occlusion(Scorer(model, device="cpu"), read_bundle(folder).reference, "prob_class_1")
    landed = {row["id"]: row for row in tiny.rows(ROWS).to_pylist()}
    schema = tiny.rows(1).schema
    return {key: occlusion.reasons(pa.Table.from_pylist([landed[key]], schema=schema), 2)[0].as_py() for key in keys}


def test_rows_with_an_action_are_explained_and_no_others(decided: TinyProject) -> None:
    rows = decided.read(DAY, "decisions").to_pylist()
    assert len(rows) == ROWS - 3
    acting = [row["id"] for row in rows if row["action"] != "none"]
    assert {row["id"]: row["why"] for row in rows if row["why"] is not None} == expected(decided, acting)
    assert any("," in row["why"] for row in rows if row["why"])


def test_the_first_rows_by_rank_are_explained(decided: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(explain, "MOST", 5)
    decided.spec["decisions"]["explain"] = 1
    decided.write_spec()
    assert decided.run().success
    rows = decided.read(DAY, "decisions").to_pylist()
    assert [row["rank"] <= 5 for row in rows if row["why"] is not None] == [True] * 10


def test_without_ranks_the_highest_scores_of_every_action_are_explained(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(explain, "MOST", 3)
    (tiny.folder / "rules.py").write_text(FUNCTION)
    tiny.spec["decisions"] = {
        "function": "rules:decide",
        "reasons": ["high", "low"],
        "actions": {"call": {}, "mail": {}},
        "explain": 1,
    }
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(ROWS))
    assert tiny.run().success
    rows = tiny.read(DAY, "decisions").to_pylist()
    for name in ("call", "mail"):
        acting = sorted((row for row in rows if row["action"] == name), key=lambda row: -row["score"])
        assert len(acting) > 3
        assert {row["id"] for row in acting if row["why"] is not None} == {row["id"] for row in acting[:3]}


def test_without_the_setting_no_model_is_loaded(decided: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    del decided.spec["decisions"]["explain"]
    decided.write_spec()
    monkeypatch.setattr(explain, "load_bundle", None)
    assert decided.run().success
    assert decided.read(DAY, "decisions")["why"].null_count == ROWS - 3


def test_reasons_stand_at_their_positions() -> None:
    found = Explanations(np.array([1, 4, 5]), pa.array(["a", "b", "c"]))
    assert found.of(0, 3) is not None
    assert [part and part.to_pylist() for part in (found.of(0, 3), found.of(3, 3), found.of(6, 9))] == [
        [None, "a", None],
        [None, "b", "c"],
        None,
    ]
