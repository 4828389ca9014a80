"""The engine compared with its peers, from a file of rows to a file of scores, on the CPU: one Markdown table.

    python -m benchmarks.engine --rows 10000000 [--model narrow] [--format parquet] [--rounds 5] [--contenders polars]

`work` is the time from the end of the imports to the end of the output file. It includes loading the model, starting a
peer's own runtime (`of which start`), and the imports of the processes that such a runtime starts, because they cannot
happen earlier. `process` is the time from the command to its exit, including imports. CPU seconds are those of the
process and its descendants, without its own imports; memory is the peak of all of them together. Both are measured in a
separate round before the others, because monitoring a process takes time.

Outputs are compared with ours, by id: the largest difference of a probability, and predictions that differ.
"""

import argparse
import functools
import os
import shutil
import time
from pathlib import Path
from typing import Any

# not what contenders import: modules loaded here too would be shared, and count for half in their memory
from benchmarks import side_by_side
from benchmarks.peers import CONTENDERS, OUTPUTS, Task
from benchmarks.side_by_side import PROJECT, Measures

REFERENCE = "ours"
MODELS = {
    "narrow": "MLP 8-64-64-2",
    "wide": "MLP 8-512-512-512-2",
    "transformer": "tabular transformer (9 tokens of 32, 2 layers, 4 heads)",
}
PREPARE = "prepare"


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Score a table with our engine and with its peers.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--model", choices=MODELS, default="narrow")
    parser.add_argument("--format", choices=["parquet", "csv"], default="parquet", help="format of the input")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, help="keeps input and outputs; a temporary folder if not given")
    parser.add_argument("--child", choices=[PREPARE, *CONTENDERS], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with side_by_side.working_folder(arguments.folder) as folder:
        if arguments.child:
            task = _task(folder, arguments.rows, arguments.format, arguments.model, arguments.child)
            _prepare(task, arguments.rows) if arguments.child == PREPARE else _run(arguments.child, task)
            return
        print(f"\n{arguments.rows:,} rows of {arguments.format}, {MODELS[arguments.model]}\n")
        print(_measure(folder, arguments), flush=True)
        print(f"\n{side_by_side.machine()}")


def _measure(folder: Path, arguments: argparse.Namespace) -> str:
    place = functools.partial(_task, folder, arguments.rows, arguments.format, arguments.model)

    def child(name: str) -> dict[str, Any]:
        command = ["-m", "benchmarks.engine", "--child", name, "--rows", f"{arguments.rows}"]
        command += ["--model", arguments.model, "--format", arguments.format, "--folder", str(folder)]
        environment = {**os.environ, "PYTHONPATH": str(PROJECT)}  # for the processes of a peer as well
        return {"command": command, "cwd": PROJECT, "env": environment}

    def timed(name: str) -> Measures:
        _remove(place(name).target)
        seconds, output = side_by_side.run(**child(name))
        return {"process": seconds, **side_by_side.reported(output)}

    def watched(name: str) -> Measures:
        _remove(place(name).target)
        measures, output = side_by_side.watched(**child(name))
        return {**measures, "cpu": measures["cpu"] - side_by_side.reported(output)["cpu of imports"]}

    side_by_side.run(**child(PREPARE))
    names = list(dict.fromkeys([REFERENCE, *arguments.contenders]))
    seen = side_by_side.rounds({name: functools.partial(watched, name) for name in names}, 1)
    found = side_by_side.rounds({name: functools.partial(timed, name) for name in names}, arguments.rounds)
    lines = []
    for name in names:
        middle = functools.partial(side_by_side.median, found, name)
        lines.append(
            [
                CONTENDERS[name].title,
                side_by_side.ratio(found, name, REFERENCE, "work"),
                f"{middle('work'):.2f}",
                f"{middle('start'):.1f}" if middle("start") > 0.05 else "",
                f"{arguments.rows / middle('work') / 1e6:.2f}",
                f"{seen[name][0]['cpu']:.2f}",
                side_by_side.ratio(found, name, REFERENCE, "process"),
                f"{seen[name][0]['memory']:.0f}",
                *compare(place(REFERENCE).target, place(name).target, arguments.rows),
            ]
        )
    header = [
        "",
        "work / ours",
        "work, s",
        "of which start",
        "M rows/s",
        "CPU, s",
        "process / ours",
        "peak, MB",
        "max difference",
        "flips",
        "order",
    ]
    return side_by_side.table(header, lines)


def _prepare(task: Task, rows: int) -> None:
    """Write the input and the model, unless they exist."""
    from benchmarks import networks, workload

    task.models.mkdir(parents=True, exist_ok=True)
    networks.write(task.models, task.model)
    if not task.source.exists():
        workload.write(rows, task.source)


def _run(name: str, task: Task) -> None:
    """Run one contender in this process."""
    contender = CONTENDERS[name]
    contender.load()
    begin, imports = time.perf_counter(), sum(os.times()[:2])
    contender.start()
    started = time.perf_counter()
    contender.run(task)
    end = time.perf_counter()
    side_by_side.report({"work": end - begin, "start": started - begin, "cpu of imports": imports})


def compare(expected: Path, found: Path, rows: int) -> tuple[str, str, str]:
    """Return the largest absolute difference of a probability, the rows with another prediction, and the row order.

    Raises:
        ValueError: the output lacks a column, or has other rows.
    """
    import numpy as np
    import pyarrow.dataset

    from benchmarks import workload

    one, other = (pyarrow.dataset.dataset(path, format="parquet") for path in (expected, found))
    if missing := [name for name in OUTPUTS if name not in other.schema.names]:
        raise ValueError(f"{found} has no column {', '.join(missing)}")
    places, theirs = (workload.positions(part.to_table(["id"])["id"]) for part in (one, other))
    if not np.array_equal(places, np.arange(rows)):
        raise ValueError(f"{expected} does not have the {rows} ids of the input in order")
    if len(theirs) != rows or (np.bincount(theirs, minlength=rows) != 1).any():
        raise ValueError(f"{found} has {len(theirs)} rows, not each of the {rows} ids once")
    gaps, flips = [0.0], 0
    for name in OUTPUTS[1:5]:
        expected_values, values = (part.to_table([name])[name].to_numpy() for part in (one, other))
        if name == "prediction":
            flips = int((expected_values[theirs] != values).sum())
        else:
            gaps.append(float(np.abs(expected_values[theirs].astype(np.float64) - values).max(initial=0)))
    return f"{max(gaps):.1e}", f"{flips}", "kept" if np.array_equal(theirs, places) else "other"


def _task(folder: Path, rows: int, form: str, model: str, name: str) -> Task:
    return Task(folder / f"{rows}.{form}", folder / f"{rows}_{form}_{model}_{name}", folder / "models", model)


def _remove(target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    target.unlink(missing_ok=True)


if __name__ == "__main__":
    main()
