"""The cost of a small day compared with an asset that does nothing: `dagster asset materialize`, in fresh processes.

    python -m benchmarks.materialize --rounds 5

Everything runs in one process (`in_process`, our default), with an existing DAGSTER_HOME, the repository's
dagster.yaml, and compiled modules in the page cache. The state that a run expects is prepared before its clock starts.
"""

import argparse
import os
import resource
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.side_by_side import PROJECT, Measures

PIPELINE, DAY = "flight_delay", "2013-07-01"
EMPTY = (
    "import dagster as dg\n\n\n@dg.asset\ndef empty() -> None:\n    pass\n\n\n"
    "defs = dg.Definitions([empty], executor=dg.in_process_executor)\n"
)
REFERENCE = "an empty asset, alone in its project"
WHOLE, ALONE = f"+{PIPELINE}/predictions", f"{PIPELINE}/predictions"
DAYS = {
    "a small day, scored newly": (WHOLE, None),
    "the same day again, unchanged": (WHOLE, WHOLE),
    "its predictions alone, scored newly": (ALONE, f"+{PIPELINE}/validated_features,{PIPELINE}/model"),
}
"""What is materialised, and what was materialised before."""


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Time `dagster asset materialize` of a small day and an empty asset.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as temporary:
        folder = Path(temporary)
        contenders = {REFERENCE: _empty(folder / "empty")}
        for number, (name, (selected, before)) in enumerate(DAYS.items()):
            contenders[name] = _day(folder / str(number), selected, before)
        for materialize in contenders.values():
            materialize()  # creates the instance, compiles modules on their first import
        found = side_by_side.rounds(contenders, rounds)
    lines = [
        [
            name,
            f"{side_by_side.median(found, name, 'wall'):.2f}",
            side_by_side.ratio(found, name, REFERENCE, "wall"),
            f"{side_by_side.median(found, name, 'cpu'):.2f}",
            side_by_side.ratio(found, name, REFERENCE, "cpu"),
        ]
        for name in contenders
    ]
    print(f"\n`dagster asset materialize`, {rounds} rounds\n")
    print(side_by_side.table(["", "wall, s", "wall / empty", "CPU, s", "CPU / empty"], lines))
    print(f"\n{side_by_side.machine()}")


def _empty(folder: Path) -> Callable[[], Measures]:
    environment = _environment(folder)
    (folder / "empty_project.py").write_text(EMPTY)
    return lambda: _materialize(["-m", "empty_project", "--select", "empty"], folder, environment)


def _day(folder: Path, selected: str, before: str | None) -> Callable[[], Measures]:
    """Return a function that materialises the day in its own data root, which is restored before each run."""
    environment, output = _environment(folder), folder / "data" / PIPELINE
    for models in sorted((PROJECT / "data").glob("*/models")):
        shutil.copytree(models, folder / "data" / models.relative_to(PROJECT / "data"))
    shutil.copytree(PROJECT / f"data/{PIPELINE}/landing/dt={DAY}", output / f"landing/dt={DAY}")

    def command(selection: str) -> list[str]:
        return ["-m", "batch_scoring.definitions", "--select", selection, "--partition", DAY]

    if before:
        _materialize(command(before), PROJECT, environment)
    for name in ("tables", "state"):
        (output / name).mkdir(exist_ok=True)
        shutil.copytree(output / name, folder / "kept" / name)

    def materialize() -> Measures:
        for name in ("tables", "state"):
            shutil.rmtree(output / name)
            shutil.copytree(folder / "kept" / name, output / name)
        return _materialize(command(selected), PROJECT, environment)

    return materialize


def _environment(folder: Path) -> dict[str, str]:
    home = folder / "home"
    home.mkdir(parents=True)
    shutil.copy(PROJECT / "dagster.yaml", home)
    return {**os.environ, "DAGSTER_HOME": str(home), "BATCH_SCORING_DATA": str(folder / "data")}


def _materialize(arguments: list[str], cwd: Path, environment: dict[str, str]) -> Measures:
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    wall, _ = side_by_side.run(["-m", "dagster", "asset", "materialize", *arguments], cwd=cwd, env=environment)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return {"wall": wall, "cpu": after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime}


if __name__ == "__main__":
    main()
