"""Fair timing: every contender in its own process, taking turns, compared with the reference of the same round.

On a shared machine wall times vary by a factor of two or three from one minute to the next, so the ratio within a round
is what counts: the median of the rounds, with the smallest and the largest. The other modules define what is run.
"""

import contextlib
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

PROJECT = Path(__file__).resolve().parent.parent

Measures = dict[str, float]
"""Results of one run, by name: seconds and MB."""

LIBRARIES = ("torch", "pyarrow", "pandas", "polars", "daft", "duckdb", "ray", "pyspark")

SAMPLED_EVERY = 0.2
"""Seconds between two samples of a process and its descendants."""


def rounds(contenders: Mapping[str, Callable[[], Measures]], count: int) -> dict[str, list[Measures]]:
    """Run all contenders `count` times, starting each round with a different one."""
    names = list(contenders)
    found: dict[str, list[Measures]] = {name: [] for name in names}
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(contenders[name]())
            print(f"round {number + 1}/{count} {name}: {_shown(found[name][-1])}", file=sys.stderr, flush=True)
    return found


def run(command: list[str], **options: Any) -> tuple[float, str]:  # noqa: ANN401  (options of subprocess.run)
    """Run a command with this Python; return the seconds from start to exit, and its output.

    Raises:
        RuntimeError: it failed; with the end of its error output.
    """
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, **options)
    seconds = time.perf_counter() - begin
    _refuse_failure(command, done.returncode, done.stderr)
    return seconds, done.stdout


def watched(command: list[str], **options: Any) -> tuple[Measures, str]:  # noqa: ANN401  (options of subprocess.Popen)
    """Run a command like `run`, and monitor the processes that it starts.

    Returns:
        `process` (seconds from start to exit), `cpu` (seconds) and `memory` (peak MB) of all its processes together;
        and its output.

    Raises:
        RuntimeError: it failed; with the end of its error output.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen([sys.executable, *command], text=True, **pipes, **options) as process:
        with watching(process.pid) as tree:
            output, errors = process.communicate()
        seconds = time.perf_counter() - begin
    _refuse_failure(command, process.returncode, errors)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    waited_for = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    # one misses processes that the command did not wait for, the other the last moments of each process
    return {"process": seconds, "cpu": max(waited_for, tree.cpu), "memory": tree.memory}, output


class Tree:
    """A process and its descendants, sampled repeatedly."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._cpu: dict[psutil.Process, float] = {}
        self.memory = 0.0
        """Peak MB of all processes together. Pages shared between processes count once (PSS)."""

    @property
    def cpu(self) -> float:
        """CPU seconds of all processes seen so far, each up to its last sample."""
        return sum(self._cpu.values())

    def look(self) -> None:
        """Take one sample."""
        total = 0
        with contextlib.suppress(psutil.Error):
            for process in [self._root, *self._root.children(recursive=True)]:
                with contextlib.suppress(psutil.Error, OSError):
                    times = process.cpu_times()
                    self._cpu[process] = times.user + times.system
                    total += _proportional_kb(process.pid)
        self.memory = max(self.memory, total / 1024)


@contextlib.contextmanager
def watching(pid: int) -> Iterator[Tree]:
    """Sample a process and its descendants while the block runs, about five times a second."""
    tree, stopped = Tree(pid), threading.Event()

    def look() -> None:
        pause = 0.0
        while not stopped.wait(pause):
            begin = time.perf_counter()
            tree.look()
            # the kernel walks all pages for it and blocks the process meanwhile: at most a twentieth of the time
            pause = max(SAMPLED_EVERY, 19 * (time.perf_counter() - begin))

    watcher = threading.Thread(target=look, name="watcher")
    watcher.start()
    try:
        yield tree
    finally:
        stopped.set()
        watcher.join()


def _proportional_kb(pid: int) -> int:
    """Return the memory of a process, with its share of the pages that it shares with others."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1])
    return 0  # the process is ending


def _refuse_failure(command: list[str], status: int, errors: str) -> None:
    if status:
        raise RuntimeError(f"{' '.join(command)} failed with {status}:\n{errors[-2000:]}")


def report(measures: Measures) -> None:
    """Pass measures from a child to the process that started it, as the last line of its output."""
    print(json.dumps(measures))


def reported(output: str) -> Measures:
    """Return the measures that a child passed with `report`."""
    measures: Measures = json.loads(output.splitlines()[-1])
    return measures


def peak_memory() -> float:
    """Return the peak resident memory of this process in MB; unlike `ru_maxrss`, without that of its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM; the benchmarks measure memory on Linux")


def ratio(found: dict[str, list[Measures]], name: str, reference: str, measure: str) -> str:
    """Return the ratio to the reference's measure, by round: median (smallest to largest)."""
    pairs = zip(found[name], found[reference], strict=False)  # one may have fewer rounds than the other
    ratios = [mine[measure] / other[measure] for mine, other in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def median(found: dict[str, list[Measures]], name: str, measure: str) -> float:
    """Return the median of a measure over the rounds."""
    return statistics.median(one[measure] for one in found[name])


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """Return a Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextlib.contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """Provide the folder for inputs and outputs: the given one, which is kept, or a temporary one."""
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder:
        yield Path(folder)


def machine() -> str:
    """Return one line that describes the machine and the versions."""
    libraries = ", ".join(f"{name} {version(name)}" for name in LIBRARIES if _is_installed(name))
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?")
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model.split(':')[1].strip()}), Python {platform.python_version()}, "
        f"{libraries}; load {os.getloadavg()[0]:.1f}"
    )


def _is_installed(name: str) -> bool:
    with contextlib.suppress(PackageNotFoundError):
        return bool(version(name))
    return False


def _shown(measures: Measures) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
