"""Trials of sinks: exports that are repeated, killed, late, two at once; days corrected; a reader all the while.

A place is a real sink with what trials need besides: how a reader sees a day, how it is stopped, how it becomes full.
Every trial has a day of its own; each version of a day differs from the others in its number of rows and in every
value, so rows that are missing, doubled or mixed show.
"""

import argparse
import multiprocessing
import os
import random
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from datetime import date, timedelta
from multiprocessing.connection import Connection
from typing import Generic, Protocol, TypeVar

import pyarrow as pa

from batch_scoring.delivery.exports.sink import Delivered, Delivery, Sink, Version
from batch_scoring.errors import SinkError

SCHEMA = pa.schema([pa.field("id", pa.int64(), nullable=False), pa.field("score", pa.float64(), nullable=False)])
PIPELINE, EXPORT = "churn", "results"
BATCHES = 8
WHILE_READING = ("before the first row", "half way", "after the last row")
"""Points at which a process may be killed in every sink."""

_SERVER = multiprocessing.get_context("forkserver")
_SERVER.set_forkserver_preload([__name__])

Rows = list[tuple[int, float]]


class Place(Protocol):
    """A real sink. It is sent to child processes, so it is pickled."""

    points: tuple[str, ...]
    """Points of its own at which a process may be killed; those that begin with "after" lie behind the switch."""

    def sink(self) -> Sink:
        """The sink."""

    def shown(self, day: str) -> Rows:
        """The rows of a day as a reader sees them, by key."""

    def arm(self, point: str, kill: Callable[[], None]) -> None:
        """Have this process killed at a point of the place's own."""

    def stop(self) -> None:
        """Let it be gone without notice."""

    def start(self) -> None:
        """Let it be back."""

    def little_space(self) -> AbstractContextManager[tuple["Place", Callable[[], Callable[[], None]]]]:
        """A place like it that can be made full: the function that fills it gives the one that frees it again."""


class Stoppable(Protocol):
    """A server of its own."""

    def stop(self) -> None:
        """End it without notice, as a crash would."""

    def start(self) -> None:
        """Let it recover, and wait until it answers."""


AnyServer = TypeVar("AnyServer", bound=Stoppable)


@dataclass(frozen=True)
class OnServer(Generic[AnyServer]):
    """What places in a server share."""

    server: AnyServer

    def stop(self) -> None:
        """See `Place.stop`."""
        self.server.stop()

    def start(self) -> None:
        """See `Place.start`."""
        self.server.start()


@dataclass
class Report:
    """What the trials of a kind saw."""

    kind: str
    trials: int = 0
    violations: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def expect(self, what: str, found: object, *expected: object) -> None:
        """Note a violation unless something is as expected."""
        if found not in expected:
            short = " or ".join(_short(one) for one in expected)
            self.violations.append(f"{what}: found {_short(found)}, expected {short}")


@dataclass(frozen=True)
class Size:
    """How much is tried."""

    repeats: int
    rows: int


def rows_of(version: Version, size: Size) -> Rows:
    """The rows of a version of a day."""
    return [(key, version.created * 1000 + version.transaction + key / 2**20) for key in range(_count(version, size))]


def delivery_of(day: str, version: Version, size: Size, at: Callable[[str], None] = lambda point: None) -> Delivery:
    """A version of a day.

    Args:
        day: the day.
        version: its version.
        size: how many rows it has, more or less.
        at: called at each point of `WHILE_READING`.
    """
    rows = pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in rows_of(version, size)], SCHEMA)

    def read() -> Iterator[pa.RecordBatch]:
        at(WHILE_READING[0])
        batches = rows.to_batches(max_chunksize=-(-rows.num_rows // BATCHES))
        for number, batch in enumerate(batches):
            if number == len(batches) // 2:
                at(WHILE_READING[1])
            yield batch
        at(WHILE_READING[2])

    return Delivery(PIPELINE, EXPORT, day, version, f"run-{version.transaction}", SCHEMA, read)


def deliver_elsewhere(place: Place, *days: tuple[str, Version], size: Size, killed_at: str = "") -> list[str]:
    """Deliver versions of days, each in a process of its own, at the same time.

    Returns:
        The outcomes; for a process that was killed its signal.
    """
    children = []
    for day, version in days:
        here, there = _SERVER.Pipe()
        process = _SERVER.Process(target=_deliver, args=(place, day, version, size, killed_at, there), daemon=True)
        process.start()
        there.close()
        children.append((process, here))
    for _, here in children:
        here.recv()  # it has imported everything
    for _, here in children:
        here.send("go")
    outcomes = []
    for process, here in children:
        process.join(60)
        outcomes.append(here.recv() if process.exitcode == 0 else f"signal {-(process.exitcode or 0)}")
    return outcomes


def repeated(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export a version again: nothing happens."""
    day, version = next(days), Version(1, 1)
    report.expect("first", _outcome(place, day, version, size), "exported")
    report.expect("again", _outcome(place, day, version, size), "unchanged")
    report.expect("rows", place.shown(day), rows_of(version, size))


def killed(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Kill -9 an export at each point, of a new day and of a corrected one; then export again."""
    for point in (*WHILE_READING, *place.points):
        for old in (None, Version(1, 1)):
            day, new = next(days), Version(1, 2)
            if old:
                _outcome(place, day, old, size)
            outcome = deliver_elsewhere(place, (day, new), size=size, killed_at=point)
            report.expect(f"killed {point}", outcome, [f"signal {signal.SIGKILL}"])
            is_switched = point in place.points and point.startswith("after")
            before = rows_of(old, size) if old else []
            report.expect(f"rows, killed {point}", place.shown(day), rows_of(new, size) if is_switched else before)
            again = _outcome(place, day, new, size)
            report.expect(f"again, killed {point}", again, "unchanged" if is_switched else "exported")
            report.expect(f"rows of the run after one killed {point}", place.shown(day), rows_of(new, size))
            report.trials += 1
    report.trials -= 1  # the caller counts one


def late(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export an older version after a newer one: the newer one stands."""
    day = next(days)
    _outcome(place, day, Version(1, 3), size)
    report.expect("late", _outcome(place, day, Version(1, 2), size), "superseded")
    report.expect("rows", place.shown(day), rows_of(Version(1, 3), size))


def overtaken(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export a newer version while an older one is being read in another process."""
    day = next(days)
    outcomes = deliver_elsewhere(place, (day, Version(1, 1)), (day, Version(1, 2)), size=size)
    report.expect("the newer one", outcomes[1], "exported")
    report.expect("the older one", outcomes[0], "exported", "superseded")
    report.expect("rows", place.shown(day), rows_of(Version(1, 2), size))


def two_at_once(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export one version twice at the same time."""
    day, version = next(days), Version(1, 1)
    outcomes = deliver_elsewhere(place, (day, version), (day, version), size=size)
    report.expect("outcomes", sorted(outcomes), ["exported", "unchanged"])
    report.expect("rows", place.shown(day), rows_of(version, size))


def made_anew(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export from a table that was made anew, whose transactions begin at 1 again."""
    day, old, new = next(days), Version(1, 9), Version(2, 1)
    _outcome(place, day, old, size)
    report.expect("the new table", _outcome(place, day, new, size), "exported")
    report.expect("the old table", _outcome(place, day, old, size), "superseded")
    report.expect("rows", place.shown(day), rows_of(new, size))


def corrected(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export corrections with more and with fewer rows; the day beside it stays as it is."""
    day, beside = next(days), next(days)
    _outcome(place, beside, Version(1, 1), size)
    for transaction in (2, 4, 3, 5):
        _outcome(place, day, Version(1, transaction), size)
    report.expect("rows", place.shown(day), rows_of(Version(1, 5), size))
    report.expect("rows of the day beside", place.shown(beside), rows_of(Version(1, 1), size))


def lost_receipt(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export in a process that knows nothing of the export before: the marker says that it is done."""
    day, version = next(days), Version(1, 1)
    report.expect("first", deliver_elsewhere(place, (day, version), size=size), ["exported"])
    marker = place.sink().marker(day)
    report.expect("marker", marker and (marker.version, marker.rows), (version, len(rows_of(version, size))))
    report.expect("again", deliver_elsewhere(place, (day, version), size=size), ["unchanged"])
    report.expect("rows", place.shown(day), rows_of(version, size))


def read_meanwhile(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Read a day in a loop while corrections of it are exported."""
    day, versions = next(days), [Version(1, transaction) for transaction in range(1, 6)]
    _outcome(place, day, versions[0], size)
    seen: list[Rows] = []
    is_over = threading.Event()

    def look() -> None:
        while not is_over.is_set():
            seen.append(place.shown(day))

    reader = threading.Thread(target=look)
    reader.start()
    try:
        for version in versions[1:]:
            deliver_elsewhere(place, (day, version), size=size)
    finally:
        is_over.set()
        reader.join()
    allowed = [rows_of(version, size) for version in versions]
    for rows in seen:
        report.expect("what the reader saw", rows, *allowed)
    report.expect("that the reader saw more than one version", len({len(rows) for rows in seen}) > 1, True)


def down(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export while the sink is gone, and when it is back."""
    day = next(days)
    _outcome(place, day, Version(1, 1), size)
    place.stop()
    report.expect("while it was gone", _outcome(place, day, Version(1, 2), size), "SinkError")
    place.start()
    _then_exported(place, day, size, report)


def broken(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Let the sink be gone while it takes rows."""
    day = next(days)
    _outcome(place, day, Version(1, 1), size)
    gone = {WHILE_READING[1]: place.stop}
    outcome = _outcome(place, day, Version(1, 2), size, lambda point: gone.pop(point, lambda: None)())
    report.expect("when it was gone", outcome, "SinkError")
    if not gone:
        place.start()
    _then_exported(place, day, size, report)


def full(place: Place, days: Iterator[str], size: Size, report: Report) -> None:
    """Export to a sink that is full, and when there is space again."""
    day, size = next(days), replace(size, rows=min(size.rows, 3000))
    with place.little_space() as (small, fill):
        _outcome(small, day, Version(1, 1), size)
        free = fill()
        report.expect("while it was full", _outcome(small, day, Version(1, 2), size), "SinkError")
        report.expect("rows while it was full", small.shown(day), rows_of(Version(1, 1), size))
        free()
        _then_exported(small, day, size, report)


Trial = Callable[[Place, Iterator[str], Size, Report], None]
TRIALS: tuple[Trial, ...] = (
    repeated,
    killed,
    late,
    overtaken,
    two_at_once,
    made_anew,
    corrected,
    lost_receipt,
    read_meanwhile,
    down,
    broken,
    full,
)


def run(place: Place, size: Size, trials: Sequence[Trial] = TRIALS, seed: int = 0) -> Iterator[Report]:
    """Try everything, in an order that depends on the seed; yield a report for each kind of trial."""
    days = (str(date(2024, 1, 1) + timedelta(days=number)) for number in range(10_000))
    for trial in random.Random(seed).sample(list(trials), len(trials)):
        report = Report(trial.__name__.replace("_", " "))
        begun = time.monotonic()
        for _ in range(size.repeats):
            trial(place, days, size, report)
            report.trials += 1
        report.seconds = time.monotonic() - begun
        yield report


def size_wanted(description: str | None) -> Size:
    """How much the command line asks for."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--repeats", type=int, default=3, help="trials of each kind")
    parser.add_argument("--rows", type=int, default=20_000, help="rows of a day")
    return Size(**vars(parser.parse_args()))


def print_table(reports: Iterator[Report]) -> int:
    """Print a line for each kind of trial; return how many violations there were."""
    print(f"{'trial':16}  {'trials':>6}  {'violations':>10}  {'seconds':>7}", flush=True)
    whole = Report("all")
    for report in reports:
        print(_line(report), *report.violations, sep="\n    ", flush=True)
        whole.trials += report.trials
        whole.violations += report.violations
        whole.seconds += report.seconds
    print(_line(whole), flush=True)
    return len(whole.violations)


def _line(report: Report) -> str:
    return f"{report.kind:16}  {report.trials:>6}  {len(report.violations):>10}  {report.seconds:>7.1f}"


def _then_exported(place: Place, day: str, size: Size, report: Report) -> None:
    """Expect the day before its correction, and then the correction."""
    report.expect("rows before it was tried again", place.shown(day), rows_of(Version(1, 1), size))
    report.expect("tried again", _outcome(place, day, Version(1, 2), size), "exported")
    report.expect("rows", place.shown(day), rows_of(Version(1, 2), size))


def _outcome(
    place: Place, day: str, version: Version, size: Size, at: Callable[[str], None] = lambda point: None
) -> str:
    """Deliver in this process; the outcome, or the error's name."""
    try:
        delivered: Delivered = place.sink().deliver(delivery_of(day, version, size, at))
    except SinkError:
        return SinkError.__name__
    return delivered.outcome


def _deliver(place: Place, day: str, version: Version, size: Size, killed_at: str, parent: Connection) -> None:
    """Deliver in a child process."""

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def at(point: str) -> None:
        if point == killed_at:
            kill()

    if killed_at in place.points:
        place.arm(killed_at, kill)
    parent.send("ready")
    parent.recv()
    parent.send(_outcome(place, day, version, size, at))


def _count(version: Version, size: Size) -> int:
    """More and fewer rows by turns."""
    return size.rows + (-1) ** version.transaction * (7 * version.transaction + version.created)


def _short(found: object) -> str:
    return (
        f"{len(found)} rows {found[:1]} … {found[-1:]}" if isinstance(found, list) and len(found) > 4 else repr(found)
    )
