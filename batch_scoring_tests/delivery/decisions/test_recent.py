"""The keys that had an action on the days before."""

from pathlib import Path

import pyarrow as pa
import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.daily.tables import decisions_table
from batch_scoring.delivery.decisions import recent
from batch_scoring.errors import StateError
from batch_scoring_tests.decided import customers, with_decisions
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject

HOLDOUT = {"share": 0.3, "salt": "calls"}


def rules(**days: int) -> Decisions:
    """Actions that look back for some days each."""
    return Decisions.model_validate({"actions": {name: {"not_within_days": count} for name, count in days.items()}})


@pytest.fixture
def decided(tiny: TinyProject) -> TinyProject:
    """Two days: on the first some are called, on the second some get an e-mail."""
    for day, action in ((DAY, "call"), (NEXT_DAY, "email")):
        with_decisions(tiny, {"actions": {action: {"most": 6, "holdout": HOLDOUT}}})
        tiny.land(day, customers(tiny, 60))
        tiny.run(day)
    return tiny


def had(tiny: TinyProject, day: str) -> set[str]:
    return {row["id"] for row in tiny.read(day, "decisions").to_pylist() if row["arm"]}


def found(tiny: TinyProject, decisions: Decisions, day: str) -> dict[str, set[str]]:
    earlier = recent.find(tiny.pipeline, decisions, day)
    by_action = recent.keys(tiny.pipeline, decisions, day, earlier, pa.string())
    return {name: set(keys.to_pylist()) for name, keys in by_action.items()}


def test_both_arms_count_within_each_actions_own_days(decided: TinyProject) -> None:
    called, mailed = had(decided, DAY), had(decided, NEXT_DAY)
    assert len(called) > 6 < len(mailed), "the control groups, too"
    assert found(decided, rules(call=2, email=1), "2024-03-06") == {"call": called, "email": mailed}
    assert found(decided, rules(call=1, email=1), "2024-03-06") == {"call": set(), "email": mailed}
    assert found(decided, rules(call=3, email=1), "2024-03-07") == {"call": called, "email": set()}
    assert found(decided, rules(call=90), "2024-03-06") == {"call": called}
    assert found(decided, rules(call=0), "2024-03-06") == {}


def test_a_day_does_not_look_at_itself_or_at_later_ones(decided: TinyProject) -> None:
    assert found(decided, rules(call=90, email=90), DAY) == {"call": set(), "email": set()}
    assert found(decided, rules(email=90), NEXT_DAY) == {"email": set()}


def test_without_a_rule_that_looks_back_no_day_is_read(decided: TinyProject) -> None:
    assert recent.find(decided.pipeline, rules(call=0), NEXT_DAY) == []


def test_keys_have_the_type_that_is_asked_for(decided: TinyProject) -> None:
    earlier = recent.find(decided.pipeline, rules(call=1), NEXT_DAY)
    keys = recent.keys(decided.pipeline, rules(call=1), NEXT_DAY, earlier, pa.large_string())
    assert keys["call"].type == pa.large_string()


def test_decisions_that_are_gone_are_an_error_that_names_the_day(decided: TinyProject) -> None:
    [path] = decided.published_day("decisions").table.files
    Path(decisions_table(decided.pipeline).folder.uri, path).unlink()
    with pytest.raises(StateError, match=f"asks for the decisions of {DAY}, and their file .* is gone; run: batch-sc"):
        found(decided, rules(call=1), NEXT_DAY)
