"""`submit` and `wait` against a real web server and a real daemon, whatever goes wrong on the way."""

import io
import json
import threading
import time
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

from batch_scoring.cli.remote import actions as remote_commands
from batch_scoring.cli.remote import connection as remote
from batch_scoring_tests.reliability.deployment import wait_until
from batch_scoring_tests.reliability.proxy import Fault
from batch_scoring_tests.remote_deployment import GRAPHQL, There, command
from batch_scoring_tests.tiny import DAY


def test_a_run_is_followed_through_lost_answers_a_time_out_a_killed_process_and_its_retry(there: There) -> None:
    name = there.held.name
    # the run was created, and its answer lost: the one who asked is told how to find it
    assert there.lost.code == 3
    advice = there.lost.line.rpartition("first check whether it was started all the same: ")[2]
    assert advice == f"batch-scoring status --pipeline {name} --day {DAY}"
    known = command(f"{advice.removeprefix('batch-scoring ')} --json", there.url)
    assert known.code == 0, known  # it has not ended
    run_id = json.loads(known.out)["id"]

    early = command(f"wait {run_id} --timeout 1", there.url)
    assert early.code == 4 and early.out == ""
    assert early.err.splitlines()[-1].startswith(f"batch-scoring: not finished after --timeout 1: run {run_id} is ")

    with there.deployment.instance() as instance:

        def is_started() -> bool:
            run = instance.get_run_by_id(run_id)
            return run is not None and run.status == dg.DagsterRunStatus.STARTED and bool(_pids(instance, run_id))

        assert wait_until(is_started, 60)
        there.proxy.faults = [Fault("503", on=GRAPHQL, skip=1, times=1), Fault("reset", on=GRAPHQL, skip=2, times=2)]
        out, err = io.StringIO(), io.StringIO()
        codes: list[int] = []
        thread = threading.Thread(target=lambda: codes.append(_wait(there.proxied, run_id, out, err)))
        thread.start()
        assert wait_until(lambda: "the connection broke off" in err.getvalue(), 30)
        assert there.deployment.kill("run")
        assert wait_until(lambda: "Dagster retries it as run" in err.getvalue(), 120), err.getvalue()
        there.hold.unlink()
        thread.join(150)
        assert codes == [0], err.getvalue()
    assert "is unavailable (HTTP 503)" in err.getvalue()
    last = json.loads(out.getvalue())
    assert (last["state"], last["retry_of"], last["day"]) == ("succeeded", run_id, DAY)
    first = json.loads(command(f"status {run_id} --json", there.url).out)
    assert (first["state"], first["retried_as"]) == ("failed", last["id"])
    # by the code server that began it or, if that looks later, by the sensor of dead_runs.py
    message = first["errors"][0]["message"]
    assert f"{run_id} was terminated by signal 9" in message or "The run's process is gone: killed" in message


def _terminate(client: DagsterGraphQLClient, run_id: str) -> None:
    """Dagster refuses while the run's process is being started."""
    limit = time.monotonic() + 30
    while True:
        try:
            return client.terminate_run(run_id)
        except DagsterGraphQLClientError as error:
            if "STARTING" not in str(error) or time.monotonic() > limit:
                raise
        time.sleep(0.2)


def test_a_canceled_run_is_no_success(there: There) -> None:
    started = command(f"submit {there.stuck.name} --day {DAY}", there.url)
    run_id = started.out.strip()
    assert (started.code, started.err) == (0, f"{there.url}/runs/{run_id}\n")
    parts = urlsplit(there.url)
    client = DagsterGraphQLClient(parts.hostname or "", port_number=parts.port, path_prefix=parts.path)
    assert wait_until(there.stuck_scores.exists, 120)  # canceled while it leaves the queue, it may start: dagster#3323
    _terminate(client, run_id)
    ended = command(f"wait --pipeline {there.stuck.name} --day {DAY} --json --timeout 60", there.url)
    assert ended.code == 1 and json.loads(ended.out)["state"] == "canceled"

    waited = command(f"submit {there.stuck.name} --day {DAY} --wait --timeout 0.1", there.url)
    link, *_, last = waited.err.splitlines()
    assert (waited.code, waited.out) == (4, "") and last.startswith(
        "batch-scoring: not finished after --timeout 0.1: run "
    )
    other = link.rpartition("/")[2]
    assert link == f"run {other}: {there.url}/runs/{other}" and other != run_id
    _terminate(client, other)


def _wait(url: str, run_id: str, out: io.StringIO, err: io.StringIO) -> int:
    return remote_commands.wait(remote.address(url), remote_commands.Subject(run_id), out, err, as_json=True)


def _pids(instance: dg.DagsterInstance, run_id: str) -> list[Any]:
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    found = [entry.dagster_event.engine_event_data.metadata.get("pid") for entry in events if entry.dagster_event]
    return [pid for pid in found if pid]


def test_a_deployment_that_stays_away_is_waited_for_a_bounded_time(there: There) -> None:
    there.proxy.faults = [Fault("reset", on=GRAPHQL, skip=2)]
    began = time.monotonic()
    with pytest.raises(remote.UnreachableError, match=r"the connection broke off; try again \(tried for 1 s\)"):
        remote_commands.wait(
            remote.address(there.proxied),
            remote_commands.Subject(there.range_id),
            io.StringIO(),
            io.StringIO(),
            outage_limit=1.0,
        )
    assert time.monotonic() - began < 10
    there.proxy.faults = []
