"""The engine against its peers, from a Parquet file of customers to a Parquet file of scores, on the CPU.

    python -m benchmarks.scoring --rows 1000000 10000000 --rounds 5 [--hidden 64] [--contenders ours polars]

`work` is the time from the imports' end to the file's end (loading the model included), `process` from the command
to its exit. Outputs are compared with ours: ids in order, largest difference of a probability, predictions that
differ. Memory is the peak of the process; no contender starts another one.
"""

import argparse
import functools
import os
import time
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from batch_scoring.checkpoint import convert
from batch_scoring.pipeline import declared_pipeline
from batch_scoring.pipelines.customer_churn.data import write_day
from benchmarks import side_by_side
from benchmarks.peers import CONTENDERS, OUTPUTS, Model
from benchmarks.side_by_side import PROJECT, Measures

REFERENCE = "ours"
DAY = date(2024, 1, 1)
SHIPPED = PROJECT / "data/customer_churn/models"
SHIPPED_HIDDEN = 64


def main() -> None:
    """Measure as the command line asks and print one Markdown table a size."""
    parser = argparse.ArgumentParser(description="Score customers with ours and its peers, side by side.")
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000, 10_000_000])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument(
        "--hidden", type=int, default=SHIPPED_HIDDEN, help="width of the network; 64 is the shipped one"
    )
    parser.add_argument("--contenders", nargs="+", choices=CONTENDERS, default=list(CONTENDERS))
    parser.add_argument("--folder", type=Path, help="keeps input and outputs; a temporary folder if not given")
    parser.add_argument("--child", choices=CONTENDERS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    names = list(dict.fromkeys([REFERENCE, *arguments.contenders]))
    with side_by_side.working_folder(arguments.folder) as folder:
        if arguments.child:
            _run(
                arguments.child, *_places(folder, arguments.rows[0], arguments.child), _model(folder, arguments.hidden)
            )
            return
        _model(folder, arguments.hidden, write=True)
        for rows in arguments.rows:
            print(f"\n{rows:,} rows, MLP 6-{arguments.hidden}-{arguments.hidden}-2, {arguments.rounds} rounds\n")
            print(_measure(folder, rows, arguments.hidden, names, arguments.rounds), flush=True)
        print(f"\n{side_by_side.machine()}")


def _measure(folder: Path, rows: int, hidden: int, names: list[str], rounds: int) -> str:
    source, expected = _places(folder, rows, REFERENCE)
    if not source.exists():
        write_day(DAY, rows, "parquet", source.parent.parent)

    def contender(name: str) -> Measures:
        target = _places(folder, rows, name)[1]
        target.unlink(missing_ok=True)
        command = ["-m", "benchmarks.scoring", "--child", name, "--rows", str(rows), "--hidden", str(hidden)]
        seconds, output = side_by_side.run([*command, "--folder", str(folder)], cwd=PROJECT)
        return {**side_by_side.reported(output), "process": seconds}

    found = side_by_side.rounds({name: functools.partial(contender, name) for name in names}, rounds)
    lines = []
    for name in names:
        difference, flips = _compare(expected, _places(folder, rows, name)[1])
        work = side_by_side.median(found, name, "work")
        lines.append(
            [
                CONTENDERS[name].title,
                side_by_side.ratio(found, name, REFERENCE, "work"),
                f"{work:.2f}",
                f"{rows / work / 1e6:.2f}",
                f"{side_by_side.median(found, name, 'cpu'):.2f}",
                side_by_side.ratio(found, name, REFERENCE, "process"),
                f"{side_by_side.median(found, name, 'memory'):.0f}",
                f"{difference:.1e}",
                f"{flips}",
            ]
        )
    header = [
        "",
        "work / ours",
        "work, s",
        "M rows/s",
        "CPU, s",
        "process / ours",
        "peak, MB",
        "max difference",
        "flips",
    ]
    return side_by_side.table(header, lines)


def _run(name: str, source: Path, target: Path, model: Model) -> None:
    """The work of one contender, in this process."""
    contender = CONTENDERS[name]
    contender.load()
    begin, cpu = time.perf_counter(), sum(os.times()[:2])
    contender.run(source, target, model)
    seconds, cpu = time.perf_counter() - begin, sum(os.times()[:2]) - cpu
    side_by_side.report({"work": seconds, "cpu": cpu, "memory": side_by_side.peak_memory()})


def _compare(expected: Path, found: Path) -> tuple[float, int]:
    """Largest absolute difference of a probability, and rows with another prediction.

    Raises:
        ValueError: the file lacks a column or has other rows.
    """
    one, other = pq.ParquetFile(expected), pq.ParquetFile(found)
    if missing := [name for name in OUTPUTS if name not in other.schema_arrow.names]:
        raise ValueError(f"{found} has no column {', '.join(missing)}")
    if one.metadata.num_rows != other.metadata.num_rows:
        raise ValueError(f"{found} has {other.metadata.num_rows} rows; expected {one.metadata.num_rows}")
    difference, flips = 0.0, 0
    columns = OUTPUTS[:5]
    batches = (file.iter_batches(1_000_000, columns=columns) for file in (one, other))
    for mine, theirs in zip(*batches, strict=True):
        if not mine["id"].equals(theirs["id"].cast(mine["id"].type)):
            raise ValueError(f"{found} has other ids, or the same in another order")
        flips += int((mine["prediction"].to_numpy() != theirs["prediction"].to_numpy()).sum())
        for name in columns[2:]:
            gaps = np.abs(mine[name].to_numpy().astype(np.float64) - theirs[name].to_numpy())
            difference = max(difference, float(gaps.max(initial=0)))
    return difference, flips


def _places(folder: Path, rows: int, name: str) -> tuple[Path, Path]:
    """Input and output of a contender."""
    return folder / f"{rows}" / f"dt={DAY}" / "customers.parquet", folder / f"{rows}" / f"{name}.parquet"


def _model(folder: Path, hidden: int, *, write: bool = False) -> Model:
    """The shipped model, or one of another width with the shipped normalisation and random weights."""
    if hidden == SHIPPED_HIDDEN:
        return Model(SHIPPED / "churn.pt", SHIPPED / "v1")
    model = Model(folder / f"hidden_{hidden}.pt", folder / f"hidden_{hidden}")
    if write:
        import torch

        from batch_scoring.pipelines.customer_churn.network import ChurnNet

        content = torch.load(SHIPPED / "churn.pt", weights_only=True)
        torch.manual_seed(0)
        network = ChurnNet(content["input_dim"], hidden, content["output_dim"])
        for name in ("mean", "scale"):
            network.get_buffer(name).copy_(content["model_state_dict"][name])
        torch.save({**content, "hidden_dim": hidden, "model_state_dict": network.state_dict()}, model.checkpoint)
        convert(
            model.checkpoint,
            pipeline=declared_pipeline("customer_churn"),
            sample=pq.read_table(SHIPPED / "sample.parquet"),
            classes=["stays", "leaves"],
            folder=model.bundle,
        )
    return model


if __name__ == "__main__":
    main()
