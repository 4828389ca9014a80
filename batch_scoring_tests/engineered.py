"""A tiny pipeline whose model makes features from columns."""

import sys
from collections.abc import Mapping
from datetime import date
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import torch

from batch_scoring.daily.model_code import model_code
from batch_scoring.inference.bundle import read_bundle, write_bundle
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import SCHEMA, TinyProject

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
