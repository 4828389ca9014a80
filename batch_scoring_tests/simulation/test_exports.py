"""The protocol of exports keeps its promises in any history; without any one of its rules it does not."""

import pytest

from batch_scoring_tests.simulation.exports import RULES, Rule, World, play

HISTORIES, UNTIL_BROKEN = 400, 1000


def story(world: World) -> str:
    return "\n".join([world.violation, *world.trace])


@pytest.mark.parametrize("kind", ["replace", "keep"])
def test_no_history_of_an_export_breaks_a_promise(kind: str) -> None:
    for seed in range(HISTORIES):
        world = play(seed, kind)
        assert not world.violation, story(world)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_promise_of_exports_breaks_without_the_rule(rule: Rule) -> None:
    violations = (play(seed, rule.kind, rule.flaw, rule.without()).violation for seed in range(UNTIL_BROKEN))
    assert any(": " in violation and "Error" not in violation for violation in violations)


def test_a_history_of_an_export_is_the_same_whenever_it_is_played() -> None:
    for seed in range(20):
        assert play(seed).trace == play(seed).trace


def test_histories_meet_what_they_are_about() -> None:
    told = " ".join(line for seed in range(100) for line in play(seed).trace)
    for event in ("dies", "the answer was lost", "the sink is down", "the receipt is lost", "the table is removed"):
        assert event in told
    for outcome in ("exported, 3 rows", "is in the sink already", "a newer version", "was corrected", "list was taken"):
        assert outcome in told
