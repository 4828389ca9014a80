"""A day in chunks: how it is divided, and which chunks are scored and collected."""

import math
import re
import shutil
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.config.spec import Prices
from batch_scoring.daily import score
from batch_scoring.daily.fan_out import ScoredChunk, collect, divide, plan, score_chunk
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.daily.score import FeatureShard, Source, read_source
from batch_scoring.errors import StateError, SupersededError
from batch_scoring.monitoring.cost import step_cost
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.shards import digest
from batch_scoring.storage.state import ActiveModel, DayInput, PublishedDay, PublishedPart, ShardStats
from batch_scoring_tests.tiny import DAY, TinyProject, run_of_test


@pytest.fixture
def prepared(tiny: TinyProject) -> TinyProject:
    """A day of three files in seven shards, to be scored in three chunks, with features and a model."""
    tiny.spec["scoring"] |= {"shards": "fan_out", "max_shards": 3, "rows_per_shard": 50}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(120), "a.parquet", age=100)
    tiny.land(DAY, tiny.rows(70, start=120), "b.parquet", age=100)
    tiny.land(DAY, tiny.rows(60, start=190), "c.parquet", age=100)
    tiny.run(steps=("model", "raw_input", "validated_features"))
    return tiny


def step_of(tiny: TinyProject) -> DayStep:
    return DayStep(tiny.pipeline, DAY, "predictions")


# how a day is divided


def source_of(rows: list[int]) -> Source:
    """A day whose shards have so many rows."""
    at = datetime(2024, 3, 4, tzinfo=UTC)
    shard_stats = tuple(
        ShardStats(digest=digest("f", number), source=f"a#{number}", run_id="r", rows_in=count, rows=count)
        for number, count in enumerate(rows)
    )
    files = tuple(f"dt={DAY}/{stats.digest}-{'0' * 8}.parquet" for stats in shard_stats)
    features = PublishedDay(
        pipeline="p",
        day=DAY,
        step="validated_features",
        run_id="r",
        finished_at=at,
        fingerprint="f",
        code="c",
        shards=shard_stats,
        table=PublishedPart(transaction=1, version=1, files=files),
        quarantine=PublishedPart(transaction=0, version=-1, files=()),
    )
    pinned = DayInput(day=DAY, fingerprint="f", files=(), run_id="r", pinned_at=at)
    return Source(
        pinned, features, ActiveModel(name="m", version="v", sha256="s", source="", run_id="r", resolved_at=at)
    )


def rows_of(chunk: Iterable[FeatureShard]) -> int:
    return sum(shard.stats.rows for shard in chunk)


@st.composite
def days(draw: st.DrawFn) -> tuple[list[int], int]:
    """Rows by shard, and how many a shard has at most."""
    rows_per_shard = draw(st.integers(1, 1000))
    return draw(st.lists(st.integers(0, rows_per_shard), min_size=1, max_size=40)), rows_per_shard


@given(days(), st.integers(1, 12), st.randoms(use_true_random=False))
def test_every_shard_is_in_one_chunk_and_the_chunks_are_about_equal(
    day: tuple[list[int], int], most: int, random: Random
) -> None:
    (rows, rows_per_shard), source = day, source_of(day[0])
    chunks = divide(source.shards, most, rows_per_shard)
    assert sorted(shard.digest for chunk in chunks for shard in chunk) == sorted(s.digest for s in source.shards)
    assert len(chunks) == max(1, min(most, math.ceil(sum(rows) / rows_per_shard)))
    assert all(map(rows_of, chunks)) or not sum(rows), "no step is started for shards without rows"
    assert max(map(rows_of, chunks)) <= sum(rows) / len(chunks) + max(rows)
    shuffled = list(source.shards)
    random.shuffle(shuffled)
    source.shards = tuple(shuffled)
    assert divide(source.shards, most, rows_per_shard) == chunks, "whatever the order of the files"


@pytest.mark.parametrize("at", range(5))
def test_a_large_shard_is_dealt_first(at: int) -> None:
    rows = [1, 1, 1, 1]
    rows.insert(at, 4)
    assert [rows_of(chunk) for chunk in divide(source_of(rows).shards, 2, 4)] == [4, 4]


def scored_chunks(tiny: TinyProject) -> list[ScoredChunk]:
    step = step_of(tiny)
    return [score_chunk(step, chunk, run_of_test(), 0) for chunk in plan(step, run_of_test())]


def publish(step: DayStep, prepared: Prepared, run: StepContext) -> PublishedDay:
    source = read_source(step)
    code, model = step.pipeline.scoring_code, source.model
    published, _ = step.publish(prepared, run, fingerprint="f", code=code, model=model, check_current=lambda: None)
    return published


def test_four_chunks_cost_what_one_step_does_but_for_their_overhead(tiny: TinyProject) -> None:
    tiny.spec["scoring"] |= {"max_shards": 4, "rows_per_shard": 1_000}
    tiny.write_spec()
    tiny.land(DAY, tiny.rows(8_000))
    tiny.run(steps=("model", "raw_input", "validated_features"))
    prices = Prices(cpu_hour=0.04, gb_hour=0.005)

    run, began = run_of_test(), process_time()
    step = step_of(tiny)
    one = step_cost(publish(step, score.prepare(step, read_source(step), run), run), prices)
    used_by_one = process_time() - began
    shutil.rmtree(tiny.pipeline.output.uri + "/tables/predictions")

    began, step = process_time(), step_of(tiny)
    planning = run_of_test()
    chunks = plan(step, planning)
    planning.meter.end_overhead()
    assert len(chunks) == 4
    scored = [score_chunk(step_of(tiny), chunk, run_of_test(), 0) for chunk in chunks]
    run = run_of_test()
    run.meter.overhead += planning.meter.overhead  # as the step that publishes does
    four = step_cost(publish(step, collect(step, read_source(step), scored, run), run), prices)
    used_by_four = process_time() - began

    assert one and four and one.cost and four.cost and one.overhead_cost and four.overhead_cost
    assert abs(four.cost - one.cost) <= four.overhead_cost
    assert four.overhead.cpu_seconds > one.overhead.cpu_seconds > 0, "each chunk has loaded the model"
    for cost, used in ((one, used_by_one), (four, used_by_four)):
        assert 0.8 * used < cost.usage.cpu_seconds < used + 0.05, "nothing that the process did is left out"


def other_features(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(61, start=190), "c.parquet")
    tiny.run(steps=["raw_input", "validated_features"])


def other_model(tiny: TinyProject) -> None:
    tiny.deliver("v2", seed=1)
    tiny.run(steps=["model"])


def other_code(tiny: TinyProject) -> None:
    tiny.write_code(network=(tiny.folder / "network.py").read_text() + "\n# a deploy\n")


@pytest.mark.parametrize("meddle", [other_features, other_model])
def test_a_chunk_of_other_features_or_another_model_is_not_scored(
    prepared: TinyProject, meddle: Callable[[TinyProject], None]
) -> None:
    chunks = plan(step_of(prepared), run_of_test())
    meddle(prepared)
    with pytest.raises(SupersededError, match=f"while {prepared.name} {DAY} was scored in chunks"):
        for chunk in chunks:
            score_chunk(step_of(prepared), chunk, run_of_test(), 0)


@pytest.mark.parametrize("meddle", [other_features, other_model, other_code])
def test_chunks_of_other_features_model_or_code_are_not_published(
    prepared: TinyProject, meddle: Callable[[TinyProject], None]
) -> None:
    chunks = scored_chunks(prepared)
    meddle(prepared)
    step = step_of(prepared)
    with pytest.raises(SupersededError, match="nothing was published: run the day again"):
        collect(step, read_source(step), chunks, run_of_test())


def test_a_chunk_whose_shards_are_finished_is_not_planned_again(prepared: TinyProject) -> None:
    chunks, step = scored_chunks(prepared), step_of(prepared)
    assert plan(step, run_of_test()) == []
    assert len(collect(step, read_source(step), [], run_of_test()).shards) == 7
    lost = chunks[1].shards[0]
    Path(lost.uri).unlink()
    (chunk,) = plan(step, run_of_test())
    assert chunk.features == (lost.features,)


def test_a_chunk_that_is_missing_is_not_passed_over(prepared: TinyProject) -> None:
    chunks, step = scored_chunks(prepared), step_of(prepared)
    for shard in chunks[0].shards:
        Path(shard.uri).unlink()
    with pytest.raises(SupersededError):
        collect(step, read_source(step), chunks[1:], run_of_test())


def test_a_finished_shard_that_is_gone_is_named(prepared: TinyProject) -> None:
    chunks, step = scored_chunks(prepared), step_of(prepared)
    lost = chunks[1].shards[0].uri
    Path(lost).unlink()
    with pytest.raises(StateError, match=re.escape(f"{lost} is gone; run {prepared.name}/predictions for {DAY} again")):
        collect(step, read_source(step), chunks, run_of_test())


def test_chunks_of_two_kinds_of_device_are_refused(prepared: TinyProject) -> None:
    chunks, step = scored_chunks(prepared), step_of(prepared)
    chunks[0] = chunks[0].model_copy(update={"device": "cuda"})
    with pytest.raises(StateError, match=r"were scored on cpu and cuda, .*; set scoring.device in the spec"):
        collect(step, read_source(step), chunks, run_of_test())


def test_a_day_that_another_run_has_published_meanwhile_stands(prepared: TinyProject) -> None:
    chunks = scored_chunks(prepared)
    prepared.run(steps=["predictions"])
    step = step_of(prepared)
    assert collect(step, read_source(step), chunks, run_of_test()).published == prepared.published_day("predictions")
