"""The context of a step: its run, its log, and the time spent on each activity.

Filled in by Dagster's part (`defs`), by commands and by tests; the code that uses it never sees Dagster.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from time import perf_counter
from typing import TypeVar

from batch_scoring.runtime.usage import Meter

Item = TypeVar("Item")


@dataclass(frozen=True)
class StepContext:
    """Which run a step belongs to, where its log lines go, and how long its activities take."""

    id: str
    """The run's id."""
    started: datetime
    """When the run started, in UTC; written to the scored rows as `scored_at`."""
    log: Callable[[str], object]
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of each activity, with the time spent waiting for it; activities overlap: the sum may exceed wall time."""
    began: float = field(default_factory=perf_counter)
    """When this step started, by `perf_counter`."""
    meter: Meter = field(default_factory=Meter)
    """What the step uses of its machine."""
    tags: Mapping[str, str] = field(default_factory=dict)
    """The run's tags at its start."""
    tag: Callable[[dict[str, str]], object] = lambda _: None
    """Add tags to the run's record."""

    @property
    def elapsed(self) -> float:
        """Seconds of wall time since the step began."""
        return perf_counter() - self.began

    @contextlib.contextmanager
    def timed(self, activity: str) -> Iterator[None]:
        """Add the time of a block to an activity."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[activity] = self.seconds.get(activity, 0.0) + perf_counter() - start

    def timed_each(self, activity: str, items: Iterable[Item]) -> Iterator[Item]:
        """Add the time that an iterator takes for each of its items to an activity."""
        iterator = iter(items)
        while True:
            with self.timed(activity):
                item = next(iterator, None)
            if item is None:
                return
            yield item
