"""Ours and its peers: the same customers, the same weights, the same columns out, each in its own idiom.

A contender reads a Parquet file of customers, scores it on the CPU and writes a Parquet file with the id, the
prediction, its probability, the probability of each class, the model's version and the time. Where a peer leaves a
choice (batch, threads, kind of UDF), the fastest of those that we tried is taken; what is written is what its own
defaults write. How they are run and compared stands in `scoring.py`.
"""

import contextlib
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

FEATURES = [
    "age",
    "income",
    "tenure_days",
    "num_purchases",
    "avg_transaction_value",
    "days_since_last_purchase",
]
NETWORK = "batch_scoring.pipelines.customer_churn.network"
OUTPUTS = [
    "id",
    "prediction",
    "prediction_proba",
    "prob_class_0",
    "prob_class_1",
    "model_version",
    "scored_at",
]


@dataclass(frozen=True)
class Model:
    """The same model in both of its forms: peers load the checkpoint, ours the bundle."""

    checkpoint: Path
    bundle: Path


@dataclass(frozen=True)
class Contender:
    """A way to score a file."""

    run: Callable[[Path, Path, Model], None]
    title: str
    modules: tuple[str, ...]

    def load(self) -> None:
        """Import what it needs, so that the work can be timed without."""
        for module in ("torch", NETWORK, *self.modules):
            importlib.import_module(module)


def ours(source: Path, target: Path, model: Model) -> None:
    """The project's engine as the predictions asset uses it: record batches in, record batches out."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from batch_scoring import shards
    from batch_scoring.bundle import load_bundle
    from batch_scoring.pipelines.customer_churn.network import ChurnNet
    from batch_scoring.scoring import Scorer
    from batch_scoring.storage import open_folder

    scorer = Scorer(load_bundle(open_folder(str(model.bundle)), ChurnNet), device="cpu")
    constants = {"model_version": scorer.manifest.version, "scored_at": datetime.now(UTC)}
    with contextlib.ExitStack() as stack:
        writer = None
        for scored in scorer.score(shards.read(open_folder(str(source.parent)), source.name)):
            batch = scored.scores.add_column(0, "id", scored.rows.column("id"))
            for name, value in constants.items():
                batch = batch.append_column(name, pa.repeat(pa.scalar(value), len(batch)))
            writer = writer or stack.enter_context(
                pq.ParquetWriter(
                    target,
                    batch.schema,
                    compression="zstd",
                    compression_level=1,
                    use_dictionary=list(constants),
                )
            )
            writer.write_batch(batch)


def classic(source: Path, target: Path, model: Model) -> None:
    """The loop of the exercise: a DataFrame, batches of 1,024 rows, lists that grow."""
    import pandas as pd
    import torch

    network, version = _network(model)
    frame = pd.read_parquet(source)
    predictions: list[int] = []
    confidences: list[float] = []
    probabilities: list[list[float]] = []
    with torch.no_grad():
        for start in range(0, len(frame), 1_024):
            batch = frame.iloc[start : start + 1_024]
            features = torch.tensor(batch[FEATURES].to_numpy(), dtype=torch.float32)
            logits = network(features, torch.empty(len(features), 0, dtype=torch.int64))
            shares = torch.softmax(logits, dim=1)
            best, winner = torch.max(shares, dim=1)
            predictions.extend(winner.tolist())
            confidences.extend(best.tolist())
            probabilities.extend(shares.tolist())
    result = pd.DataFrame({"id": frame["id"], "prediction": predictions, "prediction_proba": confidences})
    for index in range(len(probabilities[0])):
        result[f"prob_class_{index}"] = [row[index] for row in probabilities]
    result["model_version"] = version
    result["scored_at"] = datetime.now(UTC)
    result.to_parquet(target, index=False)


def pandas_large_batches(source: Path, target: Path, model: Model) -> None:
    """The whole table as one matrix, scored in large batches, one DataFrame out."""
    import numpy as np
    import pandas as pd
    import torch

    network, version = _network(model)
    frame = pd.read_parquet(source)
    features = torch.from_numpy(frame[FEATURES].to_numpy(np.float32))
    with torch.inference_mode():
        shares = torch.cat([_shares(network, part) for part in features.split(16_384)])
        best, winner = shares.max(dim=1)
    result = pd.DataFrame(
        {
            "id": frame["id"],
            "prediction": winner.numpy(),
            "prediction_proba": best.numpy(),
            "prob_class_0": shares[:, 0].numpy(),
            "prob_class_1": shares[:, 1].numpy(),
            "model_version": version,
            "scored_at": datetime.now(UTC),
        }
    )
    result.to_parquet(target, index=False)


def polars_streaming(source: Path, target: Path, model: Model) -> None:
    """Polars' streaming engine with a torch UDF over each morsel."""
    import numpy as np
    import polars as pl
    import torch

    torch.set_num_threads(1)  # Polars' own threads read and write meanwhile; a second torch thread gained nothing
    network, version = _network(model)
    scores = {
        "prediction": pl.Int64(), "prediction_proba": pl.Float32(),
        "prob_class_0": pl.Float32(), "prob_class_1": pl.Float32(),
    }  # fmt: skip

    def score(frame: pl.DataFrame) -> pl.DataFrame:
        features = torch.from_numpy(np.ascontiguousarray(frame.select(FEATURES).to_numpy().astype(np.float32)))
        with torch.inference_mode():
            shares = torch.cat([_shares(network, part) for part in features.split(16_384)])
            best, winner = shares.max(dim=1)
        columns = (winner, best, shares[:, 0], shares[:, 1])
        return frame.select("id").with_columns(
            pl.Series(name, column.numpy(), dtype)
            for (name, dtype), column in zip(scores.items(), columns, strict=True)
        )

    (
        pl.scan_parquet(source)
        .map_batches(score, schema={"id": pl.String(), **scores}, streamable=True)
        .with_columns(model_version=pl.lit(version), scored_at=pl.lit(datetime.now(UTC)))
        .sink_parquet(target, engine="streaming")
    )


CONTENDERS = {
    "ours": Contender(
        ours,
        "batch_scoring.scoring",
        (
            "pyarrow.dataset",
            "safetensors.torch",
            "batch_scoring.bundle",
            "batch_scoring.shards",
            "batch_scoring.scoring",
        ),
    ),
    "polars": Contender(polars_streaming, "Polars streaming + torch UDF", ("numpy.ma", "polars")),
    "pandas": Contender(pandas_large_batches, "pandas + torch, large batches", ("pandas", "pyarrow.dataset")),
    "classic": Contender(classic, "classic loop (DataFrame, 1,024 rows, lists)", ("pandas", "pyarrow.dataset")),
}


def _network(model: Model) -> tuple[Any, str]:
    """The network and the version of a plain checkpoint."""
    import torch

    from batch_scoring.pipelines.customer_churn.network import ChurnNet

    content = torch.load(model.checkpoint, weights_only=True)
    network = ChurnNet(content["input_dim"], content["hidden_dim"], content["output_dim"])
    network.load_state_dict(content["model_state_dict"])
    return network.eval(), content["version"]


def _shares(network: Any, features: Any) -> Any:  # noqa: ANN401  (torch is imported late)
    """float32[rows, classes] probabilities."""
    import torch

    return torch.softmax(network(features, torch.empty(len(features), 0, dtype=torch.int64)), dim=1)
