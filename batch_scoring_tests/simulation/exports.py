"""Histories of an export: at the end the sink shows the published version, and each version was shown once at most.

The exports are `export_day` and `pending` as they are, of two or three processes at once. They run until they reach an
operation of the store or of the sink. There another process may get its turn, the day may be corrected or decided, its
table made anew, a receipt lost or the sink go down; and the process may die, or lose an answer. In some kinds of
histories deployments change the exported step, from predictions to decisions and back: processes that are on keep what
they have read. One seed determines everything.
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
from typing import Any, BinaryIO, Literal, cast

import pyarrow as pa

from batch_scoring.config import pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.daily import freshness
from batch_scoring.delivery.exports import export, pending, published
from batch_scoring.delivery.exports.export import export_day
from batch_scoring.delivery.exports.sink import Delivered, Delivery, Marker, Outcome, Sink, Version
from batch_scoring.errors import FileChangedError, NotPublishedError, SinkError, StateError
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage import shards
from batch_scoring.storage.folders.folder import Children, FileVersion
from batch_scoring.storage.state import ExportReceipt, PublishedDay, PublishedPart, ShardStats, State, StepName
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
STEPS: tuple[StepName, ...] = ("predictions", "decisions")

Flaw = Literal["", "marker later", "in place", "compared before"]


@dataclass(frozen=True)
class Publication:
    """A version of a step of the day."""

    step: StepName
    number: int
    """Counts the step's versions, whatever became of its table."""
    content: int
    created: int
    transaction: int
    source: str
    """What it was made from."""

    @property
    def version(self) -> Version:
        return Version(self.created, self.transaction)

    @property
    def path(self) -> str:
        """Of its file, in its table; a content that returns has the file that it had."""
        return f"dt={DAY}/{self.content:032x}-{self.content:08x}.parquet"

    @property
    def document(self) -> PublishedDay:
        stats = ShardStats(digest=f"{self.content:032x}", source=self.source, run_id="run", rows_in=ROWS, rows=ROWS)
        return PublishedDay(
            pipeline="sim",
            day=DAY,
            step=self.step,
            run_id="run",
            finished_at=datetime(2024, 3, 5, tzinfo=UTC),
            fingerprint="files",
            code="code",
            shards=(stats,),
            table=PublishedPart(
                transaction=self.transaction, version=self.number, files=(self.path,), created=self.created
            ),
        )


class Export(Process):
    """A process that exports, with the spec that it has read."""

    def __init__(self, world: "World", name: str, pipeline: Pipeline) -> None:
        super().__init__(world, name, world.export)
        self.pipeline = pipeline

    @property
    def of(self) -> StepName:
        """The step that it exports."""
        return self.pipeline.spec.exports[NAME].of


class Shelf(MemoryFolder):
    """A folder, whose operations are where processes take turns."""

    world: "World"

    def read(self, path: str, token: str | None = None) -> bytes:
        return self.world.operation(f"read {path}", lambda: super(Shelf, self).read(path, token))

    def read_each(self, paths: Sequence[str]) -> "builtins.list[bytes | None]":
        return self.world.operation("read documents", lambda: super(Shelf, self).read_each(paths))

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        return self.world.operation(f"open {path}", lambda: super(Shelf, self).open(path, token))

    def put(self, path: str, data: bytes) -> None:
        self.world.operation(f"put {path}", lambda: super(Shelf, self).put(path, data))

    def version(self, path: str) -> FileVersion | None:
        return self.world.operation(f"ask for the version of {path}", lambda: super(Shelf, self).version(path))

    def put_if(self, path: str, data: bytes, token: str | None) -> None:
        self.world.operation(f"put {path}", lambda: self._put_if(path, data, token))

    def _put_if(self, path: str, data: bytes, token: str | None) -> None:
        found = self.version(path)
        if (found.token if found else None) != token:
            raise FileChangedError(path)
        self.put(path, data)

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
        marker = Marker(delivery.version, len(unseen), delivery.run_id, datetime.now(UTC), delivery.of)
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
        self._world.switched(marker)
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
    events: tuple[str, ...] = ("correct", "correct", "document", "remove_table", "lose_receipt", "toggle_sink")
    """What may happen, by name of `World`'s method."""
    steps: bool = False
    """Whether the day is decided, too, and deployments change the exported step."""


_DEPLOYMENTS = Habits(events=(*Habits.events, "decide", "decide", "deploy"), steps=True)

KINDS = {
    "replace": Habits(),
    "deployments": _DEPLOYMENTS,
    "keep": Habits("keep"),
    "deployments, keep": replace(_DEPLOYMENTS, corrections="keep"),
    "changes of mind": Habits(
        event=0.12,
        fault=0.06,
        processes=(2, 3),
        groups=(2, 3),
        events=("deploy", "deploy", "deploy", "deploy", "toggle_sink", "document", "decide"),
        steps=True,
    ),
}
"""Kinds of histories."""


class World(Turns[Export]):
    """One history."""

    def __init__(self, seed: int, habits: Habits, flaw: Flaw = "") -> None:
        super().__init__(seed, HONEST_ERRORS, faults=5, events=8)
        self.habits = habits
        self.of: StepName = self.random.choice(STEPS) if habits.steps else "predictions"
        """The step that the spec names now."""
        self.folders: dict[str, Shelf] = {}
        self.sink = MemorySink(self, flaw)
        self.publications: dict[StepName, list[Publication]] = {step: [] for step in STEPS}
        self.tables: dict[StepName, Publication] = {}
        """What each table holds, unless it was removed."""
        self.undocumented: dict[StepName, Publication] = {}
        """What a table holds, and the state does not say yet."""
        self.switches: Counter[int] = Counter()
        self.shown: tuple[StepName, int] | None = None
        """Step and number of the version that the sink shows."""
        self.exported = 0
        self.is_down = self.was_taken = self.has_lost_receipt = False
        self._clock = self._processes = 0

    @property
    def pipeline(self) -> Pipeline:
        """As its spec is now."""
        return PIPELINES[self.habits.corrections, self.of]

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
        self.together([self._process() for _ in range(count)])

    def _process(self) -> Export:
        self._processes += 1
        return Export(self, f"export {self._processes}", self.pipeline)

    def _may_lose_its_turn(self, process: Export, what: str) -> None:
        self._may_happen(process, self.habits.event)
        self._may_give_way(process, self.habits.switch)

    def _fault(self, what: str, errors: Errors) -> Fault:
        if self.is_down and errors == OF_THE_SINK:
            raise SinkError(f"{what}: no answer")
        is_faulty = not self.is_calm and self.faults_left and self.random.random() < self.habits.fault
        return self.random.choice(FAULTS) if is_faulty else ""

    # what happens

    def happen(self) -> None:
        """Something happens to the day, the receipt, the sink or the spec."""
        getattr(self, self.random.choice(self.habits.events))()

    def correct(self) -> None:
        """The day is scored again."""
        self._commit("predictions", "features")

    def decide(self) -> None:
        """It is decided, from the predictions that are published."""
        if predictions := self.state.published_day("predictions", DAY):
            self._commit("decisions", freshness.decided_from(predictions))

    def _commit(self, step: StepName, source: str) -> None:
        """A new version is committed; its document may follow later."""
        versions, before = self.publications[step], self.tables.get(step)
        if step == "predictions" or versions:  # the first decisions are in a table of the same moment
            self._clock += 1000
        returns = [one.content for one in versions[:-1] if one.source == source] if self.random.random() < 0.3 else []
        number = len(versions)
        self.tables[step] = self.undocumented[step] = Publication(
            step,
            number,
            self.random.choice(returns or [number]),
            before.created if before else self._clock,
            before.transaction + 1 if before else 1,
            source,
        )
        versions.append(self.tables[step])
        self.note(f"{step} {number}: content {self.tables[step].content}, {self.tables[step].version}")
        if self.random.random() < 0.7:
            self.document()

    def document(self) -> None:
        """The state learns what the tables hold."""
        for step in [step for step in STEPS if step in self.undocumented]:
            self.note(f"{step} {self.undocumented[step].number} is documented")
            self.state.put_published_day(self.undocumented.pop(step).document)

    def remove_table(self) -> None:
        """A table is removed, to be made anew by the next commit; the state's documents stay."""
        if self.random.random() < 0.5:
            step = self.random.choice(STEPS) if self.habits.steps else "predictions"
            self.note(f"the table of {step} is removed")
            for holding in (self.tables, self.undocumented):
                holding.pop(step, None)

    def deploy(self) -> None:
        """The spec names the other step: later exports are of that one, those that are on keep theirs."""
        self.of = next(step for step in STEPS if step != self.of)
        self.switches.clear()
        self.note(f"the spec names {self.of}")
        if self.running:
            self.join(self._process())

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

    def rows(self, folder: Shelf, path: str, columns: list[str], **_: object) -> Iterator[pa.RecordBatch]:
        """Rows of a file."""
        content = int(path[-16:-8], 16) + (1000 if folder.uri.endswith("/decisions") else 0)
        for row in range(ROWS):
            batch = pa.RecordBatch.from_pydict({"id": [f"k{row}"], "content": [content]}, schema=SCHEMA)
            yield self.operation("read rows", lambda found=batch: found.select(columns))

    # what is promised

    def switched(self, marker: Marker) -> None:
        """The sink shows a version."""
        step, version = cast("StepName", marker.of), marker.version
        same = (one for one in self.publications[step] if one.transaction == version.transaction)
        number = max(one.number for one in same if version.created in (0, one.created))
        self.note(f"the sink shows {step} {number}")
        if self.shown and step != self.shown[0]:
            self.switches.clear()
        self.switches[number] += self._is_only_step(step)
        if self.switches[number] > 1:
            self.violate(f"exported twice: {step} {number}")
        if self.shown and step == self.shown[0] and number < self.shown[1]:
            self.violate(f"went back: from {self.shown} to {number}")
        if self.habits.corrections == "keep" and self.shown:
            self.violate(f"not kept: {step} {number} replaces {self.shown}")
        self.shown = step, number
        self.exported += 1

    def _is_only_step(self, step: StepName) -> bool:
        """Whether no export of the other step is on or to come; one that is may begin to replace a version in vain."""
        return self.of == step and all(process.of == step for process in self._ready)

    def look(self) -> None:
        """What a reader sees at any time."""
        contents = {content for _, content in self.sink.rows}
        if len(contents) > 1 or (self.sink.rows and len(self.sink.rows) != ROWS):
            self.violate(f"mixed: a reader sees {self.sink.rows}")

    def is_honest(self, error: BaseException) -> bool:
        """Whether an export may end with an error: in calm it may not, and there are decisions of other predictions."""
        if self.is_calm:
            self.violate(f"fails in calm: {error}")
        is_apart = isinstance(error, StateError) and "its decisions are not about the predictions" in str(error)
        return is_apart or super().is_honest(error)

    def settle(self) -> None:
        """In calm, the next exports bring the sink up to date, and then have nothing to do."""
        self.note("calm")
        self.is_calm, self.is_down = True, False
        if "predictions" not in self.tables:
            self.correct()
        self.document()
        self._export_what_is_behind()
        predictions, decisions = (self.tables.get(step) for step in STEPS)
        if predictions and self.of == "decisions":
            if not decisions or decisions.source != freshness.decided_from(predictions.document):
                self.decide()
            self.document()
            self._export_what_is_behind()
        if not self.violation:
            self._compare()

    def _export_what_is_behind(self) -> None:
        for _ in range(ROUNDS):
            if not self.violation and any(not day.waits_for for day in pending.recent(self.pipeline, NAME)):
                self.exports(1)

    def _compare(self) -> None:
        newest = self.of, self.publications[self.of][-1].number
        if pending.recent(self.pipeline, NAME):
            self.violate(f"behind for ever: still behind after {ROUNDS} exports")
        elif self.habits.corrections == "replace" and self.shown != newest:
            self.violate(f"not exported: {newest}, the sink shows {self.shown}")
        elif not self.shown:
            self.violate("not exported: nothing was ever shown")

    def export(self, process: Export) -> None:
        """What a process does: export the day, as the sensor or a command would."""
        if self.habits.steps and not self.is_calm and self.random.random() < 0.5:
            behind = pending.among(process.pipeline, NAME, [DAY])
            if all(day.waits_for for day in behind):
                return
        run = StepContext(process.name, datetime.now(UTC), lambda line: self.note(f"{process.name}: {line}"))
        export_day(process.pipeline, NAME, DAY, run, sink=self.sink)


def _pipeline(corrections: str, of: StepName) -> Pipeline:
    declared = PipelineSpec.model_validate(
        {
            "name": "sim",
            "description": "a day",
            "partitions": {"start": date(2024, 3, 1)},
            "input": {"key": "id"},
            "features": {"schema": "schema:Rows", "numeric": ["x"]},
            "model": {"bundle": "sim/models/v1", "network": "network:Net"},
            "decisions": {"actions": {"call": {}}},
            "exports": {NAME: {"to": "file", "path": "list_{day}.csv", "corrections": corrections, "of": of}},
        }
    )
    return Pipeline(declared, Path(), "none", "s3://bucket")


PIPELINES = {(corrections, of): _pipeline(corrections, of) for corrections in ("replace", "keep") for of in STEPS}


def play(seed: int, kind: str = "", flaw: Flaw = "", without: Substitutes = ()) -> World:
    """One history.

    Args:
        seed: determines everything.
        kind: of `KINDS`; the seed's if empty.
        flaw: of the sink.
        without: patches that take out a rule.
    """
    habits = KINDS[kind or list(KINDS)[seed % len(KINDS)]]
    world = World(seed, habits, flaw)
    substitutes: list[tuple[object, str, Any]] = [
        (pipeline, "open_folder", world.folder),
        (MemoryFolder, "subfolder", lambda folder, path: world.folder(f"{folder.uri}/{path}")),
        (shards, "read", world.rows),
        (shards, "schema", lambda _folder, _path: SCHEMA),
        (freshness, "expired_days", lambda *_: set()),
    ]
    with replaced([*substitutes, *without]):
        world.correct()
        if habits.steps:
            world.decide()
        for _ in range(world.random.choice(habits.groups)):
            world.exports(world.random.choice(habits.processes))
            if world.violation:
                return world
            if habits.corrections == "keep" and world.random.random() < 0.3:
                world.take_list()
            if world.random.random() < 0.5:
                world.correct()
            if habits.steps and world.random.random() < 0.7:
                world.decide()
            if habits.steps and world.random.random() < 0.4:
                world.deploy()
        world.settle()
    return world


@dataclass(frozen=True)
class Rule:
    """A rule of the protocol, and how it is taken out: by a flaw of the sink, or by patches."""

    name: str
    flaw: Flaw = ""
    without: Callable[[], Substitutes] = field(default=tuple)
    kind: str = "replace"
    seen_at: int = 0
    """The first seed whose history breaks a promise without it, if that is rare."""

    def violations(self, count: int) -> Iterator[str]:
        """The promise that each history breaks without it; empty if none."""
        seeds = range(self.seen_at, self.seen_at + count)
        return (play(seed, self.kind, self.flaw, self.without()).violation for seed in seeds)


def _receipt_first() -> Substitutes:
    deliver = export._Export.deliver

    def early(work: export._Export, sink: Sink, delivery: Delivery) -> Delivered:
        exported = published.of_day(work.state, work.spec, DAY).exported
        work.record(work.receipt(exported, "exported", ROWS), work.state.receipt_token(NAME, DAY))
        return deliver(work, sink, delivery)

    return [(export._Export, "deliver", early)]


def _no_created() -> Substitutes:
    return [
        (published, "version_of", lambda day: Version(0, day.table.transaction)),
        (published, "is_of", _is_of_alike),
    ]


def _is_of_alike(receipt: ExportReceipt, day: PublishedDay) -> bool:
    return (receipt.transaction, receipt.files) == (day.table.transaction, day.table.files)


def _is_of_any_step(receipt: ExportReceipt, day: PublishedDay) -> bool:
    return _IS_OF(receipt.model_copy(update={"of": day.step}), day)


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


def _put_in_any_case(state: State, receipt: ExportReceipt, _token: str | None) -> None:
    state._write(f"dt={receipt.day}/exports/{receipt.export}.json", receipt)


_REFUSED, _IS_OF = Delivery.refused, published.is_of

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
    Rule(
        "another step is not compared",
        without=lambda: [(Delivery, "is_of_another_step", lambda *_: False)],
        kind="deployments",
    ),
    Rule(
        "it is replaced only if it is what the export has found",
        without=lambda: [(Delivery, "_refused_instead_of", lambda *_: None)],
        kind="changes of mind",
        seen_at=44,
    ),
    Rule(
        "its receipt is withdrawn before",
        without=lambda: [(export._Export, "withdraw", lambda _work, _shown, _of, token: token)],
        kind="changes of mind",
        seen_at=48,
    ),
    Rule(
        "what was about to be replaced is not found unchanged",
        without=lambda: [(export, "_may_be_replaced", lambda *_: False)],
        kind="changes of mind",
        seen_at=75,
    ),
    Rule(
        "a receipt replaces only the one that the export has found",
        without=lambda: [(State, "put_receipt", _put_in_any_case)],
        kind="changes of mind",
        seen_at=2994,
    ),
    Rule("a receipt names its step", without=lambda: [(published, "is_of", _is_of_any_step)], kind="deployments"),
    Rule(
        "decisions wait until they are of the predictions",
        without=lambda: [(pending, "why_apart", lambda *_: "")],
        kind="deployments",
    ),
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
        switches += world.exported
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
            promises = Counter(one.split(":")[0] for one in rule.violations(options.without) if one)
            print(f"| {rule.name} | {promises.total()} | {', '.join(f'{p} ({n})' for p, n in promises.items())} |")
    return int(broken > 0)


if __name__ == "__main__":
    sys.exit(main())
