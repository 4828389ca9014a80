"""Decisions, held against a reading of the same rules one row after the other in plain Python."""

import hashlib
import math
import random
import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.config.delivery_spec import Action, Decisions
from batch_scoring.config.rules.reasons import vocabulary
from batch_scoring.delivery.decisions import caps
from batch_scoring.delivery.decisions.arms import ARMS
from batch_scoring.delivery.decisions.decide import decide
from batch_scoring.delivery.decisions.decided import Decided
from batch_scoring.errors import DecisionError, RuleError

SCHEMA = pa.schema(
    {
        "id": pa.string(),
        "prob_class_1": pa.float32(),
        "age": pa.int64(),
        "consent": pa.bool_(),
        "region": pa.string(),
        "tier": pa.int64(),
    }
)
Row = dict[str, Any]
RULES: dict[str, Callable[[Row], bool | None]] = {
    "age >= 18": lambda row: None if row["age"] is None else row["age"] >= 18,
    "consent": lambda row: row["consent"],
    "tier in [1, 2]": lambda row: None if row["tier"] is None else row["tier"] in (1, 2),
}
SALT = "customer_churn"


@dataclass(frozen=True)
class Decision:
    """What is decided about a row."""

    action: str
    reason: str
    arm: str | None = None
    rank: int | None = None


def digits(salt: str, key: str) -> str:
    return hashlib.md5(f"{salt}:{key}".encode()).hexdigest()


def expected(rows: list[Row], decisions: Decisions, recent: Mapping[str, set[str]]) -> dict[str, Decision]:
    """Decide row by row, as the guide says."""
    found: dict[str, Decision] = {}
    refused: dict[str, str] = {}
    for row in rows:
        for name, text in decisions.eligible.items():
            holds = RULES[text](row)
            if not holds:
                found[row["id"]] = Decision("none", f"ineligible:{name}" + (":unknown" if holds is None else ""))
                break
    for name, action in decisions.actions.items():
        tried = [row for row in rows if row["id"] not in found]
        reasons = {row["id"]: refusal(row, name, action, recent.get(name, set())) for row in tried}
        reasons |= given_out([row for row in tried if not reasons[row["id"]]], name, action, found)
        for key, reason in reasons.items():
            if key not in found and not reason.endswith(":below"):
                refused.setdefault(key, reason)
    last = f"{list(decisions.actions)[-1]}:below"
    return {row["id"]: found.get(row["id"]) or Decision("none", refused.get(row["id"], last)) for row in rows}


def refusal(row: Row, name: str, action: Action, recent: set[str]) -> str:
    """Why an action cannot take a row, whatever the others are."""
    if action.where and not (holds := RULES[action.where](row)):
        return f"{name}:not_met" + (":unknown" if holds is None else "")
    score = row["prob_class_1"]
    if score is None or math.isnan(score) or (action.at_least is not None and score < action.at_least):
        return f"{name}:below"
    return f"{name}:recent" if row["id"] in recent else ""


def given_out(rows: list[Row], name: str, action: Action, found: dict[str, Decision]) -> dict[str, str]:
    """Give an action to rows; return the reasons of those that the caps refuse."""
    salt = action.holdout.salt if action.holdout else SALT
    used: Counter[tuple[str, Any]] = Counter()
    rank, reasons = 0, {}
    for row in sorted(rows, key=lambda row: (-row["prob_class_1"], digits(salt, row["id"])[8:24])):
        full = [column for column, most in action.most_per.items() if used[column, row[column]] >= most]
        if full or (action.most is not None and used["", None] >= action.most):
            reasons[row["id"]] = f"{name}:over_cap_{full[0]}" if full else f"{name}:over_cap"
            continue
        rank += 1
        if action.holdout and int(digits(salt, row["id"])[:8], 16) / 2**32 < action.holdout.share:
            found[row["id"]] = Decision("none", f"{name}:holdout", "control", rank)
            continue
        found[row["id"]] = Decision(name, f"{name}:taken", "treated" if action.holdout else None, rank)
        used.update([("", None), *((column, row[column]) for column in action.most_per)])
    return reasons


def batches_of(rows: list[Row], size: int = 7) -> list[pa.RecordBatch]:
    return pa.Table.from_pylist(rows, SCHEMA).to_batches(size)


def decided(rows: list[Row], decisions: Decisions, recent: Mapping[str, set[str]] | None = None) -> dict[str, Decision]:
    """Decide about rows; return the decision by key."""
    keys = {name: pa.array(sorted(some), pa.string()) for name, some in (recent or {}).items()}
    return by_key(rows, decide(batches_of(rows), decisions, "id", SCHEMA, keys, SALT))


def by_key(rows: list[Row], day: Decided) -> dict[str, Decision]:
    codes = zip(day.action.tolist(), day.reason.tolist(), day.arm.tolist(), day.rank.tolist(), strict=True)
    return {
        row["id"]: Decision(
            day.actions[action], day.reasons[reason], None if arm < 0 else ARMS[arm], rank if rank else None
        )
        for row, (action, reason, arm, rank) in zip(rows, codes, strict=True)
    }


def spec(eligible: Mapping[str, str] | None = None, **actions: Mapping[str, Any]) -> Decisions:
    return Decisions.model_validate({"eligible": eligible or {}, "actions": actions})


def row(key: str, score: float | None, **cells: Any) -> Row:  # noqa: ANN401
    return {"id": key, "prob_class_1": score, "age": 30, "consent": True, "region": "x", "tier": 1} | cells


SCORES = st.sampled_from([None, math.nan, 0.0, 0.25, 0.5, 0.75, 1.0])
ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "id": st.integers(0, 10_000).map(str) | st.text("aé字", min_size=1, max_size=4),
            "prob_class_1": SCORES,
            "age": st.sampled_from([None, 10, 30, 30, 30]),
            "consent": st.sampled_from([None, False, True, True, True]),
            "region": st.sampled_from([None, "", "x", "y"]),
            "tier": st.sampled_from([None, 1, 2, 3]),
        }
    ),
    unique_by=lambda row: row["id"],
    max_size=40,
)
CAP = st.integers(0, 6)
ACTIONS = st.fixed_dictionaries(
    {},
    optional={
        "at_least": st.sampled_from([0.0, 0.25, 0.5]),
        "where": st.sampled_from(list(RULES)),
        "most": CAP,
        "most_per": st.fixed_dictionaries({}, optional={"region": CAP, "tier": CAP}),
        "holdout": st.fixed_dictionaries({"share": st.sampled_from([0, 0.3, 0.6, 1]), "salt": st.sampled_from("st")}),
        "not_within_days": st.sampled_from([0, 7]),
    },
)
DECISIONS = st.builds(
    lambda rules, actions: spec({f"rule{text[0]}": text for text in rules}, **actions),
    st.lists(st.sampled_from(list(RULES)), unique=True),
    st.dictionaries(st.sampled_from(["call", "email", "offer"]), ACTIONS, min_size=1),
)

CAPPED = st.builds(
    lambda most, limits, share: spec(
        call={"most": most, "most_per": limits, "holdout": {"share": share, "salt": "s"}},
        email={"most_per": {"region": 1}},
    ),
    st.integers(2, 8) | st.none(),
    st.sampled_from([{"region": 2}, {"tier": 1}, {"region": 2, "tier": 1}, {"tier": 2, "region": 0}]),
    st.sampled_from([0, 0.3]),
)
MANY_ROWS = st.lists(
    st.builds(
        lambda key, region, tier: row(key, 0.5, region=region, tier=tier),
        st.integers(0, 10_000).map(str),
        st.sampled_from([None, "x", "y"]),
        st.sampled_from([None, 1, 2]),
    ),
    unique_by=lambda row: row["id"],
    min_size=10,
    max_size=30,
)


@settings(deadline=None)
@given(ROWS, DECISIONS, st.randoms(use_true_random=False), st.sampled_from([1, 3, 16_384]))
def test_every_decision_is_that_of_a_reading_row_by_row(
    rows: list[Row], decisions: Decisions, chance: random.Random, block: int
) -> None:
    recent = {name: {row["id"] for row in rows if chance.random() < 0.3} for name in decisions.actions}
    counted = {name: recent[name] for name, action in decisions.actions.items() if action.not_within_days}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(caps, "BLOCK", block)

        assert decided(rows, decisions, recent) == expected(rows, decisions, counted)


@settings(deadline=None)
@given(ROWS, DECISIONS, st.randoms(use_true_random=False), st.integers(1, 20))
def test_the_order_of_the_rows_and_of_batches_changes_nothing(
    rows: list[Row], decisions: Decisions, chance: random.Random, size: int
) -> None:
    shuffled = chance.sample(rows, len(rows))

    first = decide(batches_of(rows), decisions, "id", SCHEMA, salt=SALT)
    second = decide(batches_of(shuffled, size), decisions, "id", SCHEMA, salt=SALT)

    assert by_key(rows, first) == by_key(shuffled, second)
    assert first.group_counts == second.group_counts


@settings(deadline=None)
@given(MANY_ROWS, CAPPED)
def test_caps_hold_for_actions_and_groups(rows: list[Row], decisions: Decisions) -> None:
    day = decide(batches_of(rows), decisions, "id", SCHEMA, salt=SALT)
    found = by_key(rows, day)

    for name, action in decisions.actions.items():
        having = [row for row in rows if found[row["id"]].action == name]
        assert len(having) == day.action_counts[name]
        assert action.most is None or len(having) <= action.most
        for column, most in action.most_per.items():
            groups = Counter(row[column] for row in having)
            assert max(groups.values(), default=0) <= most
            counted = {"(no value)" if value is None else str(value): rows for value, rows in groups.items()}
            assert day.group_counts[name][column] == counted


@settings(deadline=None)
@given(ROWS, DECISIONS)
def test_every_row_has_one_decision_with_a_reason_of_the_vocabulary(rows: list[Row], decisions: Decisions) -> None:
    day = decide(batches_of(rows), decisions, "id", SCHEMA, salt=SALT)

    assert day.rows == len(day.reason) == len(day.arm) == len(day.rank) == len(rows)
    assert day.reasons == vocabulary(decisions)
    assert sum(day.action_counts.values()) == sum(day.reason_counts.values()) == len(rows)
    for decision in by_key(rows, day).values():
        assert (decision.action == "none") != decision.reason.endswith(":taken")
        assert (decision.rank is not None) == decision.reason.endswith((":taken", ":holdout"))
        assert (decision.arm == "control") == decision.reason.endswith(":holdout")


@settings(deadline=None)
@given(ROWS, DECISIONS)
def test_a_missing_value_never_passes(rows: list[Row], decisions: Decisions) -> None:
    for row, decision in zip(rows, decided(rows, decisions).values(), strict=True):
        if decision.arm == "control" or decision.action != "none":
            name = decision.reason.split(":")[0]
            texts = [*decisions.eligible.values(), decisions.actions[name].where or "consent or True"]
            assert row["prob_class_1"] is not None
            assert not math.isnan(row["prob_class_1"])
            assert all(RULES[text](row) for text in texts if text in RULES)


def test_the_first_rule_that_fails_is_the_reason() -> None:
    decisions = spec({"adult": "age >= 18", "consent": "consent"}, call={})
    rows = [row("a", 1, age=10, consent=False), row("b", 1, age=None, consent=False), row("c", 1, consent=None)]

    assert [decision.reason for decision in decided(rows, decisions).values()] == [
        "ineligible:adult",
        "ineligible:adult:unknown",
        "ineligible:consent:unknown",
    ]


def test_a_threshold_is_inclusive_and_compared_with_64_bits() -> None:
    decisions = spec(call={"at_least": 0.5}, email={"at_least": 0.7})
    rows = [row("a", 0.5), row("b", 0.4999), row("c", 0.7)]

    assert [decision.reason for decision in decided(rows, decisions).values()] == [
        "call:taken",
        "email:below",
        "call:taken",
    ]
    assert decided([row("c", 0.7)], spec(email={"at_least": 0.7}))["c"].reason == "email:below"


def test_the_reason_is_that_of_the_first_action_that_refused_for_more_than_the_score() -> None:
    decisions = spec(call={"at_least": 0.9}, offer={"most": 0}, email={"where": "consent"})

    assert decided([row("a", 0.5, consent=False)], decisions)["a"].reason == "offer:over_cap"
    assert decided([row("a", 0.5)], decisions)["a"] == Decision("email", "email:taken", None, 1)


def test_with_two_groupings_only_rows_that_get_the_action_count() -> None:
    decisions = spec(call={"most": 3, "most_per": {"region": 1, "tier": 1}})
    rows = [
        row("first", 0.9, region="x", tier=1),
        row("same region", 0.8, region="x", tier=2),  # must not use up the place of tier 2
        row("same tier", 0.7, region="y", tier=1),  # nor this one that of region y
        row("free", 0.6, region="y", tier=2),
        row("both", 0.5, region="x", tier=1),
        row("third", 0.4, region="z", tier=3),
        row("late", 0.3, region="w", tier=4),
        row("late and refused", 0.2, region="x", tier=4),
    ]

    assert {key: decision.reason.removeprefix("call:") for key, decision in decided(rows, decisions).items()} == {
        "first": "taken",
        "same region": "over_cap_region",
        "same tier": "over_cap_tier",
        "free": "taken",
        "both": "over_cap_region",
        "third": "taken",
        "late": "over_cap",
        "late and refused": "over_cap_region",
    }


def test_the_control_group_uses_up_no_cap_and_gets_no_lesser_action() -> None:
    keys = [f"k{number}" for number in range(200)]
    decisions = spec(call={"most": 50, "holdout": {"share": 0.3, "salt": "s"}}, email={})
    rows = [row(key, 1 - number / 1000) for number, key in enumerate(keys)]

    found = decided(rows, decisions)

    control = [key for key in keys if found[key].arm == "control"]
    assert sum(decision.action == "call" for decision in found.values()) == 50
    assert 5 < len(control) < 40
    assert {found[key] for key in control} == {
        Decision("none", "call:holdout", "control", found[key].rank) for key in control
    }
    assert [found[key].rank for key in keys[: 50 + len(control)]] == list(range(1, 51 + len(control)))
    assert all(found[key].action == "email" for key in keys[50 + len(control) :])


def test_arms_stay_while_the_salt_stands() -> None:
    keys = [f"k{number}" for number in range(1_000)]
    chance = random.Random(7)

    def control(salt: str) -> set[str]:
        rows = [row(key, chance.random()) for key in chance.sample(keys, len(keys))]
        found = decided(rows, spec(call={"holdout": {"share": 0.2, "salt": salt}}))
        return {key for key, decision in found.items() if decision.arm == "control"}

    assert control("2026") == control("2026")
    assert len(control("2026") & control("2027")) < 80


DRAWN = 40_000


@pytest.mark.parametrize("spread", ["all different", "all equal", "few values"])
def test_the_control_is_drawn_like_the_treated(spread: str) -> None:
    """Its share and its mean score are those of chance, also where ties decide who comes before the cap."""
    chance = np.random.default_rng(5)
    scores = {
        "all different": chance.random(DRAWN),
        "all equal": np.full(DRAWN, 0.75),
        "few values": chance.choice([0.5, 0.75, 1.0], DRAWN),
    }[spread]
    extra = chance.normal(size=DRAWN)  # what the model does not see must be alike too
    share, most = 0.1, 20_000
    rows = pa.record_batch({"id": [f"c{number}" for number in range(DRAWN)], "prob_class_1": scores})
    decisions = spec(call={"most": most, "holdout": {"share": share, "salt": "calls"}})

    day = decide([rows], decisions, "id", rows.schema)

    treated, control = np.flatnonzero(day.arm == 0), np.flatnonzero(day.arm == 1)
    assert len(treated) == most
    called = len(treated) + len(control)
    assert abs(len(control) - share * called) < 4 * math.sqrt(share * (1 - share) * called)
    for measured in (scores, extra, day.rank):
        error = np.std(measured[day.rank > 0]) / math.sqrt(len(control))
        assert abs(measured[control].mean() - measured[treated].mean()) <= 4 * error
    assert day.arm_counts == {"call": {"treated": most, "control": len(control)}}


@pytest.mark.parametrize("groupings", [{}, {"region": 700}, {"region": 700, "tier": 4_000}])
def test_a_day_of_several_blocks_is_decided_row_by_row(groupings: dict[str, int]) -> None:
    chance = np.random.default_rng(6)
    count = 45_000
    table = pa.table(
        {
            "id": [f"c{number}" for number in range(count)],
            "prob_class_1": pa.array(chance.integers(0, 5_000, count) / 5_000, pa.float32()),
            "age": pa.array(chance.integers(0, 90, count), mask=chance.random(count) < 0.1),
            "consent": chance.random(count) < 0.9,
            "region": chance.choice([f"r{number}" for number in range(40)], count),
            "tier": chance.integers(1, 9, count),
        },
        SCHEMA,
    )
    limits = {"most": 20_000, "most_per": groupings, "holdout": {"share": 0.05, "salt": "calls"}}
    decisions = spec({"adult": "age >= 18"}, call=limits, email={"at_least": 0.1, "most": 10_000})
    rows = table.to_pylist()

    found = by_key(rows, decide(table.to_batches(10_000), decisions, "id", SCHEMA, salt=SALT))

    assert found == expected(rows, decisions, {})


def test_a_key_that_had_the_action_recently_does_not_get_it_again() -> None:
    decisions = spec(call={"not_within_days": 7}, email={})
    rows = [row("new", 0.9), row("called", 0.8)]

    found = decided(rows, decisions, {"call": {"called", "gone"}})

    assert found["called"].action == "email"
    assert found["new"].action == "call"
    assert decided(rows, spec(call={"not_within_days": 7}), {"call": {"called"}})["called"].reason == "call:recent"


@pytest.mark.parametrize("kind", [pa.int32(), pa.int64(), pa.large_string(), pa.dictionary(pa.int32(), pa.string())])
def test_keys_of_every_type_are_those_of_their_text(kind: pa.DataType) -> None:
    keys = [str(number) for number in range(500)]
    rows = [row(key, 0.5) for key in keys]
    decisions = spec(call={"most": 100, "holdout": {"share": 0.5, "salt": "s"}, "not_within_days": 1})
    wanted = decided(rows, decisions, {"call": set(keys[:9])})
    table = pa.Table.from_pylist(rows, SCHEMA)
    numbers = table["id"].cast(pa.int64()).cast(kind) if pa.types.is_integer(kind) else table["id"].cast(kind)
    table = table.set_column(0, "id", numbers)

    day = decide(table.to_batches(100), decisions, "id", table.schema, {"call": table["id"].chunk(0)[:9]}, SALT)

    assert by_key(rows, day) == wanted


def test_a_day_without_rows_has_no_decisions() -> None:
    decisions = spec(call={"most": 3, "most_per": {"region": 1}, "holdout": {"share": 0.5, "salt": "s"}})

    day = decide([], decisions, "id", SCHEMA, {"call": pa.array(["a"])}, SALT)

    assert day.rows == 0
    assert day.action_counts == {"none": 0, "call": 0}
    assert day.reason_counts == {}
    assert day.group_counts == {"call": {"region": {}}}


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"score": "prob", "actions": {"call": {}}},
            "decisions.score: the day has no column prob; expected one of",
        ),
        (
            {"score": "region", "actions": {"call": {}}},
            "decisions.score: the column region is string; expected numbers",
        ),
        ({"actions": {"a": {"most_per": {"b": 1}}}}, "decisions.actions.a.most_per: the day has no column b; expected"),
    ],
)
def test_a_column_that_is_missing_is_named(section: dict[str, Any], message: str) -> None:
    with pytest.raises(DecisionError, match=re.escape(message)):
        decide([], Decisions.model_validate(section), "id", SCHEMA)


def test_a_rule_that_does_not_fit_is_named() -> None:
    with pytest.raises(RuleError, match=r"decisions\.actions\.call\.where"):
        decide([], spec(call={"where": "aeg > 3"}), "id", SCHEMA)
    with pytest.raises(RuleError, match=r"decisions\.eligible\.adult"):
        decide([], spec({"adult": "aeg > 3"}, call={}), "id", SCHEMA)
