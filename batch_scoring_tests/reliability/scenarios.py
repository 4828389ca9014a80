"""The scenarios: each repeats an operation on real days, and reports what it observed."""

import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from pathlib import Path

import dagster as dg

from batch_scoring.cli.backfill.run_days import DayOutcome
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import score as scored_day
from batch_scoring.daily import validate
from batch_scoring.daily.publish import DayStep, check_input
from batch_scoring.defs.assets import raw_input
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.registry import activate
from batch_scoring.monitoring.checks.input_checks import find
from batch_scoring.operations.dead_runs import end_dead_runs
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import State
from batch_scoring.tables import read_day
from batch_scoring_tests.reliability.audit import (
    Foretold,
    audit,
    finished_shards,
    foretell,
    runs_of,
    signature,
    some_rows,
    versions,
)
from batch_scoring_tests.reliability.processes import Child, Site, run_elsewhere, site_of
from batch_scoring_tests.reliability.proxy import COMMIT, Fault
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject

ROWS, ROWS_PER_SHARD = 1200, 50


@dataclass
class Report:
    """What a scenario saw."""

    scenario: str
    trials: int = 0
    violations: list[str] = field(default_factory=list)
    reused: int = 0
    """Shards taken over from runs that did not end well."""
    seconds: float = 0.0
    notes: str = ""

    @contextmanager
    def timed(self) -> Iterator["Report"]:
        """Count the time of the scenario itself."""
        began = time.monotonic()
        try:
            yield self
        finally:
            self.seconds = time.monotonic() - began

    def expect(self, holds: bool, otherwise: str) -> None:
        """Note a violation."""
        if not holds:
            self.violations.append(f"trial {self.trials}: {otherwise}")

    def expect_success(self, outcomes: list[DayOutcome]) -> None:
        """Every day must have been scored."""
        for outcome in outcomes:
            self.expect(outcome.error is None, f"{outcome.day} failed: {outcome.error}")


class Work:
    """A tiny project whose days always have something new to do."""

    def __init__(
        self,
        folder: Path,
        data_root: str | None = None,
        environment: dict[str, str] | None = None,
        rows_per_shard: int = ROWS_PER_SHARD,
    ) -> None:
        os.environ.update(environment or {})
        folder.mkdir(parents=True, exist_ok=True)
        self.project = TinyProject(folder, data_root)
        self.project.spec["scoring"]["rows_per_shard"] = rows_per_shard
        self.version = 1
        self.project.deliver("v1")
        self.site: Site = site_of(self.project, environment)
        self._corrections = 0

    @property
    def pipeline(self) -> Pipeline:
        """As it is declared now."""
        return self.project.pipeline

    def land(self, *days: str) -> None:
        """Two files a day that share a few keys."""
        for day in days:
            self.project.land(day, some_rows(self.project, ROWS), "a.parquet")
            self.project.land(day, some_rows(self.project, ROWS // 2, start=ROWS - 20), "b.parquet")

    def promote(self) -> None:
        """A new model: every shard of predictions is new."""
        self.version += 1
        self.project.deliver(f"v{self.version}", seed=self.version)

    def correct(self, day: str) -> None:
        """A file of corrections comes, or comes again: some shards are new in both tables."""
        self._corrections += 1
        rows = some_rows(self.project, ROWS // 2, start=100, shift=0.1 * self._corrections)
        self.project.land(day, rows, "corrections.parquet")


def killed(folder: Path, trials: int, seed: int = 0) -> Report:
    """Kill -9 at random moments of the work, each followed by a run under a time limit."""
    dice, report = random.Random(seed), Report("killed at a random moment, run again")
    work = Work(folder)
    site = work.site.at_home(folder)
    work.land(DAY)
    changes = [work.promote, lambda: work.correct(DAY)]
    report.expect_success(run_elsewhere(site, DAY))
    steps = []  # files that each kind of change writes
    for change in changes:
        before = _files_written(work.pipeline)
        change()
        report.expect_success(run_elsewhere(site, DAY))
        steps.append(_files_written(work.pipeline) - before)
    reached = dict.fromkeys(("before the first shard", "in features", "in predictions", "after the commits"), 0)
    with report.timed():
        while report.trials < trials and len(report.violations) < 10:
            kind = report.trials % 2
            changes[kind]()
            pipeline = work.pipeline
            old, before, started = signature(pipeline, DAY), finished_shards(pipeline, DAY), _files_written(pipeline)
            target = started + dice.randint(0, steps[kind])
            child = Child(site, [DAY]).go()
            pause = dice.uniform(0.0, 0.5 if target == started else 0.02)
            if not child.kill_when(partial(_has_written, pipeline, target), pause):
                report.expect_success(child.outcomes())  # it was faster, and so is no trial
                continue
            report.trials += 1
            seen, left = signature(pipeline, DAY), finished_shards(pipeline, DAY)
            done = {name: runs for name, runs in left.items() if name not in before}
            report.expect_success(run_elsewhere(site, DAY, limit=60))
            report.violations += audit(pipeline, DAY)
            new = signature(pipeline, DAY)
            report.expect(seen in (old, new), f"a reader saw {seen}, neither {old} nor {new}")
            report.expect(old != new, "the trial had nothing to do")
            used = published_shards(pipeline, DAY)
            for name, runs in done.items():
                report.expect(used.get(name) in runs, f"{name} was finished by {runs} and done again")
                report.reused += used.get(name) in runs
            tables = {name.split("/")[0] for name in done}
            last = (
                "in predictions" if "predictions" in tables else "in features" if tables else "before the first shard"
            )
            reached["after the commits" if seen == new else last] += 1
    with dg.DagsterInstance.from_config(site.environment["DAGSTER_HOME"]) as instance:
        dead = len(end_dead_runs(instance))
        left = instance.get_runs_count(dg.RunsFilter(statuses=[dg.DagsterRunStatus.STARTED]))
        report.expect(not left, f"{left} dead runs would hold their slots of the queue")
    died = ", ".join(f"{count} {where}" for where, count in reached.items())
    report.notes = f"died {died}; {dead} dead runs were found and ended"
    return report


def _has_written(pipeline: Pipeline, files: int) -> bool:
    return _files_written(pipeline) >= files


def _files_written(pipeline: Pipeline) -> int:
    """Files of the tables; they are never removed, so each shard and each commit raises it."""
    return sum(
        not name.endswith(".tmp") for _, _, names in os.walk(Path(pipeline.output.uri, "tables")) for name in names
    )


def raced(folder: Path, trials: int, seed: int = 0) -> Report:
    """The same day from two processes at once; every other time a file comes between their starts."""
    dice, report = random.Random(seed), Report("one day from two processes at once")
    work = Work(folder)
    site = work.site.at_home(folder)
    work.land(DAY)
    report.expect_success(run_elsewhere(site, DAY))
    shards = len(published_shards(work.pipeline, DAY))
    gave_way = reads = 0
    with report.timed():
        for report.trials in range(1, trials + 1):
            work.promote()
            pipeline = work.pipeline
            known = [published(pipeline, DAY), foretell(pipeline, DAY)]
            children = [Child(site, [DAY]), Child(site, [DAY])]
            started, target = _files_written(pipeline), dice.randint(0, shards // 2 + 2)
            children[0].go()
            if report.trials % 2 == 0:
                while not _has_written(pipeline, started + target) and children[0].is_running:
                    time.sleep(0.001)
                work.correct(DAY)
                known.append(foretell(pipeline, DAY))
            children[1].go()
            with watching(pipeline, DAY, known) as seen:
                ends = [child.outcomes()[0] for child in children]
            reads += seen.reads
            report.expect(not seen.strange, f"{seen.strange} of {seen.reads} reads saw a mix")
            for end in ends:
                if end.error:
                    report.expect(_gives_way(end.error), f"failed otherwise than by giving way: {end.error}")
                    gave_way += 1
                    report.expect_success(run_elsewhere(site, DAY))
            report.violations += audit(pipeline, DAY)
    report.notes = f"{gave_way} of {2 * trials} runs gave way and were run again; {reads} reads meanwhile, each whole"
    return report


def _gives_way(error: str) -> bool:
    """Whether a run ended because another one of its day had been there, and says what to do."""
    return "superseded" in error or error.endswith(f"for {DAY} first")


def published_shards(pipeline: Pipeline, day: str) -> dict[str, str]:
    """Run id of every shard that the day's accounts name."""
    state = State(pipeline.output)
    return runs_of(state.published_day("validated_features", day)) | runs_of(state.published_day("predictions", day))


def published(pipeline: Pipeline, day: str) -> Foretold:
    """What a reader sees now."""
    rows = read_day(pipeline, day)
    return Foretold(rows["id"].to_pylist(), rows["model_version"][0].as_py(), rows["prob_class_1"].to_numpy())


@dataclass
class Watch:
    """What a reader saw who read all the time."""

    reads: int = 0
    strange: int = 0


@contextmanager
def watching(pipeline: Pipeline, day: str, known: list[Foretold]) -> Iterator[Watch]:
    """Read a day again and again while the block runs."""
    watch, over = Watch(), threading.Event()

    def look() -> None:
        while not over.is_set():
            rows = read_day(pipeline, day)
            watch.reads += 1
            watch.strange += not any(state.is_seen_in(rows) for state in known)
            over.wait(0.02)

    reader = threading.Thread(target=look)
    reader.start()
    try:
        yield watch
    finally:
        over.set()
        reader.join()


def rescored(folder: Path, days: int, processes: int, store: Store | None = None) -> Report:
    """Published days scored again by many processes at once, because a new model came."""
    report = Report(f"{days} days re-scored by {processes} processes, {'S3' if store else 'disk'}", trials=days)
    environment = store.environment if store else {}
    work = Work(folder, f"s3://{store.new_bucket()}/data" if store else None, environment, rows_per_shard=1000)
    wanted = [f"2024-03-{1 + n:02d}" for n in range(days)]
    work.land(*wanted)
    for child in [Child(work.site, wanted[n::2]).go() for n in range(2)]:
        report.expect_success(child.outcomes(300))
    work.promote()
    children = [Child(work.site, wanted[n::processes]) for n in range(processes)]
    refused = store.proxy.commits_refused if store else 0
    with report.timed():
        for child in children:
            child.go()
        for child in children:
            report.expect_success(child.outcomes(300))
    for day in wanted:
        report.violations += audit(work.pipeline, day)
    if store:
        commits = 2 * days  # the quarantine's stage `score`, and the predictions
        report.notes = f"{(store.proxy.commits_refused - refused + commits) / commits:.1f} attempts a commit"
    return report


FAULTS = {
    "the answer to a commit is lost": [Fault("lose answer", COMMIT, times=1)],
    "the answers to three commits are lost": [Fault("lose answer", COMMIT, times=3)],
    "a commit is reset": [Fault("reset", COMMIT, times=1)],
    "four commits are reset": [Fault("reset", COMMIT, times=4)],
    "commits meet 503 for five seconds": [Fault("503", COMMIT, seconds=5)],
    "everything meets 503 for two seconds": [Fault("503", seconds=2, skip=10)],
    "uploads lose their answers": [Fault("lose answer", r"^(PUT|POST) .*\.parquet", chance=0.3)],
    "bodies are cut short": [Fault("cut short", r"^GET .*\.(parquet|json|safetensors)", chance=0.2)],
    "accounts meet 500": [Fault("500", r"^PUT .*/state/", chance=0.4)],
    "all at once": [
        Fault("503", chance=0.05),
        Fault("500", chance=0.03),
        Fault("reset", chance=0.03),
        Fault("lose answer", chance=0.02),
        Fault("cut short", "^GET", chance=0.03),
        Fault("delay", chance=0.1, seconds=0.05),
    ],
}
"""What S3 does to a run, by what it is called."""


def faulted(folder: Path, store: Store, rounds: int = 1, names: Sequence[str] = tuple(FAULTS)) -> Report:
    """Days on an S3 that fails: each run must come through, and its day be right."""
    report = Report("S3 fails while a day runs")
    work = Work(folder, f"s3://{store.new_bucket()}/data", store.environment, rows_per_shard=200)
    work.land(DAY)
    report.expect_success(run_elsewhere(work.site, DAY))
    hits = 0
    with report.timed():
        for name in [name for _ in range(rounds) for name in names]:
            report.trials += 1
            (work.promote if report.trials % 2 else lambda: work.correct(DAY))()
            known = [published(work.pipeline, DAY), foretell(work.pipeline, DAY)]
            store.proxy.faults = faults = [replace(fault) for fault in FAULTS[name]]
            child = Child(work.site, [DAY]).go()
            try:
                ends = child.outcomes(120)
            finally:
                store.proxy.faults = []
            hits += sum(fault.hits for fault in faults)
            report.expect(all(fault.hits for fault in faults), f"{name}: a fault never struck")
            report.expect(ends[0].error is None, f"{name}: the run failed: {ends[0].error}")
            rows = read_day(work.pipeline, DAY)
            report.expect(any(state.is_seen_in(rows) for state in known), f"{name}: a reader sees a mix")
            if ends[0].error:
                report.expect_success(run_elsewhere(work.site, DAY))
            report.violations += [f"{name}: {fault}" for fault in audit(work.pipeline, DAY)]
            before = versions(work.pipeline)
            if report.trials % 5 == 0:
                report.expect_success(run_elsewhere(work.site, DAY))
                report.expect(versions(work.pipeline) == before, f"{name}: an unchanged day was committed again")
    report.notes = f"{hits} requests spoilt"
    return report


def long_lived(folder: Path, days: int) -> Report:
    """A table with hundreds of commits whose log is over a month old: checkpoints must not take its history."""
    report = Report(f"{days} days in one table, its log 40 days old", trials=days)
    work = Work(folder, rows_per_shard=1000)
    first = date(2024, 3, 1)
    wanted = [(first + timedelta(days=n)).isoformat() for n in range(days)]
    pipeline = work.pipeline
    tables = [DayStep(pipeline, DAY, name).table.table for name in ("validated_features", "predictions")]
    with report.timed():
        for number, day in enumerate(wanted):
            work.project.land(day, work.project.rows(5 + number % 3, start=number))
            score(pipeline, day, run_id=f"run-{day}")
            if number % 10 == 9:  # just after a checkpoint: what came before it may be deleted
                for table in tables:
                    _age(Path(table.folder.uri, "_delta_log"), 40 * 86400)
        for table in tables:
            delta = table.load()
            report.expect(delta is not None, f"{table.name} is not there")
            lineage = {entry.get("run_id"): entry for entry in delta.history()} if delta else {}
            lost = [day for day in wanted if "input_fingerprint" not in lineage.get(f"run-{day}", {})]
            report.expect(not lost, f"{table.name} has no lineage of {len(lost)} days, the first is {lost[:1]}")
            checkpoints = len(list(Path(table.folder.uri, "_delta_log").glob("*.checkpoint.parquet")))
            report.expect(checkpoints >= days // 10, f"{table.name} has {checkpoints} checkpoints")
            published_days = State(pipeline.output).published_days(table.name)  # type: ignore[arg-type]
            report.expect(
                [published_day.day for published_day in published_days] == wanted, f"{table.name}: accounts are missing"
            )
            right = [5 + number % 3 for number in range(days)]
            report.expect(
                [published_day.rows for published_day in published_days] == right,
                f"{table.name}: accounts have other rows",
            )
            for day in wanted[:: max(1, days // 40)]:
                step = DayStep(pipeline, day, table.name)  # type: ignore[arg-type]
                published_day = step.state.published_day(step.name, day)
                stands = published_day and step.published(
                    published_day.fingerprint, published_day.code, published_day.model_sha256
                )
                report.expect(bool(stands), f"{table.name} {day} would be published again")
    report.notes = f"{checkpoints} checkpoints a table"
    return report


def score(pipeline: Pipeline, day: str, run_id: str) -> None:
    """The steps of a day without Dagster around them."""
    run = StepContext(run_id, datetime.now(UTC), lambda _: None)
    state = State(pipeline.output)
    if state.model_or_none() is None:
        activate(pipeline, read_bundle(pipeline.bundle), run)
    pinned = raw_input.pin(pipeline, day, find(pipeline, day), run_id, run.started)
    step = DayStep(pipeline, day, "validated_features")
    prepared = validate.prepare(step, pinned, run)
    step.publish(
        prepared,
        run,
        fingerprint=pinned.fingerprint,
        code=pipeline.features_code,
        model=None,
        check_current=lambda: check_input(pipeline, pinned, may_be_archived=False),
    )
    step = DayStep(pipeline, day, "predictions")
    source = scored_day.read_source(step)
    prepared = scored_day.prepare(step, source, run)
    step.publish(
        prepared,
        run,
        fingerprint=pinned.fingerprint,
        code=pipeline.scoring_code,
        model=source.model,
        check_current=lambda: scored_day.check_current(step, source),
    )


def _age(log: Path, seconds: float) -> None:
    for file in log.iterdir():
        then = time.time() - seconds
        os.utime(file, (then, then))


_READER = """
import sys
import batch_scoring.pipelines
from batch_scoring.config.loader import load_pipelines
from batch_scoring.tables import read_day
packages, root, day, rows = sys.argv[1:]
assert read_day(load_pipelines(__import__("pathlib").Path(packages), root)[0], day).num_rows == int(rows)
"""
_SCORER = """
import pathlib, sys
import dagster as dg
import batch_scoring.pipelines
from batch_scoring.config.names import job_name
from batch_scoring.cli.backfill.run_days import run_day
from batch_scoring.definitions import deploy
from batch_scoring.config.loader import load_pipelines
packages, root, day, _ = sys.argv[1:]
batch_scoring.pipelines.__path__.append(packages)
[pipeline] = load_pipelines(pathlib.Path(packages), root)
with dg.DagsterInstance.ephemeral() as instance:
    outcome = run_day(pipeline, deploy([pipeline]).resolve_job_def(job_name(pipeline)), day, instance)
sys.exit(f"failed: {outcome.error}" if outcome.error else 0)
"""


def ended(folder: Path, trials: int, store: Store | None = None) -> Report:
    """Short processes that read a day, and one in ten that scores one: how they end."""
    report = Report(f"short processes end with 0, {'S3' if store else 'disk'}")
    environment = store.environment if store else {}
    work = Work(folder, f"s3://{store.new_bucket()}/data" if store else None, environment, rows_per_shard=200)
    work.land(DAY)
    report.expect_success(run_elsewhere(work.site, DAY))
    rows = read_day(work.pipeline, DAY).num_rows
    with report.timed(), ThreadPoolExecutor(2) as pool:

        def start(trial: int) -> subprocess.CompletedProcess[str]:
            script = _SCORER if trial % 10 == 0 else _READER
            command = [sys.executable, "-c", script, work.site.packages, work.site.data_root, DAY, str(rows)]
            return subprocess.run(
                command, env=os.environ | environment, cwd=PROJECT, capture_output=True, text=True, timeout=120
            )

        for ending in pool.map(start, range(trials)):
            report.trials += 1
            report.expect(ending.returncode == 0, f"exit code {ending.returncode}: {ending.stderr[-300:]}")
    return report
