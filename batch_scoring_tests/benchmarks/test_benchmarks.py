"""The benchmarks measure what they say: one table for all, the network's own scores, whole trees of processes."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
import torch

from batch_scoring.inference.acceptance import agreement
from benchmarks import decisions, engine, instruction_sets, networks, peers, side_by_side, texts, workload

ROWS = 1_000
HOLDS_AND_WORKS = """
import time
held = bytearray(300 * 2**20)
while time.process_time() < 1:
    pass
"""
STARTS_ANOTHER = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {HOLDS_AND_WORKS!r}], check=True)"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    for name in networks.MODELS:
        networks.write(folder, name)
    return folder


def scores_of(output: Path) -> pa.Table:
    """Scores as a contender would have written them: the rows of a table, each with chances of its own."""
    chances = np.linspace(0, 1, ROWS, dtype=np.float32)
    scores = pa.table(
        {
            "id": workload.table(ROWS)["id"],
            "prediction": np.zeros(ROWS, np.int64),
            **dict.fromkeys(peers.OUTPUTS[2:5], chances),
            **dict.fromkeys(peers.OUTPUTS[5:], pa.repeat("", ROWS)),
        }
    )
    pq.write_table(scores, output)
    return scores


def test_a_table_is_the_same_every_time_and_the_beginning_of_a_larger_one() -> None:
    rows = workload.CHUNK + ROWS
    table = workload.table(rows)

    assert table.equals(workload.table(rows))
    assert workload.table(ROWS).equals(table.slice(0, ROWS))
    assert not table.slice(workload.CHUNK).drop(["id"]).equals(workload.table(ROWS).drop(["id"]))
    assert np.array_equal(workload.positions(table["id"]), np.arange(rows))


def test_every_column_varies_and_has_the_gaps_that_are_announced() -> None:
    table = workload.table(100_000)

    for name in (*workload.NUMERIC, *workload.CATEGORICAL):
        assert len(table[name].unique()) > 10, name
        assert table[name].null_count / len(table) == pytest.approx(workload.GAPS.get(name, 0), rel=0.2), name


def test_parquet_and_csv_hold_the_same_rows(tmp_path: Path) -> None:
    for ending in ("parquet", "csv"):
        workload.write(ROWS, tmp_path / f"rows.{ending}")
    types = dict(zip(workload.SCHEMA.names, workload.SCHEMA.types, strict=True))
    options = pyarrow.csv.ConvertOptions(column_types=types, strings_can_be_null=True)

    assert pq.read_table(tmp_path / "rows.parquet").equals(workload.table(ROWS))
    assert pyarrow.csv.read_csv(tmp_path / "rows.csv", convert_options=options).equals(workload.table(ROWS))


@pytest.mark.parametrize("form", ["parquet", "csv"])
@pytest.mark.parametrize("name", networks.MODELS)
def test_ours_gives_the_scores_of_the_plain_network(name: str, form: str, models: Path, tmp_path: Path) -> None:
    source, target = tmp_path / f"rows.{form}", tmp_path / "scores"
    workload.write(ROWS, source)

    peers.CONTENDERS["ours"].run(peers.Task(source, target, models, name))

    found, rows = pq.read_table(target), workload.table(ROWS).to_pydict()
    numbers = torch.tensor([[np.nan if cell is None else cell for cell in rows[column]] for column in workload.NUMERIC])
    codes = torch.tensor(
        [
            [words.index(cell) + 1 if cell else 0 for cell in rows[column]]
            for column, words in workload.CATEGORICAL.items()
        ]
    )
    expected = torch.softmax(networks.load_plain(models, name)(numbers.float().T, codes.T), dim=1)
    assert found["id"].to_pylist() == rows["id"]
    assert found.column_names == list(peers.OUTPUTS)
    chances = np.column_stack([found["prob_class_0"], found["prob_class_1"]])
    assert np.abs(chances - expected.numpy()).max() < 1e-5
    assert np.array_equal(found["prediction"], chances.argmax(axis=1))
    assert 0.2 < np.mean(found["prediction"]) < 0.8


def test_outputs_in_another_order_are_compared_by_id(tmp_path: Path) -> None:
    scores = scores_of(tmp_path / "ours")
    folder = tmp_path / "peer"
    folder.mkdir()
    pq.write_table(scores.slice(600), folder / "0.parquet")
    changed = scores.slice(0, 600).set_column(1, "prediction", [np.eye(1, 600, 7, dtype=np.int64)[0]])
    chances = changed["prob_class_1"].to_numpy().copy()
    chances[9] -= 0.25
    pq.write_table(changed.set_column(4, "prob_class_1", [chances]), folder / "1.parquet")

    assert engine.compare(tmp_path / "ours", tmp_path / "ours", ROWS) == ("0.0e+00", "0", "kept")
    assert engine.compare(tmp_path / "ours", folder, ROWS) == ("2.5e-01", "1", "other")


def test_an_output_without_a_row_or_with_one_twice_is_refused(tmp_path: Path) -> None:
    scores = scores_of(tmp_path / "ours")
    pq.write_table(scores.slice(1), tmp_path / "fewer")
    pq.write_table(pa.concat_tables([scores.slice(1), scores.slice(5, 1)]), tmp_path / "twice")

    for name in ("fewer", "twice"):
        with pytest.raises(ValueError, match="not each of the 1000 ids once"):
            engine.compare(tmp_path / "ours", tmp_path / name, ROWS)


def test_memory_and_cpu_of_a_child_count() -> None:
    measures, _ = side_by_side.watched(["-c", STARTS_ANOTHER])

    assert 300 < measures["memory"] < 400
    assert 1 <= measures["cpu"] < 3
    assert measures["process"] >= 1


def test_the_networks_of_the_instruction_sets_are_scored_by_both_ways_alike() -> None:
    found = instruction_sets.outputs()
    networks = instruction_sets.models()
    assert found.keys() == {f"{name}/{way}" for name in networks for way in ("eager", "engine")}
    for name, (model, _) in networks.items():
        tolerance = model.manifest.task.tolerance
        assert agreement.worst(found[f"{name}/engine"], found[f"{name}/eager"], tolerance).is_accepted


@pytest.mark.parametrize("name", list(decisions.CONTENDERS))
def test_every_contender_decides_alike(name: str) -> None:
    if name == "DuckDB":
        pytest.importorskip("duckdb")
    rows = decisions.table(40_000)
    action, control = decisions.CONTENDERS["batch_scoring"](rows)

    found = decisions.CONTENDERS[name](rows)

    assert np.array_equal(found[0], action)
    assert np.array_equal(found[1], control)
    assert np.bincount(action).tolist()[1] == decisions.MOST


def test_every_way_to_put_texts_through_a_network_gives_the_same_scores(tmp_path: Path) -> None:
    rows = texts.texts(200)
    found = {name: score(rows) for name, score in texts.contenders(texts.bundle(tmp_path)).items()}

    assert {scores.shape for scores in found.values()} == {(200, len(texts.TOPICS))}
    assert np.ptp(found["engine"][:, 0]) > 0.01
    for scores in found.values():
        np.testing.assert_allclose(scores, found["engine"], atol=1e-6, rtol=0)
