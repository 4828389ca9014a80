"""Days that run in their own processes: started, watched, killed.

The children are forked from a server that has already imported the heavy libraries, so that a trial is fast.
"""

import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.connection import Connection
from pathlib import Path

import dagster as dg
import pandera.pandas  # noqa: F401  (a child shall find it imported)
import torch

import batch_scoring.pipelines
from batch_scoring.cli.backfill.run_days import DayOutcome, run_day
from batch_scoring.config.loader import PROJECT, load_pipelines
from batch_scoring.config.names import job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.definitions import deploy
from batch_scoring_tests.forked import SERVER
from batch_scoring_tests.tiny import TinyProject


@dataclass(frozen=True)
class Site:
    """Where another process finds a pipeline."""

    name: str
    packages: str
    data_root: str
    environment: dict[str, str] = field(default_factory=dict)

    def pipeline(self) -> Pipeline:
        """The pipeline, found by its name as a deployment finds it."""
        if self.packages not in batch_scoring.pipelines.__path__:
            batch_scoring.pipelines.__path__.append(self.packages)
        found = load_pipelines(Path(self.packages), self.data_root)
        return next(pipeline for pipeline in found if pipeline.name == self.name)

    def at_home(self, folder: Path) -> "Site":
        """The same with a persistent DAGSTER_HOME: the project's dagster.yaml in a new folder."""
        home = folder / "dagster_home"
        home.mkdir()
        (home / "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
        with dg.DagsterInstance.from_config(str(home)):
            pass  # its databases exist from here on
        return replace(self, environment={**self.environment, "DAGSTER_HOME": str(home)})


def site_of(project: TinyProject, environment: dict[str, str] | None = None) -> Site:
    """A tiny project as other processes find it."""
    return Site(project.name, str(project.packages), project.data_root, environment or {})


class Child:
    """A process that has everything imported, and runs its days when told to."""

    def __init__(self, site: Site, days: Sequence[str]) -> None:
        self._parent, end = SERVER.Pipe()
        self._process = SERVER.Process(target=_run, args=(site, list(days), end), daemon=True)
        self._process.start()
        end.close()
        assert self._parent.poll(120), "the child does not start"
        assert self._parent.recv() == "ready"
        self.started = 0.0

    def go(self) -> "Child":
        """Begin."""
        self._parent.send("go")
        self.started = time.monotonic()
        return self

    @property
    def is_running(self) -> bool:
        """Whether it has not ended yet."""
        return self._process.exitcode is None

    def stop(self) -> None:
        """Let it stand where it is."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: int) -> None:
        if self.is_running and self._process.pid:
            os.kill(self._process.pid, number)  # a child that ended is not reaped before `exitcode` says so

    def kill_when(self, holds: Callable[[], bool], seconds: float) -> bool:
        """Kill -9 so long after something holds; whether it was still at work."""
        while not holds() and self.is_running:
            time.sleep(0.0005)
        time.sleep(seconds)
        self._process.kill()
        self._process.join()
        return self._process.exitcode != 0

    def outcomes(self, limit: float = 120.0) -> list[DayOutcome]:
        """What became of each day.

        Raises:
            TimeoutError: it took longer than `limit` seconds; the process is killed.
        """
        self._process.join(max(0.1, self.started + limit - time.monotonic()))
        if self.is_running:
            self._process.kill()
            raise TimeoutError(f"a run was not over after {limit:.0f} s")
        return list(self._parent.recv())


def run_elsewhere(site: Site, *days: str, limit: float = 120.0) -> list[DayOutcome]:
    """Run days in a process of their own and wait for it."""
    return Child(site, days).go().outcomes(limit)


def _run(site: Site, days: list[str], parent: Connection) -> None:
    os.environ.pop("DAGSTER_HOME", None)  # the forkserver may have begun in a test that had one
    os.environ.update(site.environment)
    torch.set_num_threads(1)
    pipeline = site.pipeline()
    job = deploy([pipeline]).resolve_job_def(job_name(pipeline))
    persistent = bool(os.environ.get("DAGSTER_HOME"))
    with dg.DagsterInstance.get() if persistent else dg.DagsterInstance.ephemeral() as instance:
        parent.send("ready")
        parent.recv()
        parent.send([run_day(pipeline, job, day, instance) for day in days])
