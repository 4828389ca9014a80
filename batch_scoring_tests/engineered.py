"""Small transforms and their bundles, and a pipeline that has one."""

import sys
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch import nn

from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import read_bundle, write_bundle
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import SCHEMA, TinyProject


def rows(count: int = 96, start: int = 0) -> pa.Table:
    """Return rows with a key, a day, numbers (some missing), a time, a word and a text."""
    random = np.random.default_rng(11 + start)
    n = np.arange(start, start + count)
    return pa.table(
        {
            "id": [f"k{number}" for number in n],
            "amount": np.round(random.gamma(2, 500, count), 2),
            "income": pa.array(np.round(random.gamma(3, 900, count), 2), mask=n % 9 == 4),
            "visits": pa.array(random.integers(0, 9, count), mask=n % 8 == 3),
            "opened": pa.array(1_700_000_000_000_000 + n * 3_600_000_000 * 7, pa.timestamp("us", "UTC")),
            "opened_text": [f"2024-{1 + k % 12:02}-{1 + k % 28:02}" for k in n],
            "word": pa.array(random.choice(["red", "green", "blue"], count), mask=n % 10 == 7),
            "dt": pa.array([19_700 + int(k) % 28 for k in n], pa.date32()),
        }
    )


class Net(nn.Module):
    """A classification of two classes by any number of numeric inputs."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 2)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.layer(numeric.nan_to_num(0.0).clamp(-1e6, 1e6) / 1000)


def write(
    folder: Path,
    transform: Callable[..., object],
    *,
    fitted: Mapping[str, Any] | None = None,
    numeric: list[str] | None = None,
    **changes: Any,  # noqa: ANN401
) -> str:
    """Write the bundle of a model whose only input is `made`, unless overridden."""
    torch.manual_seed(5)
    numeric = numeric or ["made"]
    table = rows()
    options: dict[str, Any] = {
        "network": Net(len(numeric)).eval(),
        "arguments": {"inputs": len(numeric)},
        "name": "n",
        "version": "v1",
        "task": "classification",
        "classes": ["no", "yes"],
        "numeric": numeric,
        "categorical": {},
        "training": {},
        "metrics": {},
        "golden": table.slice(0, 64).drop_columns("dt"),
        "reference": table,
        "code": ModelCode(Net, transform),
        "fitted": fitted,
    }
    return write_bundle(folder, **(options | changes))


def refusal(folder: Path, transform: Callable[..., object], **changes: Any) -> str:  # noqa: ANN401
    """Return the one line with which the bundle of a transform is refused."""
    try:
        write(folder / "bundle", transform, **changes)
    except BundleError as error:
        assert not (folder / "bundle").exists()
        assert len(str(error).splitlines()) == 1 and len(str(error)) < 800
        return str(error).partition(": ")[2]
    raise AssertionError("nothing was refused")


FEATURES = {
    "arrow": """
import pyarrow as pa
import pyarrow.compute as pc

def fit(rows: pa.Table) -> dict:
    return {"y": pc.mean(rows["y"]).as_py(), "warm": pa.table({"word": ["red"]})}

def transform(rows: pa.RecordBatch, fitted: dict) -> dict:
    if pc.any(pc.equal(rows["x"], 777)).as_py():
        raise ValueError("x is 777")
    words = fitted["warm"]["word"].combine_chunks()
    return {
        "ratio": pc.divide(rows["x"], pc.add(pc.fill_null(rows["y"], fitted["y"]), 1.0)),
        "level": pc.multiply(pc.add(rows["n"], 1), 2),
        "shade": pc.if_else(pc.is_in(rows["c"], value_set=words), "warm", "cold"),
    }
""",
    "pandas": """
import pandas as pd
import pyarrow as pa

def fit(rows: pa.Table) -> dict:
    return {"y": float(rows["y"].to_pandas().mean()), "warm": pa.table({"word": ["red"]})}

def transform(rows: pd.DataFrame, fitted: dict) -> pd.DataFrame:
    if (rows["x"] == 777).any():
        raise ValueError("x is 777")
    is_warm = rows["c"].isin(fitted["warm"]["word"].to_pylist())
    return pd.DataFrame(
        {
            "ratio": rows["x"] / (rows["y"].fillna(fitted["y"]) + 1.0),
            "level": (rows["n"] + 1) * 2,
            "shade": is_warm.map({True: "warm", False: "cold"}).astype("str"),
        }
    )
""",
}
"""The module features.py of a pipeline, in two forms that give the same bits."""

RULES = """

class Engineered(pa.DataFrameModel):
    ratio: float = pa.Field(ge=-500, le=500)
    level: int = pa.Field(ge=0)
    shade: str = pa.Field(isin=["warm", "cold"])
"""
"""What schema.py says of them."""


def write_features(tiny: TinyProject, text: str) -> None:
    """Replace features.py, as a deployment would."""
    (tiny.folder / "features.py").write_text(text)
    sys.modules.pop(f"batch_scoring.pipelines.{tiny.name}.features", None)


def engineer(tiny: TinyProject, form: str = "arrow") -> None:
    """Give the tiny pipeline a transform and rules about what it makes, and write its spec; it has no bundle yet."""
    write_features(tiny, FEATURES[form])
    tiny.write_code(schema=SCHEMA + RULES)
    tiny.spec["features"] |= {
        "transform": "features:transform",
        "engineered": "schema:Engineered",
        "numeric": ["x", "y", "n", "ratio", "level"],
        "categorical": ["shade"],
    }
    tiny.write_spec()


def deliver(
    tiny: TinyProject,
    version: str = "v1",
    *,
    fitted: Mapping[str, Any] | None = None,
    reference: pa.Table | None = None,
    promote: bool = True,
) -> str:
    """Write a bundle of the tiny pipeline with its transform; `fitted`: in place of what its fit returns."""
    torch.manual_seed(0)
    code, golden = model_code(tiny.pipeline), tiny.rows(64)
    assert code.fit is not None
    reference = reference or golden.append_column("dt", pa.array([date(2024, 1, 1)] * 64))
    arguments = {"numeric": 5, "words": 2, "outputs": 2}
    local = tiny.folder / "bundles" / version
    write_bundle(
        local,
        network=code.network(**arguments),
        arguments=arguments,
        name=tiny.name,
        version=version,
        task="classification",
        numeric=tiny.spec["features"]["numeric"],
        categorical={"shade": ["warm", "cold"]},
        classes=["0", "1"],
        training={},
        metrics={},
        golden=golden,
        reference=reference,
        code=code,
        fitted=code.fit(reference) if fitted is None else fitted,
    )
    bundle = read_bundle(open_folder(str(local)))
    if len(pc.unique(reference["dt"])) > 1:
        bundle = bundle.with_profile(calibrate(bundle, ()), version)
    bundle.write(open_folder(f"{tiny.data_root}/{tiny.name}/models/{version}"))
    if promote:
        tiny.spec["model"]["bundle"] = f"{tiny.name}/models/{version}"
        tiny.write_spec()
    return bundle.sha256
