"""`submit`, `status` and `wait` against a real web server and a real daemon, from a folder without anything."""

import contextlib
import io
import json
import os
import ssl
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import dagster as dg
import pytest
import yaml
from dagster_graphql import DagsterGraphQLClient, DagsterGraphQLClientError

from batch_scoring.cli.main import main
from batch_scoring.cli.remote import actions as remote_commands
from batch_scoring.cli.remote import connection as remote
from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.reliability.deployment import Deployment, wait_until
from batch_scoring_tests.reliability.proxy import Fault, FaultyProxy
from batch_scoring_tests.tiny import DAY, NETWORK, NEXT_DAY, TinyProject

pytestmark = pytest.mark.filterwarnings("ignore:Using variable_values:DeprecationWarning")  # gql's own business

LAST_DAY = "2024-03-06"
NO_RUN = "00000000-0000-4000-8000-000000000000"
GRAPHQL = r"^POST /dagster/graphql"


@dataclass(frozen=True)
class Said:
    """What a command has said."""

    code: int
    out: str
    err: str

    @property
    def line(self) -> str:
        """Its error, which must be one line."""
        assert self.out == "" and self.err.count("\n") == 1 and self.err.startswith("batch-scoring: "), self
        return self.err.removeprefix("batch-scoring: ").rstrip("\n")


def command(text: str, url: str | None = None, **environment: str) -> Said:
    """Run a command in this process, in an empty folder, with nothing of the project in the environment."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        for name in ("DAGSTER_HOME", "BATCH_SCORING_DATA", remote.URL_VARIABLE, remote.HEADERS_VARIABLE):
            patch.delenv(name, raising=False)
        for name, value in (environment | ({remote.URL_VARIABLE: url} if url else {})).items():
            patch.setenv(name, value)
        code = main(text.split(" "))
    return Said(code, out.getvalue(), err.getvalue())


class There:
    """A deployment with pipelines of which one waits as long as a file stands, one for ever; what was started in it."""

    def __init__(self, folder: Path) -> None:
        self.hold = folder / "hold"
        self.tiny, self.held = TinyProject(folder / "tiny"), TinyProject(folder / "held")
        self.held.write_code(network=_waits(NETWORK, self.hold))
        self.stuck = TinyProject(folder / "stuck")
        self.stuck.write_code(network=_waits(NETWORK, folder / "never mind"))
        self.stuck_scores = _begun(folder / "never mind")
        for project in (self.tiny, self.held, self.stuck):
            project.spec["uploads"] = {"default_status": "stopped"}
            project.deliver("v1")
        self.broken = TinyProject(folder / "broken")
        self.broken.write_code(schema="class Rows(:")
        rows = self.tiny.rows(500)
        beyond = [5000.0] * 3  # what the schema allows
        self.held.land(DAY, rows)
        self.stuck.land(DAY, rows)
        self.tiny.land(NEXT_DAY, rows.set_column(1, "x", [beyond + rows["x"].to_pylist()[3:]]))
        self.tiny.land(LAST_DAY, b"no Parquet file")
        self.hold.touch()
        (folder / "never mind").touch()
        self.deployment = Deployment(folder, [self.tiny, self.held, self.stuck, self.broken], {}, {})
        settings = self.deployment.home / "dagster.yaml"
        content = yaml.safe_load(settings.read_text())
        content["concurrency"]["runs"]["max_concurrent_runs"] = 5
        content["run_queue"]["dequeue_interval_seconds"] = 1
        settings.write_text(yaml.safe_dump(content))
        broken = folder / "broken.py"
        broken.write_text("raise ValueError('this deployment has no licence')\n")
        self.url = self.deployment.serve(broken, prefix="/dagster")
        parts = urlsplit(self.url)
        self.proxy = FaultyProxy((parts.hostname or "", parts.port or 0))

    def start(self) -> None:
        """Submit everything that the tests look at: it runs while they begin."""
        assert wait_until(lambda: _answers(f"{self.url}/server_info"), 60)
        tiny, held = self.tiny.name, self.held.name
        self.range = command(f"submit {tiny} --from {NEXT_DAY} --to {LAST_DAY} --json --url {self.url}/")
        self.range_id = json.loads(self.range.out)["id"]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(remote_commands, "IN_THE_QUEUE", 0.0)
            self.idle = command(f"wait {self.range_id} --timeout 0.1", self.url)
        self.proxy.faults = [Fault("lose answer", on=GRAPHQL, skip=2, times=1)]
        self.lost = command(f"submit {held} --day {DAY}", self.proxied)
        self.deployment.start()

    @property
    def proxied(self) -> str:
        """The same deployment, behind a proxy that can fail."""
        return f"{self.proxy.url}/dagster"


def _waits(network: str, hold: Path) -> str:
    waits = f"""\
        while pathlib.Path({str(hold)!r}).exists():
            pathlib.Path({str(_begun(hold))!r}).touch()
            time.sleep(0.05)
"""
    head = "    def forward(self, numeric, categorical):\n"
    return f"import pathlib, time\n{network.replace(head, head + waits)}"


def _begun(hold: Path) -> Path:
    """Stands as soon as a network waits for `hold` to go."""
    return hold.with_name(f"{hold.name} begun")


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5):
            return True
    except (OSError, urllib.error.URLError):
        return False


@pytest.fixture(scope="module")
def there(tmp_path_factory: pytest.TempPathFactory) -> Iterator[There]:
    """One deployment for all tests of this module."""
    place = There(tmp_path_factory.mktemp("remote"))
    try:
        with place.proxy:
            place.start()
            yield place
    finally:
        place.deployment.stop()


# submit, status, wait


def test_a_pipeline_that_is_left_out_there_is_no_unknown_one(there: There) -> None:
    said = command(f"submit {there.broken.name} --day {DAY}", there.url)
    assert said.code == 2
    start = f"The pipeline {there.broken.name} is left out of the deployment: {there.broken.folder}/pipeline.yaml line "
    assert said.line.startswith(start) and said.line.endswith(f"(at {there.url})")
    assert "features.schema: 'schema:Rows': schema.py line 1 is not valid Python" in said.line


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


# what is wrong


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("submit TINY --day 2024-02-29", 2, "2024-02-29 is not a day of TINY at URL; its days there are 2024-03-01 … "),
        ("submit TINY --day 2999-01-01", 2, "2999-01-01 is not a day of TINY at URL"),
        ("submit TINY --from 2024-03-05 --to 2024-03-04", 2, "2024-03-04 is before 2024-03-05"),
        ("submit TINY --from 2024-02-05 --to 2024-03-04", 2, "2024-02-05 is not a day of TINY"),
        (
            "submit TINY --day 2024-03-04 --location there",
            2,
            "no code location 'there' at URL; known code locations: broken.py, ",
        ),
        (
            "submit nothing --day 2024-03-04 --location deployed.py",
            2,
            "no pipeline 'nothing' at URL; known pipelines: ",
        ),
        (
            "submit nothing --day 2024-03-04",
            3,
            "but its code location 'broken.py' does not load: ValueError: this deployment has no licence",
        ),
        (f"status {NO_RUN}", 2, f"no run {NO_RUN} at URL"),
        (f"wait {NO_RUN}", 2, f"no run {NO_RUN} at URL"),
        ("status abcdefgh", 2, "neither run nor backfill abcdefgh at URL"),
        ("status --pipeline TINY --day 2024-03-01", 2, "TINY 2024-03-01 has no run at URL; start one: batch-scoring "),
        ("wait --pipeline TINY --day 2024-02-29", 2, "2024-02-29 is not a day of TINY at URL"),
    ],
)
def test_what_the_deployment_has_not_is_one_line(there: There, arguments: str, code: int, says: str) -> None:
    names = {"TINY": there.tiny.name, "URL": there.url}
    for short, long in names.items():
        arguments, says = arguments.replace(short, long), says.replace(short, long)
    said = command(arguments, there.url)
    assert said.code == code and says in said.line


def test_from_a_process_with_nothing_around_it(there: There, tmp_path: Path) -> None:
    program = "import sys; from batch_scoring.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", there.range_id, "--url", there.url],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" and f"  {there.url}/runs/b/{there.range_id}\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("status abcdefgh", "where is the deployment? Pass --url https://… or set DAGSTER_UI_URL"),
        (
            "status abcdefgh --url localhost:3000",
            "--url is not the address of a web server: 'localhost:3000'; expected http",
        ),
        ("status abcdefgh --url http://u:secret@/x", "--url is not the address of a web server: 'http:///x'"),
        (
            "status abcdefgh --url http://h:99999",
            "--url is not the address of a web server: its host or port is invalid",
        ),
        ("status abcdefgh --url https://user:secret/et@h", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url https://user:1/secret@h", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url http://u:secret?x@h", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url u:secret@h:3000", "/ # ? @ must be percent-encoded"),
        ("status abcdefgh --url http://h/runs?x=1", "--url has more than an address"),
        (
            "status abcdefgh --url http://h --header secret",
            "--header has a line that is not a header: expected 'Name: value'",
        ),
    ],
)
def test_an_address_that_is_none_is_one_line_without_secrets(arguments: str, says: str) -> None:
    said = command(arguments)
    assert said.code == 2 and says in said.line and "secret" not in said.err


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("submit tiny", "expected --day, or --from and --to"),
        ("submit tiny --day 2024-03-04 --from 2024-03-04 --to 2024-03-05", "expected --day, or --from and --to"),
        ("submit tiny --from 2024-03-04", "expected --day, or --from and --to"),
        ("submit tiny --day 2024-02-30", "'2024-02-30' is not a day"),
        ("submit tiny --day 2024-03-04 --timeout 5", "--timeout is for --wait"),
        ("wait", "expected the id of a run or a backfill, or else --pipeline and --day"),
        ("status --pipeline tiny", "expected the id of a run or a backfill, or else --pipeline and --day"),
        ("status abcdefgh --day 2024-03-04", "expected the id of a run or a backfill, or else --pipeline and --day"),
        ("wait abcdefgh --timeout 0", "'0' is not a number of seconds above 0"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments: str, says: str) -> None:
    said = command(arguments, "http://127.0.0.1:1")
    assert said.code == 2 and says in said.err and said.out == ""


# deployments that do not answer, or are none


class Stranger:
    """A web server that is no Dagster: what it answers is in the path. Keeps the headers that it was sent."""

    def __init__(self, certificate: Path | None = None) -> None:
        self.headers: list[dict[str, str]] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), _stranger(self))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.url = f"http{'s' if certificate else ''}://localhost:{self._server.server_address[1]}"
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


def _stranger(place: Stranger) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            place.headers.append(dict(self.headers))
            kind = self.path.split("/")[1]
            bodies = {
                "errors": b'{"errors": [{"message": "Cannot query field"}]}',
                "empty": b'{"data": {}}',
                "number": b"3",
            }
            body = bodies.get(kind, b"<html>welcome</html>")
            self.send_response(int(kind) if kind.isdigit() else 200)
            self.send_header("Content-Type", "application/json" if kind in bodies else "text/html; charset=utf-8")
            if kind == "302":
                self.send_header("Location", "https://u:secret@login.example.org/?token=secret")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture(scope="module")
def stranger() -> Iterator[Stranger]:
    """On plain HTTP."""
    place = Stranger()
    yield place
    place.stop()


@pytest.mark.parametrize(
    ("kind", "says"),
    [
        ("html", "answers, but not as Dagster does (text/html): --url is that of Dagster's UI, path prefix included"),
        ("404", "has no Dagster at this address (HTTP 404)"),
        ("401", "denies access (HTTP 401): pass --header 'Authorization: …' or set DAGSTER_UI_HEADERS"),
        ("403", "denies access (HTTP 403)"),
        ("302", "redirects to https://login.example.org/: pass that as --url; if it is a login page, pass a --header"),
        ("502", "is unavailable (HTTP 502): try again later"),
        ("errors", "answers, but not as Dagster does: Cannot query field"),
        ("empty", "answers, but not as Dagster does: no 'partitionBackfillOrError' in its answer"),
        ("number", "answers, but not as Dagster does"),
    ],
)
def test_a_server_that_is_no_dagster_is_one_line(stranger: Stranger, kind: str, says: str) -> None:
    for what in ("status", "wait"):
        said = command(f"{what} abcdefgh", f"{stranger.url}/{kind}")
        assert said.code == 3 and said.line.startswith(f"{stranger.url}/{kind} ") and says in said.line
        assert "secret" not in said.err


def test_nobody_there_is_one_line(there: There) -> None:
    closed = command("wait abcdefgh --url http://u:secret@127.0.0.1:1/")
    assert closed.code == 3 and "secret" not in closed.err
    assert closed.line.startswith("http://127.0.0.1:1 does not answer: Connection refused; is it running, and is --url")
    unknown = command("status abcdefgh --url http://nowhere.invalid")
    assert unknown.code == 3 and unknown.line.startswith("http://nowhere.invalid does not answer: ")
    without_prefix = command("status abcdefgh", there.url.removesuffix("/dagster"))
    assert without_prefix.code == 3 and "has no Dagster at this address (HTTP 404)" in without_prefix.line
    not_tls = command("status abcdefgh", there.url.replace("http:", "https:"))
    assert not_tls.code == 3 and "is it http:// and not https://?" in not_tls.line


def test_a_certificate_that_nobody_vouches_for_is_refused_and_one_of_an_own_authority_is_not(tmp_path: Path) -> None:
    certificate = tmp_path / "own.pem"
    subprocess.run(
        [
            "openssl",
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:prime256v1",
            "-nodes",
            "-days",
            "1",
            "-keyout",
            certificate,
            "-out",
            tmp_path / "authority.pem",
            "-subj",
            "/CN=localhost",
            "-addext",
            "subjectAltName=DNS:localhost",
        ],
        check=True,
        capture_output=True,
    )
    certificate.write_bytes(certificate.read_bytes() + (tmp_path / "authority.pem").read_bytes())
    place = Stranger(certificate)
    try:
        refused = command("status abcdefgh", f"{place.url}/401")
        assert refused.code == 3 and "certificate verify failed" in refused.line
        assert "set REQUESTS_CA_BUNDLE" in refused.line and place.headers == []
        trusted = command("status abcdefgh", f"{place.url}/401", REQUESTS_CA_BUNDLE=str(tmp_path / "authority.pem"))
        assert "HTTP 401" in trusted.line
    finally:
        place.stop()


def test_headers_come_from_the_environment_and_from_options_and_a_netrc_does_not_replace_them(
    stranger: Stranger, tmp_path: Path
) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login somebody password else\n")
    address = remote.address(f"{stranger.url}/empty", ["X-Team: b"])
    assert address.headers == {"X-Team": "b"}
    said = command(
        "status abcdefgh --header X-Team:b",
        f"{stranger.url}/empty",
        NETRC=str(netrc),
        DAGSTER_UI_HEADERS="Authorization: Bearer of the night\n\nX-TEAM: a\n",
    )
    assert said.code == 3
    sent = stranger.headers[-1]
    assert sent["Authorization"] == "Bearer of the night" and sent["X-Team"] == "b"


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


def test_other_commands_do_not_pay_for_the_client(tmp_path: Path) -> None:
    program = (
        "import sys; from batch_scoring.cli.main import main\n"
        "main(['submit', '--help'])\n"
        "print(sorted({'gql', 'requests', 'dagster_graphql', 'graphql', 'dagster', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
