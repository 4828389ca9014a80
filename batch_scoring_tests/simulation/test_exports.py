"""The protocol of exports keeps its promises in any history; without any one of its rules it does not."""

import pytest

from batch_scoring_tests.simulation.exports import KINDS, RULES, Rule, World, play

HISTORIES, UNTIL_BROKEN = 120, 1000


def story(world: World) -> str:
    return "\n".join([world.violation, *world.trace])


@pytest.mark.parametrize("kind", KINDS)
def test_no_history_of_an_export_breaks_a_promise(kind: str) -> None:
    for seed in range(HISTORIES):
        world = play(seed, kind)
        assert not world.violation, story(world)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_a_promise_of_exports_breaks_without_the_rule(rule: Rule) -> None:
    assert any(": " in one and "Error" not in one for one in rule.violations(UNTIL_BROKEN))


def test_a_history_of_an_export_is_the_same_whenever_it_is_played() -> None:
    for seed in range(20):
        assert play(seed).trace == play(seed).trace


def test_histories_meet_what_they_are_about() -> None:
    told = " ".join(line for seed in range(100) for line in play(seed).trace)
    for event in (
        "dies",
        "the answer was lost",
        "the sink is down",
        "the receipt is lost",
        "the table of decisions is",
    ):
        assert event in told
    for event in ("the table of predictions is removed", "the spec names decisions", "the sink shows decisions"):
        assert event in told
    for outcome in ("exported, 3 rows", "is in the sink already", "a newer version", "was corrected", "list was taken"):
        assert outcome in told
