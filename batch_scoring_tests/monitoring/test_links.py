"""Links to pages, by where the output lies."""

import dagster as dg
import pytest

from batch_scoring.monitoring.links import link
from batch_scoring_tests.tiny import DAY, TinyProject


def test_a_page_is_linked_under_the_reports_url_if_there_is_one(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = f"reports/dt={DAY}/drift.html"
    assert link(tiny.pipeline, page) == dg.MetadataValue.path(f"{tiny.data_root}/{tiny.name}/{page}")
    monkeypatch.setenv("REPORTS_URL", "http://localhost:3001/")
    assert link(tiny.pipeline, page) == dg.MetadataValue.url(f"http://localhost:3001/{tiny.name}/{page}")
    tiny.spec["output"] = "/elsewhere"
    tiny.write_spec()
    assert link(tiny.pipeline, page) == dg.MetadataValue.path(f"/elsewhere/{page}"), "the server does not show that"


def test_a_page_in_a_bucket_is_linked_to_the_console_if_that_knows_the_bucket(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.spec["output"] = "s3://bucket/scores"
    tiny.write_spec()
    url = "https://console.aws.amazon.com/s3/object/bucket?prefix=scores/reports/page.html"
    assert link(tiny.pipeline, "reports/page.html") == dg.MetadataValue.url(url)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://localhost:9000")
    assert link(tiny.pipeline, "reports/page.html") == dg.MetadataValue.text("s3://bucket/scores/reports/page.html")
