"""The cost of scoring a day in chunks, with a process each and one each for plan and publish, compared with one step.

    python -m benchmarks.fan_out --rows 800000 --rounds 3

A day of customers with validated features is scored by `dagster asset materialize` with the multiprocess executor, two
processes at a time: in one step, and in 1, 2, 4 and 8 chunks. On one machine chunks are no faster, because the engine
uses all cores anyway; the additional cost of a chunk is its process: start, imports, loading and checking the model. On
a cluster it is the start of a pod, but each chunk then has a machine of its own.

The cost is what the state records of the day, at the prices below: the cost of the chunks differs from that of one step
by no more than their overhead.
"""

import argparse
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path

import pyarrow as pa

from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Prices, Scoring
from batch_scoring.definitions import deploy
from batch_scoring.monitoring.cost import step_cost
from batch_scoring.pipelines.customer_churn.data import write_day
from batch_scoring.storage.state import State
from batch_scoring.tables import read_day
from benchmarks import side_by_side
from benchmarks.side_by_side import PROJECT, Measures

DAY = date(2024, 1, 1)
NAME = "customer_churn"
SHARDS = 8
"""Shards of the day's features: as many as the largest number of chunks."""
VARIABLE = "BENCHMARK_SCORING"
"""The spec's section `scoring`, as JSON, for the measured processes."""
REFERENCE = "one step"
PRICES = Prices(cpu_hour=0.0405, gb_hour=0.0044)
"""In USD, about those of AWS Fargate."""


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Score a day in one step, and in chunks.")
    parser.add_argument("--rows", type=int, default=800_000)
    parser.add_argument("--shares", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps the data root; a temporary folder if not given")
    arguments = parser.parse_args()
    with side_by_side.working_folder(arguments.folder) as root:
        _measure(root, arguments.rows, arguments.shares, arguments.rounds)
    print(f"\n{side_by_side.machine()}")


def _measure(root: Path, rows: int, shares: Sequence[int], rounds: int) -> None:
    os.environ["BATCH_SCORING_DATA"] = str(root)
    for models in sorted((PROJECT / "data").glob("*/models")):
        shutil.copytree(models, root / models.relative_to(PROJECT / "data"), dirs_exist_ok=True)
    write_day(DAY, rows, "parquet", root / NAME / "landing")
    size = -(-rows // SHARDS)
    contenders = {REFERENCE: Scoring(rows_per_shard=size)} | {
        f"{count} chunks": Scoring(rows_per_shard=size, shards="fan_out", max_shards=count) for count in shares
    }
    _materialize(contenders[REFERENCE], "model", "raw_input", "validated_features")
    before: list[pa.Table] = []

    def measured(scoring: Scoring) -> Measures:
        shutil.rmtree(root / NAME / "tables/predictions", ignore_errors=True)
        (root / NAME / f"state/dt={DAY}/predictions.json").unlink(missing_ok=True)
        seconds = _materialize(scoring, "predictions")
        scores = read_day(NAME, DAY).drop_columns(["scored_at"])
        if not all(scores.equals(others) for others in before):
            raise RuntimeError("the chunks gave different scores")
        before[:] = [scores]
        published = State(find_pipeline(NAME).output).published_day("predictions", str(DAY))
        cost = step_cost(published, PRICES) if published else None
        if cost is None or cost.cost is None or cost.overhead_cost is None:
            raise RuntimeError("the day's cost is not recorded")
        return {"wall": seconds, "cost": cost.cost * 1e6, "overhead": cost.overhead_cost * 1e6}

    runs = {name: (lambda scoring=scoring: measured(scoring)) for name, scoring in contenders.items()}
    found = side_by_side.rounds(runs, rounds)
    print(f"\n{rows:,} rows, {rounds} rounds; all gave bit-identical scores\n")
    first = side_by_side.median(found, f"{shares[0]} chunks", "wall")
    lines = []
    for name, scoring in contenders.items():
        wall, more = side_by_side.median(found, name, "wall"), scoring.max_shards - shares[0]
        cost = f"{(wall - first) / more:.2f}" if name != REFERENCE and more else ""
        money = [f"{side_by_side.median(found, name, which):.2f}" for which in ("cost", "overhead")]
        lines.append([name, f"{wall:.2f}", side_by_side.ratio(found, name, REFERENCE, "wall"), cost, *money])
    header = [
        "",
        "wall, s",
        "wall / one step",
        f"s per chunk beyond {shares[0]}",
        "cost, millionths of a USD",
        "of which overhead",
    ]
    print(side_by_side.table(header, lines), flush=True)


def _materialize(scoring: Scoring, *assets: str) -> float:
    """Return the seconds of the command that materialises assets of the day, with one process per step."""
    with tempfile.TemporaryDirectory() as home:
        environment = {
            **os.environ,
            "DAGSTER_HOME": home,
            "BATCH_SCORING_EXECUTOR": "multiprocess",
            VARIABLE: scoring.model_dump_json(),
        }
        keys = ",".join(f"{NAME}/{asset}" for asset in assets)
        command = ["-m", "dagster", "asset", "materialize", "-m", "benchmarks.fan_out"]
        seconds, _ = side_by_side.run(
            [*command, "--select", keys, "--partition", str(DAY)], cwd=PROJECT, env=environment
        )
        return seconds


def _declared(scoring: Scoring) -> Pipeline:
    """Return the customers pipeline with another section `scoring`."""
    found = find_pipeline(NAME)
    return replace(found, spec=found.spec.model_copy(update={"scoring": scoring}))


if VARIABLE in os.environ:  # one of the measured processes
    defs = deploy([_declared(Scoring.model_validate_json(os.environ[VARIABLE]))])

if __name__ == "__main__":
    main()
