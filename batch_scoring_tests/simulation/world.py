"""The world of one history: a clock, tasks that take turns, faults, changes to the landing folder, and the guarantees.

A *task* is a process: it runs until it reaches a storage operation; there another task may get its turn, the landing
folder or a table may be changed, the process may die, and the response may be lost. `turns.py` is how they take turns;
storage is provided by `memory.py` and `real.py`, the processes by `history.py`.
"""

import contextlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Protocol

import pyarrow as pa
from deltalake.exceptions import DeltaError
from deltalake.transaction import AddAction

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep
from batch_scoring.ingest import landing_files
from batch_scoring.storage import delta, shards
from batch_scoring.storage.state import State
from batch_scoring_tests.simulation.turns import DEATHS, FAULTS, Crash, Errors, Fault, Process, Turns

DAY, OTHER_DAY = "2024-03-04", "2024-03-05"
NAMES = ("validated_features", "quarantine", "predictions")
VACUUM_AFTER = timedelta(days=7)

GOOD, REJECTED, POISON = 0, 1, 10
"""What becomes of a landing row; POISON + n: model n cannot score it."""

Row = tuple[Any, ...]


@dataclass(frozen=True)
class Model:
    """A delivered model."""

    number: int

    @property
    def version(self) -> str:
        """Its name in every scored row."""
        return f"v{self.number}"

    @property
    def sha256(self) -> str:
        """Its identity."""
        return f"{self.number:064x}"

    @property
    def outputs(self) -> int:
        """The third model has a class more: a column more."""
        return 3 if self.number == 3 else 2


MODELS = (Model(1), Model(2), Model(3))


@dataclass(frozen=True)
class Habits:
    """How eventful a history is."""

    events: dict[str, float]
    """Weights of what others do, by name of `World`'s method."""
    event: float = 0.02
    """Chance at a storage operation that others do something."""
    hot: float = 6
    """How many times likelier that is where a process loads a table or commits."""
    fault: float = 0.005
    """Chance at a storage operation that it fails, or that its process dies."""
    switch: float = 0.2
    """Chance at a storage operation that another process goes on; more where it commits."""
    runs: tuple[int, ...] = (1, 1, 1, 2, 2, 3)
    """At once."""
    partial: float = 0.3
    """Share of runs that are of some assets only."""
    waits: float = 0.3
    """Chance that days go by before a group of runs, which is then likelier to meet a vacuum."""
    groups: tuple[int, ...] = (1, 2, 2, 3)
    """Of runs, one after another."""


class Store(Protocol):
    """Where a history's bytes are."""

    def land(self, name: str, content: int, modified: datetime) -> None: ...
    def unland(self, name: str) -> None: ...
    def rows(self, table: str) -> list[Row]: ...
    def snapshot(self, part: delta.Part) -> delta.Snapshot: ...
    def exists(self, table: str, path: str) -> bool: ...
    def young(self, table: str, path: str) -> bool: ...
    def version(self, table: str) -> int: ...
    def compact(self, table: str) -> bool: ...
    def restore(self, table: str, version: int) -> bool: ...
    def delete_day(self, table: str) -> bool: ...
    def other_day(self, table: str) -> bool: ...
    def vacuum(self, table: str) -> bool: ...
    def doomed(self, table: str) -> list[str]: ...
    def unlink(self, table: str, path: str) -> None: ...


class Task(Process):
    """A process of a run."""

    def __init__(self, world: "World", name: str, work: Callable[["Task"], None]) -> None:
        super().__init__(world, name, work)
        self.pauses = self.commits = 0
        self.checked = 0
        """Number of the operation that listed the landing last."""
        self.since = 0
        """Number of the first operation of the step that it is in."""
        self.rejected: list[str] = []
        """Quarantine files that it has written since its last shard."""


class World(Turns[Task]):
    """One history."""

    def __init__(self, seed: int, habits: Habits, honest_errors: Errors) -> None:
        super().__init__(seed, honest_errors, faults=6, events=12)
        self.habits = habits
        self.now = datetime.now(UTC).replace(microsecond=0) - timedelta(days=90)
        self.operations = 0

        self.pipeline: Pipeline
        self.store: Store
        self.delivered = MODELS[0]
        self.contents: dict[int, list[tuple[str, int, int]]] = {}
        """(key, x, fate) of each row by content number; x names a row of a content."""
        self.landed: dict[str, tuple[int, datetime]] = {}
        """Content and time of each landing file."""
        self.before: dict[str, list[int]] = {}
        self._x = 0
        self.legal: dict[str, set[frozenset[Row]]] = {"validated_features": set(), "predictions": set()}
        """Every whole state of a day that a reader may see."""
        self._accepted: dict[str, list[list[Row]]] = {}
        """The accepted rows by fingerprint; several where files of other ages had the same names and tokens."""
        self.was_empty = {name: True for name in NAMES}
        self.complete: dict[tuple[str, str], list[tuple[int, str, tuple[str, ...]]]] = {}
        """Shards written, by table and identity: number of the operation, path, quarantine files."""
        self._serial = 0
        self._focus = ""  # the table that a process is about to commit to
        self.committed_at = dict.fromkeys(NAMES, 0)
        self.vacuum_is_on = False
        """Another engine's VACUUM is among the processes. It leaves no commit, so the protocol can't know of it: a run
        that stops for a week between writing a shard and committing it, or a RESTORE, is not saved from it."""
        self.writes = self.commits = self.published_days = 0

    # turns

    def pause(self, _seconds: float = 0.0) -> None:
        """A process waits before it tries again; no time passes."""
        task = self.running
        if task is None:
            return
        task.pauses += 1
        if task.pauses > 80:
            self.violate(f"{task.name} tries for ever")
            raise Crash
        if not self._is_quiet:
            self._may_lose_its_turn(task, "")

    def _may_lose_its_turn(self, task: Task, what: str) -> None:
        self._go_on(task)
        verb, _, table = what.partition(" ")
        if verb not in ("commit", "load"):
            table = ""
        lose = min(0.5, self.habits.switch * (6 if verb == "commit" else 1))
        self._focus = table
        is_disturbed = self._may_happen(task, self.habits.event * (self.habits.hot if table else 1))
        self._focus = ""
        self._may_give_way(task, max(lose, 0.5) if is_disturbed else lose)

    def _fault(self, what: str, errors: Errors) -> Fault:
        self.operations += 1
        if what == "list landing" and self.running:
            self.running.checked = self.operations
        is_faulty = self.random.random() < self.habits.fault and self.faults_left > 0 and not self.is_calm
        return self.random.choice(FAULTS if errors else DEATHS) if is_faulty else ""

    def _error(self, errors: Errors) -> type[Exception]:
        return self.random.choice(errors)

    # what others do

    def happen(self) -> None:
        """Somebody does something."""
        weights = self.habits.events
        name = self.random.choices(list(weights), list(weights.values()))[0]
        getattr(self, name)()

    def _new_content(self) -> int:
        rows = []
        for index in range(self.random.choice((1, 2, 2, 3, 4))):
            self._x += 1
            own = f"own{self._x}"
            shared = f"k{self.random.randrange(4)}"
            fates = (GOOD, GOOD, GOOD, REJECTED, POISON + 1, POISON + 2)
            # the first row of a file can always be scored: some row of every day is
            rows.append((own, self._x, GOOD) if index == 0 else (shared, self._x, self.random.choice(fates)))
        self.contents[len(self.contents) + 1] = rows
        return len(self.contents)

    def _land(self, name: str, content: int, what: str) -> None:
        self.now += timedelta(seconds=1)
        self.note(f"{what} {name}: content {content}")
        self.store.land(name, content, self.now)
        self._listed()

    def _listed(self) -> None:
        """The landing has changed: its rows make another state that a reader may come to see."""
        files = landing_files.list_day(self.pipeline.landing, DAY)
        contents = {file.path.split("/")[1]: file.modified for file in files}
        self.landed = {name: (self.landed_content(name), modified) for name, modified in contents.items()}
        if files:
            accepted, _ = self.expected()
            self._accepted.setdefault(landing_files.fingerprint(files), []).append(accepted)
            self.legal["validated_features"].add(self._features(accepted))
            for model in MODELS:
                self.legal["predictions"].add(self.scored(accepted, model))
        self.check_settled()

    def landed_content(self, name: str) -> int:
        """The content that was landed last under a name."""
        return self.before[name][-1]

    def late_file(self) -> None:
        """A new file, now and then a copy of another one."""
        free = [name for name in ("a.parquet", "b.parquet", "c.parquet", "d.parquet") if name not in self.landed]
        if not free:
            return self.corrected_file()
        name = self.random.choice(free)
        copied = self.landed and self.random.random() < 0.3
        content = self.landed_content(self.random.choice(sorted(self.landed))) if copied else self._new_content()
        self.before.setdefault(name, []).append(content)
        return self._land(name, content, "late file")

    def corrected_file(self) -> None:
        """The same path, new content."""
        if self.landed:
            name = self.random.choice(sorted(self.landed))
            self.before[name].append(self._new_content())
            self._land(name, self.landed_content(name), "corrected file")

    def file_back(self) -> None:
        """A -> B -> A: the content before the last one, under the version token that it had."""
        names = sorted(name for name in self.landed if len(self.before[name]) > 1)
        if names:
            name = self.random.choice(names)
            self.before[name].append(self.before[name][-2])
            self._land(name, self.landed_content(name), "back again")

    def file_again(self) -> None:
        """The same content uploaded once more."""
        if self.landed:
            name = self.random.choice(sorted(self.landed))
            self._land(name, self.landed_content(name), "uploaded again")

    def file_removed(self) -> None:
        """A file goes; another one stays."""
        if len(self.landed) > 1:
            name = self.random.choice(sorted(self.landed))
            self.note(f"removed {name}")
            self.store.unland(name)
            self._listed()

    def archived(self) -> None:
        """All files go."""
        self.note("landing archived")
        for name in sorted(self.landed):
            self.store.unland(name)
        self._listed()

    def promotion(self) -> None:
        """Another model is delivered; the next run puts it in force."""
        self.delivered = self.random.choice([model for model in MODELS if model != self.delivered])
        self.note(f"model {self.delivered.version} is delivered")

    def overtaking(self) -> None:
        """Another run of the day, whole, often of newer files or another model."""
        news = self.random.choice((self.corrected_file, self.file_back, self.promotion, self.compaction, None))
        if news:
            news()
        self.operations += 1
        task, before = self.new_run(), self.running
        task.checked = self.operations
        self.running = task
        with self.quietly(), contextlib.suppress(Crash, *self.honest_errors):
            task.work(task)
        self.running = before
        self.operations += 1

    new_run: Callable[[], Task]

    def _table(self) -> str:
        return self._focus if self._focus and self.random.random() < 0.6 else self.random.choice(NAMES)

    def compaction(self) -> None:
        """Somebody's OPTIMIZE."""
        table = self._table()
        if self.store.compact(table):
            self.note(f"{table} compacted: version {self.store.version(table)}")
            self.table_changed(table, ours=False)

    def restoration(self) -> None:
        """Somebody's RESTORE."""
        table = self._table()
        newest = self.store.version(table)
        if newest > 0 and not self.vacuum_is_on:
            version = self.random.randrange(max(0, newest - 5), newest)
            if self.store.restore(table, version):
                self.note(f"{table} restored to version {version}")
                self.table_changed(table, ours=False)

    def deletion(self) -> None:
        """Somebody deletes the day from a table."""
        table = self._table()
        if self.store.delete_day(table):
            self.note(f"day deleted from {table}")
            self.table_changed(table, ours=False)

    def neighbour(self) -> None:
        """A run of another day commits."""
        table = self._table()
        if self.store.other_day(table):
            self.note(f"another day commits to {table}")

    def vacuum(self) -> None:
        """Somebody's VACUUM, at once and with its commits."""
        table = self._table()
        if self.store.vacuum(table):
            self.note(f"{table} vacuumed")
            self.table_changed(table, ours=False)

    def vacuum_slowly(self, task: Task) -> None:
        """Work of a process: a VACUUM by another engine, which lists, then removes file by file."""
        doomed = [
            (table, path)
            for table in self.random.sample(NAMES, 3)
            for path in self.operation("vacuum lists", lambda table=table: self.store.doomed(table))  # type: ignore[misc]
        ]
        self.note(f"{task.name}: will remove {len(doomed)} files")
        for _ in range(self.random.randrange(30)):  # long enough for a run to come to its commit
            self._give_way(task)
        for table, path in doomed:
            self.operation("vacuum removes", lambda file=(table, path): self._unlink(*file))  # type: ignore[misc]

    def _unlink(self, table: str, path: str) -> None:
        self.store.unlink(table, path)
        self.table_changed(table, ours=False)

    def suspended(self) -> None:
        """Days go by while processes are on; the tables are vacuumed meanwhile."""
        if not self.vacuum_is_on:
            self.wait()
            for table in NAMES:
                if self.store.vacuum(table):
                    self.note(f"{table} vacuumed")
                    self.table_changed(table, ours=False)

    def wait(self) -> None:
        """Days go by."""
        days = self.random.choice((2, 5, 9))
        self.now += timedelta(days=days)
        self.note(f"{days} days go by")

    # promises

    def expected(self) -> tuple[list[Row], Counter[int]]:
        """The landing's accepted rows, and every row of it (as x)."""
        seen: set[str] = set()
        accepted = []
        newest_first = sorted(
            ((modified, name, content) for name, (content, modified) in self.landed.items()), reverse=True
        )
        for _, _, content in newest_first:
            for key, x, fate in self.contents[content]:
                if fate != REJECTED and key not in seen:
                    seen.add(key)
                    accepted.append((key, x, fate))
        return accepted, Counter(x for _, _, content in newest_first for _, x, _ in self.contents[content])

    def is_current(self, table: str, rows: list[Row], model: Model) -> bool:
        """Whether rows are of the landing's files and that model."""
        with self.quietly():
            fingerprint = landing_files.fingerprint(landing_files.list_day(self.pipeline.landing, DAY))
        return any(
            frozenset(rows) == (self.scored(accepted, model) if table == "predictions" else self._features(accepted))
            for accepted in self._accepted.get(fingerprint, ())
        )

    @staticmethod
    def _features(accepted: list[Row]) -> frozenset[Row]:
        return frozenset((key, x) for key, x, _ in accepted)

    @staticmethod
    def scored(accepted: list[Row], model: Model) -> frozenset[Row]:
        """What a model makes of accepted rows."""
        return frozenset((key, x, model.version) for key, x, fate in accepted if fate != POISON + model.number)

    def table_changed(self, table: str, *, ours: bool) -> None:
        """A commit or a removal of files: a reader must see one whole state of the day (promise 2)."""
        rows = self.store.rows(table)
        if table != "quarantine":
            state = frozenset(rows)
            if len(state) != len(rows):
                self.violate(f"2: rows of {table} stand there twice: {self._some(Counter(rows) - Counter(state))}")
            if rows and state not in self.legal[table]:
                self.violate(f"2: {table} is a mix: {sorted(rows)}")
            if ours and not rows and not self.was_empty[table]:
                self.violate(f"2: {table} was emptied")
            self.was_empty[table] = not rows
        self.check_settled()

    def settled(self) -> bool:
        """DESIGN.md's definition: both accounts carry the listing's fingerprint, all four parts are as they say."""
        with self.quietly():
            files = landing_files.list_day(self.pipeline.landing, DAY)
            fingerprint = landing_files.fingerprint(files)
            return bool(files) and all(self._stands(step, fingerprint) for step in self.settled_by)

    settled_by: tuple[str, ...] = ("predictions", "validated_features")

    def _stands(self, name: Any, fingerprint: str) -> bool:  # noqa: ANN401
        published_day = State(self.pipeline.output).published_day(name, DAY)
        if published_day is None or published_day.fingerprint != fingerprint:
            return False
        step = DayStep(self.pipeline, DAY, name)
        return self.store.snapshot(step.table).holds(published_day.table) and self.store.snapshot(
            step.quarantine
        ).holds(published_day.quarantine)

    def check_settled(self) -> None:
        """Of a settled day every input row is in predictions or in the quarantine, exactly once (promise 1)."""
        if self.violation or not self.settled():
            return
        _, every = self.expected()
        rows = self.store.rows("predictions")
        found = Counter(row[1] for row in rows) + Counter(row[0] for row in self.store.rows("quarantine"))
        if found != every:
            self.violate(
                f"1: the day is settled; rows lost {self._some(every - found)}, too many {self._some(found - every)}"
            )

    @staticmethod
    def _some(rows: Counter[Any]) -> str:
        return str(sorted(rows.elements())[:4])

    def serial(self) -> int:
        """A number that did not come before."""
        self._serial += 1
        return self._serial

    def document_written(self, path: str) -> None:
        """A document of the state was replaced."""
        if path.endswith(("predictions.json", "validated_features.json")) and "/checks/" not in path:
            self.published_days += 1
            self.check_settled()

    def replaces_newer(self, table: str, before: list[Row]) -> None:
        """A run has committed over `before`: if that was of the present input and model, so is the day now."""
        task = self.running
        assert task is not None
        if table != "quarantine" and self.committed_at[table] > task.checked:
            in_force = State(self.pipeline.output).model_or_none()
            model = next((model for model in MODELS if in_force and model.sha256 == in_force.sha256), MODELS[0])
            if self.is_current(table, before, model) and not self.is_current(table, self.store.rows(table), model):
                self.violate(f"2: {task.name} puts older rows over the newest in {table}")
        self.committed_at[table] = self.operations

    def committed(self, table: str, version: int, actions: list[Any]) -> None:
        """A run has committed."""
        self.commits += 1
        who = self.running.name if self.running else "?"
        adds = sum(isinstance(action, AddAction) for action in actions)
        self.note(f"{who}: {table} version {version}: {adds} added, {len(actions) - adds} removed")
        if any(not action.path.startswith(f"dt={DAY}/") for action in actions):
            self.violate(f"2: {who} touches another day in {table}")
        self.table_changed(table, ours=True)
        if self.running:
            self.running.commits += 1
            if self.running.commits > 40:
                self.violate(f"{who} commits for ever")
                raise Crash

    def wrote(self, table: str, path: str) -> None:
        """A file was written into a table's folder: no finished shard is written again (promise 3)."""
        self.writes += 1
        task = self.running
        assert task is not None
        if table == "quarantine":
            task.rejected.append(path)
            return
        identity = shards.identity_of(path)
        earlier = self.complete.setdefault((table, identity), [])
        for when, other, rejected in earlier:
            files = [(table, other), *(("quarantine", name) for name in rejected)]
            if when < task.since and all(self.store.exists(*file) and self.store.young(*file) for file in files):
                self.violate(f"3: {task.name} has written {path} although {other} was finished")
        earlier.append((self.operations, path, tuple(task.rejected)))
        task.rejected = []

    def batch(self, content: int) -> pa.RecordBatch:
        """A landing content as Arrow."""
        keys, xs, fates = zip(*self.contents[content], strict=True)
        return pa.RecordBatch.from_pydict(
            {"id": pa.array(keys), "x": pa.array(xs, pa.int64()), "fate": pa.array(fates, pa.int64())}
        )


COMMIT_ERRORS = (DeltaError, OSError)
"""What a commit raises when its answer does not come."""
