"""Real receivers of alerts on the loopback interface: a mail and a web server, each in a thread; they can be down."""

import email.header
import json
import logging
import socket
import threading
from collections.abc import Callable
from email.message import Message as Mail
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, AuthResult, Envelope, Session

PASSWORD = "correct-horse"
LOG = logging.getLogger("tick")
"""Takes them where there is no channel."""
Told = Callable[..., list[str]]
"""One tick; the messages in that log."""


class MailServer:
    """A mail server that accepts any user who logs in with PASSWORD."""

    def __init__(self) -> None:
        self._mails: list[Mail] = []
        with socket.create_server(("127.0.0.1", 0)) as free:  # the controller cannot choose a free port
            self.port = free.getsockname()[1]
        self._controller = Controller(
            self,
            hostname="127.0.0.1",
            port=self.port,
            auth_require_tls=False,
            authenticator=lambda server, session, envelope, mechanism, data: AuthResult(
                success=data.password == PASSWORD.encode(), handled=False
            ),
        )
        self._controller.start()
        self.url = f"mailto://robot:{PASSWORD}@127.0.0.1:{self.port}?from=robot@example.org&to=team@example.org"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:
        """Handle a message; called by aiosmtpd."""
        assert isinstance(envelope.content, bytes)
        self._mails.append(email.message_from_bytes(envelope.content))
        return "250 OK"

    @property
    def received(self) -> list[tuple[str, str]]:
        """Return the subject and the text of each mail."""
        return [(_header(mail), _text(mail)) for mail in self._mails]

    def stop(self) -> None:
        self._controller.stop()


def _header(mail: Mail) -> str:
    parts = email.header.decode_header(mail["Subject"])
    return "".join(text.decode(code or "ascii") if isinstance(text, bytes) else text for text, code in parts)


def _text(mail: Mail) -> str:
    part = next(part for part in mail.walk() if not part.is_multipart())
    payload = part.get_payload(decode=True)
    assert isinstance(payload, bytes)
    return payload.decode()


class WebServer:
    """A web server that accepts JSON by POST; it answers with 503 while it is down."""

    def __init__(self) -> None:
        self.posts: list[dict[str, Any]] = []
        self.is_down = False
        self.attempts = 0
        self.on_post: Callable[[], object] = lambda: None
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                outer.attempts += 1
                outer.on_post()
                content = self.rfile.read(int(self.headers["Content-Length"]))
                if not outer.is_down:
                    outer.posts.append(json.loads(content))
                self.send_response(503 if outer.is_down else 200)
                self.end_headers()

            def log_message(self, *_: object) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.port = self._server.server_address[1]
        self.url = f"json://robot:{PASSWORD}@127.0.0.1:{self.port}/hooks/{PASSWORD}"

    @property
    def received(self) -> list[tuple[str, str]]:
        """Return the title and the text of each post."""
        return [(post["title"], post["message"]) for post in self.posts]

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()
