"""Every failure class, provoked from outside under a real daemon: how the run is classified, what happens to its day.

Each case has its own project, with a day that is already scored; then something fails while newer files of that day are
scored. `python -m batch_scoring_tests.reliability failing` prints the matrix.
"""

import contextlib
import shutil
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import psutil
from dagster._core.scheduler.instigation import TickStatus

from batch_scoring.daily import freshness
from batch_scoring.errors import FailureClass
from batch_scoring.ingest import landing_files
from batch_scoring.operations import failed_runs
from batch_scoring_tests.receivers import WebServer
from batch_scoring_tests.reliability import disks
from batch_scoring_tests.reliability.audit import audit, signature, some_rows
from batch_scoring_tests.reliability.deployment import Deployment, deployed, wait_until
from batch_scoring_tests.reliability.proxy import Action, Fault
from batch_scoring_tests.reliability.scenarios import Report
from batch_scoring_tests.reliability.store import Store
from batch_scoring_tests.tiny import DAY, TinyProject

SETTINGS = {
    "concurrency": {"runs": {"max_concurrent_runs": 4}},
    "run_monitoring": {
        "enabled": True,
        "max_runtime_seconds": 21600,
        "poll_interval_seconds": 2,
        "free_slots_after_run_end_seconds": 60,
    },
}
NAP = """
        import sys, time
        frame = sys._getframe()
        while frame and frame.f_code.co_name != "score_batch":  # not while its golden rows are tried, many times
            frame = frame.f_back
        time.sleep({} if frame else 0)
"""
HUGE = "        torch.empty(64, 50_000_000)\n"
WIDE = "        torch.ones(len(numeric), {}).sum()\n"
LONG_AGO = datetime(2024, 1, 1, tzinfo=UTC)
CGROUPS = Path("/sys/fs/cgroup/memory")

Ends = Literal["right", "untouched"]
Strike = Callable[["Provoked"], None]
Watch = Callable[["Provoked", dg.DagsterInstance, Sequence[dg.DagsterRun]], None]


@dataclass
class Case:
    """Something that goes wrong."""

    name: str
    failure: FailureClass | None
    runs: int
    """Of the newer files, the good one included."""
    alerts: int
    ends: Ends
    strike: Strike
    """Lands newer files and breaks something."""
    watch: Watch = lambda _of, _instance, _runs: None
    """Is shown the runs, newest first, again and again."""
    forward: str = ""
    """What the network does besides."""
    spec: dict[str, Any] = field(default_factory=dict)
    place: Literal["disk", "small disk", "s3"] = "disk"
    seconds: float = 240


class Provoked:
    """A case at work."""

    def __init__(self, case: Case, project: TinyProject, store: Store | None, clock: Path) -> None:
        self.case, self.project, self.store, self.clock = case, project, store, clock
        self.done: set[str] = set()
        self.undo: Callable[[], None] = lambda: None
        self.before = signature(project.pipeline, DAY)
        self.runs: list[dg.DagsterRun] = []

    def once(self, name: str) -> bool:
        """Whether this is asked for the first time."""
        is_first = name not in self.done
        self.done.add(name)
        return is_first

    def land(self, name: str = "a.parquet", shift: float = 0.1, rows: int = 300) -> None:
        self.project.land(DAY, some_rows(self.project, rows, shift=shift), name)

    @property
    def is_settled(self) -> bool:
        pipeline = self.project.pipeline
        now = landing_files.fingerprint(landing_files.list_day(pipeline.landing, DAY))
        return freshness.fingerprints(pipeline, [DAY]).get(DAY) == now

    @property
    def failed(self) -> list[dg.DagsterRun]:
        return [run for run in self.runs if run.status == dg.DagsterRunStatus.FAILURE]

    @property
    def is_over(self) -> bool:
        """Whether nothing more is expected to happen."""
        if self.runs and not all(run.is_finished for run in self.runs):
            return False
        return self.is_settled if self.case.ends == "right" else len(self.runs) >= self.case.runs

    def result(self, titles: Sequence[str]) -> tuple[str, list[str]]:
        """A row of the matrix, and what is not as it should be."""
        case, faults = self.case, []
        classes = {run.tags.get(failed_runs.TAG, "none") for run in self.failed}
        alerts = [title for title in titles if title.split(" ")[0].rstrip(":") == self.project.name]
        if classes != ({case.failure} if case.failure else set()):
            faults.append(f"failed as {sorted(classes)}, expected {case.failure}")
        recorded = {record.run_id: record.failure_class for record in self.project.state.failures_since(LONG_AGO)}
        if recorded != {run.run_id: run.tags.get(failed_runs.TAG) for run in self.failed}:
            faults.append(f"the state has failures {recorded}, expected those of the failed runs")
        if (count := len(self.project.pipeline.output.list("state/failures/"))) != len(recorded):
            faults.append(f"{count} documents of {len(recorded)} failed runs, expected one each")
        if len(self.runs) != case.runs:
            faults.append(f"{len(self.runs)} runs, expected {case.runs}")
        if len(alerts) != case.alerts:
            faults.append(f"{len(alerts)} alerts, expected {case.alerts}: {alerts}")
        if case.ends == "untouched":
            ends = "untouched" if signature(self.project.pipeline, DAY) == self.before else "changed"
        else:
            wrong = ["is not settled"] if not self.is_settled else audit(self.project.pipeline, DAY)
            ends = "; ".join(wrong) or "right"
        if ends != case.ends:
            faults.append(f"the day is {ends}, expected {case.ends}")
        row = f"{case.name:44}  {', '.join(sorted(classes)):18}  {len(self.runs):>4}  {len(alerts):>6}  {ends}"
        return row, [f"{case.name}: {fault}" for fault in faults]


# what goes wrong


def lands(of: Provoked) -> None:
    of.land()


def lands_broken(of: Provoked) -> None:
    of.project.land(DAY, b"PAR1, and no more", "b.parquet")


def lands_without_column(of: Provoked) -> None:
    of.project.land(DAY, some_rows(of.project, 50).drop_columns("x"), "b.parquet")


def lands_what_nothing_can_score(of: Provoked) -> None:
    rows = of.project.rows(300)
    of.project.land(DAY, rows.set_column(1, "x", [[666.0] * 300]))


def damages_bundle(of: Provoked) -> None:
    weights = Path(of.project.pipeline.bundle.uri, "model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-10] + b"0123456789")
    of.land()


def damages_state(of: Provoked) -> None:
    file = Path(of.project.pipeline.output.uri, "state", "model.json")
    good = file.read_bytes()
    file.write_bytes(good[:20])
    of.undo = lambda: file.write_bytes(good) and None
    of.land()


def fills_disk(of: Provoked) -> None:
    of.land()
    of.undo = disks.fill(Path(of.project.data_root).parent)


def locks_disk(of: Provoked) -> None:
    of.land()
    of.undo = disks.lock(Path(of.project.data_root).parent)


def breaks_store(action: Action, on: str, seconds: float = 0.0) -> Strike:
    """The store fails for what the steps write; the sensor lists as before."""

    def strike(of: Provoked) -> None:
        assert of.store is not None
        of.land()
        bucket = of.project.data_root.removeprefix("s3://").partition("/")[0]
        fault = Fault(action, on.format(bucket), seconds=seconds)
        of.store.proxy.faults.append(fault)
        of.undo = lambda: of.store.proxy.faults.remove(fault)  # type: ignore[union-attr]

    return strike


# what is done while runs are on


def heals(of: Provoked, _instance: dg.DagsterInstance, _runs: Sequence[dg.DagsterRun]) -> None:
    """The trouble is over after the first failure."""
    if of.failed and of.once("healed"):
        of.undo()
        of.undo = lambda: None


def kills(of: Provoked, instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
    """The first run's process is killed when it has pinned its input."""
    for process in _at_work(of, instance, runs):
        if of.once("killed"):
            process.kill()


def lands_late(of: Provoked, instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
    """A file comes when the first run has pinned its input."""
    if _at_work(of, instance, runs) and of.once("late"):
        of.land("late.parquet", 0.2, 40)


def leaves_no_memory(of: Provoked, instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
    """The first run's process may not grow any more (`ulimit -v`)."""
    for process in _at_work(of, instance, runs):
        if of.once("limited"):
            limit = process.memory_info().vms + 8 * 2**30  # native code that wants a little more would abort
            process.rlimit(psutil.RLIMIT_AS, (limit, limit))


def jumps(seconds: int) -> Watch:
    """The clock of the daemon, the code server and the runs jumps while the first run is on."""

    def watch(of: Provoked, instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
        if _at_work(of, instance, runs) and of.once("jumped"):
            of.clock.write_text(str(seconds))

    return watch


def pens_in(megabytes: int) -> Watch:
    """Each run's process has so much memory more; the kernel kills it if it takes it all the same."""

    def watch(of: Provoked, instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> None:
        for process in _at_work(of, instance, runs):
            if of.once(f"penned {process.pid}"):
                group = CGROUPS / f"batch_scoring_{process.pid}"
                group.mkdir()
                (group / "memory.limit_in_bytes").write_text(str(megabytes * 2**20))
                (group / "cgroup.procs").write_text(str(process.pid))

    return watch


def processes_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> set[int]:
    """The process ids that the run's executor has written down; none in the moment before it begins."""
    events = (entry.dagster_event for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ENGINE_EVENT))
    said = (event.engine_event_data.metadata.get("pid") for event in events if event)
    return {int(str(pid.value)) for pid in said if pid}


def _at_work(of: Provoked, instance: dg.DagsterInstance, runs: Sequence[dg.DagsterRun]) -> list[psutil.Process]:
    """The processes of the runs that have pinned the newest input."""
    started = [run for run in runs if run.status == dg.DagsterRunStatus.STARTED]
    pinned = {of.project.state.day_input(DAY).run_id}
    found = []
    for run in started:
        for pid in processes_of(instance, run) if run.run_id in pinned else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                found.append(psutil.Process(pid))
    return found


ON_STATE = r"^PUT /{}/.*/state/dt"
QUICK = (
    Case("a broken file", "bad_input", 1, 1, "untouched", lands_broken),
    Case("a damaged bundle", "bad_model", 1, 1, "untouched", damages_bundle),
    Case("a damaged state file, until mended", "processing_error", 2, 0, "right", damages_state, heals),
    Case("kill -9", "lost", 2, 0, "right", lands, kills, NAP.format(3)),
    Case("newer files while it runs", "superseded", 2, 0, "right", lands, lands_late, NAP.format(3)),
)
"""For the suite."""
SLOW = (
    Case("a missing column", "bad_input", 1, 1, "untouched", lands_without_column),
    Case("rows that the network cannot score", "bad_model", 1, 1, "untouched", lands_what_nothing_can_score),
    Case("a damaged state file, for good", "processing_error", 3, 1, "untouched", damages_state),
    Case(
        "longer than its maximum",
        "timeout",
        2,
        0,
        "right",
        lands,
        forward=NAP.format(4.5),
        spec={"runs": {"max_hours": 45 / 3600}, "scoring": {"rows_per_shard": 20}},
    ),
    Case(
        "ulimit -v",
        "out_of_memory",
        2,
        0,
        "right",
        lands,
        leaves_no_memory,
        NAP.format(3) + HUGE,
        spec={"scoring": {"batch_rows": 64}},
    ),
    Case(
        "a memory cgroup's limit",
        "lost",
        2,
        0,
        "right",
        lands,
        pens_in(1500),
        NAP.format(3) + WIDE.format(2_000_000),
        spec={"scoring": {"batch_rows": 256}},
    ),
    Case("a full disk, until there is room", "storage", 2, 0, "right", fills_disk, heals, place="small disk"),
    Case("a read-only disk, until mended", "storage", 2, 0, "right", locks_disk, heals, place="small disk"),
)
ON_S3 = (
    Case("S3: 500", "storage", 2, 0, "right", breaks_store("500", ON_STATE), heals, place="s3", seconds=420),
    Case("S3: 503 SlowDown", "storage", 2, 0, "right", breaks_store("503", ON_STATE), heals, place="s3", seconds=420),
    Case(
        "S3: connections reset",
        "storage",
        2,
        0,
        "right",
        breaks_store("reset", ON_STATE),
        heals,
        place="s3",
        seconds=420,
    ),
    Case(
        "S3: bodies cut short",
        "storage",
        2,
        0,
        "right",
        breaks_store("cut short", r"^GET /{}/.*/landing/.*parquet"),
        heals,
        place="s3",
        seconds=420,
    ),
    Case("S3: 403", "storage", 2, 0, "right", breaks_store("403", ON_STATE), heals, place="s3"),
    Case(
        "S3: stays down for what is written",
        "storage",
        3,
        1,
        "untouched",
        breaks_store("reset", ON_STATE),
        place="s3",
        seconds=600,
    ),
)
AHEAD = (Case("the clock jumps 8 hours ahead", "timeout", 2, 0, "right", lands, jumps(8 * 3600), NAP.format(3)),)
BACK = (Case("the clock jumps 8 hours back", None, 1, 0, "right", lands, jumps(-8 * 3600), NAP.format(3)),)


def failing_clock(folder: Path, cases: Sequence[Case]) -> Report:
    """Provoke cases under a clock that can be set, where there is a C compiler to make it."""
    if not shutil.which("cc"):
        return Report("a clock that jumps", notes="not tried: there is no C compiler")
    library = folder / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-O2", "-o", library, source, "-ldl"], check=True)
    return failing(folder, None, cases, {"LD_PRELOAD": str(library), "CLOCK_FILE": str(folder / "clock")})


def failing(
    folder: Path, store: Store | None, cases: Sequence[Case], environment: dict[str, str] | None = None
) -> Report:
    """Provoke each case, all beside each other, and say what became of it."""
    clock = folder / "clock"
    clock.write_text("0")
    report = Report("every class of failure, provoked under a daemon", trials=len(cases))
    web = WebServer()
    with contextlib.ExitStack() as stack:
        stack.callback(web.stop)
        stack.callback(_leave_cgroups)
        provoked = [_prepared(case, stack, folder / str(n), store) for n, case in enumerate(cases)]
        environment = (environment or {}) | (store.environment if store else {}) | {"ALERT_URLS": web.url}
        projects = [of.project for of in provoked]
        with report.timed(), deployed(folder / "deployment", projects, environment, SETTINGS) as deployment:
            for of in provoked:
                of.case.strike(of)
            began = time.monotonic()

            def is_over() -> bool:
                _look(deployment, provoked)
                late = time.monotonic() - began
                return all(of.is_over or late > of.case.seconds for of in provoked)

            wait_until(is_over, max(of.case.seconds for of in provoked))
            # what is told, and what could not note its class itself, comes with the next look of that sensor
            over = time.time()
            wait_until(lambda: _has_looked(deployment, over), 90)
            _look(deployment, provoked)
            titles = [title for title, _ in web.received]
            rows = []
            for of in provoked:
                row, faults = of.result(titles)
                rows.append(row)
                report.violations += faults
            if report.violations:
                said = [line for line in deployment.log.splitlines() if "ERROR" in line or "Traceback" in line]
                report.violations += said[-10:]
        for of in provoked:
            of.undo()
    head = f"{'provoked':44}  {'class':18}  {'runs':>4}  {'alerts':>6}  the day"
    report.notes = "\n".join(["", head, *rows])
    return report


def _prepared(case: Case, stack: contextlib.ExitStack, folder: Path, store: Store | None) -> Provoked:
    """A project with a scored day."""
    root = None
    if case.place == "s3":
        assert store is not None
        root = f"s3://{store.new_bucket()}/data"
    elif case.place == "small disk":
        disk = stack.enter_context(disks.mounted())
        assert disk is not None, "nothing may be mounted here"
        root = str(disk / "data")
    project = TinyProject(folder, root)
    project.spec["input"]["complete"] = {"quiet_minutes": 0.02}
    project.spec["uploads"] = {"interval_seconds": 1}
    project.spec["runs"] = {"retry_minutes": 0.1}
    for section, settings in case.spec.items():
        project.spec[section] = project.spec.get(section, {}) | settings
    project.deliver("v1")
    if case.forward:
        network = (project.folder / "network.py").read_text()
        project.write_code(network=network.replace("        result =", f"{case.forward}        result ="))
    project.land(DAY, some_rows(project, 200))
    project.run()
    return Provoked(case, project, store, folder.parent / "clock")


def _look(deployment: Deployment, provoked: Sequence[Provoked]) -> None:
    with deployment.instance() as instance:
        for of in provoked:
            of.runs = list(instance.get_runs(dg.RunsFilter(job_name=f"score_{of.project.name}")))
            of.case.watch(of, instance, of.runs)


def _has_looked(deployment: Deployment, since: float) -> bool:
    """Whether the sensor alerts has begun a tick after a moment (seconds since 1970), and ended it."""
    ended = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
    with deployment.instance() as instance:
        states = [state for state in instance.all_instigator_state() if state.name == "alerts"]
        ticks = [instance.get_ticks(s.instigator_origin_id, s.selector_id, limit=1, statuses=ended) for s in states]
        return any(tick.timestamp >= since for found in ticks for tick in found)


def _leave_cgroups() -> None:
    for group in CGROUPS.glob("batch_scoring_*"):
        with contextlib.suppress(OSError):
            group.rmdir()
