"""A transform that looks beyond its row is refused in one line that says what it did; a sound one is not."""

import datetime
import itertools
import os
import random
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import load_bundle, read_bundle
from batch_scoring.inference.network.code import ModelCode
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.transformed_bundles import Net, refusal, rows, write
from batch_scoring_tests.transforms import as_lists, in_a_table, in_arrow, in_pandas

Fitted = dict[str, Any]
_calls = itertools.count()


# pandas


def rank(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"].rank()}


def mean(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["income"].fillna(rows["income"].mean())}


def z_score(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": (rows["amount"] - rows["amount"].mean()) / rows["amount"].std()}


def forward_fill(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["income"].ffill()}


def group_mean(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows.groupby("word", dropna=False)["amount"].transform("mean")}


def quantile_bins(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": pd.qcut(rows["amount"], min(4, len(rows)), labels=False, duplicates="drop").astype("float64")}


def equal_bins(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": pd.cut(rows["amount"], 5, labels=False).astype("float64")}


def dummies(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    frame = pd.get_dummies(rows["word"], prefix="is")
    return frame.assign(made=rows["amount"])


def category_codes(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["word"].astype("category").cat.codes.astype("int64")}


def factorized(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": pd.factorize(rows["word"])[0]}


def shifted(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"] - rows["amount"].shift(1)}


def running_sum(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"].cumsum()}


def rolling(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"].rolling(3, min_periods=1).mean()}


def sorted_rows(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    return rows.sort_values("amount")[["amount"]].rename(columns={"amount": "made"})


def dropped(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    return rows[["income"]].dropna().rename(columns={"income": "made"})


def without_duplicates(rows: pd.DataFrame, fitted: Fitted) -> pd.DataFrame:
    return rows[["visits"]].drop_duplicates().rename(columns={"visits": "made"})


def random_noise(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"] + np.random.default_rng().normal(size=len(rows))}


def seeded_noise(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"] + np.random.default_rng(0).normal(size=len(rows))}


def fit_transform(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    """What StandardScaler().fit_transform does, as scikit-learn is not installed."""
    values = rows[["amount"]].to_numpy()
    return {"made": ((values - values.mean(axis=0)) / np.where(values.std(axis=0), values.std(axis=0), 1))[:, 0]}


def guessed_dates(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    """The format is guessed from the first of the rows: where its month may be a day, that of all others is one."""
    texts = rows["opened_text"].str.split("-").map(lambda parts: f"{parts[2]}.{parts[1]}.{parts[0]}")
    return {"made": pd.to_datetime(texts, dayfirst=False).dt.month.astype("float64")}


def untyped(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    """int64 unless a value is missing."""
    return {"made": pd.Series([None if pd.isna(value) else int(value) for value in rows["visits"]])}


def own_row_number(rows: pd.DataFrame, fitted: Fitted) -> Fitted:
    return {"made": rows.index.to_numpy()}


# Arrow


def arrow_rank(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pc.rank(rows["amount"])}


def arrow_mean(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pc.fill_null(rows["income"], pc.mean(rows["income"]))}


def arrow_fill(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pc.fill_null_forward(rows["income"])}


def arrow_codes(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": rows["word"].dictionary_encode().indices}


def arrow_group(rows: pa.Table, fitted: Fitted) -> pa.Table:
    means = rows.group_by("word").aggregate([("amount", "mean")]).rename_columns(["word", "made"])
    return rows.select(["word"]).join(means, "word").select(["made"])


def arrow_sorted(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": rows["amount"].take(pc.sort_indices(rows["amount"]))}


def arrow_dropped(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": rows["income"].drop_null()}


def arrow_running(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pc.cumulative_sum(rows["amount"])}


def arrow_untyped(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": rows["visits"].to_numpy(zero_copy_only=False)}


# either


def counter(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pa.array([next(_calls)] * rows.num_rows)}


def state_of_its_own(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    fitted["seen"] = fitted.get("seen", 0) + rows.num_rows
    return {"made": pa.array([fitted["seen"]] * rows.num_rows)}


def matrix_product(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    """BLAS rounds a tail of a few rows in another way."""
    values = np.stack([rows["amount"].to_numpy()] * 24, axis=1) * np.linspace(0.1, 0.9, 24)
    weights = np.random.default_rng(1).normal(size=(24, 24))
    return {"made": (values @ weights)[:, 3]}


def random_python(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": [random.random() for _ in range(rows.num_rows)]}


def random_id(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": [uuid.uuid4().int % 1000 for _ in range(rows.num_rows)]}


def batch_size(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    return {"made": pa.array([float(rows.num_rows)] * rows.num_rows)}


def now(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
    at = datetime.datetime.now(datetime.UTC)
    return {"made": [(at - opened).total_seconds() for opened in rows["opened"].to_pylist()]}


OTHERS = "it looks at other rows"
AGAIN = "it is random, counts its calls or reads the clock"
ROWS_LOST = "it drops or repeats rows"

FAULTY: list[tuple[Callable[..., object], str]] = [
    (rank, OTHERS),
    (mean, OTHERS),
    (z_score, OTHERS),
    (forward_fill, OTHERS),
    (group_mean, OTHERS),
    (quantile_bins, OTHERS),
    (equal_bins, OTHERS),
    (dummies, "it makes columns of the values that happen to be there"),
    (category_codes, OTHERS),
    (factorized, OTHERS),
    (shifted, OTHERS),
    (running_sum, OTHERS),
    (rolling, OTHERS),
    (sorted_rows, OTHERS),
    (dropped, ROWS_LOST),
    (without_duplicates, ROWS_LOST),
    (random_noise, AGAIN),
    (seeded_noise, OTHERS),
    (fit_transform, OTHERS),
    (guessed_dates, OTHERS),
    (untyped, "its type follows the values that happen to be there"),
    (own_row_number, OTHERS),
    (arrow_rank, OTHERS),
    (arrow_mean, OTHERS),
    (arrow_fill, OTHERS),
    (arrow_codes, OTHERS),
    (arrow_group, OTHERS),
    (arrow_sorted, OTHERS),
    (arrow_dropped, ROWS_LOST),
    (arrow_running, OTHERS),
    (arrow_untyped, "its type follows the values that happen to be there"),
    (counter, AGAIN),
    (state_of_its_own, AGAIN),
    (matrix_product, OTHERS),
    (random_python, AGAIN),
    (random_id, AGAIN),
    (batch_size, OTHERS),
    (now, AGAIN),
]


@pytest.mark.filterwarnings("ignore:Parsing dates")
@pytest.mark.parametrize(("transform", "said"), FAULTY, ids=[transform.__name__ for transform, _ in FAULTY])
def test_a_transform_that_looks_beyond_its_row_is_refused(
    tmp_path: Path, transform: Callable[..., object], said: str
) -> None:
    assert said in refusal(tmp_path, transform)


STATE: Fitted = {"income": 2500.5, "edges": np.array([100.0, 1000.0, np.inf]), "words": pa.table({"word": ["red"]})}


@pytest.mark.parametrize("transform", [in_arrow, in_pandas, in_a_table, as_lists])
def test_a_sound_transform_is_accepted_and_its_model_loads(tmp_path: Path, transform: Callable[..., object]) -> None:
    sha256 = write(tmp_path, transform, fitted=STATE)
    assert load_bundle(open_folder(str(tmp_path)), ModelCode(Net, transform)).sha256 == sha256


@pytest.mark.parametrize(("transform", "said"), [(untyped, "its type follows"), (arrow_dropped, ROWS_LOST)])
def test_missing_values_are_tried_where_the_reference_alone_has_some(
    tmp_path: Path, transform: Callable[..., object], said: str
) -> None:
    complete = pc.and_(rows(200)["visits"].is_valid(), rows(200)["income"].is_valid())
    golden = rows(200).filter(complete).slice(0, 64).drop_columns("dt")
    assert said in refusal(tmp_path, transform, golden=golden)


def test_the_golden_rows_hold_raw_and_engineered_values_and_the_reference_both(tmp_path: Path) -> None:
    write(tmp_path, in_arrow, fitted=STATE)
    bundle = read_bundle(open_folder(str(tmp_path)))
    raw = rows().slice(0, 64)
    income = pc.fill_null(raw["income"], 2500.5)
    assert bundle.golden["engineered.made"].equals(pc.divide(raw["amount"], income))
    assert bundle.golden["income"].equals(raw["income"])
    assert bundle.reference["made"].to_pylist()[:64] == bundle.golden["engineered.made"].to_pylist()
    assert {"id", "dt", "opened_text", "word_of_visits", "prediction"} <= set(bundle.reference.column_names)
    kinds = {"made": "double", "log": "double", "hour": "int64", "is_red": "bool", "word_of_visits": "string"}
    assert bundle.manifest.engineered == kinds | {"bin": "int64", "city": "int32"}


@pytest.mark.parametrize(
    ("transform", "said"),
    [
        (lambda rows, fitted: rows["amount"], "returned a DoubleArray; expected a dict of columns"),
        (lambda rows, fitted: {}, "returned no columns"),
        (lambda rows, fitted: {"made": 1.0}, "returned the float made; expected a column of all rows' values"),
        (lambda rows, fitted: {"made": np.zeros((64, 2))}, r"returned made with the shape \(64, 2\)"),
        (lambda rows, fitted: {"made": ["a", 1] * 32}, "returned made, which is no column of one type"),
        (lambda rows, fitted: {"amount": rows["amount"]}, "returned amount, which the rows have already"),
        (lambda rows, fitted: {3: rows["amount"]}, "returned a column named 3; expected text"),
        (
            lambda rows, fitted: {"made": rows["amount"], "dt": rows["amount"]},
            "returned dt, a column of the rows",
        ),
        (lambda rows, fitted: {"made": rows["amount"], "row_number": rows["visits"]}, "returned row_number, a column"),
        (lambda rows, fitted: {"other": rows["amount"]}, "reference: it has no column made, which the model needs"),
        (lambda rows, fitted: {"made": rows["nothing"]}, "raises for row 0: KeyError"),
        (lambda rows: {"made": rows["amount"]}, r"takes other parameters; expected def transform\(rows, fitted\)"),
        (lambda rows, fitted: {"made": rows["word"]}, "column made is string; expected numbers"),
    ],
)
def test_what_is_no_column_for_each_row_is_refused(tmp_path: Path, transform: Callable[..., object], said: str) -> None:
    with pytest.raises(AssertionError, match=said):
        raise AssertionError(refusal(tmp_path, transform))


def test_a_fitted_state_that_is_no_data_or_that_nobody_gets_is_refused(tmp_path: Path) -> None:
    assert "scaler of the fitted state is a object" in refusal(tmp_path, in_arrow, fitted={"scaler": object()})
    assert "neither transform nor encode" in refusal(tmp_path, in_arrow, fitted={}, code=None, numeric=["amount"])


def test_another_fitted_state_is_another_model(tmp_path: Path) -> None:
    def half(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
        return {"made": pc.multiply(rows["amount"], fitted["half"])}

    assert write(tmp_path / "1", half, fitted={"half": 0.5}) != write(tmp_path / "2", half, fitted={"half": 0.6})


def test_a_function_that_has_changed_since_is_named_with_its_row_when_the_bundle_is_loaded(tmp_path: Path) -> None:
    write(tmp_path, in_a_table)

    def changed(rows: pa.Table, fitted: Fitted) -> pa.Table:
        return pa.table({"made": pc.sqrt(pc.add(rows["amount"], 1e-3)), "visited": pc.is_valid(rows["visits"])})

    folder = open_folder(str(tmp_path))
    with pytest.raises(BundleError, match=r"other values .*: made is .* in golden row 0, where it was .* changed"):
        load_bundle(folder, ModelCode(Net, changed))
    with pytest.raises(BundleError, match="needs the engineered features made, visited, and has no function"):
        load_bundle(folder, Net)


def test_rounding_of_another_cpu_is_accepted_and_whole_numbers_are_exact(tmp_path: Path) -> None:
    """Some CPUs round the last bit of a logarithm in another way."""
    nudge = 0.0

    def rounds(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
        made = np.log1p(rows["amount"].to_numpy())
        return {"made": made * (1 + nudge), "whole": np.floor(made + nudge * 1e12).astype(np.int64)}

    write(tmp_path, rounds)
    nudge = 4e-16
    load_bundle(open_folder(str(tmp_path)), ModelCode(Net, rounds))
    nudge = 1e-8
    with pytest.raises(BundleError, match="made is"):
        load_bundle(open_folder(str(tmp_path)), ModelCode(Net, rounds))


def test_hash_of_a_text_is_refused_in_the_next_process(tmp_path: Path) -> None:
    program = """
        import sys
        from pathlib import Path
        import pyarrow as pa
        from batch_scoring.inference.bundle import load_bundle
        from batch_scoring.inference.network.code import ModelCode
        from batch_scoring.storage.folders.addresses import open_folder
        from batch_scoring_tests.transformed_bundles import Net, write

        def transform(rows: pa.RecordBatch, fitted: dict) -> dict:
            return {"made": [hash(word) % 1000 for word in rows["opened_text"].to_pylist()]}

        folder = Path(sys.argv[1])
        if folder.exists():
            load_bundle(open_folder(str(folder)), ModelCode(Net, transform))
        else:
            write(folder, transform)
    """

    def run(seed: int) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONHASHSEED": str(seed), "PYTHONPATH": str(PROJECT)}
        command = [sys.executable, "-c", textwrap.dedent(program), str(tmp_path / "bundle")]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert run(1).returncode == 0
    refused = run(2)
    assert refused.returncode == 1
    said = refused.stderr.splitlines()[-1]
    assert "BundleError" in said and "features.transform gives other values" in said and "hash() of a text" in said


def test_the_clock_is_refused_on_another_day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def age(rows: pa.RecordBatch, fitted: Fitted) -> Fitted:
        today = pa.scalar(int(time.time() // 86_400), pa.int32()).cast(pa.date32())
        return {"made": pc.days_between(rows["opened"].cast(pa.date32()), today)}

    write(tmp_path, age)
    code, folder = ModelCode(Net, age), open_folder(str(tmp_path))
    load_bundle(folder, code)
    tomorrow = time.time() + 86_400
    monkeypatch.setattr(time, "time", lambda: tomorrow)
    with pytest.raises(BundleError, match=r"other values .*: made is \d+ in golden row 0, .* it reads the clock"):
        load_bundle(folder, code)


def test_rows_of_training_may_have_encoded_texts(tmp_path: Path) -> None:
    table = rows()
    encoded = table.set_column(6, "word", table["word"].dictionary_encode())
    encoded = encoded.set_column(5, "opened_text", table["opened_text"].cast(pa.large_string()))
    golden = encoded.slice(0, 64).drop_columns("dt")
    write(tmp_path / "encoded", in_arrow, fitted=STATE, golden=golden, reference=encoded)
    write(tmp_path / "plain", in_arrow, fitted=STATE)
    found = [load_bundle(open_folder(str(tmp_path / name)), ModelCode(Net, in_arrow)) for name in ("encoded", "plain")]
    columns = [(model.transform.reads, model.transform.gives) for model in found if model.transform]
    assert columns[0] == columns[1]
