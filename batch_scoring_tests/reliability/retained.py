"""Retention in a loop, beside active runs and polling readers: nobody must notice, and in the end nothing is left.

Days pass within seconds: at each step the files' modification times are moved some days into the past. All rules are as
shipped, with the smallest age that the spec accepts. A run is suspended in the middle of its work while days pass and
retention deletes; then it continues, or is killed and followed by another.
"""

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Retention
from batch_scoring.daily.tables import TABLES
from batch_scoring.operations.retention import vacuum
from batch_scoring.operations.retention.plan import limits_of
from batch_scoring.storage import shards
from batch_scoring.storage.delta import Table
from batch_scoring.tables import read_day
from batch_scoring_tests.reliability.audit import Foretold, audit, foretell, some_rows
from batch_scoring_tests.reliability.processes import Child, Site, run_elsewhere
from batch_scoring_tests.reliability.scenarios import Report, Work
from batch_scoring_tests.tiny import DAY

CONTENTS = 3
SETTINGS = Retention(quarantine_days=10)
LIMITS = limits_of(SETTINGS)
WEEK = LIMITS.superseded / timedelta(days=1)
_SERVER = multiprocessing.get_context("forkserver")


@dataclass
class Lapse:
    """Makes days pass for the files of the tables."""

    tables: Path
    days: Any = field(default_factory=lambda: _SERVER.RawValue("d", 0.0))
    """Passed so far; shared with the readers."""
    _births: dict[int, float] = field(default_factory=dict)
    """By file, which keeps its inode when it gets its name: the day on which it was first seen."""

    def files(self) -> set[str]:
        """All there are, the log too."""
        return {os.path.join(folder, name) for folder, _, names in os.walk(self.tables) for name in names}  # noqa: PTH118

    def pass_days(self, days: float) -> None:
        """Every file gets older; what comes from now on is young."""
        seen = {}
        for path in self.files():
            try:
                inode = os.stat(path).st_ino  # noqa: PTH116
                seen[inode] = born = self._births.get(inode, self.days.value)
                stamp = time.time() - (self.days.value + days - born) * 86400
                os.utime(path, (stamp, stamp))
            except FileNotFoundError:  # a scratch file, or retention was here
                continue
        self._births = seen
        self.days.value += days


@dataclass
class Staff:
    """The processes that go on all the time. What they share has no lock, which a killed one could take with it."""

    site: Site
    over: Any = field(default_factory=lambda: _SERVER.RawValue("b", 0))
    _readers: list[tuple[Any, Connection]] = field(default_factory=list)
    _keepers: list[tuple[Any, Connection, Any]] = field(default_factory=list)

    def employ(self, work: Callable[..., None], *arguments: object) -> tuple[Any, Connection]:
        """Start a process; it sends its figures and what it found strange when it is over."""
        here, there = _SERVER.Pipe()
        process = _SERVER.Process(target=work, args=(there, self.over, self.site, *arguments), daemon=True)
        process.start()
        there.close()
        return process, here

    def employ_reader(self, work: Callable[..., None], *arguments: object) -> None:
        """One who reads until all is over."""
        self._readers.append(self.employ(work, *arguments))

    def employ_keeper(self) -> None:
        """One who does retention until all is over."""
        passes = _SERVER.RawValue("i", 0)
        self._keepers.append((*self.employ(_keep_house, passes), passes))

    def kill_keeper(self) -> None:
        """Kill -9 the one who is there for longest, wherever it is, and employ another."""
        process, _, _ = self._keepers.pop(0)
        process.kill()
        process.join()
        self.employ_keeper()

    def wait_for_pass(self) -> None:
        """Until everyone who does retention has looked and deleted what he found, from now on."""
        deadline = time.monotonic() + 120
        for _, _, passes in list(self._keepers):
            wanted = passes.value + 2
            while passes.value < wanted:
                assert time.monotonic() < deadline, "retention does not go on"
                time.sleep(0.002)

    def dismiss(self) -> list[tuple[int, list[str]]]:
        """End all; what each has counted and found, the readers first."""
        self.over.value = 1
        told = []
        for process, end in [*self._readers, *((process, end) for process, end, _ in self._keepers)]:
            assert end.poll(60), "a process has died"
            told.append(end.recv())
            process.join()
        return told


def retained(folder: Path, trials: int, seed: int = 0) -> Report:
    """Corrected days again and again (A -> B -> A), some runs killed, days passing while they are at work."""
    dice, report = random.Random(seed), Report("retention beside runs and readers")
    work = Work(folder, rows_per_shard=75)
    pipeline = work.pipeline
    known = []
    for content in range(CONTENTS):
        _land(work, content)
        known.append(foretell(pipeline, DAY))
    report.expect_success(run_elsewhere(work.site, DAY))
    lapse = Lapse(Path(pipeline.output.uri, "tables"))
    staff = Staff(work.site)
    staff.employ_reader(_poll, lapse.days, known)
    staff.employ_reader(_read_slowly, lapse.days, seed)
    for _ in range(2):
        staff.employ_keeper()
    killed, seen, content = 0, lapse.files(), CONTENTS - 1
    with report.timed():
        while report.trials < trials and len(report.violations) < 10:
            report.trials += 1
            if report.trials % 3 == 2:  # what is replaced next is older than the retention
                lapse.pass_days(WEEK + 0.5)
                staff.wait_for_pass()
            content = (content + dice.choice([0, 1, 2, 2])) % CONTENTS
            _land(work, content)
            opened, began = [(table, _paths(table.load())) for table in _tables(pipeline)], lapse.days.value
            child, before = Child(work.site, [DAY]), lapse.files()
            target = dice.randint(0, 12)
            child.go()
            while child.is_running and len(lapse.files() - before) < target:
                time.sleep(0.001)
            child.stop()
            seen |= lapse.files()
            lapse.pass_days(dice.uniform(0.5, 3.0))  # what a run takes over is 3.5 days old, and a week at its end
            staff.wait_for_pass()
            child.go_on()
            if report.trials % 2 == 0:
                staff.kill_keeper()
            if report.trials % 3 != 2 and dice.random() < 0.5:
                killed += child.kill_when(lambda: True, dice.uniform(0, 0.3))
            else:
                report.expect_success(child.outcomes())
            staff.wait_for_pass()
            for table, paths in opened:  # by a reader who has held this version for all that time
                gone = [path for path in paths if not Path(table.folder.uri, path).exists()]
                passed = f"{lapse.days.value - began:.1f} days ago"
                report.expect(not gone, f"{len(gone)} files of a version of {table.name} opened {passed} are gone")
        for content in range(2):  # one of them is new: also what retention took out of the quarantine is back then
            _land(work, content)
            report.expect_success(run_elsewhere(work.site, DAY))
        report.violations += audit(pipeline, DAY)
        rows = read_day(pipeline, DAY)
        for _ in range(3):  # the second takes old rows out of the quarantine, whose files go with the third
            lapse.pass_days(WEEK + 0.1)
            staff.wait_for_pass()
        left = _shards(lapse.files())
        report.expect(left == _active(pipeline), f"{len(left - _active(pipeline))} files are left that nobody needs")
        report.expect(read_day(pipeline, DAY).equals(rows), "the rows have changed")
        (polls, odd), (slow, missing), *keepers = staff.dismiss()
    report.violations += [*odd, *missing, *(problem for _, problems in keepers for problem in problems)]
    removed = len({path for path in _shards(seen) if path.endswith(".parquet")} - left)
    report.expect(removed > 0, "retention had nothing to do")
    report.notes = (
        f"{killed} runs and {report.trials // 2} retentions killed; {removed} files removed in {lapse.days.value:.0f} "
        f"days; {polls} reads, {slow} slow ones"
    )
    return report


def _land(work: Work, content: int) -> None:
    """One of a few contents; the same files with the same tokens each time."""
    project = work.project
    project.land(DAY, some_rows(project, 600), "a.parquet")
    project.land(DAY, some_rows(project, 300, start=580), "b.parquet")
    project.land(DAY, some_rows(project, 150, start=50 * content, shift=0.1 * content), "corrections.parquet")
    for number, name in enumerate(("a", "b", "corrections")):
        stamp = 1_700_000_000 + number * 60 + content
        os.utime(Path(work.pipeline.landing.uri, f"dt={DAY}", f"{name}.parquet"), (stamp, stamp))


def _shards(files: set[str]) -> set[str]:
    return {path for path in files if "_delta_log" not in path}


def _active(pipeline: Pipeline) -> set[str]:
    return {f"{table.folder.uri}/{path}" for table in _tables(pipeline) for path in _paths(table.load())}


def _tables(pipeline: Pipeline) -> list[Table]:
    return [find_table(pipeline) for find_table in TABLES.values()]


def _paths(delta: Any) -> list[str]:  # noqa: ANN401
    return list(pa.table(delta.get_add_actions())["path"].to_pylist()) if delta else []


def _keep_house(end: Connection, over: Any, site: Site, passes: Any) -> None:  # noqa: ANN401
    """Retention, one pass after the other."""
    passed, strange, pipeline = 0, list[str](), site.pipeline()
    while not over.value:
        done = vacuum.sweep(pipeline, vacuum.look(pipeline, LIMITS), "retention")
        strange += done.problems
        passes.value = passed = passed + 1
        time.sleep(0.01)
    end.send((passed, strange[:5]))


def _poll(end: Connection, over: Any, site: Site, days: Any, known: list[Foretold]) -> None:  # noqa: ANN401
    """A reader of whole days."""
    reads, strange, pipeline = 0, [], site.pipeline()
    while not over.value:
        began = days.value
        try:
            rows = read_day(pipeline, DAY)
            if not any(content.is_seen_in(rows) for content in known):
                strange.append(f"a reader saw {rows.num_rows} rows of no content")
        except OSError as error:
            if days.value - began < WEEK:
                strange.append(f"a reader failed after {days.value - began:.1f} days: {error}")
        reads += 1
        time.sleep(0.02)
    end.send((reads, strange[:5]))


def _read_slowly(end: Connection, over: Any, site: Site, days: Any, seed: int) -> None:  # noqa: ANN401
    """Readers that open a version, and read its files days later."""
    dice, reads, strange, pipeline = random.Random(seed), 0, [], site.pipeline()
    while not over.value:
        table = TABLES[dice.choice(list(TABLES))](pipeline)
        began, patience = days.value, dice.uniform(0, 2)
        paths = _paths(table.load())
        until = time.monotonic() + patience
        while time.monotonic() < until and days.value - began < 3 and not over.value:
            time.sleep(0.01)
        for path in paths:
            try:
                for _ in shards.read(table.folder, path):
                    pass
            except OSError as error:
                if days.value - began < WEEK:
                    strange.append(f"a reader failed after {days.value - began:.1f} days: {error}")
        reads += 1
    end.send((reads, strange[:5]))
