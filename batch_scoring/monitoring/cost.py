"""The cost of a day: what its steps used or reserved, times the prices of the spec.

The steps of a day are those that publish rows: features, predictions, decisions. What the state records of each is its
shards and its overhead.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import get_args

from batch_scoring.config.days import ranges
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Prices
from batch_scoring.errors import StateError
from batch_scoring.runtime.usage import Usage
from batch_scoring.storage.state import PublishedDay, State, StepName

GB = 2**30
"""Bytes of a GB, as clouds bill it."""
_HOUR = 3600.0
_READERS = 4

STEPS: tuple[StepName, ...] = get_args(StepName)


def cost_of(usage: Usage, prices: Prices) -> float:
    """The cost of one measurement: of what was reserved if anything was, else of what was used.

    Of a sum of both kinds only the reserved part would count: add up costs instead, as `cost_of_day` does.
    """
    if usage.is_reserved:
        cores, memory, gpus = (
            usage.reserved_cpu_seconds,
            usage.reserved_memory_byte_seconds,
            usage.reserved_gpu_seconds,
        )
    else:
        cores, memory, gpus = usage.cpu_seconds, usage.memory_byte_seconds, usage.gpu_seconds
    return (cores * prices.cpu_hour + memory / GB * prices.gb_hour + gpus * prices.gpu_hour) / _HOUR


def cost_of_day(published: PublishedDay, prices: Prices | None) -> float | None:
    """The cost of a step's day, its overhead included; None without prices, or if any of it was not measured."""
    if prices is None or published.usages is None:
        return None
    return sum(cost_of(usage, prices) for usage in published.usages)


@dataclass(frozen=True)
class StepCost:
    """What a step's day, or several of them, took."""

    rows: int
    """Input rows."""
    usage: Usage
    overhead: Usage
    """The part of it that belongs to no shard."""
    cost: float | None
    """None without prices."""
    overhead_cost: float | None

    @property
    def per_million_rows(self) -> float | None:
        """Cost of a million input rows; None without prices or rows."""
        return self.cost / self.rows * 1e6 if self.cost is not None and self.rows else None

    def __add__(self, other: "StepCost") -> "StepCost":
        """Both together, of the same pipeline; the rows of two steps of a day count twice."""
        return StepCost(
            self.rows + other.rows,
            self.usage + other.usage,
            self.overhead + other.overhead,
            _sum(self.cost, other.cost),
            _sum(self.overhead_cost, other.overhead_cost),
        )


Costs = Mapping[tuple[str, StepName], StepCost | None]
"""By day and step, in order; None for what was published by a version that did not measure all of it."""


@dataclass(frozen=True)
class MonthCost:
    """What the published days of a month took."""

    costs: Costs
    currency: str | None
    """None without prices."""
    damage: tuple[str, ...] = ()
    """Documents of the state that could not be read."""

    @property
    def recorded(self) -> dict[tuple[str, StepName], StepCost]:
        """Those that were measured."""
        return {key: cost for key, cost in self.costs.items() if cost is not None}

    @property
    def days(self) -> list[str]:
        """Days of which every step was measured."""
        missing = {day for (day, _), cost in self.costs.items() if cost is None}
        return [day for day in dict.fromkeys(day for day, _ in self.costs) if day not in missing]

    @property
    def total(self) -> StepCost | None:
        """All that was measured; a day's rows count once, as its first step has read them. None if there is nothing."""
        if not self.recorded:
            return None
        first, *others = self.recorded.values()
        rows = {day: cost.rows for (day, _), cost in reversed(self.recorded.items())}
        return replace(sum(others, first), rows=sum(rows.values()))


def step_cost(published: PublishedDay, prices: Prices | None) -> StepCost | None:
    """What a step's day took; None if any of it was not measured."""
    usage, overhead = published.usage, published.overhead
    if usage is None or overhead is None:
        return None
    return StepCost(
        published.rows_in,
        usage,
        overhead,
        cost_of_day(published, prices),
        cost_of(overhead, prices) if prices else None,
    )


def read_costs(pipeline: Pipeline, days: Sequence[str]) -> MonthCost:
    """Read what days took from the state, a few of them at a time: a day of thousands of shards is large."""
    state, prices = State(pipeline.output), pipeline.spec.prices
    costs: dict[tuple[str, StepName], StepCost | None] = {}
    damage: list[str] = []

    def of_day(day: str) -> dict[StepName, StepCost | None]:
        found: dict[StepName, StepCost | None] = {}
        for step in STEPS:
            try:
                published = state.published_day(step, day)
            except StateError as error:
                damage.append(str(error))
                continue
            if published:
                found[step] = step_cost(published, prices)
        return found

    with ThreadPoolExecutor(_READERS) as pool:
        for day, found in zip(days, pool.map(of_day, days), strict=True):
            costs |= {(day, step): cost for step, cost in found.items()}
    return MonthCost(costs, prices.currency if prices else None, tuple(sorted(damage)))


def in_words(cost: MonthCost) -> str:
    """The total in one line, with its overhead and the days that are not in it."""
    return "; ".join(statements(cost))


def statements(cost: MonthCost) -> Iterator[str]:
    """What is said of the total, its overhead, and the days that are not in it."""
    total, currency = cost.total, cost.currency
    if total:
        days = f"{len(cost.days)} day{'' if len(cost.days) == 1 else 's'}"
        if total.cost is not None:
            rate = total.per_million_rows
            per_million = "" if rate is None else f" ({money(rate)} {currency} per million rows)"
            yield f"{money(total.cost)} {currency} for {days}{per_million}"
        gpu = f", {total.usage.gpu_seconds:,.1f} GPU s" if total.usage.gpu_seconds else ""
        used = f"{total.usage.cpu_seconds:,.1f} CPU s{gpu}, {total.usage.memory_byte_seconds / GB:,.1f} GB s"
        yield used if total.cost is not None else f"{used} for {days}"
        of_it = f" ({money(total.overhead_cost)} {currency})" if total.overhead_cost is not None else ""
        yield f"of which overhead {total.overhead.cpu_seconds:,.1f} CPU s{of_it}"
    if missing := {day for day, _ in cost.costs} - set(cost.days):
        yield f"not recorded, or not for every step: {', '.join(ranges(missing))}"


def money(amount: float) -> str:
    """An amount; a small one with enough digits to compare it."""
    digits = 2 if amount >= 1 else 4 if amount >= 0.01 else 8
    return f"{amount:,.{digits}f}"


def _sum(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else one + other
