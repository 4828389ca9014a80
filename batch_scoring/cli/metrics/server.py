"""HTTP server of the metrics, for Prometheus."""

from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PORT = 9464
ANSWER_SHARE = 0.8
"""Share of the time that Prometheus waits, according to its request, within which an answer is due."""

_TEXT = "text/plain; version=0.0.4; charset=utf-8"
_HOME = b"The metrics are at /metrics, whether this process lives at /healthy.\n"

Exposition = Callable[[float | None], bytes]
"""The text for a scrape, given the seconds in which it is due."""


class MetricsServer(ThreadingHTTPServer):
    """Answers scrapes, each in a thread of its own."""

    daemon_threads = True

    def __init__(self, host: str, port: int, exposition: Exposition) -> None:
        """Take the port; 0 for any.

        Raises:
            OSError: it is taken, or the host has no such address.
        """
        super().__init__((host, port), _Handler)
        self.exposition = exposition


class _Handler(BaseHTTPRequestHandler):
    timeout = 30
    server: MetricsServer

    def do_GET(self) -> None:
        """Answer a scrape, or whether the process lives."""
        match self.path.partition("?")[0]:
            case "/metrics":
                status, content = HTTPStatus.OK, self.server.exposition(self._due())
            case "/healthy":
                status, content = HTTPStatus.OK, b"ok\n"
            case "/":
                status, content = HTTPStatus.OK, _HOME
            case _:
                status, content = HTTPStatus.NOT_FOUND, _HOME
        self.send_response(status)
        self.send_header("Content-Type", _TEXT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET

    def version_string(self) -> str:
        """A Server header without Python's version."""
        return "batch_scoring"

    def log_message(self, *_: object) -> None:
        """Log nothing: a scrape every 15 seconds is no news."""

    def _due(self) -> float | None:
        """Seconds in which Prometheus expects the answer, if it says so."""
        try:
            seconds = float(self.headers.get("X-Prometheus-Scrape-Timeout-Seconds", ""))
        except ValueError:
            return None
        return seconds * ANSWER_SHARE if 0 < seconds < float("inf") else None
