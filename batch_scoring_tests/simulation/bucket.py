"""Histories of a bucket, its sensors and its runs: at the end every day's predictions must match its files.

The sensors' own code runs (`landing_scan`, `sqs`); S3, SQS, the tables and Dagster are stand-ins in memory that
forget, repeat, die and fail. A run is seven writes, and may stop after any of them. One seed determines everything.
`python -m batch_scoring_tests.simulation.bucket` plays histories and prints their outcomes.
"""

import argparse
import contextlib
import hashlib
import io
import json
import logging
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from time import perf_counter
from types import SimpleNamespace
from typing import Any, BinaryIO
from urllib.parse import quote_plus

import pyarrow as pa

from batch_scoring.config import pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.daily import freshness
from batch_scoring.daily.publish import DayStep
from batch_scoring.errors import FileChangedError
from batch_scoring.ingest import landing_files
from batch_scoring.operations import run_history
from batch_scoring.operations.automation import landing_scan, sqs
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import Bounds, TickState
from batch_scoring.operations.run_history import DayRun
from batch_scoring.storage import aws
from batch_scoring.storage.delta import Part
from batch_scoring.storage.folders.folder import Children, FileVersion, Folder
from batch_scoring.storage.state import DayInput, LandingFile, PublishedDay, PublishedPart, State
from batch_scoring_tests.simulation.history import replaced

ROOT = "s3://bucket"
QUEUE = "https://sqs/queue"
FIRST = date(2024, 3, 1)
HIDDEN_FOR = 30.0
"""Seconds for which SQS hides a message that was read."""
MOST_FAILURES = 2
"""In a row of one day's same files: after three the planner rightly gives up."""
PAUSE = 30.0
WRITES = (
    "input.json",
    "quarantine of features",
    "features",
    "account of features",
    "quarantine of predictions",
    "predictions",
    "account of predictions",
)


class Crash(Exception):
    """The daemon is gone in the middle of a tick."""


class MemoryFolder(Folder):
    """A bucket's prefix."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self.files: dict[str, tuple[FileVersion, bytes]] = {}

    def list(self, prefix: str = "", after: str = "") -> list[FileVersion]:
        return sorted(version for path, (version, _) in self.files.items() if path.startswith(prefix) and path > after)

    def children(self) -> Children:
        heads = [path.partition("/") for path in self.files]
        folders = {head for head, slash, _ in heads if slash}
        return Children(tuple(sorted(folders)), tuple(sorted(head for head, slash, _ in heads if not slash)))

    def read_each(self, paths: Sequence[str]) -> "list[bytes | None]":
        return [self.files[path][1] if path in self.files else None for path in paths]

    def put(self, path: str, data: bytes) -> None:
        token = hashlib.md5(data).hexdigest()
        self.files[path] = (FileVersion(path, token, len(data), datetime.now(UTC)), data)

    def put_if(self, path: str, data: bytes, token: str | None) -> None:
        raise AssertionError("a sensor writes nothing on a condition")

    def land(self, path: str, token: str, modified: float) -> None:
        version = FileVersion(path, token, 100, datetime.fromtimestamp(modified, UTC))
        self.files[path] = (version, b"")

    def subfolder(self, path: str) -> "Folder":
        raise AssertionError("subfolder is replaced")

    def open(self, path: str, token: str | None = None) -> BinaryIO:
        if path not in self.files:
            raise FileNotFoundError(path)
        version, data = self.files[path]
        if token not in (None, version.token):
            raise FileChangedError(path)
        return io.BytesIO(data)

    def remove(self, path: str) -> None:
        self.files.pop(path, None)

    def scratch(self) -> contextlib.AbstractContextManager[Path]:
        raise AssertionError("nobody writes rows here")

    def put_file(self, scratch: Path, path: str) -> int:
        raise AssertionError("nobody writes rows here")

    def open_arrow(self, path: str) -> pa.NativeFile:
        raise AssertionError("nobody reads rows here")

    def delta_options(self) -> dict[str, str]:
        return {}

    def settle(self, prefix: str) -> None: ...


@dataclass
class Message:
    """Of the queue."""

    body: str
    visible_at: float
    receipt: str = ""


@dataclass
class MemoryQueue:
    """Stands for boto3's SQS client: gives messages in any order, some twice, and hides those that were read."""

    world: "World"
    messages: list[Message] = field(default_factory=list)
    _count: int = 0

    def send(self, body: str, delay: float = 0.0) -> None:
        self.messages.append(Message(body, self.world.now + delay))

    def receive_message(self, **_: object) -> dict[str, Any]:
        ready = [message for message in self.messages if message.visible_at <= self.world.now]
        found = self.world.random.sample(ready, min(len(ready), 10))
        for message in found:
            self._count += 1
            message.receipt = f"receipt-{self._count}"
            message.visible_at = self.world.now + HIDDEN_FOR
        return {"Messages": [{"Body": message.body, "ReceiptHandle": message.receipt} for message in found]}

    def delete_message_batch(self, QueueUrl: str, Entries: list[dict[str, str]]) -> dict[str, Any]:
        gone = {entry["ReceiptHandle"] for entry in Entries}
        self.messages = [message for message in self.messages if message.receipt not in gone]
        return {}

    def change_message_visibility_batch(self, QueueUrl: str, Entries: list[dict[str, Any]]) -> None:
        raise AssertionError("there is one pipeline")


@dataclass
class SimulatedRun:
    """A run as Dagster would remember it, and what it is doing."""

    id: str
    day: str
    fingerprint: str
    """Its tag: as requested, then as raw_input has found it."""
    created: float
    starts: float
    writes_left: list[str] = field(default_factory=lambda: list(WRITES))
    next_at: float = 0.0
    fails_after: str = ""
    is_dead: bool = False
    """The process is gone, and nobody has said so."""
    ended: float = 0.0
    status: str = "queued"
    files: tuple[FileVersion, ...] = ()
    is_needless: bool = False
    """The day was settled when the run was asked for, or another live run of the same files was on."""

    def seen(self) -> DayRun:
        """What `runs.of_day` would tell."""
        since = {"queued": self.created, "started": self.starts}.get(self.status, self.ended)
        return DayRun(self.id, self.status, since, self.fingerprint, CODE)  # type: ignore[arg-type]


CODE = "code"


@dataclass(frozen=True)
class Habits:
    """How eventful a history is."""

    door: str = "uploads"
    days: int = 12
    steps: int = 60
    crashes: float = 0.1
    failures: float = 0.1
    wipes_runs: bool = False
    wipes_cursor: float = 0.02
    crowded: bool = False
    """One day has 1,500 keys."""
    loses_events: float = 0.03
    jumps: float = 0.0
    """Chance at a step that the sensor's clock jumps, by up to two days either way; the other clocks do not."""


@dataclass
class Figures:
    """What became of histories."""

    histories: int = 0
    ticks: int = 0
    runs: int = 0
    failed: int = 0
    superseded: int = 0
    """New files came while they were on."""
    overtaken: int = 0
    """The old files were back, with which the day was settled, before they began."""
    wrong_days: list[str] = field(default_factory=list)
    needless: list[str] = field(default_factory=list)
    twice: int = 0
    """Runs that were asked for again because the record of the one that was on had been wiped, or the clock jumped."""
    days: int = 0

    def add(self, other: "Figures") -> None:
        """Sum up."""
        for name in vars(self):
            setattr(self, name, getattr(self, name) + getattr(other, name))


class World:
    """One history."""

    def __init__(self, seed: int, habits: Habits) -> None:
        self.random, self.habits, self.seed = random.Random(seed), habits, seed
        self.start = datetime(2024, 4, 1, 8, tzinfo=UTC).timestamp()
        self.now = self.start
        self.folders: dict[str, MemoryFolder] = {}
        self.queue = MemoryQueue(self)
        self.runs: list[SimulatedRun] = []
        self.forgotten: list[SimulatedRun] = []
        """Runs whose records were wiped; they go on."""
        self.run_keys: set[str] = set()
        self.cursor: str | None = None
        self.contents: dict[tuple[str, str], str] = {}
        """Fingerprint of what each part of a table holds, by part and day."""
        self.transactions: Counter[str] = Counter()
        self.hidden: list[tuple[float, str, str, float]] = []
        """Multipart uploads under way: when they end, path, token, when they began."""
        self.failures: Counter[tuple[str, str]] = Counter()
        self.trace: list[str] = []
        self.figures = Figures(histories=1)
        self.is_calm = False
        self.jumped = 0.0
        """Seconds by which the daemon's clock is off."""
        self._serial = 0

    # storage

    def folder(self, uri: str) -> MemoryFolder:
        return self.folders.setdefault(uri, MemoryFolder(uri))

    @property
    def landing(self) -> MemoryFolder:
        return self.folder(PIPELINE.landing.uri)

    @property
    def state(self) -> State:
        return State(PIPELINE.output)

    def files_of(self, day: str) -> tuple[FileVersion, ...]:
        return tuple(landing_files.list_day(self.landing, day))

    def stands_at(self, part: Part) -> int:
        return self.transactions[part.transaction]

    def is_settled(self, day: str) -> bool:
        files = self.files_of(day)
        return bool(files) and freshness.fingerprints(PIPELINE, [day]).get(day) == landing_files.fingerprint(files)

    def note(self, text: str) -> None:
        self.trace.append(f"{self.now - self.start:8.0f} s  {text}")

    # what happens to the bucket

    def token(self) -> str:
        self._serial += 1
        return f"etag{self._serial}"

    def any_day(self) -> str:
        # most files are of the newest days
        back = int(self.random.triangular(0, self.habits.days, 0))
        return str(date(2024, 4, 1) - timedelta(days=back))

    def upload(self) -> None:
        """A new file."""
        self.put(f"dt={self.any_day()}/{self.random.choice('abcdef')}.parquet", self.token())

    def correction(self) -> None:
        """New content under an old name."""
        if path := self.any_path():
            self.put(path, self.token())

    def again(self) -> None:
        """The same content once more: its modification time alone tells."""
        if path := self.any_path():
            self.put(path, self.landing.files[path][0].token)

    def and_back(self) -> None:
        """A -> B -> A."""
        if path := self.any_path():
            before = self.landing.files[path][0].token
            self.put(path, self.token())
            for _ in range(self.random.choice((0, 3, 12))):
                self.pass_time(PAUSE)
                self.tick()
            self.put(path, before)

    def multipart(self) -> None:
        """It takes minutes, and when it is there it is dated by its beginning."""
        path = f"dt={self.any_day()}/multipart{self.random.choice('xyz')}.parquet"
        self.hidden.append((self.now + self.random.uniform(60, 900), path, self.token(), self.now))
        self.note(f"multipart upload of {path} begins")

    def deletion(self) -> None:
        """A file goes."""
        if path := self.any_path():
            self.landing.remove(path)
            self.note(f"{path} is deleted")
            self.tell(path, "ObjectRemoved:Delete")

    def bad_key(self) -> None:
        """A name that nobody expects."""
        path = self.random.choice(
            (
                "notes.txt",
                "dt=2024-13-45/a.parquet",
                "2024-03-20/a.parquet",
                "dt=1999-01-01/a.parquet",
                "dt=2030-01-01/a.parquet",
                "dt=2024-3-2/a.parquet",
                "dt=/a.parquet",
                "x y/é+ü/a.parquet",
            )
        )
        self.put(path, self.token())

    def crowd(self) -> None:
        """A day of 1,500 files."""
        day = self.any_day()
        for number in range(1500):
            self.landing.land(f"dt={day}/part-{number:05}.parquet", f"crowd{number}", self.now)
        self.note(f"1,500 files of {day}")
        self.tell(f"dt={day}/part-00000.parquet")

    def any_path(self) -> str:
        known = sorted(path for path in self.landing.files if path.startswith("dt=2024-0"))
        return self.random.choice(known) if known else ""

    def put(self, path: str, token: str) -> None:
        self.landing.land(path, token, self.now)
        self.note(f"{path} is {token}")
        self.tell(path)

    def tell(self, path: str, event: str = "ObjectCreated:Put") -> None:
        """S3's event; now and then twice, late, or never."""
        if self.random.random() < self.habits.loses_events and not self.is_calm:
            return
        key = f"sim/landing/{path}"
        record = {"eventName": event, "s3": {"bucket": {"name": "bucket"}, "object": {"key": quote_plus(key)}}}
        bodies = [
            json.dumps({"Records": [record]}),
            json.dumps({"Type": "Notification", "Message": json.dumps({"Records": [record]})}),
            json.dumps({"source": "aws.s3", "detail": {"bucket": {"name": "bucket"}, "object": {"key": key}}}),
        ]
        for _ in range(self.random.choice((1, 1, 1, 2))):
            self.queue.send(self.random.choice(bodies), self.random.choice((0, 0, 5, 120)))

    # Dagster

    def tick(self) -> None:
        """The daemon evaluates the sensor; it may die anywhere."""
        dies = (
            self.random.choice(("before", "after plan", "between requests", "before cursor"))
            if (self.random.random() < self.habits.crashes and not self.is_calm)
            else ""
        )
        self.figures.ticks += 1
        with contextlib.suppress(Crash):
            self._tick(dies)

    def _tick(self, dies: str) -> None:
        if dies == "before":
            raise Crash
        memory = TickState.read(self.cursor)
        tick = self._evaluate(memory)
        if dies == "after plan":
            raise Crash
        for request in tick.plan.requests:
            if request.run_key in self.run_keys:
                self.note(f"{request.run_key} is known already")
            else:
                self.run_keys.add(request.run_key)
                self.new_run(request.day, request.fingerprint, request.why)
            if dies == "between requests":
                raise Crash
        if dies == "before cursor":
            raise Crash
        self.cursor = tick.plan.memory.model_dump_json()

    def _evaluate(self, memory: TickState) -> Tick:
        if self.habits.door == "events":
            return sqs.tick(PIPELINE, [PIPELINE], INSTANCE, memory, logging.getLogger("simulation"))
        return landing_scan.tick(PIPELINE, INSTANCE, memory, now=self.clock())

    def clock(self) -> float:
        """What the daemon's clock says."""
        return self.now + self.jumped

    def new_run(self, day: str, fingerprint: str, why: str) -> None:
        run = SimulatedRun(
            f"run{self._serial:05}", day, fingerprint, self.now, self.now + self.random.choice((1, 5, 40))
        )
        self._serial += 1
        key = (day, fingerprint)
        if self.random.random() < self.habits.failures and not self.is_calm and self.failures[key] < MOST_FAILURES:
            run.fails_after = self.random.choice(WRITES)
            self.failures[key] += 1
            run.is_dead = self.random.random() < 0.1
        run.next_at = run.starts
        others = (r for r in (*self.runs, *self.forgotten) if (r.day, r.fingerprint) == key and not r.is_dead)
        run.is_needless = self.is_settled(day) or any(other.status in ("queued", "started") for other in others)
        self.runs.append(run)
        self.figures.runs += 1
        self.note(f"{run.id} of {day} is queued: {why}")

    def of_day(self, _instance: object, _pipeline: Pipeline, day: str) -> list[DayRun]:
        return [run.seen() for run in reversed(self.runs) if run.day == day]

    def pass_time(self, seconds: float) -> None:
        """Runs go on, uploads end."""
        until = self.now + seconds
        while True:
            active = [run for run in (*self.runs, *self.forgotten) if run.status in ("queued", "started")]
            due = [run for run in active if run.next_at <= until and not (run.is_dead and run.status == "started")]
            ends = [upload for upload in self.hidden if upload[0] <= until]
            if not due and not ends:
                break
            run = min(due, key=lambda run: run.next_at, default=None)
            if run is None or (ends and min(ends)[0] < run.next_at):
                upload = min(ends)
                self.hidden.remove(upload)
                self.now = max(self.now, upload[0])
                self.landing.land(upload[1], upload[2], upload[3])
                self.note(f"{upload[1]} is there, dated {self.now - upload[3]:.0f} s back")
                self.tell(upload[1])
            else:
                self.now = max(self.now, run.next_at)
                self.advance(run)
        self.now = until

    def advance(self, run: SimulatedRun) -> None:
        """A run does its next write."""
        if run.status == "queued":
            run.status = "started"
            run.files = self.files_of(run.day)
            run.fingerprint = landing_files.fingerprint(run.files)
            if not run.files:
                return self.end(run, "failed")
            self.figures.overtaken += self.is_settled(run.day) and not run.is_needless
        what = run.writes_left.pop(0)
        if not self.write(run, what):
            self.figures.superseded += 1
            self.note(f"{run.id} is superseded before {what}")
            return self.end(run, "failed")
        if what == run.fails_after:
            self.note(f"{run.id} fails after {what}{', and nobody knows' if run.is_dead else ''}")
            self.figures.failed += 1
            return None if run.is_dead else self.end(run, "failed")
        if not run.writes_left:
            return self.end(run, "succeeded")
        run.next_at = self.now + self.random.choice((1, 1, 10, 60))
        return None

    def end(self, run: SimulatedRun, status: str) -> None:
        run.status, run.ended = status, self.now

    def write(self, run: SimulatedRun, what: str) -> bool:
        """One write of a run, as the steps do it; False if it gives way to newer files."""
        day, fingerprint = run.day, run.fingerprint
        pinned = DayInput(
            day=day,
            fingerprint=fingerprint,
            run_id=run.id,
            pinned_at=datetime.now(UTC),
            files=tuple(
                LandingFile(path=f.path, token=f.token, size=f.size, modified=f.modified, rows=1, columns={})
                for f in run.files
            ),
        )
        if what == "input.json":
            self.state.put_day_input(pinned)
            return True
        is_features = what.endswith("features")
        now = self.files_of(day)
        if landing_files.fingerprint(now) != fingerprint and (now or is_features):
            return False
        name: Any = "validated_features" if is_features else "predictions"
        step = DayStep(PIPELINE, day, name)
        if not is_features:  # read_source and check_current
            features = self.state.published_day("validated_features", day)
            source = DayStep(PIPELINE, day, "validated_features")
            if features is None or features.fingerprint != fingerprint:
                return False
            if self.state.day_input(day).fingerprint != fingerprint:
                return False
            if features.table.transaction != self.stands_at(source.table):
                return False
        if what.startswith("account"):
            parts = [
                PublishedPart(transaction=self.stands_at(part), version=0, files=())
                for part in (step.table, step.quarantine)
            ]
            self.state.put_published_day(
                PublishedDay(
                    pipeline="sim",
                    day=day,
                    step=name,
                    run_id=run.id,
                    finished_at=datetime.now(UTC),
                    fingerprint=fingerprint,
                    code="c",
                    shards=(),
                    table=parts[0],
                    quarantine=parts[1],
                )
            )
            return True
        part = step.quarantine if what.startswith("quarantine") else step.table
        if self.contents.get((part.transaction, day)) != fingerprint:
            self.contents[part.transaction, day] = fingerprint
            self.transactions[part.transaction] += 1
        return True

    # the history

    def play(self) -> None:
        """Disturbed for a while, then calm until nothing more happens; then look."""
        weights = {
            self.upload: 6,
            self.correction: 3,
            self.again: 1,
            self.and_back: 2,
            self.multipart: 2,
            self.deletion: 1,
            self.bad_key: 0.5,
        }
        if self.habits.crowded:
            self.crowd()
        wipe_at = self.random.randrange(self.habits.steps) if self.habits.wipes_runs else -1
        for step in range(self.habits.steps):
            for _ in range(self.random.choice((0, 0, 0, 1, 1, 2))):
                self.random.choices(list(weights), list(weights.values()))[0]()
            if self.random.random() < self.habits.wipes_cursor:
                self.cursor = None
                self.note("the cursor is wiped")
            if self.random.random() < self.habits.jumps:
                self.jumped = self.random.choice((0.0, self.random.uniform(-2, 2) * 86400))
                self.note(f"the daemon's clock is off by {self.jumped:.0f} s")
            if step == wipe_at:
                self.note("the run records are wiped")
                self.forgotten, self.runs, self.run_keys = self.runs, [], set()
            self.tick()
            self.pass_time(self.random.choice((5, PAUSE, PAUSE, 120)))
        self.is_calm = True
        self.note("calm")
        self.settle_down()
        self.validate()

    def settle_down(self) -> None:
        """Until a long time has gone by in which nothing was requested; the clock is right again."""
        self.jumped = 0.0
        quiet = 0
        while quiet < 25 or self.hidden:
            before = len(self.runs)
            self.tick()
            busy = any(run.status == "queued" or (run.status == "started" and not run.is_dead) for run in self.runs)
            quiet = 0 if len(self.runs) > before or busy else quiet + 1
            self.pass_time(BOUNDS.max_runtime / 20)

    def validate(self) -> None:
        days = sorted({path[3:13] for path in self.landing.files if path.startswith("dt=2024-0") and path[13] == "/"})
        self.figures.days = len(days)
        for day in days:
            files = self.files_of(day)
            if not files or self.is_settled(day):
                tables = [DayStep(PIPELINE, day, step).table for step in ("validated_features", "predictions")]
                held = {self.contents.get((table.transaction, day)) for table in tables}
                if files and held != {landing_files.fingerprint(files)}:
                    self.figures.wrong_days.append(f"seed {self.seed}: {day} is settled, and of other files")
                continue
            pinned = self.state.day_inputs([day])
            stands = freshness.fingerprints(PIPELINE, [day]).get(day)
            if not any(p.fingerprint == stands and freshness.is_rest_of(files, p) for p in pinned):
                self.figures.wrong_days.append(f"seed {self.seed}: {day} is not of its files")
        # one that is forgotten while it is on is asked for again, and one that seems to be on for longer than it may
        is_excused = bool(self.forgotten or self.habits.jumps)
        needless = [f"seed {self.seed}: {run.id} of {run.day}" for run in self.runs if run.is_needless]
        self.figures.needless += [] if is_excused else needless
        self.figures.twice += len(needless) if is_excused else 0


def _pipeline() -> Pipeline:
    declared = PipelineSpec.model_validate(
        {
            "name": "sim",
            "description": "a bucket",
            "partitions": {"start": FIRST},
            "input": {"key": "id"},
            "features": {"schema": "schema:Rows", "numeric": ["x"]},
            "model": {"bundle": "sim/models/v1", "network": "network:Net"},
            "uploads": {"recent_days": 3, "older_days": 2, "runs_per_tick": 3},
            "events": {"queue": QUEUE},
            "runs": {"max_hours": 1},
        }
    )
    return Pipeline(declared, Path(), "none", ROOT)


PIPELINE = _pipeline()
BOUNDS = Bounds(max_runtime=3600.0)
INSTANCE: Any = SimpleNamespace(run_monitoring_max_runtime_seconds=3600)


def play(seed: int, habits: Habits | None = None, without: Sequence[tuple[object, str, Any]] = ()) -> World:
    """One history; of the seed's own kind if no habits are given. `without`: patches that take a rule out."""
    rng = random.Random(~seed)
    world = World(
        seed,
        habits
        or Habits(
            door=rng.choice(("uploads", "uploads", "events")),
            days=rng.choice((3, 12, 25)),
            crowded=rng.random() < 0.05,
            wipes_runs=rng.random() < 0.3,
            steps=rng.choice((30, 60)),
            jumps=rng.choice((0, 0, 0.1)),
        ),
    )
    substitutes: list[tuple[object, str, Any]] = [
        (pipeline, "open_folder", world.folder),
        (MemoryFolder, "subfolder", lambda folder, path: world.folder(f"{folder.uri}/{path}")),
        (freshness, "_transactions", lambda _pipeline, **_: world.stands_at),
        (run_history, "of_day", world.of_day),
        (run_history, "current_code", lambda _pipeline: CODE),
        (landing_scan, "call_within", lambda _seconds, _caller, call: call()),
        (sqs, "call_within", lambda _seconds, _caller, call: call()),
        (sqs, "time", SimpleNamespace(time=world.clock)),
        (aws, "client", lambda _service: world.queue),
        *without,
    ]
    with replaced(substitutes):
        world.play()
    return world


def play_all(seeds: Sequence[int], without: Callable[[], Sequence[tuple[object, str, Any]]] = tuple) -> Iterator[World]:
    """Play histories."""
    return (play(seed, without=without()) for seed in seeds)


def main() -> int:
    """Exit code 1 if a day is wrong or was run in vain."""
    parser = argparse.ArgumentParser(prog="python -m batch_scoring_tests.simulation.bucket", description=__doc__)
    parser.add_argument("--histories", type=int, default=300)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--show", action="store_true", help="print the first history that went wrong")
    options = parser.parse_args()
    total, began = Figures(), perf_counter()
    for world in play_all(range(options.first, options.first + options.histories)):
        is_first = not (total.wrong_days or total.needless)
        total.add(world.figures)
        if options.show and is_first and (total.wrong_days or total.needless):
            print("\n".join(world.trace))
    print(summary(total), f"({perf_counter() - began:.0f} s)")
    print(*total.wrong_days[:20], *total.needless[:20], sep="\n")
    return int(bool(total.wrong_days or total.needless))


def summary(total: Figures) -> str:
    """What is printed of histories."""
    return (
        f"{total.histories} histories, {total.ticks} ticks, {total.days} days: {len(total.wrong_days)} days whose "
        f"predictions do not match their files, {len(total.needless)} runs more than needed; of {total.runs} runs "
        f"{total.failed} failed, {total.superseded} were superseded, {total.overtaken} began when the old files were "
        f"back, {total.twice} were asked for again since the records of those that were on had been wiped or the clock "
        "had jumped"
    )


if __name__ == "__main__":
    sys.exit(main())
