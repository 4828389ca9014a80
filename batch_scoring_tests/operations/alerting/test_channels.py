"""Addresses of ALERT_URLS, and what is sent there: real receivers on loopback."""

import shutil
import socket
import sys
import time

import pytest

from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.channels import Message
from batch_scoring_tests.receivers import WebServer


def message(title: str, body: str = "body") -> Message:
    return Message(topic="tiny", title=title, body=body, kind="failure")


def sent(seconds: float, waiting: dict[str, list[Message]]) -> dict[str, list[str | None]]:
    """What becomes of each message, by its address."""
    named = {url: channels.parse(url)[0] for url in waiting}
    found: dict[str, list[str | None]] = {url: [] for url in waiting}
    for channel, error in channels.send({named[url]: messages for url, messages in waiting.items()}, seconds):
        found[channel.url].append(error)
    return found


def test_the_stored_name_of_a_channel_confirms_no_guess_of_a_secret() -> None:
    slack = "slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ"
    for address, guess in (
        ("json://robot:first@h.example:81/a?x=1", "json://robot:second@h.example:81/b?x=2"),
        (slack, slack.replace("T1JJ3T3L2", "T1JJ3T3L3").replace("FQ", "FX")),
        ("mailto://robot:first@h.example", "mailto://other:second@h.example"),
    ):
        (one,), (other,) = channels.parse(address), channels.parse(guess)
        assert one.id == other.id, "what is stored is the same whatever the secret"
    ids = [channel.id for channel in channels.parse(f"json://a:b@h:81, json://h:81/c  json://i, {slack}")]
    assert ids == ["json://h:81#1", "json://h:81#2", "json://i:#1", "slack://#1"]


def test_addresses_are_split_as_apprise_does_it() -> None:
    found = channels.parse("json://h1/a, mailto://h2?from=a@b.cd&to=e@f.gh\njson://h1/a nosuch://x  json://h3")
    assert [str(channel) for channel in found] == [
        "ALERT_URLS[1] (json)",
        "ALERT_URLS[2] (mailto)",
        "ALERT_URLS[4]",
        "ALERT_URLS[5] (json)",
    ]
    assert len({channel.id for channel in found}) == 4
    assert channels.parse(" ") == []
    assert [str(channel) for channel in channels.parse("no-address")] == ["ALERT_URLS[1]"]


def test_a_receiver_that_never_answers_ends_with_the_time(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        silent = f"json://127.0.0.1:{mute.getsockname()[1]}/?rto=600"
        monkeypatch.setattr(channels, "SEND_SECONDS", 0)
        began = time.monotonic()
        found = sent(1, {silent: [message("one")], web.url: [message("one")]})
        assert time.monotonic() - began < 8
    assert found == {silent: ["no answer in time"], web.url: [None]}
    assert [title for title, _ in web.received] == ["one"]


def test_a_sending_process_that_cannot_start_is_said(web: WebServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", shutil.which("false"))
    assert sent(5, {web.url: [message("one")]}) == {web.url: ["the sending process ended with status 1"]}


def test_a_message_that_is_too_long_for_a_service_is_split(web: WebServer) -> None:
    service = f"mmost://127.0.0.1:{web.port}/aBcDeFgHiJkLmNoPqRsTuVwXyZ"
    assert sent(20, {service: [message("long", "x" * 9000)]}) == {service: [None]}
    assert web.attempts > 2 and sum(post["text"].count("x") for post in web.posts) == 9000


def test_nothing_of_it_is_in_a_message() -> None:
    """Of what a terminal obeys, see `runtime/test_printable.py`."""
    found = message("\x1b[2Jone", "\x1b[2Jtwo\nthree")
    assert (found.title, found.body) == (r"\u001b[2Jone", "\\u001b[2Jtwo\nthree")
