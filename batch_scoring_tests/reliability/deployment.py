"""A real daemon with its code server and runs, for tiny projects, in its own DAGSTER_HOME."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import dagster as dg
import psutil
import yaml

from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.tiny import TinyProject

DEFINITIONS = """
import multiprocessing.context, multiprocessing.forkserver, pathlib, warnings
import batch_scoring.pipelines
from batch_scoring.definitions import deploy_valid
from batch_scoring.config.loader import Survey, survey_pipelines
warnings.simplefilter("ignore")
multiprocessing.context.SpawnContext.Process = multiprocessing.context.ForkServerProcess
multiprocessing.forkserver.set_forkserver_preload(["batch_scoring_tests.reliability.processes"])
PLACES = {places!r}
batch_scoring.pipelines.__path__.extend(packages for packages, _ in PLACES)
surveys = [survey_pipelines(pathlib.Path(packages), root) for packages, root in dict.fromkeys(PLACES)]
defs = deploy_valid(Survey(tuple(p for s in surveys for p in s.valid), tuple(b for s in surveys for b in s.broken)))
"""
"""Of a deployment over pipelines in several places, each a folder of packages with its data root.

Dagster's code server spawns a process for each run; here it is forked from one that has imported the libraries.
"""

_DAEMON = """
import signal, sys
from dagster._daemon.cli import main
from dagster._daemon.controller import DagsterDaemonController
asked, check = [], DagsterDaemonController.check_workspace_freshness
signal.signal(signal.SIGHUP, lambda *_: asked.append(True))
DagsterDaemonController.check_workspace_freshness = lambda self, last: check(self, 0 if asked and asked.pop() else last)
_, _, file = sys.argv
sys.argv = ["dagster-daemon", "run", "-f", file]
main()
"""

Part = Literal["daemon", "code server", "run"]


class Deployment:
    """What `make dev` starts, less the web server."""

    def __init__(
        self,
        folder: Path,
        projects: Sequence[TinyProject],
        environment: dict[str, str],
        settings: dict[str, Any],
    ) -> None:
        """`folder`: of this deployment alone. `settings`: sections of dagster.yaml that are other than the shipped."""
        self.home = folder / "dagster_home"
        self.home.mkdir(parents=True)
        settings = yaml.safe_load((PROJECT / "dagster.yaml").read_text()) | settings
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        with self.instance() as instance:  # its databases exist from here on: two that create them at once fail
            instance.get_runs_count()
            instance.all_instigator_state()
        places = [(str(project.packages), project.data_root) for project in projects]
        self._definitions = folder / "deployed.py"
        self._definitions.write_text(DEFINITIONS.format(places=places))
        self._environment = (
            os.environ
            | environment
            | {
                "DAGSTER_HOME": str(self.home),
                "PYTHONPATH": str(PROJECT),
                "OMP_NUM_THREADS": "1",
            }
        )
        self._log = (folder / "daemon.log").open("wb")
        self._daemon: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start the daemon; it starts its code server."""
        command = [sys.executable, "-c", _DAEMON, "dagster-daemon", str(self._definitions)]
        self._daemon = subprocess.Popen(
            command, cwd=self.home, env=self._environment, stdout=self._log, stderr=self._log, start_new_session=True
        )

    def reload(self) -> None:
        """Let the daemon load the code anew now, as it otherwise does every minute."""
        assert self._daemon
        self._daemon.send_signal(signal.SIGHUP)

    def serve(self, *others: Path, prefix: str = "") -> str:
        """Start the web server, with more files of definitions beside ours; where it will be."""
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [str(Path(sys.executable).with_name("dagster-webserver")), "-h", "127.0.0.1", "-p", str(port)]
        command += ["--path-prefix", prefix] if prefix else []
        for file in (self._definitions, *others):
            command += ["-f", str(file)]
        subprocess.Popen(
            command, cwd=self.home, env=self._environment, stdout=self._log, stderr=self._log, start_new_session=True
        )
        return f"http://127.0.0.1:{port}{prefix}"

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run one of dagster's commands over the same definitions."""
        program = [str(Path(sys.executable).with_name("dagster")), *arguments, "-f", str(self._definitions)]
        return subprocess.run(
            program, cwd=self.home, env=self._environment, capture_output=True, text=True, timeout=120, check=False
        )

    def kill(self, part: Part) -> bool:
        """Kill -9 one of the processes; whether there was one."""
        victims = [process for process in self._processes() if _part_of(process) == part]
        for victim in victims[:1]:
            with contextlib.suppress(psutil.NoSuchProcess):
                victim.kill()
        if part == "daemon" and self._daemon:
            self._daemon.wait()
            self._daemon = None
        return bool(victims)

    def stop(self) -> None:
        """End everything that was started."""
        for process in self._processes():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        if self._daemon:
            self._daemon.wait()
        self._log.close()

    def _processes(self) -> list[psutil.Process]:
        """All processes of this deployment, also those whose parent is dead."""
        return [process for process in psutil.process_iter() if _home_of(process) == str(self.home)]

    @property
    def log(self) -> str:
        """What the daemon has said."""
        return (self._definitions.parent / "daemon.log").read_text(errors="replace")

    @contextlib.contextmanager
    def instance(self) -> Iterator[dg.DagsterInstance]:
        """Its instance, seen from this process."""
        with dg.DagsterInstance.from_config(str(self.home)) as found:
            yield found


def _home_of(process: psutil.Process) -> str:
    try:
        return str(process.environ().get("DAGSTER_HOME", "")) if process.pid != os.getpid() else ""
    except psutil.Error:
        return ""


def _part_of(process: psutil.Process) -> Part | None:
    try:
        words = " ".join(process.cmdline())
    except psutil.Error:
        return None
    if "dagster-daemon" in words:
        return "daemon"
    if "dagster api grpc" in words or "dagster._grpc" in words or "code-server" in words:
        return "code server"
    if "multiprocessing.forkserver" not in words:
        return None
    parent = process.parent()  # a code server has one to fork its runs from, which ends with it
    return None if parent and _part_of(parent) == "code server" else "run"


def wait_until(holds: Callable[[], bool], seconds: float, every: float = 0.5) -> bool:
    """Whether something came to hold in time."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if holds():
            return True
        time.sleep(every)
    return holds()


@contextlib.contextmanager
def deployed(
    folder: Path,
    projects: Sequence[TinyProject],
    environment: dict[str, str] | None = None,
    settings: dict[str, Any] | None = None,
) -> Iterator[Deployment]:
    """A running deployment; it is gone at the end."""
    deployment = Deployment(folder, projects, environment or {}, settings or {})
    deployment.start()
    try:
        yield deployment
    finally:
        deployment.stop()
