"""Training of the churn model, from three months of synthetic customers to a plain checkpoint and its bundle.

    python -m batch_scoring.pipelines.customer_churn.train

The checkpoint is deliberately plain, as a team would bring its own, and the bundle is made by the converter that the
team would use. Scoring does not need this module.
"""

import argparse
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from batch_scoring.config.loader import declared_pipeline
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.checkpoints.convert import convert
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.pipelines.customer_churn.data import churn_probability, customers
from batch_scoring.pipelines.customer_churn.network import ChurnNet
from batch_scoring.storage.folders.addresses import open_folder

MODELS = Path("data/customer_churn/models")
VERSION = "v1"
CLASSES = ["stays", "leaves"]

FIRST_DAY = date(2023, 10, 1)
DAYS = 92
ROWS_A_DAY = 2_000
HELD_OUT_EVERY = 8
"""Every 8th day is held out for validation; every 7th would always be the same weekday."""

HIDDEN = 64
EPOCHS = 12
BATCH_ROWS = 2_048
SAMPLE_ROWS = 20_000


def main() -> None:
    """Train the model, write checkpoint and sample, and convert them to a bundle."""
    parser = argparse.ArgumentParser(description="Train the churn model: checkpoint, sample, bundle.")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of churn.pt, sample.parquet and the bundle")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)

    pipeline = declared_pipeline("customer_churn")
    features = list(pipeline.spec.features.numeric)
    known: list[pa.Table] = []
    held_out: list[pa.Table] = []
    for number, day in enumerate(_training_days()):
        (held_out if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else known).append(day)
    network = _fit(*_examples(known, features))
    numeric, leaves = _examples(held_out, features)
    metrics = {"auc_held_out_days": round(_auc(_scores(network, numeric), leaves.numpy()), 4)}

    torch.save(
        {
            "model_state_dict": network.state_dict(),
            "input_dim": len(features),
            "hidden_dim": HIDDEN,
            "output_dim": len(CLASSES),
            "version": VERSION,
        },
        out / "churn.pt",
    )
    sample = _sample(pa.concat_tables(known + held_out))
    pq.write_table(sample, out / "sample.parquet", compression="zstd")
    leaving = pa.array(_scores(network, _numeric(sample, features)))
    convert(
        out / "churn.pt",
        pipeline=pipeline,
        sample=sample,
        classes=CLASSES,
        folder=out / VERSION,
        training={
            "from": str(FIRST_DAY),
            "to": str(FIRST_DAY + timedelta(DAYS - 1)),
            "rows": ROWS_A_DAY * len(known),
            "validation": f"every {HELD_OUT_EVERY}th day",
        },
        metrics=metrics,
        expected=sample.select(["id", "dt"]).append_column("prob_class_1", leaving),
    )
    bundle = read_bundle(open_folder(str(out / VERSION)))
    complete = bundle.with_profile(calibrate(bundle, pipeline.spec.features.day_grain), VERSION)
    complete.write(open_folder(str(out / VERSION)))
    print(f"{out / VERSION}: sha256 {complete.sha256}, {metrics}")


def _training_days() -> Iterator[pa.Table]:
    """Yield the customers of each day of the training window, with `dt`."""
    for day in (FIRST_DAY + timedelta(number) for number in range(DAYS)):
        table = pa.Table.from_batches(customers(day, ROWS_A_DAY))
        yield table.add_column(1, "dt", pa.array([day] * len(table), pa.date32()))


def _examples(days: list[pa.Table], features: list[str]) -> tuple[torch.Tensor, torch.Tensor]:
    """float32[rows, features] and int64[rows]: 1 for a customer who left, drawn from the true probability."""
    table = pa.concat_tables(days)
    leaves = np.random.default_rng(len(table)).random(len(table)) < churn_probability(table)
    return _numeric(table, features), torch.from_numpy(leaves.astype(np.int64))


def _numeric(table: pa.Table, features: list[str]) -> torch.Tensor:
    return torch.from_numpy(np.column_stack([table[name].to_numpy().astype(np.float32) for name in features]))


def _scores(network: ChurnNet, numeric: torch.Tensor) -> npt.NDArray[np.float32]:
    """Return each customer's probability of leaving."""
    with torch.inference_mode():
        logits = network(numeric, torch.empty(len(numeric), 0, dtype=torch.int64))
        scores: npt.NDArray[np.float32] = logits.softmax(dim=1)[:, 1].numpy()
    return scores


def _fit(numeric: torch.Tensor, leaves: torch.Tensor) -> ChurnNet:
    torch.set_num_threads(1)  # reproducible, and faster: with batches this small, a second thread only spins
    torch.manual_seed(0)
    network = ChurnNet(numeric.shape[1], HIDDEN, len(CLASSES))
    present = numeric.to(torch.float64)
    network.mean.copy_(present.nanmean(dim=0))
    network.scale.copy_((present - present.nanmean(dim=0)).square().nanmean(dim=0).sqrt())
    categorical = torch.empty(BATCH_ROWS, 0, dtype=torch.int64)
    steps = EPOCHS * -(-len(numeric) // BATCH_ROWS)
    optimiser = torch.optim.AdamW(network.parameters(), lr=4e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(numeric)).split(BATCH_ROWS):
            logits = network(numeric[rows], categorical[: len(rows)])
            loss = torch.nn.functional.cross_entropy(logits, leaves[rows])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return network.eval()


def _auc(scores: npt.NDArray[np.float32], positive: npt.NDArray[np.int64]) -> float:
    """Return the area under the ROC curve: the share of pairs in the right order (scores without ties)."""
    ranks = np.empty(len(scores))
    ranks[np.argsort(scores)] = np.arange(1, len(scores) + 1)
    positives = int(positive.sum())
    below = ranks[positive == 1].sum() - positives * (positives + 1) / 2
    return float(below / (positives * (len(scores) - positives)))


def _sample(table: pa.Table) -> pa.Table:
    """Return `SAMPLE_ROWS` rows from all days, in order of the days."""
    chosen = np.random.default_rng(0).choice(len(table), SAMPLE_ROWS, replace=False)
    return table.take(np.sort(chosen)).sort_by([("dt", "ascending"), ("id", "ascending")])


if __name__ == "__main__":
    main()
