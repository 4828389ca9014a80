"""Peak memory of a day with very long cells, compared with the same day with short ones.

    python -m benchmarks.memory

Each case is a day in its own process, with all four assets; the peak is the kernel's (VmHWM), because Python's tracers
do not see Arrow's allocations. `beyond` is the memory used in addition to the case `ordinary`.

rejected    80,000 CSV rows of 5 KB, each with a number out of range
ragged      80,000 CSV rows of 5 KB, each with a cell missing
dictionary  a Parquet file of a few KB: 3,000 rows that share a text of 240 KB
many        the same with 131,072 rows
word        one CSV row with a word of 7 MB
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks import side_by_side
from benchmarks.side_by_side import PROJECT

HEADER = "id,x,y,n,c\n"
LONG = "x" * 5_000


def main() -> None:
    """Run the command: measure every case and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Measure the peak memory of days with long cells.")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        _run(arguments.child)
        return
    lines, ordinary = [], 0.0
    for name in CASES:
        _, output = side_by_side.run(["-m", "benchmarks.memory", "--child", name], cwd=PROJECT, env=os.environ)
        found = side_by_side.reported(output)
        ordinary = ordinary or found["memory"]
        lines.append([name, f"{found['file']:,.2f}", f"{found['memory']:.0f}", f"{found['memory'] - ordinary:.0f}"])
    print(side_by_side.table(["", "file, MB", "peak, MB", "beyond, MB"], lines))
    print(f"\n{side_by_side.machine()}")


def _run(name: str) -> None:
    from batch_scoring_tests.tiny import DAY, TinyProject

    with tempfile.TemporaryDirectory() as folder:
        tiny = TinyProject(Path(folder))
        day = Path(tiny.data_root, tiny.name, "landing", f"dt={DAY}")
        day.mkdir(parents=True)
        (day / "good.csv").write_text(HEADER + "g1,1,1,1,red\n")
        CASES[name](day)
        size = sum(file.stat().st_size for file in day.iterdir())
        tiny.run(raise_on_error=False)
    side_by_side.report({"memory": side_by_side.peak_memory(), "file": size / 1e6})


def _csv(row: Callable[[int], str], rows: int = 80_000) -> Callable[[Path], None]:
    def write(day: Path) -> None:
        with (day / "case.csv").open("w") as file:
            file.write(HEADER)
            file.writelines(f"{row(number)}\n" for number in range(rows))

    return write


def _parquet(rows: int) -> Callable[[Path], None]:
    def write(day: Path) -> None:
        text = pa.DictionaryArray.from_arrays(pa.repeat(pa.scalar(0, pa.int32()), rows), ["x" * 240_000])
        ones = pa.repeat(1.0, rows)
        columns = {"id": [f"k{number}" for number in range(rows)], "x": ones, "y": ones, "n": ones.cast("int64")}
        pq.write_table(pa.table(columns | {"c": text}), day / "case.parquet")

    return write


CASES: dict[str, Callable[[Path], None]] = {
    "ordinary": _csv(lambda number: f"k{number},1,1,1,red"),
    "rejected": _csv(lambda number: f"k{number},1,1,-1,{LONG}"),
    "ragged": _csv(lambda number: f"k{number},1,{LONG}"),
    "dictionary": _parquet(3_000),
    "many": _parquet(131_072),
    "word": _csv(lambda number: f"k{number},1,1,1,{'x' * 7_000_000}", rows=1),
}

if __name__ == "__main__":
    main()
