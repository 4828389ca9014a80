"""The page of a run as text and as JSON."""

import json

from batch_scoring_tests.remote_deployment import There, command
from batch_scoring_tests.tiny import NEXT_DAY


def test_a_days_newest_run_is_told_as_text_and_as_json(there: There) -> None:
    name = there.tiny.name
    command(f"wait {there.range_id} --timeout 200", there.url)
    told = command(f"status --pipeline {name} --day {NEXT_DAY} --json", there.url)
    assert (told.code, told.err) == (0, "")
    found = json.loads(told.out)
    assert list(found) == [
        "kind",
        "id",
        "url",
        "pipeline",
        "day",
        "job",
        "state",
        "failure",
        "created_at",
        "started_at",
        "ended_at",
        "seconds",
        "retry_of",
        "retried_as",
        "rows",
        "rows_per_second",
        "model_version",
        "metrics",
        "failed_checks",
        "errors",
        "tags",
    ]
    assert (found["kind"], found["pipeline"], found["day"], found["state"]) == ("run", name, NEXT_DAY, "succeeded")
    assert found["rows"] == {"in": 500, "scored": 497, "quarantined": 3} and found["model_version"] == "v1"
    assert found["metrics"]["raw_input"]["rows"] == 500 and found["seconds"] > 0
    assert found["metrics"]["predictions"]["rows_per_second"] == found["rows_per_second"] > 0
    assert found["errors"] == [] and found["tags"]["batch_scoring/why"] == "submitted"
    assert there.tiny.read(NEXT_DAY).num_rows == 497

    page = command(f"status {found['id']}", there.url)
    lines = page.out.splitlines()
    assert (page.code, lines[0], lines[-1]) == (0, f"{name} {NEXT_DAY}: succeeded", f"  {there.url}/runs/{found['id']}")
    assert "\n  rows        500 in, 497 scored, 3 quarantined, " in page.out
