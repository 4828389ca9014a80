"""The guide's example for PostgreSQL: its spec is valid, and its SQL runs on what the export has written."""

import re
from datetime import UTC, datetime

import pyarrow as pa
import yaml

from batch_scoring.config.delivery_spec import PostgresExport
from batch_scoring.config.loader import PROJECT
from batch_scoring.delivery.exports.postgres import PostgresSink
from batch_scoring.delivery.exports.postgres_connection import address_of
from batch_scoring.delivery.exports.sink import Delivery, Version
from batch_scoring_tests.postgres_server import Server

GUIDE = (PROJECT / "docs/guides/exports-postgres.txt").read_text("utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", GUIDE, re.DOTALL | re.MULTILINE)


def test_the_example_runs(postgres: Server) -> None:
    (spec,) = (yaml.safe_load(block)["exports"]["results"] for block in blocks("yaml"))
    export = PostgresExport.model_validate(spec)
    preparation, report, marker = blocks("sql")
    postgres.query(preparation)
    rows = {
        "prediction": [1, 0, 1],
        "prob_class_1": [0.75, 0.25, 0.5],
        "segment": ["new", "old", "new"],
        "model_version": ["v1"] * 3,
        "scored_at": [datetime(2024, 1, 2, tzinfo=UTC)] * 3,
    }
    assert tuple(rows) == export.columns
    table = pa.table({"id": [1, 2, 3], **rows})
    sink = PostgresSink(postgres.url_of("exporter", "p@ssword"), export.table, "churn", "results", "id")
    assert not list(sink.problems(table.schema))
    version = Version(1, 1)
    sink.deliver(
        Delivery("churn", "results", "2024-01-01", version, "run", table.schema, lambda: iter(table.to_batches()))
    )

    assert [row[1:] for row in postgres.query(report)] == [("new", 2, 0.625), ("old", 1, 0.25)]
    assert [row[:2] for row in postgres.query(marker)] == [(3, "run")]


def test_the_example_of_an_address_can_be_read() -> None:
    (url,) = re.findall(r"RESULTS_DB='(.*)'", GUIDE)
    address = address_of(url)
    assert address.shown == "postgresql://db.example.org:5432/results"
    assert "p@ssword" in address.secrets
