"""The guide's example for PostgreSQL: a day is scored, exported by its job, and asked for in SQL."""

import re
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
import yaml

from batch_scoring.config.loader import PROJECT
from batch_scoring.delivery.exports.postgres.connection import address_of
from batch_scoring_tests.exports import run_exports, with_export
from batch_scoring_tests.postgres_server import Server
from batch_scoring_tests.tiny import DAY, SCHEMA, TinyProject

GUIDE = (PROJECT / "docs/guides/exports-postgres.md").read_text("utf-8")
PASSWORD = "p@ssword"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def score(tiny: TinyProject, rows: int) -> None:
    segments = pa.array([("new", "old", "new")[number % 3] for number in range(rows)])
    tiny.land(DAY, tiny.rows(rows).append_column("segment", segments))
    assert tiny.run().success


def test_the_example_runs(postgres: Server, tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    (spec,) = (yaml.safe_load(block)["exports"]["results"] for block in blocks("yaml"))
    preparation, report, marker = blocks("sql")
    marker = marker.replace("'churn'", f"'{tiny.name}'").replace("2024-01-01", DAY)
    postgres.query(preparation)
    monkeypatch.setenv(spec["url_from"], postgres.url_of("exporter", PASSWORD))
    tiny.write_code(schema=SCHEMA + "    segment: str\n")
    tiny.spec["input"]["attributes"] = ["segment"]
    with_export(tiny, "results", **{"path": None, **spec})
    score(tiny, 12)

    with dg.DagsterInstance.ephemeral() as instance:
        assert run_exports(tiny, instance).success
        assert [row[1:3] for row in postgres.query(report)] == [("new", 8), ("old", 4)]
        predictions = tiny.read().sort_by("id").select(["id", "prob_class_1"]).to_pydict()
        stored = postgres.query("SELECT id, prob_class_1::float8 FROM scores.churn ORDER BY id")
        assert [list(column) for column in zip(*stored, strict=True)] == list(predictions.values())

        score(tiny, 15)
        postgres.stop()
        try:
            assert not run_exports(tiny, instance).success
        finally:
            postgres.start()
        assert [row[0] for row in postgres.query(marker)] == [12]
        assert run_exports(tiny, instance).success
        assert [row[0] for row in postgres.query(marker)] == [15]

        events = [entry.to_json() for run in instance.get_runs() for entry in instance.all_logs(run.run_id)]
    files = [file.read_bytes().decode(errors="replace") for file in Path(tiny.data_root).rglob("*.json")]
    assert len(events) > 20 and len(files) > 3
    assert not [text for text in (*events, *files) if PASSWORD in text or "p%40ssword" in text or "exporter" in text]


def test_the_example_of_an_address_can_be_read() -> None:
    (url,) = re.findall(r"RESULTS_DB='(.*)'", GUIDE)
    address = address_of(url)
    assert address.shown == "postgresql://db.example.org:5432/results"
    assert PASSWORD in address.secrets
