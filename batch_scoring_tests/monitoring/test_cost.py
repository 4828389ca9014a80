"""The cost of days, held against figures worked out by hand."""

from datetime import UTC, datetime

import pytest

from batch_scoring.config.spec import Prices
from batch_scoring.monitoring.cost import MonthCost, cost_of, cost_of_day, in_words, money, read_costs, step_cost
from batch_scoring.runtime.usage import Usage
from batch_scoring.storage.state import PublishedDay, PublishedPart, ShardStats, StepName
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject

PRICES = Prices(currency="EUR", cpu_hour=0.04, gb_hour=0.005, gpu_hour=2.0)
USED = Usage(wall_seconds=1800, cpu_seconds=3600, memory_byte_seconds=2 * 2**30 * 1800, gpu_seconds=900)
"""An hour of a core, half an hour of 2 GB, a quarter of an hour of a GPU."""
RESERVED = Usage(
    wall_seconds=1800,
    cpu_seconds=3600,
    memory_byte_seconds=2 * 2**30 * 1800,
    gpu_seconds=900,
    reserved_cpu_seconds=4 * 1800,
    reserved_memory_byte_seconds=16 * 2**30 * 1800,
    reserved_gpu_seconds=1800,
)
"""The same work in a pod of 4 cores, 16 GB and a GPU."""


def published(
    step: StepName = "predictions", *shards: tuple[int, Usage | None], overhead: Usage | None = None, day: str = DAY
) -> PublishedDay:
    """A day whose shards have so many rows and took so much."""
    return PublishedDay(
        pipeline="p",
        day=day,
        step=step,
        run_id="r",
        finished_at=datetime(2024, 3, 4, tzinfo=UTC),
        fingerprint="f",
        code="c",
        shards=tuple(
            ShardStats(digest=str(n), source=str(n), run_id="r", rows_in=rows, rows=rows, usage=usage)
            for n, (rows, usage) in enumerate(shards)
        ),
        table=PublishedPart(transaction=1, version=1, files=()),
        overhead=overhead,
    )


def test_without_a_reservation_what_is_used_costs() -> None:
    assert cost_of(USED, PRICES) == pytest.approx(1 * 0.04 + 2 * 0.5 * 0.005 + 0.25 * 2.0)
    assert cost_of(Usage(), PRICES) == 0


def test_a_pod_costs_what_it_reserves_however_idle_it_is() -> None:
    assert cost_of(RESERVED, PRICES) == pytest.approx(4 * 0.5 * 0.04 + 16 * 0.5 * 0.005 + 0.5 * 2.0)


def test_a_day_of_pods_and_of_other_processes_is_the_sum_of_both() -> None:
    """As when a backfill in one process finishes what pods have begun."""
    day = published("predictions", (1000, RESERVED), (1000, USED), overhead=USED)
    assert cost_of_day(day, PRICES) == pytest.approx(cost_of(RESERVED, PRICES) + 2 * cost_of(USED, PRICES))
    assert day.usage is not None and cost_of(day.usage, PRICES) < cost_of_day(day, PRICES)  # type: ignore[operator]


def test_there_is_no_money_without_prices() -> None:
    found = step_cost(published("predictions", (1000, USED), overhead=USED), None)
    assert found is not None and (found.cost, found.overhead_cost, found.per_million_rows) == (None, None, None)
    assert found.usage == USED + USED and found.overhead == USED


@pytest.mark.parametrize(
    ("shards", "overhead"),
    [(((10, None),), None), (((10, USED), (10, None)), USED), (((10, USED),), None)],
    ids=["an older version", "a reused shard of an older version", "no overhead"],
)
def test_what_was_not_measured_in_full_has_no_cost(
    shards: tuple[tuple[int, Usage | None], ...], overhead: Usage | None
) -> None:
    day = published("predictions", *shards, overhead=overhead)
    assert (day.usage, cost_of_day(day, PRICES), step_cost(day, PRICES)) == (None, None, None)


def test_a_month_counts_a_days_rows_once_and_every_step(tiny: TinyProject) -> None:
    tiny.spec["prices"] = PRICES.model_dump()
    tiny.write_spec()
    features = published("validated_features", (2_000_000, USED), overhead=USED)
    scored = published("predictions", (1_900_000, RESERVED), overhead=Usage(cpu_seconds=36))
    old = published("predictions", (5, None), day=NEXT_DAY)
    for document in (features, scored, old):
        tiny.state.put_published_day(document)
    tiny.pipeline.output.put("state/dt=2024-03-06/predictions.json", b"{")
    costs = read_costs(tiny.pipeline, [DAY, NEXT_DAY, "2024-03-06", "2024-03-07"])
    assert [*costs.costs] == [(DAY, "validated_features"), (DAY, "predictions"), (NEXT_DAY, "predictions")]
    assert costs.costs[NEXT_DAY, "predictions"] is None and costs.days == [DAY]
    assert len(costs.damage) == 1 and "dt=2024-03-06/predictions.json is damaged" in costs.damage[0]
    total = costs.total
    assert total is not None and total.rows == 2_000_000
    money_of_all = 2 * cost_of(USED, PRICES) + cost_of(RESERVED, PRICES) + 36 / 3600 * 0.04
    assert total.cost == pytest.approx(money_of_all)
    assert total.per_million_rows == pytest.approx(money_of_all / 2)
    assert total.overhead_cost == pytest.approx(cost_of(USED, PRICES) + 36 / 3600 * 0.04)
    assert total.usage.cpu_seconds == 3 * 3600 + 36
    assert in_words(costs) == (
        f"2.21 EUR for 1 day (1.11 EUR per million rows); 10,836.0 CPU s, 2,700.0 GPU s, 10,800.0 GB s; "
        f"of which overhead 3,636.0 CPU s (0.5454 EUR); not recorded, or not for every step: {NEXT_DAY}"
    )


def test_words_without_prices_are_seconds() -> None:
    one = step_cost(published("predictions", (10, USED), overhead=Usage(cpu_seconds=1.5)), None)
    said = in_words(MonthCost({(DAY, "predictions"): one}, None))
    assert said == "3,601.5 CPU s, 900.0 GPU s, 3,600.0 GB s for 1 day; of which overhead 1.5 CPU s"
    assert in_words(MonthCost({(DAY, "predictions"): None}, None)) == f"not recorded, or not for every step: {DAY}"
    assert MonthCost({}, None).total is None


@pytest.mark.parametrize(
    ("amount", "text"), [(1234.5, "1,234.50"), (1.0, "1.00"), (0.5, "0.5000"), (0.0000042, "0.00000420")]
)
def test_a_small_amount_has_more_digits(amount: float, text: str) -> None:
    assert money(amount) == text
