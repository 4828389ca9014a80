"""How cost grows with the number of rows in a file, rows in a day, days in a backfill, and files in a day.

    python -m benchmarks.growth engine|rows|days|files [--sizes 1000000 10000000]

engine: rows of one Parquet file through the engine (the workload of `engine.py`, the narrow network).
rows:   rows of one customer_churn day, from the landing file to committed predictions with all checks and drift.
days:   days of 1,000 customers each, in one backfill.
files:  landing files of one day with a million rows in total.

Each size is run once per round with the user's command, in its own process: seconds from start to exit, including the
start-up, which the first size shows; memory is the peak of all its processes. `rows` keeps the keys of a day in memory,
about 30 bytes each: it is the only one whose memory is expected to grow.
"""

import argparse
import os
import shutil
import statistics
from collections.abc import Callable
from datetime import date, timedelta
from pathlib import Path

import pyarrow.parquet as pq

from batch_scoring.pipelines.customer_churn.data import customers, write_day
from benchmarks import side_by_side
from benchmarks.side_by_side import PROJECT, Measures

BATCH_SCORING = "import sys; from batch_scoring.cli.main import main; sys.exit(main())"
"""The command batch-scoring, run with this Python."""

FIRST = date(2024, 1, 1)
ROWS_A_DAY = 1_000
ROWS_IN_FILES = 1_000_000
SIZES = {
    "engine": [1_000_000, 10_000_000, 100_000_000],
    "rows": [1_000_000, 10_000_000, 100_000_000],
    "days": [1, 10, 100, 365],
    "files": [10, 1_000, 10_000],
}


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Measure how cost grows with rows, days and files.")
    parser.add_argument("what", choices=SIZES)
    parser.add_argument("--sizes", type=int, nargs="+")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keeps inputs and outputs; a temporary folder if not given")
    arguments = parser.parse_args()
    sizes = arguments.sizes or SIZES[arguments.what]
    with side_by_side.working_folder(arguments.folder) as folder:
        contenders = {f"{size:,}": _run(arguments.what, size, folder) for size in sizes}
        next(iter(contenders.values()))()  # reads the libraries from disk
        os.sync()  # otherwise the first one waits for the disk to store the input
        found = side_by_side.rounds(contenders, arguments.rounds)
    lines = []
    for size, (name, measures) in zip(sizes, found.items(), strict=True):
        seconds = statistics.median(one["process"] for one in measures)
        memory = max(one["memory"] for one in measures)
        count = size / 1_000_000 if arguments.what in ("engine", "rows") else size
        lines.append([name, f"{seconds:.1f}", f"{seconds / count:.3f}", f"{memory:.0f}"])
    each = "per million rows" if arguments.what in ("engine", "rows") else f"per {arguments.what.removesuffix('s')}"
    print(f"\n{arguments.what}, {arguments.rounds} rounds\n")
    print(side_by_side.table([arguments.what, "s", f"s {each}", "peak, MB"], lines))
    print(f"\n{side_by_side.machine()}")


def _run(what: str, size: int, folder: Path) -> Callable[[], Measures]:
    """Prepare the input of a size; return a function that measures it."""
    if what == "engine":
        return _engine(size, folder)
    root = folder / f"{what}_{size}"
    landing = root / "customer_churn/landing"
    if not landing.exists():
        {"rows": _one_file, "days": _days, "files": _files}[what](landing, size)
    for models in sorted((PROJECT / "data").glob("*/models")):
        shutil.copytree(models, root / models.relative_to(PROJECT / "data"), dirs_exist_ok=True)
    last = FIRST + timedelta(days=size - 1 if what == "days" else 0)

    def backfill() -> Measures:
        for name in ("tables", "state", "reports"):
            shutil.rmtree(root / "customer_churn" / name, ignore_errors=True)
        home = root / "dagster_home"
        shutil.rmtree(home, ignore_errors=True)
        home.mkdir()
        shutil.copy(PROJECT / "dagster.yaml", home)
        environment = {
            **os.environ,
            "BATCH_SCORING_DATA": str(root),
            "DAGSTER_HOME": str(home),
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }
        command = ["-c", BATCH_SCORING, "backfill", "customer_churn", str(FIRST), str(last)]
        return side_by_side.watched(command, cwd=PROJECT, env=environment)[0]

    return backfill


def _engine(size: int, folder: Path) -> Callable[[], Measures]:
    command = ["-m", "benchmarks.engine", "--rows", f"{size}", "--folder", str(folder), "--child"]
    side_by_side.run([*command, "prepare"], cwd=PROJECT)
    return lambda: side_by_side.watched([*command, "ours"], cwd=PROJECT)[0]


def _one_file(landing: Path, rows: int) -> None:
    write_day(FIRST, rows, "parquet", landing)


def _days(landing: Path, days: int) -> None:
    for number in range(days):
        write_day(FIRST + timedelta(days=number), ROWS_A_DAY, "parquet", landing)


def _files(landing: Path, files: int) -> None:
    (day := landing / f"dt={FIRST}").mkdir(parents=True)
    each = ROWS_IN_FILES // files
    number = 0
    for batch in customers(FIRST, ROWS_IN_FILES):
        for start in range(0, batch.num_rows, each):
            part = batch.slice(start, each)
            with pq.ParquetWriter(day / f"part-{number:05d}.parquet", part.schema, compression="zstd") as writer:
                writer.write_batch(part)
            number += 1


if __name__ == "__main__":
    main()
