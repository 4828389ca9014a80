"""A whole day of customers through the job, in one process: validated, scored, verified and committed.

    python -m benchmarks.day --rows 1000000 --rounds 3

For comparison, the classic loop of `peers.py` scores the same file: unvalidated, in one DataFrame, into one file. The
work of neither includes imports. The seconds of a step are Dagster's; those of its activities are from its
materialisation's metadata, and do not add up to the step, because activities run in parallel.
"""

import argparse
import importlib
import os
import shutil
import tempfile
import time
from datetime import date
from pathlib import Path

from batch_scoring.pipelines.customer_churn.data import write_day
from benchmarks import side_by_side
from benchmarks.peers import CONTENDERS, classic_loop
from benchmarks.side_by_side import PROJECT, Measures

DAY = date(2024, 1, 1)
JOB = "score_customer_churn"
REFERENCE = "classic loop"
FEATURES = ["age", "income", "tenure_days", "num_purchases", "avg_transaction_value", "days_since_last_purchase"]
LIBRARIES = ("torch", "pandas", "pandera.pandas", "deltalake", "safetensors.torch")
"""Modules that the steps import when needed; imported before the clock starts, as for the classic loop."""


def main() -> None:
    """Run the command: measure and print Markdown tables."""
    parser = argparse.ArgumentParser(description="Run a whole day of customers, and the classic loop.")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keeps the data root; a temporary folder if not given")
    parser.add_argument("--child", choices=["day", "classic"], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    with side_by_side.working_folder(arguments.folder) as folder:
        if arguments.child:
            side_by_side.report((_run_day if arguments.child == "day" else _run_classic)(folder / "customer_churn"))
            return
        for rows in arguments.rows:
            _measure(folder / f"day_{rows}", rows, arguments.rounds)
        print(f"\n{side_by_side.machine()}")


def _measure(root: Path, rows: int, rounds: int) -> None:
    for models in sorted((PROJECT / "data").glob("*/models")):
        shutil.copytree(models, root / models.relative_to(PROJECT / "data"), dirs_exist_ok=True)
    if not _landed(root / "customer_churn").exists():
        write_day(DAY, rows, "parquet", root / "customer_churn/landing")

    def child(name: str) -> Measures:
        command = ["-m", "benchmarks.day", "--child", name, "--folder", str(root)]
        environment = {**os.environ, "BATCH_SCORING_DATA": str(root), "DAGSTER_DISABLE_TELEMETRY": "1"}
        seconds, output = side_by_side.run(command, cwd=PROJECT, env=environment)
        return {**side_by_side.reported(output), "process": seconds}

    found = side_by_side.rounds({"day": lambda: child("day"), REFERENCE: lambda: child("classic")}, rounds)
    print(f"\n{rows:,} rows, {rounds} rounds\n")
    lines = [
        [
            title,
            f"{side_by_side.median(found, name, 'work'):.2f}",
            f"{rows / side_by_side.median(found, name, 'work') / 1e6:.2f}",
            side_by_side.ratio(found, name, REFERENCE, "work"),
            side_by_side.ratio(found, name, REFERENCE, "process"),
            f"{side_by_side.median(found, name, 'memory'):.0f}",
        ]
        for name, title in (("day", "the job, all assets and checks"), (REFERENCE, CONTENDERS["classic"].title))
    ]
    header = ["", "work, s", "M rows/s", "work / classic", "process / classic", "peak, MB"]
    print(side_by_side.table(header, lines))
    stages = [name for name in found["day"][0] if name not in ("work", "process", "memory")]
    lines = [
        [stage, f"{(seconds := side_by_side.median(found, 'day', stage)):.3f}", f"{seconds / rows * 1e6:.3f}"]
        for stage in stages
    ]
    print(f"\n{side_by_side.table(['of which', 's', 's per million rows'], lines)}", flush=True)


def _run_day(pipeline: Path) -> Measures:
    """Run the job on an empty output; return the seconds of the whole, of each asset and of its activities."""
    for name in ("tables", "state"):
        shutil.rmtree(pipeline / name, ignore_errors=True)
    import dagster as dg

    for module in LIBRARIES:
        importlib.import_module(module)
    from batch_scoring.definitions import defs

    job = defs.resolve_job_def(JOB)
    with tempfile.TemporaryDirectory() as home, dg.DagsterInstance.local_temp(home) as instance:
        begin = time.perf_counter()
        result = job.execute_in_process(partition_key=str(DAY), instance=instance)
        whole = time.perf_counter() - begin
    steps: Measures = {}
    activities: Measures = {}
    for event in result.all_events:
        if event.is_step_success:
            steps[_asset(event.step_key)] = event.step_success_data.duration_ms / 1000
    for event in result.get_asset_materialization_events():
        for name, value in event.materialization.metadata.items():
            if name.startswith("seconds_"):
                activity = f"{_asset(event.step_key)}: {name.removeprefix('seconds_')}"
                activities[activity] = float(value.value)  # type: ignore[arg-type]
    order = list(steps)
    stages = dict(sorted((steps | activities).items(), key=lambda stage: order.index(stage[0].partition(":")[0])))
    rest = {"between the steps": whole - sum(steps.values())}
    return {"work": whole, "memory": side_by_side.peak_memory(), **stages, **rest}


def _asset(step_key: str | None) -> str:
    """Return the asset's name from its step's, `customer_churn__predictions`; or drift, from `customer_churn_drift`."""
    return (step_key or "").removeprefix(JOB.removeprefix("score_")).lstrip("_")


def _run_classic(pipeline: Path) -> Measures:
    import pandas as pd
    import pyarrow.dataset  # noqa: F401  (pandas uses it to read Parquet)
    import torch

    from batch_scoring.pipelines.customer_churn.network import ChurnNet

    begin = time.perf_counter()
    content = torch.load(pipeline / "models/churn.pt", weights_only=True)
    network = ChurnNet(content["input_dim"], content["hidden_dim"], content["output_dim"])
    network.load_state_dict(content["model_state_dict"])
    frame = pd.read_parquet(_landed(pipeline))
    result = classic_loop(frame, network.eval(), FEATURES, [], content["version"])
    result.to_parquet(pipeline / "classic.parquet", index=False)
    return {"work": time.perf_counter() - begin, "memory": side_by_side.peak_memory()}


def _landed(pipeline: Path) -> Path:
    return pipeline / f"landing/dt={DAY}/customers.parquet"


if __name__ == "__main__":
    main()
