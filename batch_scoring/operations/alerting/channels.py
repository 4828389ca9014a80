"""Alert channels of ALERT_URLS, reached through apprise.

The addresses contain passwords and tokens, which apprise and its libraries write into logs and errors; and a receiver
that answers one byte at a time blocks a thread for ever. So a separate process (this module as a command) sends the
messages: its output is discarded, and it is killed at the deadline. It reports a channel's id and an error without
secrets. Nothing here knows about queues or pipelines.
"""

import contextlib
import hashlib
import json
import logging
import os
import re
import subprocess
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from batch_scoring.runtime.printable import printable

Kind = Literal["failure", "warning", "info", "success"]

SEND_SECONDS = 15
"""Timeout of a channel for one message."""


Printable = Annotated[str, AfterValidator(printable)]


class Message(BaseModel):
    """A plain-text alert."""

    model_config = ConfigDict(frozen=True)

    topic: str
    """Its subject; messages of one topic may be joined."""
    title: Printable
    body: Printable
    kind: Kind
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))


@dataclass(frozen=True)
class Channel:
    """One address of ALERT_URLS, or of another variable."""

    position: int
    """From 1."""
    url: str = field(repr=False)
    scheme: str | None
    """None if apprise does not understand the address."""
    id: str
    """Name of the channel in storage: scheme, host unless it is a secret, and number among equal ones.

    The rest of the address is not stored, not even as a digest: passwords could be guessed against it.
    """

    variable: str = "ALERT_URLS"

    @property
    def former_id(self) -> str:
        """Its name in the storage of earlier versions: a digest of the address."""
        return hashlib.sha256(self.url.encode()).hexdigest()[:12]

    def __str__(self) -> str:
        """Its name in messages."""
        return f"{self.variable}[{self.position}]" + (f" ({self.scheme})" if self.scheme else "")


def of(variable: str) -> list[Channel]:
    """The channels in an environment variable; none if it is not set."""
    return parse(os.environ.get(variable, ""), variable)


def parse(urls: str, variable: str = "ALERT_URLS") -> list[Channel]:
    """Parse a value of ALERT_URLS or of another variable, split as apprise splits it; equal addresses count once."""
    if not urls.strip():
        return []
    logging.getLogger("apprise").disabled = True  # it quotes invalid addresses, passwords included
    from apprise.utils.parse import parse_urls

    addresses = [address.strip() for address in parse_urls(urls)] or [urls.strip()]
    alike: Counter[str] = Counter()
    found = []
    for position, address in enumerate(addresses, start=1):
        if address in addresses[: position - 1]:
            continue
        client, scheme = _client(address), address.partition("://")[0].lower()
        kind = f"{scheme}://{_host(client)}" if client else "not understood"
        alike[kind] += 1
        found.append(Channel(position, address, scheme if client else None, f"{kind}#{alike[kind]}", variable))
    return found


def kind_of(name: str) -> str:
    """The part of a channel's id before its number: scheme and host."""
    return name.rpartition("#")[0]


def _host(client: Any) -> str:  # noqa: ANN401
    """Host of the receiver, if the service has hosts; in other services that part of the address may be a secret."""
    [service] = client
    host = service.template_tokens.get("host")
    return f"{service.host}:{service.port or ''}" if host and not host.get("private") else ""


def mistakes(named: Sequence[Channel]) -> list[str]:
    """Messages about invalid addresses, which apprise does not understand."""
    return [
        f"{channel} is not understood by apprise, no alert is sent there: correct the address (commas and spaces in "
        "passwords must be URL-encoded); alerts wait for the correction for seven days"
        for channel in named
        if channel.scheme is None
    ]


def _client(address: str) -> Any | None:  # noqa: ANN401  (apprise is not imported for its types)
    """The apprise client of an address; None if apprise does not understand it."""
    import apprise

    asset = apprise.AppriseAsset(
        app_id="batch_scoring", app_desc="batch_scoring", storage_mode=apprise.PersistentStoreMode.MEMORY
    )
    client = apprise.Apprise(asset=asset)
    with contextlib.suppress(Exception):  # from a plugin; its text may quote the address
        if service := apprise.Apprise.instantiate(address, asset=asset):
            if service.overflow_mode == apprise.OverflowMode.UPSTREAM:
                service.overflow_mode = apprise.OverflowMode.SPLIT  # a refused message blocks its queue
            client.add(service)
    return client if len(client) else None


def send(waiting: Mapping[Channel, Sequence[Message]], seconds: float) -> Iterator[tuple[Channel, str | None]]:
    """Send each channel its messages in order, up to the first that fails; all channels in parallel.

    Args:
        waiting: the messages of each channel.
        seconds: no message is started later; the last one may take about SEND_SECONDS more.

    Yields:
        A channel, with None if it has accepted a message, or an error (without secrets) if it failed. Its next message
        is sent when the caller resumes the generator, so the caller can first record the delivery.
    """
    if not waiting:
        return
    left = {channel.id: (channel, deque(messages)) for channel, messages in waiting.items() if messages}
    stop_at = time.monotonic() + seconds
    with subprocess.Popen(
        [sys.executable, "-m", "batch_scoring.operations.alerting.channels"],
        cwd=Path(__file__).parents[3],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        bufsize=0,
    ) as sender:
        end = threading.Timer(seconds + SEND_SECONDS + 3, sender.kill)
        end.start()
        try:
            for channel, messages in left.values():
                _hand_over(sender, channel, messages.popleft())
            while left and (line := _answer(sender)):
                name, error = json.loads(line)
                channel, messages = left[name]
                yield channel, error
                if error or not messages:
                    del left[name]
                elif time.monotonic() > stop_at:
                    del left[name]
                    yield channel, "no time was left"
                else:
                    _hand_over(sender, channel, messages.popleft())
            if left:
                sender.wait()
        finally:
            end.cancel()
            sender.kill()
    crashed = f"the sending process ended with status {sender.returncode}" if sender.returncode > 0 else None
    for channel, _ in left.values():
        yield channel, crashed or "no answer in time"


def _hand_over(sender: "subprocess.Popen[bytes]", channel: Channel, message: Message) -> None:
    job = {"id": channel.id, "url": channel.url, "message": message.model_dump(mode="json")}
    assert sender.stdin
    with contextlib.suppress(BrokenPipeError):  # the sender has ended, which its missing answer shows
        sender.stdin.write(f"{json.dumps(job)}\n".encode())


def _answer(sender: "subprocess.Popen[bytes]") -> bytes:
    """The next line of the sender; empty if it has ended."""
    assert sender.stdout
    return sender.stdout.readline()


def _main() -> None:
    """Send messages from stdin, one per line, and report each result on stdout."""
    with ThreadPoolExecutor(64) as pool:
        clients: dict[str, Any] = {}
        for line in sys.stdin:
            job = json.loads(line)
            client = clients.get(job["id"]) or clients.setdefault(job["id"], _client(job["url"]))
            pool.submit(_send_and_say, client, job)


def _send_and_say(client: Any, job: dict[str, Any]) -> None:  # noqa: ANN401
    try:
        error = _send(client, job["message"])
    except Exception as raised:  # a plugin may raise anything; its text may quote the address
        error = type(raised).__name__
    os.write(1, f"{json.dumps([job['id'], error])}\n".encode())  # a line in one write: the threads share the pipe


def _send(client: Any, message: dict[str, str]) -> str | None:  # noqa: ANN401
    """Send a message; return why it was not delivered, None if it was."""
    result = client.notify(
        body=message["body"],
        title=message["title"],
        notify_type=message["kind"],
        body_format="text",
        timeout=SEND_SECONDS,
    )
    if result:
        return None
    if result.timeout_count:
        return "no answer in time"
    code = re.search(r"\berror=(\d{3})\b", " ".join(entry.message for entry in result.logs()))
    return f"HTTP status {code[1]}" if code else "not accepted or not reached"


if __name__ == "__main__":
    _main()
