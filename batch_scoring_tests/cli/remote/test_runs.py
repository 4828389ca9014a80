"""Runs and backfills as a deployment tells of them."""

import json

import dagster as dg
import pytest

from batch_scoring_tests.remote_deployment import LAST_DAY, There, command
from batch_scoring_tests.tiny import NEXT_DAY

NO_RUN = "00000000-0000-4000-8000-000000000000"


def test_a_range_becomes_a_backfill_whose_failed_days_are_told(there: There) -> None:
    name = there.tiny.name
    assert json.loads(there.range.out) == {
        "kind": "backfill",
        "id": there.range_id,
        "url": f"{there.url}/runs/b/{there.range_id}",
        "pipeline": name,
        "first": NEXT_DAY,
        "last": LAST_DAY,
        "days": 2,
    }
    silence = "batch-scoring: the deployment's daemon has never run: nothing is started until it runs\n"
    assert (there.range.code, there.range.err) == (0, silence)
    requested, idle, _ = there.idle.err.splitlines()
    assert requested.split(" ", 1)[1] == f"backfill {there.range_id}: 2 requested"
    assert (there.idle.code, idle.split(" ", 1)[1]) == (4, silence.partition(": ")[2].rstrip())
    ended = command(f"wait {there.range_id} --timeout 200 --json", there.url)
    assert ended.code == 1, ended
    assert ended.err.splitlines()[-1].split(" ", 1)[1] == f"backfill {there.range_id}: 1 succeeded, 1 failed"
    found = json.loads(ended.out)
    assert found["days"] == {"succeeded": [NEXT_DAY], "failed": [LAST_DAY]}
    assert (found["kind"], found["state"], found["pipeline"], found["failed_count"]) == ("backfill", "failed", name, 1)
    (failed,) = found["failed"]
    (check,) = [check for check in failed["failed_checks"] if check["severity"] == "ERROR"]
    assert (check["asset"], check["check"]) == (f"{name}/raw_input", "input_is_complete")
    assert "is not a complete Parquet file" in check["message"] and failed["errors"][0]["step"] == f"{name}/raw_input"

    page = command(f"status {there.range_id}", there.url)
    assert page.code == 1 and page.out.startswith(f"{name} {NEXT_DAY} … {LAST_DAY}: failed\n")
    assert f"  succeeded   1: {NEXT_DAY}\n  failed      1: {LAST_DAY}\n" in page.out
    assert f"\n    {LAST_DAY} (bad_input)  {name}/raw_input input_is_complete: " in page.out

    with there.deployment.instance() as instance:
        runs = instance.get_run_records(dg.RunsFilter(tags={"dagster/backfill": there.range_id}))
        assert len(runs) == 2  # a run a day
    alone = command(f"status {failed['id']}", there.url)
    first, *rest = alone.out.splitlines()
    assert (alone.code, first) == (1, f"{name} {LAST_DAY}: failed (bad_input)")
    at = rest.index("  failed checks")
    assert rest[at + 1].startswith(f"    {name}/raw_input input_is_complete (ERROR): ")
    assert not any(line.startswith("  error") for line in rest)  # the check has said it
    assert "failure_of" not in alone.out
    assert command(f"wait {failed['id']}", there.url).code == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (f"status {NO_RUN}", f"no run {NO_RUN} at URL"),
        (f"wait {NO_RUN}", f"no run {NO_RUN} at URL"),
        ("status abcdefgh", "neither run nor backfill abcdefgh at URL"),
        ("status --pipeline TINY --day 2024-03-01", "TINY 2024-03-01 has no run at URL; start one: batch-scoring "),
        ("wait --pipeline TINY --day 2024-02-29", "2024-02-29 is not a day of TINY at URL"),
    ],
)
def test_a_run_that_the_deployment_has_not_is_one_line(there: There, arguments: str, says: str) -> None:
    said = command(there.words(arguments), there.url)
    assert said.code == 2 and there.words(says) in said.line
