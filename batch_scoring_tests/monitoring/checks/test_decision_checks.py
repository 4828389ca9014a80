"""The checks of decisions: each fails for what it is about, and chance alone makes none fail."""

from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.spec import Checks
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.monitoring.checks import decision_checks
from batch_scoring.monitoring.checks.decision_checks import balanced_arms, usual_actions, usual_rows
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.state import PublishedDay, PublishedPart, ShardStats
from batch_scoring_tests.checked import LATE, days, finding
from batch_scoring_tests.decided import by_rules, changed, customers, with_decisions
from batch_scoring_tests.tiny import TinyProject

HOLDOUT = Decisions.model_validate({"actions": {"call": {"holdout": {"share": 0.05, "salt": "s"}}}})


def day(step: str = "decisions", code: str = "", **stats: Any) -> PublishedDay:  # noqa: ANN401  (fields of the stats)
    """A published day of one shard."""
    rows = {"rows_in": 10, "rows": 10, "keys": 77, **stats}
    shard = ShardStats.model_validate({"digest": "d", "source": "s", "run_id": "r"} | rows)
    return PublishedDay(
        pipeline="p",
        day="2024-03-04",
        step=step,  # type: ignore[arg-type]
        run_id="r",
        finished_at=datetime.now(UTC),
        fingerprint="f",
        code=code,
        shards=(shard,),
        table=PublishedPart(transaction=1, version=1, files=()),
    )


GOOD: dict[str, Any] = {
    "actions": {"none": 4, "call": 4, "email": 2},
    "reasons": {"call:taken": 4, "email:taken": 2, "ineligible:consent": 4},
    "arms": {"call": {"treated": 4, "control": 0}},
    "groups": {"email": {"region": {"north": 2}}},
}


def found(tiny: TinyProject, check: str, **stats: Any) -> Finding:  # noqa: ANN401
    """What a check finds of a day's decisions with these stats."""
    with_decisions(tiny)
    published = day(**(GOOD | stats))
    prepared = Prepared((), None, published=published)  # type: ignore[arg-type]
    step = DayStep(tiny.pipeline, published.day, "decisions")
    results = decision_checks.findings(step, prepared, day("predictions"))
    assert [result.check for result in results] == [*decision_checks.CHECKS]
    return next(result for result in results if result.check == check)


def test_a_good_day_passes_every_check(tiny: TinyProject) -> None:
    for check in decision_checks.CHECKS:
        assert found(tiny, check).passed, check


@pytest.mark.parametrize(
    ("check", "stats", "said"),
    [
        ("every_row_is_decided", {"rows": 9}, "10 scored rows, 10 decided, 9 in the table: run predictions"),
        ("every_row_is_decided", {"keys": 78}, "10 scored rows, 10 decided, 10 in the table; they are not of the same"),
        ("every_row_is_decided", {"actions": {"none": 3, "call": 4, "email": 2}}, "10 scored rows, 9 decided, 10 in"),
        ("caps_hold", {"actions": {"none": 1, "call": 9}}, "call has 9 rows, expected at most 8; report this bug"),
        (
            "caps_hold",
            {"groups": {"email": {"region": {"north": 6, "south": 2}}}},
            "email has 6 rows with region north, expected at most 5; report this bug",
        ),
        ("reasons_are_known", {"actions": {"none": 9, "fax": 1}}, "1 rows with action 'fax', which the spec does not"),
        ("reasons_are_known", {"reasons": {"call:taken": 9, "fax:taken": 1}}, "1 rows with reason 'fax:taken', which"),
        (
            "arms_are_balanced",
            {"arms": {"call": {"treated": 1000, "control": 0}}},
            "call: 0 of 1000 rows in the control group, expected 250 ± 57; keys that look alike, or a salt that names",
        ),
    ],
)
def test_a_check_fails_for_what_it_is_about(tiny: TinyProject, check: str, stats: dict[str, Any], said: str) -> None:
    result = found(tiny, check, **stats)
    assert not result.passed
    assert result.message.startswith(said)


def test_the_invariants_block_and_the_others_warn() -> None:
    blocking = {name for name in decision_checks.CHECKS if getattr(Checks(), name).blocking}
    assert blocking == {"every_row_is_decided", "caps_hold", "reasons_are_known"}


# usual numbers of rows


def usual(now: int, before: Sequence[int]) -> Finding:
    decisions = Decisions.model_validate({"actions": {"call": {}}})
    published = [day(actions={"call": rows}) for rows in before]
    return usual_actions(decisions, {"call": now}, published, 0.25)


@pytest.mark.parametrize(("now", "passed"), [(1000, True), (800, True), (650, False), (1300, True), (1400, False)])
def test_an_action_with_more_or_fewer_rows_than_usual_is_told(now: int, passed: bool) -> None:
    result = usual(now, [990, 1010] * 7)
    assert result.passed == passed
    assert passed == (result.observed is not None and result.observed <= 1)
    if not passed:
        assert result.message.startswith(f"call has {now} rows, expected 688 to 1334, by the 14 days before; compare")


def test_with_fewer_than_seven_days_nothing_is_usual() -> None:
    result = usual(0, [1000] * 6)
    assert result.passed
    assert result.message == "call 0; no history yet: 6 of the 28 days before, by these rules; expected at least 7"
    assert not usual(0, [1000] * 7).passed


def test_days_by_other_rules_are_no_history(tiny: TinyProject) -> None:
    with_decisions(tiny, changed("call", most=None))
    days(tiny, lambda _: customers(tiny, 60), 7, steps=())
    tiny.land(LATE, customers(tiny, 60))
    assert "usual, by the 7 days before" in str(finding(tiny.run(LATE), "actions_are_usual").description)
    by_rules(tiny, changed("call", most=3))
    said = finding(tiny.run(LATE), "actions_are_usual")
    assert said.passed
    assert "no history yet: 0 of the 28 days before, by these rules" in str(said.description)


@pytest.mark.parametrize("mean", [2, 5, 20, 100, 1_000, 10_000])
def test_chance_alone_makes_no_day_of_a_year_unusual(mean: int) -> None:
    random = np.random.default_rng(mean)
    weekends = np.where(np.arange(365 + 28) % 7 >= 5, 0.8, 1.0)
    counts = random.poisson(mean * weekends)
    failed = 0
    for number in range(28, len(counts)):
        limits = usual_rows(counts[number - 28 : number].tolist(), 0.25)
        assert limits is not None
        failed += not limits[0] <= counts[number] <= limits[1]
    assert failed == 0


def test_an_action_that_nobody_gets_is_told_even_if_few_usually_do() -> None:
    random = np.random.default_rng(7)
    limits = usual_rows(random.poisson(20, 28).tolist(), 0.25)
    assert limits is not None and limits[0] > 0


# arms


@pytest.mark.parametrize(
    ("control", "rows", "passed"),
    [(0, 99, True), (5, 100, True), (0, 1000, False), (50, 1000, True), (80, 1000, False), (30, 1000, True)],
)
def test_a_control_group_of_another_size_is_told_from_a_hundred_rows_on(control: int, rows: int, passed: bool) -> None:
    result = balanced_arms(HOLDOUT, {"call": {"treated": rows - control, "control": control}})
    assert result.passed == passed
    assert ("not tested" in result.message) == (rows < 100)


@pytest.mark.parametrize("share", [0.01, 0.05, 0.5])
@pytest.mark.parametrize("most", [100, 1_000])
def test_chance_alone_makes_arms_unbalanced_once_in_three_years_at_most(share: float, most: int) -> None:
    """With a cap: rows are drawn until as many are treated."""
    decisions = HOLDOUT.model_copy(
        update={"actions": {"call": SimpleNamespace(holdout=SimpleNamespace(share=share))}}  # type: ignore[dict-item]
    )
    random = np.random.default_rng(most)
    failed = [
        day
        for day, control in enumerate(random.negative_binomial(most, 1 - share, 3 * 365).tolist())
        if not balanced_arms(decisions, {"call": {"treated": most, "control": control}}).passed
    ]
    assert len(failed) <= 1


def test_without_hold_outs_there_are_no_arms() -> None:
    result = balanced_arms(Decisions.model_validate({"actions": {"call": {}}}), {})
    assert (result.passed, result.message) == (True, "not tested: no action has a hold-out")
