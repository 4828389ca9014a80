"""The synthetic table, its contract and the embedded model of customer_churn."""

import itertools
import os
import shutil
import subprocess
import sys
import tracemalloc
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from batch_scoring.config.loader import PROJECT, declared_pipeline
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.checkpoints.convert import convert
from batch_scoring.inference.scorer import Scorer
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.pipelines.customer_churn import data
from batch_scoring.pipelines.customer_churn.data import (
    CHUNK_ROWS,
    SCHEMA,
    churn_probability,
    customers,
    write_day,
)
from batch_scoring.pipelines.customer_churn.network import ChurnNet
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.state import State

DAY = date(2024, 1, 1)
MODELS = PROJECT / "data/customer_churn/models"
LANDING = PROJECT / "data/customer_churn/landing"
FEATURES = list(declared_pipeline("customer_churn").spec.features.numeric)


def table(day: date, rows: int) -> pa.Table:
    return pa.Table.from_batches(customers(day, rows), SCHEMA)


def read(file: Path) -> pa.Table:
    if file.suffix == ".parquet":
        return pq.read_table(file)
    options = pyarrow.csv.ConvertOptions(column_types=SCHEMA)
    return pyarrow.csv.read_csv(file, convert_options=options).cast(SCHEMA)


def test_a_day_is_the_same_every_time() -> None:
    assert table(DAY, 1_000).equals(table(DAY, 1_000))


def test_a_shorter_table_is_the_beginning_of_a_longer_one() -> None:
    long = table(DAY, CHUNK_ROWS + 500)
    assert long.slice(0, 1_000).equals(table(DAY, 1_000))
    assert len(long) == CHUNK_ROWS + 500
    assert not long.slice(CHUNK_ROWS, 500).drop_columns("id").equals(long.slice(0, 500).drop_columns("id"))


def test_two_days_differ_in_every_feature() -> None:
    one, other = table(DAY, 1_000), table(date(2024, 1, 2), 1_000)
    assert one["id"].equals(other["id"])
    assert not [name for name in FEATURES if one[name].equals(other[name])]


def test_ids_count_upwards_and_are_unique() -> None:
    ids = table(DAY, CHUNK_ROWS + 2)["id"].to_pylist()
    assert ids[:2] == ["c0000000000", "c0000000001"]
    assert ids[-1] == f"c{CHUNK_ROWS + 1:010d}"
    assert len(set(ids)) == len(ids)
    assert ids == sorted(ids)


@pytest.mark.parametrize("rows", [0, 1, CHUNK_ROWS, CHUNK_ROWS + 1])
@pytest.mark.parametrize("form", data.FORMATS)
def test_every_format_holds_the_same_rows(tmp_path: Path, rows: int, form: data.Format) -> None:
    file = write_day(DAY, rows, form, tmp_path)
    assert file == tmp_path / "dt=2024-01-01" / f"customers.{form}"
    found = read(file)
    assert len(found) == rows
    assert found.equals(table(DAY, rows).cast(found.schema))
    assert list(file.parent.iterdir()) == [file]


@pytest.mark.parametrize("form", data.FORMATS)
def test_a_file_made_again_has_the_same_bytes(tmp_path: Path, form: data.Format) -> None:
    files = [write_day(DAY, 1_000, form, tmp_path / name) for name in ("one", "other")]
    assert files[0].read_bytes() == files[1].read_bytes()


def test_a_write_that_fails_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected 0 to 10000000000"):
        write_day(DAY, 10**10 + 1, "csv", tmp_path)
    assert list((tmp_path / "dt=2024-01-01").iterdir()) == []


def test_any_number_of_rows_is_a_stream() -> None:
    """Ten billion rows are asked for and two batches taken: the table is never built."""
    tracemalloc.start()
    first, second = itertools.islice(customers(DAY, 10**10), 2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (first.num_rows, second.num_rows) == (CHUNK_ROWS, CHUNK_ROWS)
    assert peak < 100 * 1024**2


def test_memory_is_flat_as_a_file_grows(tmp_path: Path) -> None:
    """A table of 20 more chunks is 150 MB in memory."""
    program = """
import resource, sys
from pathlib import Path
from batch_scoring.pipelines.customer_churn.data import CHUNK_ROWS, date, write_day
for chunks in (4, 24):
    write_day(date(2024, 1, 1), chunks * CHUNK_ROWS, "parquet", Path(sys.argv[1]))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True, capture_output=True, cwd=PROJECT)
    few, many = map(int, done.stdout.split())
    assert many - few < 60


def test_a_few_percent_are_missing_where_they_may_be() -> None:
    rows = table(DAY, CHUNK_ROWS)
    shares = {name: rows[name].null_count / len(rows) for name in rows.column_names if rows[name].null_count}
    assert shares.keys() == {"avg_transaction_value", "days_since_last_purchase"}
    assert all(0.01 < share < 0.1 for share in shares.values())


def test_the_contract_accepts_every_generated_row() -> None:
    contract = Contract(declared_pipeline("customer_churn"))
    for batch in customers(DAY, 2 * CHUNK_ROWS):
        verdict = contract.validate(batch, is_text=False)
        assert not verdict.rejected
        assert verdict.accepted.equals(batch.cast(contract.arrow_schema))


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("age", 17, "greater_than_or_equal_to(18)"),
        ("age", 121, "less_than_or_equal_to(120)"),
        ("age", None, "not_nullable"),
        ("income", -0.01, "greater_than_or_equal_to(0)"),
        ("income", float("inf"), "is_finite"),
        ("tenure_days", -1, "greater_than_or_equal_to(0)"),
        ("num_purchases", -1, "greater_than_or_equal_to(0)"),
        ("avg_transaction_value", -1.0, "greater_than_or_equal_to(0)"),
        ("days_since_last_purchase", -1, "greater_than_or_equal_to(0)"),
    ],
)
def test_the_contract_rejects_what_cannot_be(column: str, value: float | None, rule: str) -> None:
    [batch] = customers(DAY, 3)
    place = SCHEMA.get_field_index(column)
    values = [*batch.column(column).to_pylist()[:2], value]
    nullable = pa.schema([field.with_nullable(True) for field in SCHEMA])
    spoilt = batch.cast(nullable).set_column(place, nullable.field(place), pa.array(values, SCHEMA.field(place).type))
    verdict = Contract(declared_pipeline("customer_churn")).validate(spoilt, is_text=False)
    assert {row: (reason.rule, reason.column) for row, reason in verdict.rejected.items()} == {2: (rule, column)}


def test_the_true_probability_is_worth_finding() -> None:
    probability = churn_probability(table(DAY, CHUNK_ROWS))
    assert np.isfinite(probability).all()
    assert 0.2 < probability.mean() < 0.3
    assert 0.1 < (probability > 0.5).mean() < 0.2


def test_a_missing_value_counts_as_the_mean() -> None:
    torch.manual_seed(0)
    network = ChurnNet(input_dim=6, hidden_dim=8, output_dim=2)
    network.mean.copy_(torch.arange(6.0))
    rows = torch.rand(64, 6)
    known = rows.clone()
    rows[:, 2], known[:, 2] = torch.nan, 2.0
    codes = torch.empty(64, 0, dtype=torch.int64)
    assert torch.equal(network(rows, codes), network(known, codes))


def test_the_embedded_landing_days_are_what_the_command_writes(tmp_path: Path) -> None:
    for day in ("2024-01-01", "2024-01-02"):
        command = [sys.executable, "-m", "batch_scoring.pipelines.customer_churn.data", "--day", day]
        command += ["--rows", "1000", "--format", "csv", "--out", str(tmp_path)]
        subprocess.run(command, check=True, cwd=PROJECT, capture_output=True)
        name = f"dt={day}/customers.csv"
        assert (tmp_path / name).read_bytes() == (LANDING / name).read_bytes()


def test_the_embedded_checkpoint_gives_the_embedded_bundle(tmp_path: Path) -> None:
    embedded = load_bundle(open_folder(str(MODELS / "v1")), ChurnNet)
    convert(
        MODELS / "churn.pt",
        pipeline=declared_pipeline("customer_churn"),
        sample=pq.read_table(MODELS / "sample.parquet"),
        classes=["stays", "leaves"],
        folder=tmp_path,
        training=embedded.manifest.training,
        metrics=embedded.manifest.metrics,
    )
    again = load_bundle(open_folder(str(tmp_path)), ChurnNet)
    weights = "model.safetensors"
    assert again.manifest.files[weights] == embedded.manifest.files[weights]
    # the embedded one was written in format 1, when the tolerance was absolute alone
    same = {"files": {}, "golden_tolerance": 1e-5, "format": 1}
    assert again.manifest.model_copy(update=same) == embedded.manifest.model_copy(update=same)

    entries = torch.load(MODELS / "churn.pt", weights_only=True)
    network = ChurnNet(entries["input_dim"], entries["hidden_dim"], entries["output_dim"])
    network.load_state_dict(entries["model_state_dict"])
    rows = table(DAY, 4_096)
    numeric = torch.from_numpy(np.column_stack([rows[name].to_numpy().astype(np.float32) for name in FEATURES]))
    with torch.inference_mode():
        expected = network(numeric, torch.empty(len(rows), 0, dtype=torch.int64)).numpy()
    np.testing.assert_allclose(Scorer(embedded, device="cpu").outputs(rows), expected, atol=2e-6, rtol=0)


def test_the_embedded_model_is_honest_and_useful() -> None:
    """It ranks a later day nearly as well as the true probability does."""
    model = load_bundle(open_folder(str(MODELS / "v1")), ChurnNet)
    rows = table(date(2024, 3, 1), 20_000)
    truth = churn_probability(rows)
    logits = Scorer(model, device="cpu").outputs(rows)
    assert np.corrcoef(logits[:, 1] - logits[:, 0], np.log(truth / (1 - truth)))[0, 1] > 0.97
    assert model.manifest.metrics["auc_held_out_days"] == pytest.approx(0.78, abs=0.01)


def test_the_embedded_files_are_small() -> None:
    files = [file for folder in (MODELS, LANDING) for file in folder.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 1.25 * 1024**2


def test_an_ordinary_day_with_its_drift_loads_nothing_that_only_a_page_needs(tmp_path: Path) -> None:
    for part in ("customer_churn/landing", "customer_churn/models", "flight_delay/models", "support_tickets/models"):
        shutil.copytree(PROJECT / "data" / part, tmp_path / part)
    heavy = ["evidently", "plotly", "scipy", "sklearn", "polars", "apprise"]
    code = (
        "import sys; from batch_scoring.cli.main import main;"
        "assert main(['backfill', 'customer_churn', '2024-01-01', '2024-01-01']) == 0;"
        f"print('loaded', [name for name in {heavy} if name in sys.modules])"
    )
    environment = {**os.environ, "BATCH_SCORING_DATA": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == "loaded []"
    assert State(open_folder(str(tmp_path / "customer_churn"))).drift("2024-01-01"), "the day was compared"
