"""What the page says, counted again from the table of decisions and from the files that landed."""

import tracemalloc
from collections import Counter

import pytest

from batch_scoring.delivery.day_page.facts import FIRST_ROWS, MOVED, gather
from batch_scoring.errors import StateError
from batch_scoring_tests.delivery.day_page.conftest import DAYS
from batch_scoring_tests.tiny import TinyProject

ROWS = 20_000
"""Of a day that is large for its page."""


def test_counts_are_those_of_the_table(decided: TinyProject) -> None:
    facts, rows = gather(decided.pipeline, DAYS[1]), decided.read(DAYS[1], "decisions").to_pylist()
    assert dict(facts.reasons) == Counter(row["reason"] for row in rows)
    assert {one.name: one.rows for one in facts.actions} == {
        name: sum(row["action"] == name for row in rows) for name in ("call", "mail")
    }
    call, mail = facts.actions
    assert call.control == sum(row["arm"] == "control" for row in rows) > 0
    assert (mail.control, call.most, mail.most) == (None, 30, None)
    assert (facts.scored, facts.unscored, facts.acting) == (120, 0, call.rows + mail.rows)
    assert call.usual is None


def test_what_has_changed_since_yesterday_is_counted_by_key(decided: TinyProject) -> None:
    had, has = (
        {row["id"] for row in decided.read(day, "decisions").to_pylist() if row["action"] == "mail"} for day in DAYS
    )
    mail = gather(decided.pipeline, DAYS[1]).actions[1]
    assert (mail.entered, mail.left, mail.moved) == (len(has - had), len(had - has), 0)
    assert gather(decided.pipeline, DAYS[0]).actions[1].entered is None


def test_moved_scores_and_actions_without_rows_yesterday_are_counted(decided: TinyProject) -> None:
    before = {row["id"]: row for row in decided.read(DAYS[0], "decisions").to_pylist()}
    decided.deliver("v2", seed=9)
    decided.spec["decisions"]["actions"]["letter"] = {}
    decided.write_spec()
    assert decided.run(DAYS[1]).success
    now = {row["id"]: row for row in decided.read(DAYS[1], "decisions").to_pylist()}
    total = 0
    for action in gather(decided.pipeline, DAYS[1]).actions:
        had, has = ({key for key, row in day.items() if row["action"] == action.name} for day in (before, now))
        moved = sum(abs(now[key]["score"] - before[key]["score"]) > MOVED for key in had & has)
        assert (action.entered, action.left, action.moved) == (len(has - had), len(had - has), moved)
        total += moved
    assert total, "some scores have moved"


def test_rows_with_an_action_and_values_of_persons_do_not_become_python_objects(decided: TinyProject) -> None:
    decided.spec["decisions"] = {"actions": {"call": {}}}
    decided.spec["page"] = {"columns": ["row_number"]}
    decided.write_spec()
    decided.land(DAYS[1], decided.rows(ROWS))
    assert decided.run(DAYS[1]).success
    gather(decided.pipeline, DAYS[1])
    tracemalloc.start()
    facts = gather(decided.pipeline, DAYS[1])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert facts.actions[0].rows == ROWS and facts.actions[0].entered
    assert peak < 50 * ROWS


def test_segments_count_rows_and_actions_by_value(decided: TinyProject) -> None:
    decided.spec["page"] = {"columns": ["n", "x"]}
    decided.write_spec()
    landed = {row["id"]: row for row in decided.rows(120).to_pylist()}
    decisions = decided.read(DAYS[0], "decisions").to_pylist()
    segments = gather(decided.pipeline, DAYS[0]).segments
    assert {segment.column for segment in segments} == {"n", "c"}  # x has too many values
    for segment in segments:
        mine = [row for row in decisions if str(landed[row["id"]][segment.column] or "missing") == segment.value] or [
            row for row in decisions if str(landed[row["id"]][segment.column]) == segment.value
        ]
        assert segment.rows == len(mine)
        assert segment.actions == {name: sum(row["action"] == name for row in mine) for name in ("call", "mail")}


def test_an_over_represented_segment_is_marked(decided: TinyProject) -> None:
    decided.spec["decisions"]["actions"] = {"call": {"where": "c == 'green'", "most": 25}}
    decided.write_spec()
    assert decided.run(DAYS[0]).success
    segments = {one.value: one.over for one in gather(decided.pipeline, DAYS[0]).segments if one.column == "c"}
    assert segments.pop("green") == {"call"}
    assert set(segments.values()) == {frozenset()}


def test_the_first_rows_are_those_of_the_highest_ranks_of_every_action(decided: TinyProject) -> None:
    facts, rows = gather(decided.pipeline, DAYS[1]), decided.read(DAYS[1], "decisions").to_pylist()
    for name in ("call", "mail"):
        listed = [row["id"] for row in facts.first if row["action"] == name]
        ranked = sorted((row for row in rows if row["action"] == name), key=lambda row: row["rank"])
        assert listed == [row["id"] for row in ranked[: len(listed)]]
        assert len(listed) >= min(len(ranked), FIRST_ROWS // 2)
    assert len(facts.first) == min(FIRST_ROWS, facts.acting)


def test_a_day_that_is_not_decided_has_no_facts(decided: TinyProject) -> None:
    with pytest.raises(StateError, match="has no decisions of 2024-03-09"):
        gather(decided.pipeline, "2024-03-09")
