"""The cost of loading the code location, compared with an empty Dagster project.

    python -m benchmarks.load --rounds 5

Both run `dagster definitions validate`: a fresh process that imports the module and builds all definitions, as every
daemon, web server and step process has to.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from benchmarks import side_by_side
from benchmarks.side_by_side import Measures

EMPTY = "import dagster as dg\n\ndefs = dg.Definitions()\n"
MODULES = {"an empty project": "empty_project", "batch_scoring.definitions": "batch_scoring.definitions"}
REFERENCE = "an empty project"


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Time `dagster definitions validate` against an empty project.")
    parser.add_argument("--rounds", type=int, default=5)
    rounds: int = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder:
        (Path(folder) / "empty_project.py").write_text(EMPTY)
        contenders = {name: _validate(module, folder) for name, module in MODULES.items()}
        for validate in contenders.values():
            validate()  # compiles modules on their first import
        found = side_by_side.rounds(contenders, rounds)
    lines = [
        [name, f"{side_by_side.median(found, name, 'wall'):.2f}", side_by_side.ratio(found, name, REFERENCE, "wall")]
        for name in MODULES
    ]
    print(f"\n`dagster definitions validate`, {rounds} rounds\n")
    print(side_by_side.table(["", "wall, s", "wall / empty project"], lines))
    print(f"\n{side_by_side.machine()}")


def _validate(module: str, folder: str) -> Callable[[], Measures]:
    environment = {**os.environ, "DAGSTER_HOME": folder, "DAGSTER_DISABLE_TELEMETRY": "1"}

    def validate() -> Measures:
        command = ["-m", "dagster", "definitions", "validate", "-m", module]
        return {"wall": side_by_side.run(command, cwd=folder, env=environment)[0]}

    return validate


if __name__ == "__main__":
    main()
