"""Scores of the shipped models and of two tiny ones, as commit f9c2ce9 gave them, before tasks had heads.

Bits depend on the instruction set, so digests are compared where they were recorded, and sums everywhere.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch

from batch_scoring.config.loader import PROJECT, load_pipelines
from batch_scoring.daily.shard_stats import Tally
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import TinyProject, reference_rows

RECORDED = json.loads((Path(__file__).parents[1] / "fixtures" / "scores_of_f9c2ce9.json").read_text())


def record(model: LoadedModel, tables: dict[str, pa.Table]) -> dict[str, Any]:
    """Digest and sum of each column of scores, and the figures of the shard's statistics, by table."""
    scorer = Scorer(model, device="cpu")
    found: dict[str, Any] = {"sha256": model.sha256}
    for name, rows in tables.items():
        tally, parts = Tally(model.manifest), []
        for scored in scorer.score(rows.combine_chunks().to_batches(max_chunksize=1000)):
            tally.add(scored)
            parts.append(scored.scores)
        scores = pa.Table.from_batches(parts).combine_chunks()
        columns = {column.name: scores[column.name].to_numpy() for column in scores.schema}
        found[name] = {
            "columns": {
                column: [str(scores.schema.field(column).type), hashlib.sha256(values.tobytes()).hexdigest()]
                for column, values in columns.items()
            },
            "sums": {column: float(values.astype(np.float64).sum()) for column, values in columns.items()},
            "figures": json.loads(json.dumps(tally.figures())),
            "outputs": hashlib.sha256(scorer.outputs(rows).tobytes()).hexdigest(),
        }
    return found


def shipped(name: str) -> dict[str, Any]:
    pipeline = next(each for each in load_pipelines() if each.name == name)
    folder = open_folder(str(PROJECT / "data" / name / "models" / "v1"))
    model = load_bundle(folder, pipeline.load(pipeline.spec.model.network))
    bundle = read_bundle(folder)
    return record(model, {"golden": bundle.golden, "reference": bundle.reference})


def tiny_model(tiny: TinyProject, outputs: int, task: str) -> dict[str, Any]:
    tiny.deliver("v1", outputs=outputs, task=task)
    folder = open_folder(f"{tiny.data_root}/{tiny.name}/models/v1")
    model = load_bundle(folder, tiny.pipeline.load("network:Net"))
    return record(model, {"reference": reference_rows(days=40)}) | {"sha256": ""}  # the name is another each time


def differences(found: Any, recorded: Any, where: str = "") -> Iterator[str]:  # noqa: ANN401
    """Where two records differ, digests only on the instruction set of the recording."""
    is_same = torch.backends.cpu.get_cpu_capability() == RECORDED["instructions"]
    if isinstance(recorded, dict):
        assert found.keys() >= recorded.keys(), where
        for name, value in recorded.items():
            yield from differences(found[name], value, f"{where}.{name}")
    elif isinstance(recorded, float):
        if found != pytest.approx(recorded, rel=0 if is_same else 1e-5):
            yield f"{where}: {found}, recorded {recorded}"
    elif found != recorded and (is_same or "sha256" in where):
        yield f"{where}: {found}, recorded {recorded}"


@pytest.mark.parametrize("name", ["customer_churn", "flight_delay"])
def test_shipped_models_give_the_recorded_scores(name: str) -> None:
    assert not list(differences(shipped(name), RECORDED[name]))


@pytest.mark.parametrize(("outputs", "task"), [(3, "classification"), (1, "regression")])
def test_tiny_models_give_the_recorded_scores(tiny: TinyProject, outputs: int, task: str) -> None:
    assert not list(differences(tiny_model(tiny, outputs, task), RECORDED[task]))
