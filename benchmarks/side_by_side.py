"""Fair timing: every contender in a process of its own, taking turns, compared with the reference of the same round.

A shared machine moves walls two or three times from one minute to the next, so the ratio within a round counts, and
of the rounds the median with its smallest and largest. What is run stands in the other modules.
"""

import contextlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).resolve().parent.parent

Measures = dict[str, float]
"""What one run gave: seconds, MB, by name."""


def rounds(contenders: Mapping[str, Callable[[], Measures]], count: int) -> dict[str, list[Measures]]:
    """Run all contenders `count` times, each round beginning with another one."""
    names = list(contenders)
    found: dict[str, list[Measures]] = {name: [] for name in names}
    for number in range(count):
        turn = number % len(names)
        for name in names[turn:] + names[:turn]:
            found[name].append(contenders[name]())
            print(f"round {number + 1}/{count} {name}: {_shown(found[name][-1])}", file=sys.stderr, flush=True)
    return found


def run(command: list[str], **options: Any) -> tuple[float, str]:  # noqa: ANN401  (of subprocess.run)
    """Run a command of this Python to its end; seconds from start to exit, and what it printed.

    Raises:
        RuntimeError: it failed; with the end of what it said.
    """
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True, check=False, **options)
    seconds = time.perf_counter() - begin
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed with {done.returncode}:\n{done.stderr[-2000:]}")
    return seconds, done.stdout


def report(measures: Measures) -> None:
    """Hand a child's measures to the process that started it, as the last line it prints."""
    print(json.dumps(measures))


def reported(output: str) -> Measures:
    """What a child handed over with `report`."""
    measures: Measures = json.loads(output.splitlines()[-1])
    return measures


def peak_memory() -> float:
    """Largest resident memory of this process so far, in MB; unlike `ru_maxrss` without that of its parent."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise OSError("/proc/self/status has no VmHWM; the benchmarks measure memory on Linux")


def ratio(found: dict[str, list[Measures]], name: str, reference: str, measure: str) -> str:
    """How many times the reference's measure, round by round: median (smallest to largest)."""
    pairs = zip(found[name], found[reference], strict=True)
    ratios = [mine[measure] / other[measure] for mine, other in pairs]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def median(found: dict[str, list[Measures]], name: str, measure: str) -> float:
    """The median of a measure over the rounds."""
    return statistics.median(one[measure] for one in found[name])


def table(header: list[str], rows: Iterable[list[str]]) -> str:
    """A Markdown table; all columns but the first are numbers."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


@contextlib.contextmanager
def working_folder(kept: Path | None) -> Iterator[Path]:
    """The folder for inputs and outputs: the one given, which stays, or a temporary one."""
    if kept:
        kept.mkdir(parents=True, exist_ok=True)
        yield kept.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder:
        yield Path(folder)


def machine() -> str:
    """One line on what was measured where."""
    libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "pyarrow", "pandas", "polars"))
    model = next((line for line in Path("/proc/cpuinfo").read_text().splitlines() if "model name" in line), ": ?")
    return (
        f"{len(os.sched_getaffinity(0))} cores ({model.split(':')[1].strip()}), Python {platform.python_version()}, "
        f"{libraries}; load {os.getloadavg()[0]:.1f}"
    )


def _shown(measures: Measures) -> str:
    return ", ".join(f"{name} {value:.3f}" for name, value in measures.items())
