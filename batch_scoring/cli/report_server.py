"""HTTP server for the pages of `reports/`, which a local UI links to; `make dev` starts it beside Dagster.

Any web page that a user visits may send requests to servers on the user's machine, also under a host name of its own
that resolves to this machine (DNS rebinding). So this server answers only under its own names, listens on the loopback
interface, serves only the pages that this project draws, and lets no page read another. It runs in the process that
starts the command, and ends with it.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import FrameType

from batch_scoring.config.loader import data_root, survey_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import SpecError

PORT = 3001
NAMES = ("localhost", "127.0.0.1", "[::1]")
"""Host names that requests may use."""

_PAGE = re.compile(r"/(?P<output>.+)/reports/(?P<page>(dt=\d{4}-\d\d-\d\d/)?[a-z]\w*(=\d{4}-\d\d)?\.html)")
_POLICY = re.compile(rb'<meta http-equiv="Content-Security-Policy" content="([^"<>\r\n]+)">')
_HEAD = 400_000
"""Bytes at the start of a page in which its policy is searched for: Evidently's fonts come first."""

_UNSAFE = b"""\
This page has no content security policy: an earlier version of batch_scoring has drawn it, and it may run what a cell
says. Have it drawn again: materialise its day's drift checks, or the report.
"""

_NOTHING = "default-src 'none'"
_BOUNDS = "sandbox allow-scripts; frame-ancestors 'none'"
"""Added to the page's own policy: no origin, so that no page reads another."""


class ReportServer(ThreadingHTTPServer):
    """Listens on the loopback interface."""

    daemon_threads = True

    def __init__(self, pipelines: Callable[[], Iterable[Pipeline]], port: int = PORT) -> None:
        """Take the port.

        Args:
            pipelines: called for every request, because a pipeline may have been added.
            port: 0 for any.

        Raises:
            OSError: the port is taken.
        """
        super().__init__(("127.0.0.1", port), _Handler)
        self.pipelines = pipelines

    @property
    def hosts(self) -> frozenset[str]:
        """Values of the Host header that are accepted."""
        return frozenset(f"{name}:{self.server_port}" for name in NAMES)

    @property
    def url(self) -> str:
        """The value for `REPORTS_URL`."""
        return f"http://localhost:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    timeout = 30
    server: ReportServer

    def do_GET(self) -> None:
        """Serve a page."""
        status, policy, content = self._answer()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8" if policy else "text/plain; charset=utf-8")
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", f"{policy or _NOTHING}; {_BOUNDS}")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def version_string(self) -> str:
        """A Server header without Python's version."""
        return "batch_scoring"

    def log_message(self, *_: object) -> None:
        """Log nothing."""

    def _answer(self) -> tuple[HTTPStatus, str, bytes]:
        """Status, content security policy ("" for plain text) and content."""
        asked = self.headers.get_all("Host", [])
        if len(asked) != 1 or asked[0] not in self.server.hosts:
            names = ", ".join(sorted(self.server.hosts))
            return HTTPStatus.MISDIRECTED_REQUEST, "", f"This server is called {names}.\n".encode()
        page = find_page(self.path, self.server.pipelines())
        if page is None:
            return HTTPStatus.NOT_FOUND, "", b"No such page. There are those that a link in Dagster's UI names.\n"
        content = page.read_bytes()
        policy = _POLICY.search(content[:_HEAD])
        if policy is None:
            return HTTPStatus.FORBIDDEN, "", _UNSAFE
        return HTTPStatus.OK, policy[1].decode(), content


def find_page(path: str, pipelines: Iterable[Pipeline]) -> Path | None:
    """The file of a request's path, if it is a page of a pipeline's reports.

    Only names of pages are looked up, so neither `..` nor a link out of `reports/` leads anywhere.
    """
    asked = _PAGE.fullmatch(path)
    if asked is None:
        return None
    for pipeline in pipelines:
        if pipeline.output.is_local and pipeline.output.uri == f"{pipeline.data_root}/{asked['output']}":
            reports = Path(pipeline.output.uri, "reports").resolve()
            page = (reports / asked["page"]).resolve()
            return page if page.is_file() and page.is_relative_to(reports) else None
    return None


def run_beside(command: Sequence[str], port: int = PORT) -> int:
    """Run a command with a report server beside it; the command's exit code.

    The command finds the server's address in `REPORTS_URL`. No server is started if that is set already (another one
    serves the pages), if the data are on S3, or if the port is taken; a line on stderr says so.

    Args:
        command: that of Dagster.
        port: of the server.
    """
    server, why = _open(port)
    sys.stderr.write(f"reports: {why}\n")
    environment = dict(os.environ)
    if server is not None:
        environment["REPORTS_URL"] = server.url
        threading.Thread(target=server.serve_forever, daemon=True).start()
    started: list[subprocess.Popen[bytes]] = []
    early: list[int] = []

    def forward(number: int, _: FrameType | None) -> None:
        if started:
            started[0].send_signal(number)
        else:
            early.append(number)

    signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command too, which shuts down by itself
    signal.signal(signal.SIGTERM, forward)
    with subprocess.Popen(command, env=environment) as child:
        started.append(child)
        for number in early:
            child.send_signal(number)
        code = child.wait()
    return code if code >= 0 else 128 - code


def _open(port: int) -> tuple[ReportServer | None, str]:
    """Start the server; also return the line that says where it is or why there is none."""
    if url := os.environ.get("REPORTS_URL"):
        return None, f"links lead to REPORTS_URL, {url}"
    try:
        root = data_root()
    except SpecError as error:
        return None, str(error)
    if root.startswith("s3://"):
        return None, f"they are in {root}, none is served from here"
    try:
        server = ReportServer(lambda: survey_pipelines().valid, port)
    except OSError as error:
        return None, (
            f"PORT {port} IS TAKEN ({error.strerror}), so no page is served and links show the pages' paths; "
            f"end what listens there (ss -ltnp 'sport = :{port}') and start this again"
        )
    return server, f"served on {server.url}, from {root}/*/reports"


if __name__ == "__main__":
    sys.exit(run_beside(sys.argv[1:]))
