"""The protocol keeps its promises in any history; without any one of its rules it does not."""

import shutil
from pathlib import Path

import pytest

from batch_scoring_tests.simulation.history import KINDS, Player, play_all
from batch_scoring_tests.simulation.rules import Rule, needed
from batch_scoring_tests.simulation.world import World

IN_MEMORY, ON_DISK, UNTIL_BROKEN = 70, 12, 1500


@pytest.fixture(scope="module")
def player() -> Player:
    return Player()


def story(world: World) -> str:
    return "\n".join([world.violation, *world.trace])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.slow
def test_no_history_in_memory_breaks_a_promise(player: Player, kind: str) -> None:
    for world in play_all(player, range(IN_MEMORY), kind):
        assert not world.violation, story(world)


@pytest.mark.slow
def test_no_history_on_real_tables_breaks_a_promise(tmp_path: Path) -> None:
    player = Player(tmp_path)
    for seed in range(ON_DISK):
        world = player.play(seed)
        assert not world.violation, story(world)
        shutil.rmtree(tmp_path / str(seed), ignore_errors=True)


@pytest.mark.parametrize("rule", needed(), ids=lambda rule: rule.name)
@pytest.mark.slow
def test_a_promise_breaks_without_the_rule(player: Player, rule: Rule) -> None:
    seeds = range(rule.seen_at, rule.seen_at + UNTIL_BROKEN)
    assert any(world.violation for world in play_all(player, seeds, rule.kind, rule.without))


def test_a_history_is_the_same_whenever_it_is_played(player: Player) -> None:
    for seed in range(6):
        assert player.play(seed).trace == player.play(seed).trace
