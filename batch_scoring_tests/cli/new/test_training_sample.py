"""The rows to train on: accepted by the schema, typed, each with its own label."""

from datetime import date

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from batch_scoring.cli.new import landing, training_sample
from batch_scoring.cli.new.columns import Column, Label, Roles
from batch_scoring.cli.new.sample import Sample
from batch_scoring_tests.cli.new.conftest import Read
from batch_scoring_tests.tiny import TinyProject

DAYS = ["2024-03-04", "2024-03-05"]


def roles(classes: tuple[str, ...]) -> Roles:
    return Roles(Column("id", "str"), Label("label", classes), (), ())


def write(tiny: TinyProject, sample: Sample, classes: tuple[str, ...]) -> pa.Table:
    landing.land(tiny.pipeline, sample, landing.days_of(sample, "day", DAYS[0]))
    rows = training_sample.write(tiny.pipeline, sample, roles(classes), DAYS)
    table = pq.read_table(training_sample.file(tiny.pipeline))
    assert len(table) == rows
    return table


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.parquet"])
def test_every_row_keeps_its_own_label_whatever_is_rejected_before_it(
    tiny: TinyProject, sampled: Read, name: str
) -> None:
    rows = [
        {
            "id": f"k{number:03d}",
            "x": 5000.0 if number % 7 == 0 else float(number),  # beyond the schema's range
            "y": None if number % 5 == 0 else 0.5,
            "n": number % 3,
            "c": ["red", "green"][number % 2],
            "label": None if number % 11 == 0 else f"label {number % 4}",
            "day": DAYS[number % 2],
        }
        for number in range(100)
    ]
    table = write(tiny, sampled(rows, name), ("label 0", "label 1", "label 2", "label 3"))
    assert table.schema.names == ["id", "dt", "x", "y", "n", "c", "label"]
    assert table.schema.field("n").type == pa.int64() and table.schema.field("dt").type == pa.date32()
    wanted = [row for row in rows if row["x"] != 5000.0 and row["label"] is not None]
    assert sorted(table["id"].to_pylist()) == [row["id"] for row in wanted]
    known = {row["id"]: row for row in rows}
    for row in table.to_pylist():
        own = known[row["id"]]
        assert row["label"] == own["label"] and row["dt"] == date.fromisoformat(str(own["day"]))
        assert row["y"] == own["y"]


def test_a_label_that_is_a_number_is_one(tiny: TinyProject, sampled: Read) -> None:
    rows = [{"id": f"k{n}", "x": 1, "y": 1, "n": 1, "c": "red", "label": n / 4, "day": DAYS[0]} for n in range(9)]
    assert write(tiny, sampled(rows), ())["label"].to_pylist() == [n / 4 for n in range(9)]
