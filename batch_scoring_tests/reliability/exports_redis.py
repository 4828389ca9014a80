"""Trials of exports to a real Redis: `python -m batch_scoring_tests.reliability.exports_redis`."""

import contextlib
import json
import multiprocessing
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import redis
from redis.connection import AbstractConnection

from batch_scoring.config.delivery_spec import RedisExport
from batch_scoring.delivery.exports.redis.sink import RedisSink
from batch_scoring.delivery.exports.sink import Version
from batch_scoring.errors import RowsLostError, SinkError
from batch_scoring_tests.redis_process import RedisProcess, running_redis
from batch_scoring_tests.reliability.emptied import emptied
from batch_scoring_tests.reliability.export_trials import (
    TRIALS,
    OnServer,
    Place,
    Report,
    Rows,
    Size,
    Trial,
    delivery_of,
    print_table,
    rows_of,
    run,
    size_wanted,
)

multiprocessing.get_context("forkserver").set_forkserver_preload(
    [delivery_of.__module__, RedisSink.__module__, "redis"]
)

_POINTS = {"before the count": b"EXISTS", "before the switch": b"HSET", "after the switch": b"HSET"}
"""Points at which a process may be killed, with what the command contains that is sent there."""


@dataclass(frozen=True)
class RedisPlace(OnServer[RedisProcess]):
    """A prefix in a server."""

    prefix: str = "scores"
    points = tuple(_POINTS)

    def sink(self) -> RedisSink:
        """The sink."""
        export = RedisExport(
            to="redis", url_from="RESULTS", prefix=self.prefix, key="id", value="score", form="single", ttl_hours=1
        )
        return RedisSink(export, self.server.url)

    def section(self, unique: str) -> dict[str, Any]:
        """See `ExportedPlace.section`."""
        keys = {"prefix": unique, "key": "id", "value": "prediction", "form": "single", "ttl_hours": 48}
        return {"to": "redis", "url_from": "RESULTS", **keys}

    def environment(self) -> dict[str, str]:
        """See `ExportedPlace.environment`."""
        return {"RESULTS": self.server.url}

    def shown(self, day: str) -> Rows:
        """The rows of a day as a reader sees them: all keys of the version that is shown."""
        with self.server.client() as client:
            marker = client.hget(f"{self.prefix}:days", day)
            return _list(client, json.loads(marker)["prefix"]) if marker else []

    def current(self) -> tuple[str, Rows]:
        """The newest day and its rows, as a reader sees them who knows nothing of days."""
        with self.server.client() as client:
            pointer = client.hgetall(f"{self.prefix}:current")
            return pointer["day"], _list(client, pointer["prefix"])

    def keys(self) -> int:
        """How many keys there are, of all versions."""
        with self.server.client() as client:
            return client.dbsize() - client.exists(f"{self.prefix}:days", f"{self.prefix}:current")

    def arm(self, point: str, kill: Callable[[], None]) -> None:
        """Have this process killed before a command is sent, or after it was answered."""
        send = AbstractConnection.send_packed_command

        def armed(connection: AbstractConnection, packed: list[bytes], check_health: bool = True) -> None:
            is_there = any(_POINTS[point] in bytes(piece) for piece in packed)
            if is_there and point.startswith("before"):
                kill()
            send(connection, packed, check_health)
            if is_there:
                connection.can_read(timeout=10)
                kill()

        AbstractConnection.send_packed_command = armed

    @contextmanager
    def little_space(self) -> Iterator[tuple[Place, Callable[[], Callable[[], None]]]]:
        """A server whose maxmemory can be set to what it uses already."""
        with running_redis("--maxmemory-policy", "noeviction") as server:
            yield RedisPlace(server), lambda: fill(server)


def fill(server: RedisProcess, free: int = 0) -> Callable[[], None]:
    """Leave so many bytes of memory; return what frees it again."""
    with server.client() as client:
        client.config_set("maxmemory", client.info("memory")["used_memory"] + free)

    def unlimited() -> None:
        with server.client() as client:
            client.config_set("maxmemory", 0)

    return unlimited


def older_day(place: RedisPlace, days: Iterator[str], size: Size, report: Report) -> None:
    """Export an older day late, and correct it: readers keep the newest day's list, the older day gets its own."""
    older, newer = next(days), next(days)
    for day, version in ((newer, Version(1, 1)), (older, Version(1, 7)), (older, Version(1, 8))):
        report.expect(f"export of {version}", place.sink().deliver(delivery_of(day, version, size)).outcome, "exported")
    report.expect("current", place.current(), (newer, rows_of(Version(1, 1), size)))
    report.expect("rows of the older day", place.shown(older), rows_of(Version(1, 8), size))
    report.expect("correction", place.sink().deliver(delivery_of(newer, Version(1, 2), size)).outcome, "exported")
    report.expect("current, corrected", place.current(), (newer, rows_of(Version(1, 2), size)))


def full_half_way(place: RedisPlace, days: Iterator[str], size: Size, report: Report) -> None:
    """Run out of memory with some of the keys written: they are removed."""
    day = next(days)
    with running_redis("--maxmemory-policy", "noeviction") as server:
        small = RedisPlace(server)
        small.sink().deliver(delivery_of(day, Version(1, 1), size))
        free = fill(server, 40 * size.rows)
        before = small.keys()
        try:
            small.sink().deliver(delivery_of(day, Version(1, 2), size))
        except SinkError as error:
            report.expect("the reason", "memory is full" in str(error), True)
        else:
            report.expect("an error", "none", "SinkError")
        report.expect("keys that are left", small.keys(), before)
        report.expect("rows", small.shown(day), rows_of(Version(1, 1), size))
        free()
        report.expect("again", small.sink().deliver(delivery_of(day, Version(1, 2), size)).outcome, "exported")


def evicting(place: RedisPlace, days: Iterator[str], size: Size, report: Report) -> None:
    """Export to a server that evicts keys without an error: the loss is found, and nothing is switched to."""
    day, large = next(days), Size(1, max(size.rows, 20_000))
    with running_redis("--maxmemory-policy", "allkeys-lru") as server:
        small = RedisPlace(server)
        fill(server, 1_000_000)
        try:
            small.sink().deliver(delivery_of(day, Version(1, 1), large))
        except RowsLostError as error:
            report.expect("the reason", "allkeys-lru" in str(error), True)
        else:
            report.expect("an error", "none", "RowsLostError")
        report.expect("rows", small.shown(day), [])
        report.expect("keys that are left", small.keys(), 0)


def followed(place: RedisPlace, days: Iterator[str], size: Size, report: Report) -> None:
    """Follow the pointer in a loop while days and corrections are exported, older ones too."""
    older, first, second = next(days), next(days), next(days)
    steps = [(first, 1), (older, 1), (first, 2), (second, 1), (first, 3), (second, 2)]
    allowed = [(day, rows_of(Version(1, transaction), size)) for day, transaction in steps if day != older]
    seen: list[tuple[str, Rows]] = []
    is_over = threading.Event()
    place.sink().deliver(delivery_of(first, Version(1, 1), size))

    def look() -> None:
        while not is_over.is_set():
            seen.append(place.current())

    reader = threading.Thread(target=look)
    reader.start()
    with contextlib.ExitStack() as at_last:
        at_last.callback(reader.join)
        at_last.callback(is_over.set)
        for day, transaction in steps[1:]:
            place.sink().deliver(delivery_of(day, Version(1, transaction), size))
    for found in seen:
        report.expect("what the reader saw", found, *allowed)
    report.expect("days without going back", [day for day, _ in seen], sorted(day for day, _ in seen))
    report.expect("that the reader saw both days", {day for day, _ in seen}, {first, second})


OF_REDIS: tuple[Trial, ...] = (*TRIALS, older_day, full_half_way, evicting, followed)  # type: ignore[arg-type]


def _list(client: "redis.Redis", prefix: str) -> Rows:
    names = list(client.scan_iter(f"{prefix}*", count=10_000))
    values = client.mget(names) if names else []
    return sorted((int(name.removeprefix(prefix)), json.loads(text)) for name, text in zip(names, values, strict=True))


def main() -> int:
    """Run the trials; return 1 if there was any violation."""
    size = size_wanted(__doc__)
    with running_redis() as server:
        return 1 if print_table(run(RedisPlace(server), size, (*OF_REDIS, emptied))) else 0


if __name__ == "__main__":
    sys.exit(main())
