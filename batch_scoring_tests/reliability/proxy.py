"""An HTTP proxy for moto that fails on demand, and makes conditional writes as atomic as those of S3."""

import http.client
import random
import re
import socket
import struct
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal

Action = Literal["403", "500", "503", "reset", "lose answer", "cut short", "delay"]
"""`reset`: the request never arrives. `lose answer`: it is carried out, then the connection breaks."""

COMMIT = r"^PUT [^?]*/_delta_log/\d+\.json"
_HOP_BY_HOP = {"connection", "expect", "keep-alive", "transfer-encoding", "content-length"}
_ERROR = "<?xml version='1.0'?><Error><Code>{}</Code><Message>injected</Message></Error>"
_CODES = {"403": "AccessDenied", "500": "InternalError", "503": "SlowDown"}


@dataclass
class Fault:
    """What goes wrong, and when."""

    action: Action
    on: str = "."
    """Regular expression, searched in `METHOD /path?query`."""
    times: int | None = None
    """Requests to spoil; without end if None."""
    skip: int = 0
    """Matching requests to let pass first."""
    chance: float = 1.0
    seconds: float = 0.0
    """How long a delay takes; for every other action how long the fault lasts from its first hit, 0: without end."""
    hits: int = 0
    _seen: int = field(default=0, repr=False)
    _since: float = field(default=0.0, repr=False)

    def strikes(self, request: str, dice: random.Random) -> bool:
        """Whether this request is spoilt."""
        if not re.search(self.on, request) or (self.times is not None and self.hits >= self.times):
            return False
        self._seen += 1
        if self._seen <= self.skip or dice.random() >= self.chance:
            return False
        self._since = self._since or time.monotonic()
        if self.action != "delay" and self.seconds and time.monotonic() - self._since > self.seconds:
            return False
        self.hits += 1
        return True


class FaultyProxy:
    """Forwards to one address on loopback; `faults` may be changed at any time."""

    def __init__(self, target: tuple[str, int], seed: int = 0) -> None:
        self.target = target
        self.faults: list[Fault] = []
        self.dropped: set[str] = set()
        """Names of request headers, in lower case, that never arrive: a store that does not know them."""
        self.clock_ahead = 0.0
        """Seconds by which the store's clock, as answers tell it, is ahead."""
        self.statuses: Counter[tuple[str, int]] = Counter()
        """Answers by (method, status), those injected included."""
        self.commits_refused = 0
        """Commits that came second."""
        self._dice, self._lock, self._conditional = random.Random(seed), threading.Lock(), threading.Lock()
        self._server = _Server(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)

    @property
    def url(self) -> str:
        """What to use as AWS_ENDPOINT_URL."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "FaultyProxy":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def fault_for(self, request: str) -> Fault | None:
        """The first fault that strikes."""
        with self._lock:
            return next((fault for fault in self.faults if fault.strikes(request, self._dice)), None)

    def count(self, request: str, status: int) -> None:
        """Keep book of an answer."""
        with self._lock:
            self.statuses[request.split(" ")[0], status] += 1
            self.commits_refused += status == 412 and bool(re.search(COMMIT, request))

    def forward(self, method: str, path: str, headers: dict[str, str], body: bytes) -> "_Answer":
        """Ask the target. moto looks and then writes: a lock makes its conditional PUT one step."""
        if method == "PUT" and "if-none-match" in {name.lower() for name in headers}:
            with self._conditional:
                return self._ask(method, path, headers, body)
        return self._ask(method, path, headers, body)

    def _ask(self, method: str, path: str, headers: dict[str, str], body: bytes) -> "_Answer":
        connection = http.client.HTTPConnection(*self.target, timeout=60)
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in headers.items():
                connection.putheader(name, value)
            connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            answer = connection.getresponse()
            length = answer.getheader("Content-Length") if method == "HEAD" else None
            content = answer.read()
            kept = [(name, value) for name, value in answer.getheaders() if name.lower() not in _HOP_BY_HOP]
            return _Answer(answer.status, kept, content, int(length) if length else len(content))
        finally:
            connection.close()


@dataclass(frozen=True)
class _Answer:
    status: int
    headers: list[tuple[str, str]]
    body: bytes
    length: int


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that was killed is no news."""


def _handler(proxy: FaultyProxy) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def _handle(self) -> None:
            request = f"{self.command} {self.path}"
            body = self._body()
            fault = proxy.fault_for(request)
            action = fault.action if fault else None
            if fault and action == "delay":
                time.sleep(fault.seconds)
            if action == "reset":
                return self._break()
            if action in _CODES:
                error = _ERROR.format(_CODES[action]).encode()
                return self._answer(request, _Answer(int(action), [("Content-Type", "text/xml")], error, len(error)))
            headers = {n: v for n, v in self.headers.items() if n.lower() not in _HOP_BY_HOP | proxy.dropped}
            answer = proxy.forward(self.command, self.path, headers, body)
            if action == "lose answer":
                return self._break()
            self._answer(request, answer, cut=action == "cut short")

        do_GET = do_PUT = do_POST = do_HEAD = do_DELETE = _handle

        def _body(self) -> bytes:
            if "chunked" not in self.headers.get("Transfer-Encoding", ""):
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))
            parts = []
            while size := int(self.rfile.readline().split(b";")[0], 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

        def _answer(self, request: str, answer: _Answer, *, cut: bool = False) -> None:
            proxy.count(request, answer.status)
            self.send_response_only(answer.status)
            for name, value in answer.headers:
                is_shifted = proxy.clock_ahead and name.lower() == "date"
                self.send_header(
                    name, formatdate(time.time() + proxy.clock_ahead, usegmt=True) if is_shifted else value
                )
            self.send_header("Content-Length", str(answer.length))
            self.end_headers()
            if self.command == "HEAD":
                return
            self.wfile.write(answer.body[: len(answer.body) // 2] if cut else answer.body)
            if cut:
                self._break()

        def _break(self) -> None:
            """End the connection with a reset, not with a farewell."""
            self.wfile.flush()
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.close_connection = True
            self.rfile.close()
            self.wfile.close()
            self.connection.close()

        def log_message(self, *_: object) -> None:
            pass

    return Handler
