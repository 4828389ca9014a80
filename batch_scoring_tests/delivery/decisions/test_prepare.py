"""Preparing a day's decisions: what they are made from, and what makes them out of date."""

import re

import pytest

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.delivery.decisions.prepare import Source, check_current, prepare, read_source, shard_digest
from batch_scoring.errors import RowsLostError, StateError, SupersededError
from batch_scoring_tests.decided import RULES, by_rules, changed, customers, with_decisions
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, run_of_test


@pytest.fixture
def scored(tiny: TinyProject) -> TinyProject:
    """A scored day that is to be decided."""
    with_decisions(tiny)
    tiny.land(DAY, customers(tiny, 60))
    tiny.run(steps=["model", "raw_input", "validated_features", "predictions"])
    return tiny


def source(pipeline: Pipeline, day: str = DAY) -> tuple[DayStep, Source]:
    step = DayStep(pipeline, day, "decisions")
    assert pipeline.spec.decisions is not None
    return step, read_source(step, pipeline.spec.decisions)


def rules(tiny: TinyProject) -> Decisions:
    found = tiny.pipeline.spec.decisions
    assert found is not None
    return found


def test_nothing_is_visible_before_it_is_published(scored: TinyProject) -> None:
    step, of = source(scored.pipeline)
    prepared = prepare(step, scored.pipeline.spec.decisions, of, run_of_test())  # type: ignore[arg-type]
    [shard] = prepared.shards
    assert (shard.stats.rows_in, shard.stats.rows, shard.stats.missing_identity) == (60, 60, 0)
    assert shard.stats.keys == sum(one.keys for one in of.predictions.shards) % 2**64
    assert step.table.snapshot().files == {}
    again = prepare(step, scored.pipeline.spec.decisions, of, run_of_test())  # type: ignore[arg-type]
    assert [one.file for one in again.shards] == [shard.file], "the finished shard is taken over"


def test_the_digest_follows_the_scores_the_rules_and_the_days_before(scored: TinyProject) -> None:
    step, of = source(scored.pipeline)
    digests = {shard_digest(step, of)}
    by_rules(scored, changed("call", most=3))
    digests.add(shard_digest(*source(scored.pipeline)))
    by_rules(scored, {**RULES, "score": "prob_class_0"})
    digests.add(shard_digest(*source(scored.pipeline)))
    by_rules(scored, RULES)
    assert shard_digest(*source(scored.pipeline)) in digests
    scored.deliver("v2", seed=3)
    scored.run(steps=["model", "predictions"])
    digests.add(shard_digest(*source(scored.pipeline)))
    assert len(digests) == 4


def test_a_day_that_was_scored_again_meanwhile_is_superseded(scored: TinyProject) -> None:
    step, of = source(scored.pipeline)
    check_current(step, rules(scored), of)
    scored.deliver("v2", seed=3)
    scored.run(steps=["model", "predictions"])
    with pytest.raises(SupersededError, match="was decided, the day was scored again, with another result"):
        check_current(step, rules(scored), of)


def test_newer_files_supersede_decisions(scored: TinyProject) -> None:
    step, of = source(scored.pipeline)
    scored.land(DAY, customers(scored, 61))
    with pytest.raises(SupersededError, match="have changed since raw_input pinned them"):
        check_current(step, rules(scored), of)
    scored.run(steps=["raw_input"])
    with pytest.raises(SupersededError, match="superseded"):
        check_current(step, rules(scored), of)


def test_tables_that_another_program_has_changed_are_not_decided_from(scored: TinyProject) -> None:
    table = DayStep(scored.pipeline, DAY, "predictions").table.table.load()
    assert table is not None
    table.delete()
    name = scored.name
    said = f"the predictions table of {name} no longer holds {DAY} as it was published; run {name}/predictions for"
    with pytest.raises(StateError, match=re.escape(said)):
        source(scored.pipeline)


def test_decisions_about_other_rows_are_not_published(scored: TinyProject) -> None:
    step, of = source(scored.pipeline)
    shards = [shard.model_copy(update={"keys": shard.keys + 1}) for shard in of.predictions.shards]
    other = Source(of.pinned, of.features, of.predictions.model_copy(update={"shards": tuple(shards)}), ())
    prepared = prepare(step, scored.pipeline.spec.decisions, other, run_of_test())  # type: ignore[arg-type]
    with pytest.raises(RowsLostError, match="lost or doubled; nothing was published"):
        step.publish(prepared, run_of_test(), fingerprint="f", code="c", model=of.model, check_current=lambda: None)


def test_the_days_before_count_only_if_a_rule_asks_for_them(scored: TinyProject) -> None:
    scored.run()
    scored.land(NEXT_DAY, customers(scored, 60))
    scored.run(NEXT_DAY)
    assert source(scored.pipeline, NEXT_DAY)[1].earlier == ()
    by_rules(scored, changed("call", not_within_days=1))
    assert [one.day for one in source(scored.pipeline, NEXT_DAY)[1].earlier] == [DAY]


def test_an_earlier_day_that_is_decided_meanwhile_supersedes_a_day_that_looks_back(scored: TinyProject) -> None:
    by_rules(scored, changed("call", not_within_days=1))
    scored.land(NEXT_DAY, customers(scored, 60))
    scored.run(NEXT_DAY, steps=["raw_input", "validated_features", "predictions"])
    step, of = source(scored.pipeline, NEXT_DAY)
    assert of.earlier == ()
    check_current(step, rules(scored), of)
    scored.run(steps=["decisions"])
    with pytest.raises(SupersededError, match="a day before it that not_within_days asks for was decided"):
        check_current(step, rules(scored), of)
    by_rules(scored, RULES)
    check_current(step, rules(scored), of)
