"""A deployment behind a web server, servers that are none, and commands that ask them."""

import contextlib
import io
import json
import ssl
import threading
import urllib.error
import urllib.request
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from batch_scoring.cli.main import main
from batch_scoring.cli.remote import actions as remote_commands
from batch_scoring.cli.remote import connection as remote
from batch_scoring_tests.reliability.deployment import Deployment, wait_until
from batch_scoring_tests.reliability.proxy import Fault, FaultyProxy
from batch_scoring_tests.tiny import DAY, NETWORK, NEXT_DAY, TinyProject

LAST_DAY = "2024-03-06"


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

    def words(self, text: str) -> str:
        """A text with the name of a pipeline for TINY, and the deployment's address for URL."""
        return text.replace("TINY", self.tiny.name).replace("URL", self.url)

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
