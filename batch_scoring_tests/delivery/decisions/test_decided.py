"""The table of decisions, a batch at a time, and the keys that had an action."""

from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.delivery.decisions.decide import decide
from batch_scoring.delivery.decisions.decided import DICTIONARY, Decided, keys_with, schema
from batch_scoring.storage.parquet import Writer

KEYS = [f"k{number}" for number in range(50)]
SCORES = [None, 0.1, *(1 - number / 100 for number in range(48))]
ROWS = pa.record_batch({"id": KEYS, "prob_class_1": SCORES})
FORM = schema(ROWS.schema.field("id"))
AT = pa.scalar(datetime(2026, 11, 30, tzinfo=UTC), pa.timestamp("us", "UTC"))


@pytest.fixture(scope="module")
def day() -> Decided:
    call = {"at_least": 0.5, "most": 10, "holdout": {"share": 0.3, "salt": "s"}}
    decisions = Decisions.model_validate(
        {"actions": {"call": call, "email": {"at_least": 0.5, "most": 5}, "gift": {"most": 0}}}
    )
    return decide([ROWS], decisions, "id", ROWS.schema)


def table_of(day: Decided, folder: Path) -> pa.Table:
    """The decisions, written and read."""
    writer = Writer(folder / "decisions.parquet", FORM, DICTIONARY)
    for start in range(0, len(KEYS), 7):
        writer.write(day.batch(start, ROWS["id"][start : start + 7], FORM, "v3", AT))
    writer.close()
    return pq.read_table(folder / "decisions.parquet")


def test_the_table_has_the_columns_of_its_schema(day: Decided, tmp_path: Path) -> None:
    table = table_of(day, tmp_path)

    assert table.cast(FORM).schema == FORM
    assert table["id"].to_pylist() == KEYS
    assert table["score"].to_pylist() == SCORES
    assert set(table["model_version"].to_pylist()) == {"v3"}
    assert set(table["decided_at"].to_pylist()) == {AT.as_py()}
    assert table["why"].null_count == len(KEYS)


def test_arm_and_rank_are_null_for_rows_without(day: Decided, tmp_path: Path) -> None:
    table = table_of(day, tmp_path)

    for cells in table.to_pylist():
        action, kind = cells["reason"].split(":")
        assert cells["action"] == (action if kind == "taken" else "none")
        assert cells["arm"] == {"call:taken": "treated", "call:holdout": "control"}.get(cells["reason"])
        assert (cells["rank"] is not None) == (kind in ("taken", "holdout"))
    calls = [cells["rank"] for cells in table.to_pylist() if cells["reason"] in ("call:taken", "call:holdout")]
    assert calls == list(range(1, len(calls) + 1))


def test_counts_are_those_of_the_rows(day: Decided, tmp_path: Path) -> None:
    table = table_of(day, tmp_path)

    actions, reasons = table["action"].to_pylist(), table["reason"].to_pylist()
    assert day.action_counts == {name: actions.count(name) for name in ("none", "call", "email", "gift")}
    assert day.action_counts["gift"] == 0
    assert day.reason_counts == {reason: reasons.count(reason) for reason in set(reasons)}
    assert day.arm_counts == {"call": {"treated": 10, "control": reasons.count("call:holdout")}}
    assert day.has_action.tolist() == [action != "none" for action in actions]


def test_an_explanation_is_written_beside_its_row(day: Decided) -> None:
    batch = day.batch(3, ROWS["id"][3:5], FORM, "v3", AT, pa.array(["age +0.1", None]))

    assert batch["why"].to_pylist() == ["age +0.1", None]
    assert batch["id"].to_pylist() == KEYS[3:5]


def test_look_back_counts_treated_and_control(day: Decided) -> None:
    batch = day.batch(0, ROWS["id"], FORM, "v3", AT)

    called = [cells for cells in batch.to_pylist() if cells["reason"] in ("call:taken", "call:holdout")]
    assert keys_with("call", batch, "id").to_pylist() == [cells["id"] for cells in called]
    assert {cells["arm"] for cells in called} == {"treated", "control"}
    assert keys_with("gift", batch, "id").to_pylist() == []


def test_keys_with_an_action_are_left_alone_the_next_day() -> None:
    call = {"most": 10, "holdout": {"share": 0.3, "salt": "s"}, "not_within_days": 7}
    decisions = Decisions.model_validate({"actions": {"call": call}})
    first = decide([ROWS], decisions, "id", ROWS.schema).batch(0, ROWS["id"], FORM, "v3", AT)
    had = keys_with("call", first, "id")

    second = decide([ROWS], decisions, "id", ROWS.schema, {"call": had}).batch(0, ROWS["id"], FORM, "v3", AT)

    recent = [cells["id"] for cells in second.to_pylist() if cells["reason"] == "call:recent"]
    assert recent == had.to_pylist()
    assert "control" in [cells["arm"] for cells in first.to_pylist()]
    assert not set(keys_with("call", second, "id").to_pylist()) & set(recent)
