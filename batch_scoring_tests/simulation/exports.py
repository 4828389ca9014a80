"""Histories of an export: at the end the sink shows the published version, and each version was shown once at most.

The exports are `export_day` and `pending` as they are, of two or three processes at once. They run until they reach an
operation of the store or of the sink. There another process may get its turn, the day may be corrected, its table made
anew, a receipt lost or the sink go down; and the process may die, or lose an answer. One seed determines everything.
`python -m batch_scoring_tests.simulation.exports` plays histories; `--rules` takes out one rule after another.
"""

import argparse
import builtins
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime
from pathlib import Path
from time import perf_counter
from typing import Any, BinaryIO, Literal

import pyarrow as pa

from batch_scoring.config import pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.delivery.exports import export, pending, published
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker, Outcome, Version
from batch_scoring.errors import NotPublishedError, SinkError
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage import shards
from batch_scoring.storage.folders import Children, FileVersion
from batch_scoring.storage.state import ExportReceipt, PublishedDay, PublishedPart, ShardStats, State
from batch_scoring_tests.simulation.bucket import MemoryFolder
from batch_scoring_tests.simulation.history import Substitutes, replaced
from batch_scoring_tests.simulation.turns import FAULTS, Errors, Fault, Process, Turns

DAY, NAME = "2024-03-04", "list"
HONEST_ERRORS = (SinkError, NotPublishedError, OSError)
"""What an export may end with."""
OF_THE_SINK = (SinkError,)
ROUNDS = 4
"""Exports in calm after which nothing may be behind."""
SCHEMA = pa.schema([("id", pa.string()), ("content", pa.int64())])
ROWS = 3

Flaw = Literal["", "marker later", "in place", "compared before"]


@dataclass(frozen=True)
class Publication:
    """A version of the day."""

    number: int
    """Counts the versions, whatever became of the table."""
    content: int
    created: int
    transaction: int

    @property
    def version(self) -> Version:
        return Version(self.created, self.transaction)

    @property
    def path(self) -> str:
        """Of its file; a content that returns has the file that it had."""
        return f"dt={DAY}/{self.content:032x}-{self.content:08x}.parquet"

    @property
    def document(self) -> PublishedDay:
        stats = ShardStats(digest=f"{self.content:032x}", source="features", run_id="run", rows_in=ROWS, rows=ROWS)
        return PublishedDay(
            pipeline="sim",
            day=DAY,
            step="predictions",
            run_id="run",
            finished_at=datetime(2024, 3, 5, tzinfo=UTC),
            fingerprint="files",
            code="code",
            shards=(stats,),
            table=PublishedPart(
                transaction=self.transaction, version=self.number, files=(self.path,), created=self.created
            ),
        )


class Shelf(MemoryFolder):
    """A folder, whose operations are where processes take turns."""

    world: "World"

    def read(self, path: str) -> bytes:
        return self.world.operation(f"read {path}", lambda: super(Shelf, self).read(path))

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        return self.world.operation("read documents", lambda: super(Shelf, self).read_each(paths))

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        return self.world.operation(f"open {path}", lambda: super(Shelf, self).open(path, token))

    def put(self, path: str, data: bytes) -> None:
        self.world.operation(f"put {path}", lambda: super(Shelf, self).put(path, data))

    def list(self, prefix: str = "", after: str = "") -> "builtins.list[FileVersion]":
        return self.world.operation("list documents", lambda: super(Shelf, self).list(prefix, after))

    def children(self) -> Children:
        return self.world.operation("list", lambda: super(Shelf, self).children())


class MemorySink:
    """A sink that keeps to the protocol, or has one flaw."""

    address = "memory"

    def __init__(self, world: "World", flaw: Flaw) -> None:
        self._world, self._flaw = world, flaw
        self.rows: list[tuple[str, int]] = []
        """What readers see."""
        self.shown: Marker | None = None

    def marker(self, day: str) -> Marker | None:
        return self._world.operation("ask for the marker", lambda: self.shown, OF_THE_SINK)

    def deliver(self, delivery: Delivery) -> Delivered:
        shown = self.marker(delivery.day)
        if outcome := delivery.refused(shown):
            return self._stays(outcome)
        unseen: list[tuple[str, int]] = []
        for batch in delivery.read():
            for row in batch.to_pylist():
                self._world.operation("write", lambda found=row: self._write(unseen, found), OF_THE_SINK)
        marker = Marker(delivery.version, len(unseen), delivery.run_id, datetime.now(UTC))
        if self._flaw != "marker later":
            return self._world.operation("switch", lambda: self._switch(delivery, unseen, marker), OF_THE_SINK)
        self._world.operation("switch", lambda: self._show(unseen, marker, with_marker=False), OF_THE_SINK)
        self._world.operation("write the marker", lambda: setattr(self, "shown", marker), OF_THE_SINK)
        return Delivered("exported", marker)

    def problems(self, schema: pa.Schema) -> Iterator[str]:
        yield from ()

    def _write(self, unseen: list[tuple[str, int]], row: dict[str, Any]) -> None:
        unseen.append((row["id"], row["content"]))
        if self._flaw == "in place":
            self.rows = [*unseen, *self.rows[len(unseen) :]]
            self._world.look()

    def _switch(self, delivery: Delivery, rows: list[tuple[str, int]], marker: Marker) -> Delivered:
        if self._flaw != "compared before" and (outcome := delivery.refused(self.shown)):
            return self._stays(outcome)
        self._show(rows, marker)
        return Delivered("exported", marker)

    def _show(self, rows: list[tuple[str, int]], marker: Marker, *, with_marker: bool = True) -> None:
        self.rows = rows
        if with_marker:
            self.shown = marker
        self._world.switched(marker.version)
        self._world.look()

    def _stays(self, outcome: Outcome) -> Delivered:
        assert self.shown is not None
        return Delivered(outcome, self.shown)


@dataclass(frozen=True)
class Habits:
    """How eventful a history is."""

    corrections: Literal["replace", "keep"] = "replace"
    event: float = 0.08
    """Chance at an operation that something happens to the day, the receipt or the sink."""
    fault: float = 0.05
    """Chance at an operation that it fails, or that its process dies."""
    switch: float = 0.35
    """Chance at an operation that another process goes on."""
    processes: tuple[int, ...] = (1, 2, 2, 3)
    """At once."""
    groups: tuple[int, ...] = (1, 2, 3)
    """Of processes, one after another."""


class World(Turns[Process]):
    """One history."""

    def __init__(self, seed: int, habits: Habits, flaw: Flaw = "") -> None:
        super().__init__(seed, HONEST_ERRORS, faults=5, events=8)
        self.habits = habits
        self.pipeline = PIPELINES[habits.corrections]
        self.folders: dict[str, Shelf] = {}
        self.sink = MemorySink(self, flaw)
        self.publications: list[Publication] = []
        self.table: Publication | None = None
        """What the table holds; None if it was removed."""
        self.undocumented: Publication | None = None
        """What the table holds, and the state does not say yet."""
        self.switches: Counter[int] = Counter()
        self.shown = -1
        """Number of the version that the sink shows."""
        self.is_down = self.was_taken = self.has_lost_receipt = False
        self._clock = 0

    @property
    def state(self) -> State:
        return State(self.pipeline.output)

    def folder(self, uri: str) -> Shelf:
        if uri not in self.folders:
            self.folders[uri] = Shelf(uri)
            self.folders[uri].world = self
        return self.folders[uri]

    # turns

    def exports(self, count: int) -> None:
        """Let exports run at once."""
        self.together([Process(self, f"export {number + 1}", self.export) for number in range(count)])

    def _may_lose_its_turn(self, process: Process, what: str) -> None:
        self._may_happen(process, self.habits.event)
        self._may_give_way(process, self.habits.switch)

    def _fault(self, what: str, errors: Errors) -> Fault:
        if self.is_down and errors == OF_THE_SINK:
            raise SinkError(f"{what}: no answer")
        is_faulty = not self.is_calm and self.faults_left and self.random.random() < self.habits.fault
        return self.random.choice(FAULTS) if is_faulty else ""

    # what happens

    def happen(self) -> None:
        """Something happens to the day, the receipt or the sink."""
        events = [self.correct, self.correct, self.document, self.remove_table, self.lose_receipt, self.toggle_sink]
        self.random.choice(events)()

    def correct(self) -> None:
        """A new version is committed; its document may follow later."""
        self._clock += 1000
        before = self.table
        returns = [one.content for one in self.publications[:-1]] if self.random.random() < 0.3 else []
        number = len(self.publications)
        self.table = Publication(
            number,
            self.random.choice(returns or [number]),
            before.created if before else self._clock,
            before.transaction + 1 if before else 1,
        )
        self.publications.append(self.table)
        self.undocumented = self.table
        self.note(f"version {number}: content {self.table.content}, {self.table.version}")
        if self.random.random() < 0.7:
            self.document()

    def document(self) -> None:
        """The state learns what the table holds."""
        if self.undocumented:
            self.note(f"version {self.undocumented.number} is documented")
            self.state.put_published_day(self.undocumented.document)
            self.undocumented = None

    def remove_table(self) -> None:
        """The table is removed, to be made anew by the next correction; the state's documents stay."""
        if self.random.random() < 0.5:
            self.note("the table is removed")
            self.table = self.undocumented = None

    def lose_receipt(self) -> None:
        """The receipt is gone."""
        if self.was_taken:
            return  # then nothing would say that there was an export
        self.note("the receipt is lost")
        self.has_lost_receipt = True
        self.folder(f"{self.pipeline.output.uri}/state").remove(f"dt={DAY}/exports/{NAME}.json")

    def toggle_sink(self) -> None:
        """The sink goes down, or is back."""
        self.is_down = not self.is_down
        self.note("the sink is down" if self.is_down else "the sink is back")

    def take_list(self) -> None:
        """Whoever the list is for has moved it away, marker and all, after its receipt was written."""
        receipt = self.state.receipt(NAME, DAY)
        if receipt and self.sink.shown and not self.has_lost_receipt:
            self.note("the list was taken")
            self.was_taken = True
            self.sink.shown, self.sink.rows = None, []

    def rows(self, _folder: object, path: str, *_: object, **_options: object) -> Iterator[pa.RecordBatch]:
        """Rows of a file."""
        content = int(path[-16:-8], 16)
        for row in range(ROWS):
            batch = pa.RecordBatch.from_pydict({"id": [f"k{row}"], "content": [content]}, schema=SCHEMA)
            yield self.operation("read rows", lambda found=batch: found)

    # what is promised

    def switched(self, version: Version) -> None:
        """The sink shows a version."""
        same = (one for one in self.publications if one.transaction == version.transaction)
        number = max(one.number for one in same if version.created in (0, one.created))
        self.note(f"the sink shows version {number}")
        self.switches[number] += 1
        if self.switches[number] > 1:
            self.violate(f"exported twice: version {number}")
        if number < self.shown:
            self.violate(f"went back: from version {self.shown} to {number}")
        if self.habits.corrections == "keep" and self.shown >= 0:
            self.violate(f"not kept: version {number} replaces {self.shown}")
        self.shown = number

    def look(self) -> None:
        """What a reader sees at any time."""
        contents = {content for _, content in self.sink.rows}
        if len(contents) > 1 or (self.sink.rows and len(self.sink.rows) != ROWS):
            self.violate(f"mixed: a reader sees {self.sink.rows}")

    def settle(self) -> None:
        """In calm, the next exports bring the sink up to date, and then have nothing to do."""
        self.note("calm")
        self.is_calm, self.is_down = True, False
        if self.table is None:
            self.correct()
        self.document()
        for _ in range(ROUNDS):
            if self.violation or not pending.recent(self.pipeline, NAME):
                break
            self.exports(1)
        if self.violation:
            return
        if pending.recent(self.pipeline, NAME):
            self.violate(f"behind for ever: still behind after {ROUNDS} exports")
        elif self.habits.corrections == "replace" and self.shown != self.publications[-1].number:
            self.violate(f"not exported: version {self.publications[-1].number}, the sink shows {self.shown}")
        elif self.shown < 0:
            self.violate("not exported: nothing was ever shown")

    def export(self, process: Process) -> None:
        """What a process does: export the day, as the sensor or a command would."""
        run = StepContext(process.name, datetime.now(UTC), lambda line: self.note(f"{process.name}: {line}"))
        export_day(self.pipeline, NAME, DAY, run, sink=self.sink)


def _pipeline(corrections: str) -> Pipeline:
    declared = PipelineSpec.model_validate(
        {
            "name": "sim",
            "description": "a day",
            "partitions": {"start": date(2024, 3, 1)},
            "input": {"key": "id"},
            "features": {"schema": "schema:Rows", "numeric": ["x"]},
            "model": {"bundle": "sim/models/v1", "network": "network:Net"},
            "exports": {NAME: {"to": "file", "path": "list_{day}.csv", "corrections": corrections}},
        }
    )
    return Pipeline(declared, Path(), "none", "s3://bucket")


PIPELINES = {corrections: _pipeline(corrections) for corrections in ("replace", "keep")}


def play(seed: int, kind: str = "", flaw: Flaw = "", without: Substitutes = ()) -> World:
    """One history.

    Args:
        seed: determines everything.
        kind: of `corrections`; the seed's if empty.
        flaw: of the sink.
        without: patches that take out a rule.
    """
    habits = Habits(corrections=kind or ("keep" if seed % 4 == 3 else "replace"))  # type: ignore[arg-type]
    world = World(seed, habits, flaw)
    substitutes: list[tuple[object, str, Any]] = [
        (pipeline, "open_folder", world.folder),
        (MemoryFolder, "subfolder", lambda folder, path: world.folder(f"{folder.uri}/{path}")),
        (shards, "read", world.rows),
        (shards, "schema", lambda _folder, _path: SCHEMA),
    ]
    with replaced([*substitutes, *without]):
        world.correct()
        for _ in range(world.random.choice(habits.groups)):
            world.exports(world.random.choice(habits.processes))
            if world.violation:
                return world
            if habits.corrections == "keep" and world.random.random() < 0.3:
                world.take_list()
            if world.random.random() < 0.5:
                world.correct()
        world.settle()
    return world


@dataclass(frozen=True)
class Rule:
    """A rule of the protocol, and how it is taken out: by a flaw of the sink, or by patches."""

    name: str
    flaw: Flaw = ""
    without: Callable[[], Substitutes] = field(default=tuple)
    kind: str = "replace"


def _receipt_first() -> Substitutes:
    record, deliver = export._Export.record, export._Export.deliver

    def early(work: export._Export, sink: Any, exported: PublishedDay, *rest: Any, **options: Any) -> Delivered:
        record(work, exported, "exported", ROWS)
        return deliver(work, sink, exported, *rest, **options)

    return [(export._Export, "deliver", early)]


def _no_created() -> Substitutes:
    return [
        (published, "version_of", lambda day: Version(0, day.table.transaction)),
        (published, "is_of", _is_of_alike),
    ]


def _is_of_alike(receipt: ExportReceipt, day: PublishedDay) -> bool:
    return (receipt.transaction, receipt.files) == (day.table.transaction, day.table.files)


def _is_of_the_files(receipt: ExportReceipt, day: PublishedDay) -> bool:
    return receipt.files == day.table.files


def _is_of_the_transaction(receipt: ExportReceipt, day: PublishedDay) -> bool:
    return receipt.transaction == day.table.transaction


def _forgets_the_receipt() -> Substitutes:
    receipt_of = published.receipt_of

    def only_of_this_version(state: State, name: str, day: str) -> ExportReceipt | None:
        receipt, found = receipt_of(state, name, day), state.published_day("predictions", day)
        return receipt if receipt and found and published.is_of(receipt, found) else None

    return [(published, "receipt_of", only_of_this_version)]


def _replaces_what_is_to_stay(delivery: Delivery, shown: Marker | None) -> Outcome | None:
    return _REFUSED(replace(delivery, replaces="older"), shown)


_REFUSED = Delivery.refused

RULES = (
    Rule("the sink compares versions", without=lambda: [(Delivery, "refused", lambda *_: None)]),
    Rule("it compares them in the step that shows the rows", "compared before"),
    Rule("it sets the marker in that step", "marker later"),
    Rule("it writes the rows unseen", "in place"),
    Rule("a receipt is of a version", without=lambda: [(published, "is_of", lambda *_: True)]),
    Rule("of its transaction, not of its files alone", without=lambda: [(published, "is_of", _is_of_the_files)]),
    Rule("of its files, not of its transaction alone", without=lambda: [(published, "is_of", _is_of_the_transaction)]),
    Rule("it is written after the delivery", without=_receipt_first),
    Rule("a table that was made anew has newer versions", without=_no_created),
    Rule(
        "what is shown stays if it is to be kept",
        without=lambda: [(Delivery, "refused", _replaces_what_is_to_stay)],
        kind="keep",
    ),
    Rule("the receipt keeps it, too", without=_forgets_the_receipt, kind="keep"),
)


def main() -> int:
    """Exit code 1 if a history broke a promise."""
    parser = argparse.ArgumentParser(prog="python -m batch_scoring_tests.simulation.exports", description=__doc__)
    parser.add_argument("--histories", type=int, default=20_000, help="how many with all rules in force")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--rules", action="store_true", help="then take out one rule after another")
    parser.add_argument("--without", type=int, default=1000, help="histories without a rule")
    parser.add_argument("--show", action="store_true", help="print the first history that breaks a promise")
    options = parser.parse_args()
    began, broken, switches = perf_counter(), 0, 0
    for seed in range(options.first, options.first + options.histories):
        world = play(seed)
        switches += sum(world.switches.values())
        if world.violation:
            broken += 1
            print(f"seed {seed}: {world.violation}")
            if options.show and broken == 1:
                print("\n".join(world.trace))
    print(
        f"all rules in force: {broken} of {options.histories} histories break a promise "
        f"({switches} versions exported, {perf_counter() - began:.0f} s)"
    )
    if options.rules:
        print(f"\n| rule taken out | broken / {options.without} | promises |\n| --- | --- | --- |")
        for rule in RULES:
            found = [play(seed, rule.kind, rule.flaw, rule.without()).violation for seed in range(options.without)]
            promises = Counter(violation.split(":")[0] for violation in found if violation)
            print(f"| {rule.name} | {promises.total()} | {', '.join(f'{p} ({n})' for p, n in promises.items())} |")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
