"""The cost of rejected rows: a day with one column wrong in every row, compared with the same day without errors.

    python -m benchmarks.rejected --rows 100000 --rounds 5

The step validated_features without Dagster, from a CSV file on the local disk to shards and quarantine, in CPU seconds
of the process: reading, validating, writing. The table has one column of each type; in each case one of them is wrong
in one row, in one of a hundred, or in all.
"""

import argparse
import textwrap
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import batch_scoring.pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import PipelineSpec
from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.validate import prepare
from batch_scoring.ingest import landing_files
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import DayInput
from benchmarks import side_by_side
from benchmarks.side_by_side import Measures

DAY, NAME = "2024-03-04", "rejected_rows"
SCHEMA = """
    import datetime
    import pandas as pd
    import pandera.pandas as pa

    class Rows(pa.DataFrameModel):
        id: str
        whole: int = pa.Field(ge=0)
        decimal: float = pa.Field(ge=-1000, le=1000)
        yes: bool
        day: datetime.date
        at: pd.Timestamp
        word: str = pa.Field(isin=["red", "green", "blue"])
"""
RIGHT: dict[str, Callable[[int], str]] = {
    "id": lambda n: f"k{n:07d}",
    "whole": lambda n: str(n % 5),
    "decimal": lambda n: str(n % 200 / 8),
    "yes": lambda n: ("true", "false")[n % 2],
    "day": lambda n: f"2024-03-{n % 28 + 1:02d}",
    "at": lambda n: f"2024-03-{n % 28 + 1:02d} 10:00:{n % 60:02d}",
    "word": lambda n: ("red", "green", "blue")[n % 3],
}
WRONG = {
    "int: 7.5": ("whole", b"7.5"),
    "int: too large": ("whole", b"99999999999999999999"),
    "float: 1;5": ("decimal", b"1;5"),
    "bool: maybe": ("yes", b"maybe"),
    "date: 2024-02-30": ("day", b"2024-02-30"),
    "timestamp: soon": ("at", b"soon"),
    "text: not UTF-8": ("word", b"gr\xfcn"),
    "a bound": ("decimal", b"5000.5"),
    "a list of words": ("word", b"pink"),
    "a missing value": ("whole", b""),
}
SHARES = {"1 row": 10**9, "1 %": 100, "all": 1}


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Compare days with and without rejected rows.")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with side_by_side.working_folder(None) as folder:
        pipeline = _pipeline(folder)
        contenders = {"right": _day(pipeline, "right", _csv(arguments.rows, None, b"", 1))}
        for case, (column, cell) in WRONG.items():
            for share, step in SHARES.items():
                name = f"{case}, {share}"
                contenders[name] = _day(pipeline, name, _csv(arguments.rows, column, cell, step))
        for validate in contenders.values():
            validate()  # imports pandera
        found = side_by_side.rounds(contenders, arguments.rounds)
    lines = []
    for case in WRONG:
        names = [f"{case}, {share}" for share in SHARES]
        seconds = f"{side_by_side.median(found, names[-1], 'cpu'):.3f}"
        lines.append([case, *(side_by_side.ratio(found, name, "right", "cpu") for name in names), seconds])
    right = side_by_side.median(found, "right", "cpu")
    print(f"\n{arguments.rows:,} rows, {arguments.rounds} rounds; right in all rows: {right:.3f} s of CPU\n")
    print(side_by_side.table(["wrong", *(f"{share} / right" for share in SHARES), "all, s"], lines))
    print(f"\n{side_by_side.machine()}")


def _pipeline(folder: Path) -> Pipeline:
    code = folder / "pipelines" / NAME
    code.mkdir(parents=True)
    (code / "schema.py").write_text(textwrap.dedent(SCHEMA))
    batch_scoring.pipelines.__path__.append(str(code.parent))
    spec = PipelineSpec.model_validate(
        {
            "name": NAME,
            "description": "days with rejected rows",
            "partitions": {"start": DAY},
            "input": {"key": "id"},
            "features": {"schema": "schema:Rows", "numeric": ["whole", "decimal"], "categorical": ["word"]},
            "model": {"bundle": "none", "network": "network:None"},
        }
    )
    return Pipeline(spec, code, f"batch_scoring.pipelines.{NAME}", str(folder / "data"))


def _csv(rows: int, column: str | None, cell: bytes, step: int) -> bytes:
    lines = [",".join(RIGHT).encode()]
    for n in range(rows):
        cells = (cell if name == column and n % step == 0 else right(n).encode() for name, right in RIGHT.items())
        lines.append(b",".join(cells))
    return b"\n".join([*lines, b""])


def _day(pipeline: Pipeline, name: str, content: bytes) -> Callable[[], Measures]:
    """Return a function that validates a day from scratch."""
    folder = f"dt={DAY}/{name.replace(' ', '_')}"
    pipeline.landing.put(f"{folder}.csv", content)
    listed = next(file for file in pipeline.landing.list(folder))
    file = landing_files.inspect(pipeline.landing, listed, pipeline.spec.input.csv)
    pinned = DayInput(
        day=DAY, fingerprint=name, files=(file,), run_id="bench", pinned_at=datetime(2024, 3, 5, tzinfo=UTC)
    )

    def validate() -> Measures:
        for shard in Path(pipeline.output.uri).glob(f"tables/*/dt={DAY}/**/*.parquet"):
            shard.unlink()  # one from an earlier round would be reused
        start = time.process_time()
        prepare(
            DayStep(pipeline, DAY, "validated_features"),
            pinned,
            StepContext("bench", datetime.now(UTC), lambda _: None),
        )
        return {"cpu": time.process_time() - start}

    return validate


if __name__ == "__main__":
    main()
