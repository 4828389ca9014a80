"""Days of a model that reads texts, vectors, pictures and numbers at once, from landing files to tables and checks."""

import importlib
import io
import json
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tokenizers
import torch

from batch_scoring.cli.score import score_files
from batch_scoring.cli.score.score_files import ScoreRequest
from batch_scoring.daily.model_code import model_code
from batch_scoring.inference.bundle import load_bundle, read_bundle, write_bundle
from batch_scoring.inference.manifest import TEXT_DESCRIPTORS, VECTOR_DESCRIPTORS
from batch_scoring.inference.scorer import Scorer
from batch_scoring.monitoring.drift import samples
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.text_models import LONGEST, WORDS, letters, text, tokenizer
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, checks

SCHEMA = """
import pandera.pandas as pa

class Rows(pa.DataFrameModel):
    id: str
    title: str = pa.Field(nullable=True)
    body: str = pa.Field(nullable=True)
    x: float = pa.Field(nullable=True)
    meaning: list[float] = pa.Field(nullable=True)
    photo: bytes
"""

NETWORK = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, words):
        super().__init__()
        self.words = nn.Embedding(words, 8, padding_idx=0)
        self.last = nn.Linear(8 + 3 + 1 + 1, 3)

    def forward(self, tokens, numeric, vectors, light):
        mean = self.words(tokens).sum(dim=1) / (tokens != 0).sum(dim=1, keepdim=True)
        return self.last(torch.cat([mean, vectors.nan_to_num(0.0), numeric.nan_to_num(0.0), light], dim=1))
"""

ENCODER = """
import numpy as np

def encode(rows, fitted):
    points = [np.frombuffer(cell, np.uint8).reshape(4) for cell in rows["photo"].to_pylist()]
    return {"light": np.array(points, np.float32).reshape(-1, 4).mean(axis=1, keepdims=True) / 255}
"""


def rows(count: int, seed: int = 0, longer: int = 1) -> pa.Table:
    """Letters with a meaning of three numbers and a photo of four bytes; `longer`: how often the body is repeated."""
    random = np.random.default_rng(seed)
    batch = letters(count, seed)
    table = pa.Table.from_batches([batch])
    body = [cell and " ".join([cell] * longer) for cell in table["body"].to_pylist()]
    table = table.set_column(2, "body", pa.array(body, pa.string()))
    meaning = [None if row % 17 == 3 else random.normal(size=3).tolist() for row in range(count)]
    photos = [random.integers(0, 256, 4).astype(np.uint8).tobytes() for _ in range(count)]
    table = table.append_column("meaning", pa.array(meaning, pa.list_(pa.float64())))
    return table.append_column("photo", pa.array(photos, pa.binary()))


def days(count: int) -> Iterator[pa.Table]:
    for number in range(count):
        table = rows(60, seed=1_000 + number)
        yield table.append_column("dt", pa.array([date(2023, 11, 1) + timedelta(number)] * 60))


@pytest.fixture(name="project")
def _project(tiny: TinyProject) -> TinyProject:
    tiny.write_code(SCHEMA, NETWORK)
    (tiny.folder / "encoder.py").write_text(ENCODER)
    importlib.invalidate_caches()
    tiny.spec["features"] = {
        "schema": "schema:Rows",
        "numeric": ["x"],
        "text": ["title", "body"],
        "vectors": ["meaning"],
        "encode": "encoder:encode",
    }
    tiny.write_spec()
    torch.manual_seed(0)
    code = model_code(tiny.pipeline)
    local = tiny.folder / "bundles" / "v9"
    arguments = {"words": len(WORDS) + 2}
    write_bundle(
        local,
        network=code.network(**arguments),
        arguments=arguments,
        name=tiny.name,
        version="v9",
        task="classification",
        numeric=["x"],
        categorical={},
        classes=["a", "b", "c"],
        training={},
        metrics={},
        golden=rows(64, seed=99),
        reference=pa.concat_tables(days(70)),
        text=text(),
        tokenizer=tokenizer(),
        vectors={"meaning": 3},
        code=code,
    )
    bundle = read_bundle(open_folder(str(local)))
    bundle.with_profile(calibrate(bundle, ()), "v9").write(open_folder(f"{tiny.data_root}/{tiny.name}/models/v9"))
    tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v9"
    tiny.write_spec()
    return tiny


def truth(project: TinyProject, table: pa.Table) -> np.ndarray:
    """Probabilities by the network alone: each row by itself, its tokens unpadded."""
    network = load_bundle(project.pipeline.bundle, model_code(project.pipeline)).network
    library = tokenizers.Tokenizer.from_str(tokenizer().decode())
    found = []
    for row in table.to_pylist():
        ids = library.encode(f"{row['title'] or ''}\n{row['body'] or ''}").ids[:LONGEST] or [1]
        parts = (
            torch.tensor([ids]),
            torch.tensor([[row["x"]]], dtype=torch.float32),
            torch.tensor([row["meaning"] or [torch.nan] * 3], dtype=torch.float32),
            torch.tensor([[sum(row["photo"]) / 4 / 255]], dtype=torch.float32),
        )
        with torch.inference_mode():
            found.append(network(*parts).softmax(dim=1)[0].numpy())
    return np.array(found)


def test_a_day_is_scored_as_the_network_scores_each_row_alone(project: TinyProject) -> None:
    table = rows(900, seed=5)
    project.land(DAY, table)
    result = checks(project.run())
    assert {name for name, passed in result.items() if not passed} <= {"predictions/classes_are_balanced"}
    published = project.read()
    found = np.column_stack([published[f"prob_class_{index}"].to_numpy() for index in range(3)])
    order = np.argsort(np.array(table["id"].to_pylist()))
    np.testing.assert_allclose(found, truth(project, table.take(pa.array(order))), atol=1e-6)
    assert project.read(table="validated_features").schema.field("meaning").type == pa.list_(pa.float64())

    loaded = load_bundle(project.pipeline.bundle, model_code(project.pipeline))
    batch = table.combine_chunks().to_batches()[0]
    for size in (1, 7, 64, 1_000):
        parts = [batch.slice(start, size) for start in range(0, batch.num_rows, size)]
        again = pa.Table.from_batches([part.scores for part in Scorer(loaded, device="cpu").score(parts, helpers=1)])
        assert again.take(pa.array(order))["prob_class_1"].to_pylist() == published["prob_class_1"].to_pylist(), size


def test_rows_that_cannot_be_encoded_are_quarantined_with_the_reason(project: TinyProject) -> None:
    table = rows(200, seed=6)
    meaning, photo, far = table["meaning"].to_pylist(), table["photo"].to_pylist(), table["x"].to_pylist()
    meaning[10], photo[20], far[30] = [1.0, 2.0], b"?", 1e300
    table = table.set_column(3, "x", pa.array(far)).set_column(4, "meaning", pa.array(meaning))
    project.land(DAY, table.set_column(5, "photo", pa.array(photo, pa.binary())))
    project.run()
    assert project.quarantined() == {
        ("k6-10", "score", "input_has_size", ""),
        ("k6-20", "score", "encode_raises", ""),
        ("k6-30", "score", "input_is_finite", ""),
    }
    assert project.read().num_rows == 197


def test_drift_of_texts_is_found_by_what_describes_them_and_no_sample_has_them(project: TinyProject) -> None:
    project.land(DAY, rows(300, seed=7))
    project.land(NEXT_DAY, rows(300, seed=8, longer=9))
    assert checks(project.run())["validated_features/features_match_reference"]
    assert not checks(project.run(NEXT_DAY))["validated_features/features_match_reference"]
    sample = samples.get(project.pipeline.output, DAY)
    assert sample and {*TEXT_DESCRIPTORS, *VECTOR_DESCRIPTORS} <= {*sample.rows.column_names}
    assert not {"title", "body", "meaning", "photo"} & {*sample.rows.column_names}


def test_files_are_scored_and_decisions_explained_without_a_word_of_the_texts(
    project: TinyProject, tmp_path: Path
) -> None:
    project.spec["decisions"] = {
        "score": "prob_class_1",
        "actions": {"answer": {"at_least": 0.0, "most": 20}},
        "explain": 3,
    }
    project.write_spec()
    project.land(DAY, rows(100, seed=11))
    project.run()
    decided = project.read(table="decisions")
    reasons = " ".join(cell or "" for cell in decided["why"].to_pylist())
    assert "body +" in reasons or "title +" in reasons
    assert not any(word in reasons for word in ("cat", "mat", "zebra"))

    source = tmp_path / "letters.parquet"
    pq.write_table(rows(50, seed=12), source)
    request = ScoreRequest(str(source), str(tmp_path / "scored.parquet"))
    assert score_files.run(project.pipeline, request, io.StringIO(), io.StringIO()) == 0
    assert pq.read_table(tmp_path / "scored.parquet").num_rows == 50


def test_json_lines_hold_texts_and_vectors_and_a_csv_file_says_that_it_cannot(project: TinyProject) -> None:
    project.write_code(SCHEMA.replace("    photo: bytes\n", ""))
    table = rows(30, seed=13).drop_columns("photo")
    lines = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist())
    project.land(DAY, lines.encode(), name="letters.jsonl")
    project.run(steps=["raw_input", "validated_features"])
    found = project.read(table="validated_features")
    assert dict(zip(found["id"].to_pylist(), found["meaning"].to_pylist(), strict=True)) == dict(
        zip(table["id"].to_pylist(), table["meaning"].to_pylist(), strict=True)
    )
    project.land(NEXT_DAY, b"id,title,body,x,meaning\n1,a,b,1.0,[1]\n", name="letters.csv")
    with pytest.raises(
        Exception, match=r"a CSV file cannot hold meaning \(list<element: double>\); upload Parquet, or JSON"
    ):
        project.run(NEXT_DAY, steps=["raw_input", "validated_features"])
