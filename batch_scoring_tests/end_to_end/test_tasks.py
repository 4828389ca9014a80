"""A day of every task, from the landing file to everything that is made of its scores."""

import csv
import json
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from deltalake import DeltaTable

from batch_scoring.delivery.day_page.publish import publish
from batch_scoring.inference.acceptance import eager
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.heads.vector import Vector
from batch_scoring.metrics import catalogue
from batch_scoring.metrics.day_samples import of_pipeline
from batch_scoring.monitoring.drift import samples
from batch_scoring_tests import exports, scored_files
from batch_scoring_tests.drift_days import PREDICTIONS
from batch_scoring_tests.heads import HEADS
from batch_scoring_tests.month_pages import draw, series
from batch_scoring_tests.tiny import DAY, NETWORK, NEXT_DAY, TinyProject, checks, error_of, ordinary, reference_rows

ROWS, FORMS = 60, ("csv", "parquet", "jsonl")
LOST = {"k0000003": "network_raises", "k0000007": "output_is_finite"}
NAMES = [name for name in HEADS if name not in ("many classes", "own top 2", "outer quantiles", "two classes")]


def network_of(head: Head) -> str:
    """The code of a network that gives what a head takes."""
    if head.has_quantiles:
        steps = "torch.cat([result[:, :1], result[:, 1:].abs()], dim=1).cumsum(dim=1)"
        return NETWORK.replace("return torch.where(", f"result = {steps}\n        return torch.where(")
    if head.gives != "probabilities":
        return NETWORK
    end = "softmax(dim=1)" if head.is_exclusive and head.width > 1 else "sigmoid()"
    return NETWORK.replace("return torch.where(", f"result = result.{end}\n        return torch.where(")


def landed(tiny: TinyProject) -> pa.Table:
    """The rows of a day, two of which get no score."""
    rows = ordinary(DAY, ROWS)
    x = rows["x"].to_pylist()
    x[3], x[7] = 666.0, 555.0
    return rows.set_column(1, "x", pa.array(x))


def truth(tiny: TinyProject, head: Head) -> dict[str, Any]:
    """The scores of the rows in eager torch, by column, sorted by key."""
    model = load_bundle(tiny.pipeline.bundle, tiny.pipeline.load("network:Net"))
    kept = landed(tiny).filter(pa.array([key not in LOST for key in landed(tiny)["id"].to_pylist()]))
    kept = kept.sort_by("id")
    return {"id": kept["id"], **head.scores_of_eager(eager.outputs(model, kept))}


def assert_same(found: pa.Table, expected: dict[str, Any]) -> None:
    for name, column in expected.items():
        ours, theirs = found[name].to_pylist(), column.to_pylist()
        if ours and isinstance(ours[0], list):
            assert [len(row) for row in ours] == [len(row) for row in theirs]
            ours, theirs = [*chain.from_iterable(ours)], [*chain.from_iterable(theirs)]
        assert ours == (theirs if name == "id" else pytest.approx(theirs, rel=1e-5, abs=1e-6)), name


@pytest.mark.parametrize("name", NAMES)
def test_a_day_of_every_task(tmp_path: Path, name: str) -> None:
    head, tiny = HEADS[name], TinyProject(tmp_path)
    score = head.telling_column
    tiny.write_code(network=network_of(head))
    tiny.spec["decisions"] = {"score": score, "actions": {"call": {"most": 5}}, "explain": 1}
    tiny.spec["page"] = {"key": True}
    for form in FORMS:
        exports.with_export(tiny, form, path=f"exports/{form}_{{day}}.{form}")
    tiny.deliver("v1", task=head, reference=reference_rows(days=40))
    tiny.land(DAY, landed(tiny))
    result = tiny.run()
    assert [check for check, passed in checks(result).items() if not passed and "features" not in check] == []
    assert PREDICTIONS in {name.split("/")[1] for name in checks(result)}
    expected = truth(tiny, head)

    found = tiny.read()
    assert found.column_names == ["id", *head.columns, "model_version", "scored_at", "dt"]
    assert [found.schema.field(field.name).type for field in head.fields] == [field.type for field in head.fields]
    assert_same(found, expected)
    assert {row["id"]: row["rule"] for row in tiny.read(DAY, "quarantine").to_pylist()} == LOST
    table = DeltaTable(f"{tiny.pipeline.output.uri}/tables/predictions")
    assert "fixed_size" not in str(table.schema().to_arrow())
    version = tiny.published_day("predictions").table.version

    decided = tiny.read(DAY, "decisions").to_pylist()
    ranked = sorted((row for row in decided if row["action"] == "call"), key=lambda row: row["rank"])
    best = sorted(zip(expected[score].to_pylist(), expected["id"].to_pylist(), strict=True), reverse=True)[:5]
    assert [row["id"] for row in ranked] == [key for _, key in best]
    assert all(row["why"] is not None for row in ranked)
    assert best[0][1] in tiny.pipeline.output.read(publish(tiny.pipeline, DAY)).decode()

    draw(tiny)
    ((trace, days),) = series(tiny, "score").items()
    assert trace == f"v1: {score}"
    assert days[DAY] == pytest.approx(np.mean(expected[score].to_numpy()), rel=1e-5)
    means = {
        sample.labels[-1]: sample.value
        for sample in of_pipeline(tiny.pipeline, datetime.now(UTC))
        if sample.metric is catalogue.DAY_SCORE_MEAN
    }
    assert means.keys() == set(head.measured)
    sample = samples.get(tiny.pipeline.output, DAY)
    assert sample is not None and {*head.score_columns, head.confidence_column} <= {*sample.rows.column_names}

    assert_files(tiny, tmp_path, expected)
    assert tiny.run().success
    assert tiny.published_day("predictions").table.version == version, "nothing has changed"


def assert_files(tiny: TinyProject, folder: Path, expected: dict[str, Any]) -> None:
    """Compare the exported files, and those of `batch-scoring score`."""
    source = scored_files.put(folder / "in.parquet", landed(tiny))
    for form in FORMS:
        assert exports.run_exports(tiny, None, form).success
        (file,) = Path(tiny.pipeline.data_root, "exports").glob(f"{form}_{DAY}.*.{form}")
        assert_same(rows_of(file), expected)
        if form != "jsonl":
            code, _, err = scored_files.score(tiny, source, folder / f"out.{form}")
            assert code == 0, err
            assert_same(rows_of(folder / f"out.{form}").sort_by("id"), expected)


def rows_of(file: Path) -> pa.Table:
    """The rows of a file, whose lists are JSON in CSV."""
    if file.suffix == ".parquet":
        return pq.read_table(file)
    if file.suffix == ".jsonl":
        return pa.Table.from_pylist([json.loads(line) for line in file.read_text().splitlines()])
    with file.open() as lines:
        rows = list(csv.DictReader(lines))
    plain = ("id", "model_version", "scored_at", "dt")
    return pa.Table.from_pylist(
        [{name: cell if name in plain else json.loads(cell) for name, cell in row.items()} for row in rows]
    )


@pytest.mark.parametrize(
    ("name", "score", "said"),
    [
        (
            "a vector",
            "prob_class_1",
            "decisions.score: the day has no column prob_class_1; expected one of id, embedding",
        ),
        ("labels", "prediction", "decisions.score: the column prediction is list<element: int64>; expected numbers"),
        ("named values", "prediction", "decisions.score: the day has no column prediction; expected one of"),
    ],
)
def test_decisions_by_a_score_that_the_model_does_not_give_say_so(
    tiny: TinyProject, name: str, score: str, said: str
) -> None:
    tiny.spec["decisions"] = {"score": score, "actions": {"call": {}}}
    tiny.deliver("v1", task=HEADS[name])
    tiny.land(DAY, tiny.rows(10))
    assert said in error_of(tiny.run(raise_on_error=False))


EVERY, TOP = Classification(classes=("a", "b", "c")), Classification(classes=("a", "b", "c"), top=2)


@pytest.mark.parametrize(("first", "second"), [(EVERY, TOP), (TOP, EVERY)])
def test_a_model_that_writes_classes_otherwise_adds_its_columns(tiny: TinyProject, first: Head, second: Head) -> None:
    tiny.deliver("v1", task=first)
    tiny.land(DAY, tiny.rows(20))
    assert tiny.run().success
    before = tiny.read().select(["id", *first.columns])
    tiny.deliver("v2", task=second)
    tiny.land(NEXT_DAY, tiny.rows(20))
    assert tiny.run(NEXT_DAY).success
    assert tiny.read().select(["id", *first.columns]).equals(before)
    after = tiny.read(NEXT_DAY)
    assert all(after[name].null_count == 0 for name in second.columns)
    assert all(after[name].null_count == 20 for name in first.columns if name not in second.columns)


def test_duckdb_reads_lists_of_the_tables(tiny: TinyProject) -> None:
    duckdb = pytest.importorskip("duckdb")
    tiny.deliver("v1", task=Vector(size=3))
    tiny.land(DAY, tiny.rows(20))
    assert tiny.run().success
    files = DeltaTable(f"{tiny.pipeline.output.uri}/tables/predictions").file_uris()
    norm = "sqrt(list_sum([x * x for x in embedding]))"
    found = duckdb.sql(f"select id, len(embedding), {norm} from read_parquet({files!r}) order by id").fetchall()
    truth = tiny.read()
    assert [row[:2] for row in found] == [(key, 3) for key in truth["id"].to_pylist()]
    assert [length for *_, length in found] == pytest.approx(truth["norm"].to_pylist(), rel=1e-6)
