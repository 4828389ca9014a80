"""Decisions by a function: what it promises is checked, and the message says which promise it broke."""

import random
import re
import sys
from collections.abc import Callable
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.delivery.decisions.decided import Decided
from batch_scoring.delivery.decisions.user_function import UNKNOWN_REASONS, decide_by_function
from batch_scoring.errors import DecisionError
from benchmarks.side_by_side import PROJECT

DAY = date(2026, 11, 30)
ROWS = pa.table(
    {
        "id": ["a", "b", "c", "d"],
        "prob_class_1": pa.array([0.95, 0.75, 0.1, None], pa.float32()),
        "merchant_days": [100, 5, None, 3],
        "region": ["x", "x", None, "y"],
    }
)


def decided(function: Callable[[pa.Table, date], Any], **actions: Any) -> Decided:  # noqa: ANN401
    section = {"function": "rules:decide", "reasons": ("risky", "fine"), "actions": actions or {"review": {}}}
    return decide_by_function(ROWS, DAY, function, Decisions.model_validate(section), "id")


def refusal(function: Callable[[pa.Table, date], Any]) -> str:
    with pytest.raises(DecisionError, match=r"^decisions\.function: rules:decide ") as caught:
        decided(function)
    return str(caught.value).removeprefix("decisions.function: rules:decide ")


def good(rows: pa.Table, day: date) -> pa.Table:
    """A decision by the values of each row."""
    assert day == DAY
    risky = pc.greater_equal(rows["prob_class_1"], 0.5).fill_null(False)
    return pa.table({"action": pc.if_else(risky, "review", "none"), "reason": pc.if_else(risky, "risky", "fine")})


def with_column(name: str, values: Any) -> Callable[[pa.Table, date], pa.Table]:  # noqa: ANN401
    """The good decision, but for a column; `values`: of it, or a function of the rows."""

    def function(rows: pa.Table, day: date) -> pa.Table:
        found = good(rows, day)
        column = values(rows) if callable(values) else values
        if name in found.column_names:
            return found.set_column(found.column_names.index(name), name, column)
        return found.append_column(name, column)

    return function


def test_its_actions_and_reasons_are_taken() -> None:
    day = decided(good, review={"most_per": {"region": 5}}, block={})

    assert [day.actions[code] for code in day.action] == ["review", "review", "none", "none"]
    assert [day.reasons[code] for code in day.reason] == ["risky", "risky", "fine", "fine"]
    assert day.action_counts == {"none": 2, "review": 2, "block": 0}
    assert day.reason_counts == {"risky": 2, "fine": 2}
    assert day.group_counts == {"review": {"region": {"x": 2}}, "block": {}}
    assert day.arm_counts == {}
    assert (day.arm == -1).all()
    assert (day.rank == 0).all()


def test_it_may_give_ranks_and_the_keys() -> None:
    ranks = {"a": 2, "b": 1}
    function = with_column("rank", lambda rows: [[ranks.get(key) for key in rows["id"].to_pylist()]])
    both = lambda rows, day: function(rows, day).append_column("id", rows["id"])  # noqa: E731

    assert decided(function).rank.tolist() == decided(both).rank.tolist() == [2, 1, 0, 0]


def test_it_may_return_the_key_as_pandas_does() -> None:
    def function(rows: pa.Table, day: date) -> pa.Table:
        frame = rows.to_pandas()
        frame["action"] = (frame["prob_class_1"] >= 0.5).map({True: "review", False: "none"})
        frame["reason"] = frame["action"].map({"review": "risky", "none": "fine"})
        return pa.Table.from_pandas(frame[["id", "action", "reason"]], preserve_index=False)

    large = with_column("id", lambda rows: rows["id"].cast(pa.large_string()))
    assert decided(function).action.tolist() == decided(large).action.tolist() == decided(good).action.tolist()


def test_a_reason_that_the_spec_does_not_name_is_left_to_the_check() -> None:
    day = decided(with_column("reason", lambda rows: [[f"odd {key}" for key in rows["id"].to_pylist()]]))

    assert day.reason_counts == {"odd a": 1, "odd b": 1, "odd c": 1, "odd d": 1}


def test_caps_are_left_to_the_check() -> None:
    assert decided(good, review={"most": 1}).action_counts["review"] == 2


def test_the_function_of_the_guide_works() -> None:
    guide = (PROJECT / "docs/guides/decisions.md").read_text("utf-8")
    found = re.search(r"```python\n(.*?)```", guide, re.DOTALL)
    assert found
    names: dict[str, Any] = {"pa": pa, "pc": pc, "date": date}
    exec(found[1], names)
    section = {
        "function": "rules:decide",
        "reasons": ("high risk", "new merchant", "none of these"),
        "actions": {"review": {"most": 500}},
    }

    day = decide_by_function(ROWS, DAY, names["decide"], Decisions.model_validate(section), "id")

    assert day.reason_counts == {"high risk": 1, "new merchant": 1, "none of these": 2}
    assert day.action_counts == {"none": 2, "review": 2}


def by_place(rows: pa.Table, day: date) -> pa.Table:
    return pa.table({"action": ["review", "none", "none", "none"], "reason": ["fine"] * 4})


def rank_by_place(rows: pa.Table, day: date) -> pa.Table:
    return good(rows, day).append_column("rank", [[1, 2, None, None]])


CHANCE = random.Random(3)
ACTIONS = "expected one of none, review"


def by_chance(rows: pa.Table, day: date) -> pa.Table:
    return pa.table({"action": ["none"] * 4, "reason": [CHANCE.choice(["risky", "fine"]) for _ in range(4)]})


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            by_place,
            "gives the action 'none' for id 'a' and 1 other row; but only when the rows come in reverse order",
        ),
        (
            rank_by_place,
            "gives the rank None for id 'a' and 3 other rows; but only when the rows come in",
        ),
        (by_chance, "but only when the rows come in reverse order"),
    ],
)
def test_a_function_that_is_not_pure_is_found(function: Callable[..., Any], message: str) -> None:
    assert message in refusal(function)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (
            lambda rows, day: 1 // 0,
            "raised ZeroDivisionError: integer division or modulo by zero (test_user_function.py line ",
        ),
        (
            lambda rows, day: sys.exit("no rules today"),
            "raised SystemExit: no rules today (test_user_function.py line ",
        ),
        (lambda rows, day: {}, "returned dict; expected a pyarrow.Table with action and reason"),
        (lambda rows, day: good(rows, day).drop(["reason"]), "returned no column reason; found action"),
        (with_column("score", [[1.0] * 4]), "returned the column score; expected action, reason and perhaps rank"),
        (
            lambda rows, day: good(rows, day).append_column("reason", [["fine"] * 4]),
            "returned the column reason more than once",
        ),
        (lambda rows, day: good(rows, day)[:3], "returned 3 rows for 4; expected one for each, in their order"),
        (with_column("id", [list("abcd")]), "returned other keys than it got; expected the rows in their order"),
        (with_column("id", [[1, 2, 3, 4]]), "returned other keys than it got"),
        (with_column("id", [[{}] * 4]), "returned other keys than it got"),
        (with_column("action", [["review", "reveiw", "none", "none"]]), f"action 'reveiw' for id 'b'; {ACTIONS}"),
        (with_column("action", [["none", None, "none", None]]), f"action None for id 'b' and 1 other row; {ACTIONS}"),
        (with_column("reason", [["fine", None, "fine", "fine"]]), "gives the reason None for id 'b'; expected a text"),
        (with_column("rank", [[1, 0, None, None]]), "gives the rank 0 for id 'b'; expected 1 for the first"),
        (with_column("rank", [["first", None, None, None]]), "expected text, and whole numbers as rank"),
        (with_column("reason", [[["fine"]] * 4]), "expected text, and whole numbers as rank"),
    ],
)
def test_a_result_of_another_form_is_named(function: Callable[..., Any], message: str) -> None:
    assert message in refusal(function)


def test_free_text_is_no_reason() -> None:
    rows = pa.table({"id": list(range(UNKNOWN_REASONS + 1)), "prob_class_1": [0.5] * (UNKNOWN_REASONS + 1)})
    section = {"function": "rules:decide", "reasons": ("fine",), "actions": {"review": {}}}

    def function(rows: pa.Table, day: date) -> pa.Table:
        return pa.table({"action": ["none"] * len(rows), "reason": [f"id {key}" for key in rows["id"].to_pylist()]})

    with pytest.raises(DecisionError, match=r"gives 101 reasons that decisions\.reasons does not name, 'id 0' for one"):
        decide_by_function(rows, DAY, function, Decisions.model_validate(section), "id")


def test_a_day_without_rows_is_decided() -> None:
    section = {
        "function": "rules:decide",
        "reasons": ("risky", "fine"),
        "actions": {"review": {"most_per": {"region": 1}}},
    }

    day = decide_by_function(ROWS[:0], DAY, good, Decisions.model_validate(section), "id")

    assert day.rows == 0
    assert day.action_counts == {"none": 0, "review": 0}
