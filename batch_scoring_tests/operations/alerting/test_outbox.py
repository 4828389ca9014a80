"""The queues of the channels, with real receivers on loopback and a real instance's storage."""

import hashlib
import io
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.operations.alerting import channels, outbox
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.collector import try_channels
from batch_scoring.operations.alerting.outbox import KEPT, KEY, MOST_WAITING, Outbox, lease
from batch_scoring_tests.receivers import PASSWORD, MailServer, WebServer


@pytest.fixture(params=["on disk", "in memory"])
def instance(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    is_kept = request.param == "on disk"
    with dg.DagsterInstance.local_temp(str(tmp_path)) if is_kept else dg.DagsterInstance.ephemeral() as found:
        yield found


def message(title: str) -> Message:
    return Message(topic="tiny", title=title, body=f"of {title}", kind="failure")


def opened(instance: dg.DagsterInstance, *urls: str) -> Outbox:
    """The outbox as the next tick finds it."""
    return Outbox(instance.daemon_cursor_storage, channels.parse(" ".join(urls)))


def titles(receiver: WebServer | MailServer) -> list[str]:
    return [title for title, _ in receiver.received]


def test_every_channel_takes_every_message_in_order_and_once(
    instance: dg.DagsterInstance, web: WebServer, mail: MailServer
) -> None:
    box = opened(instance, web.url, mail.url)
    box.put([message("one"), message("two")], "")
    assert box.deliver(20) == 4
    assert box.waiting() == [] and opened(instance, web.url, mail.url).deliver(20) == 0
    assert titles(web) == titles(mail) == ["one", "two"]
    assert web.received[0][1].splitlines() == mail.received[0][1].splitlines() == ["of one"]


def test_a_channel_that_is_down_is_tried_again_and_holds_up_nobody(
    instance: dg.DagsterInstance, web: WebServer, mail: MailServer
) -> None:
    web.is_down = True
    box = opened(instance, web.url, mail.url)
    box.put([message("one")], "")
    assert box.deliver(20) == 1 and titles(mail) == ["one"]
    (said,) = box.waiting()
    assert said.startswith("1 wait for ALERT_URLS[1] (json) since 20") and said.endswith("last error: HTTP status 503")
    box = opened(instance, web.url, mail.url)
    box.put([message("two")], "")
    assert box.deliver(20) == 1 and web.attempts == 2, "a queue stops at its first message"
    web.is_down = False
    assert opened(instance, web.url, mail.url).deliver(20) == 2
    assert titles(web) == titles(mail) == ["one", "two"]


def test_a_delivery_is_noted_at_once(instance: dg.DagsterInstance, web: WebServer) -> None:
    """A process that is killed between two deliveries repeats none."""
    box = opened(instance, web.url)
    box.put([message("one"), message("two")], "")
    web.on_post = lambda: noted.append(opened(instance, web.url).waiting()[0][0])
    noted: list[str] = []
    assert box.deliver(20) == 2
    assert noted == ["2", "1"]


def test_what_the_author_remembers_is_stored_with_the_messages(instance: dg.DagsterInstance, web: WebServer) -> None:
    assert opened(instance, web.url).memory is None
    opened(instance, web.url).put([message("one")], "told: one")
    box = opened(instance, web.url)
    assert box.memory == "told: one" and len(box.waiting()) == 1
    box.deliver(20)
    assert opened(instance).memory == "told: one"


def test_what_waits_for_a_removed_channel_is_kept_until_it_comes_back(
    instance: dg.DagsterInstance, web: WebServer
) -> None:
    web.is_down = True
    opened(instance, web.url).put([message("one")], "")
    without = opened(instance)
    without.put([message("two")], "")
    assert without.orphaned == 1
    web.is_down = False
    assert opened(instance, web.url).deliver(20) == 1
    assert titles(web) == ["one"], "the second was told when there was no channel"


def test_a_new_channel_inherits_what_waits_for_one_that_is_gone(instance: dg.DagsterInstance, web: WebServer) -> None:
    refused = web.url.replace("robot:", "former:")
    opened(instance, refused).put([message("one"), message("two")], "")
    box = opened(instance, web.url)
    assert box.orphaned == 0 and box.deliver(20) == 2
    assert titles(web) == ["one", "two"]
    assert opened(instance, web.url).deliver(20) == 0


def test_queues_that_an_earlier_version_has_named_after_digests_are_taken_over(
    instance: dg.DagsterInstance, web: WebServer
) -> None:
    gone = {"messages": [message("two").model_dump(mode="json")]}
    known = {"messages": [message("one").model_dump(mode="json")], "error": "HTTP status 500"}
    digests = [hashlib.sha256(url.encode()).hexdigest()[:12] for url in (web.url, "json://gone.example")]
    stored = {"memory": "told", "queues": dict(zip(digests, (known, gone), strict=True)), "orphans": {}}
    instance.daemon_cursor_storage.set_cursor_values({KEY: json.dumps(stored)})
    box = opened(instance, web.url)
    assert (box.memory, box.orphaned) == ("told", 1) and "HTTP status 500" in box.waiting()[0]
    box.put([], "told")
    kept = instance.daemon_cursor_storage.get_cursor_values({KEY})[KEY]
    assert not any(digest in kept for digest in digests)
    assert opened(instance, web.url).deliver(20) == 1 and titles(web) == ["one"]
    assert opened(instance, web.url, "json://new.example").orphaned == 0, "a new one inherits the other"


def test_of_addresses_that_differ_in_secrets_alone_none_loses_what_waits_when_one_goes(
    instance: dg.DagsterInstance, web: WebServer
) -> None:
    other = web.url.replace("robot:", "former:")
    box = opened(instance, other, web.url)
    box.put([message("one")], "")
    box._queues[channels.parse(f"{other} {web.url}")[0].id].messages.clear()  # that one has taken it
    box.put([message("two")], "")
    left = opened(instance, web.url)
    assert left.deliver(20) == 2 and titles(web) == ["one", "two"], "rather twice than never"
    again = opened(instance, web.url)
    assert (again.deliver(20), again.orphaned) == (0, 2), "and no third time"
    assert opened(instance, web.url, other).deliver(20) == 2, "of one that comes back nothing is lost either"
    assert opened(instance, web.url, other).deliver(20) == 0


ADDRESSES = ("json://a:b@h.example", "json://c:d@h.example", "json://i.example", "mailto://e:f@h.example")


@settings(max_examples=20, deadline=None)
@given(st.lists(st.lists(st.sampled_from(ADDRESSES), unique=True), max_size=6))
def test_whatever_addresses_come_and_go_no_message_is_lost_and_none_is_given_again(steps: list[list[str]]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        told = set()
        for number, addresses in enumerate(steps):
            box = opened(instance, *addresses)
            box.put([message(str(number))], "")
            told |= {str(number)} if addresses else set()
            before = {name: list(queue.messages) for name, queue in box._queues.items()}
            box = opened(instance, *addresses)
            box.put([], "")
            assert {name: queue.messages for name, queue in box._queues.items()} == before
        box = opened(instance, *ADDRESSES)
        waiting = {one.title for queue in box._queues.values() for one in queue.messages}
        assert waiting == told


def test_what_waits_for_a_removed_channel_is_given_up_after_a_week(
    instance: dg.DagsterInstance, web: WebServer
) -> None:
    old = message("one").model_copy(update={"at": datetime.now(UTC) - KEPT})
    opened(instance, web.url).put([old], "")
    assert opened(instance).orphaned == 0


def test_what_waits_for_a_mistyped_address_goes_to_its_correction_once(
    instance: dg.DagsterInstance, web: WebServer, mail: MailServer
) -> None:
    opened(instance, web.url, mail.url).put([], "")
    wrong = mail.url.replace("mailto", "mailt")
    for title in ("one", "two"):
        box = opened(instance, web.url, wrong)
        box.put([message(title)], "")
        assert box.deliver(20) == 1
    assert [said.split(" since ")[0] for said in box.waiting()] == ["2 wait for ALERT_URLS[2]"]
    assert box.waiting()[0].endswith("last error: the address is not understood")
    assert opened(instance, web.url, wrong.replace("mailt", "mailtoo")).deliver(20) == 0, "mistyped again"
    box = opened(instance, web.url, mail.url)
    assert box.deliver(20) == 2 and box.waiting() == []
    assert titles(web) == titles(mail) == ["one", "two"]


def test_where_all_addresses_are_mistyped_each_correction_gets_each_message_once(
    instance: dg.DagsterInstance, web: WebServer, mail: MailServer
) -> None:
    opened(instance, "nosuch://a", "nosuch://b").put([message("one"), message("two")], "")
    assert opened(instance, web.url, mail.url).deliver(20) == 4
    assert titles(web) == titles(mail) == ["one", "two"]


def test_a_mistyped_address_keeps_as_many_messages_as_another_and_none_for_longer_than_a_week(
    instance: dg.DagsterInstance, web: WebServer
) -> None:
    old = message("old").model_copy(update={"at": datetime.now(UTC) - KEPT})
    opened(instance, "nosuch://x").put([old, *(message(f"number {n}") for n in range(MOST_WAITING - 1))], "")
    opened(instance, "nosuch://x").put([message("last")], "")
    box = opened(instance, "nosuch://x")
    assert box.waiting()[0].startswith(f"{MOST_WAITING} wait")
    box.put([message("one too many")], "")
    assert box.waiting()[0].startswith(f"{MOST_WAITING // 2 + 1} wait")
    assert opened(instance, web.url).deliver(20) == MOST_WAITING // 2 + 1
    assert "old" not in titles(web) and titles(web)[-1] == "one too many"


def test_a_lease_of_a_clock_that_was_ahead_holds_nobody_up(instance: dg.DagsterInstance) -> None:
    storage = instance.daemon_cursor_storage
    storage.set_cursor_values({outbox.LEASE: str(time.time() + 3600)})
    with lease(storage, 60) as free:
        assert free


def test_too_long_a_queue_is_joined_and_loses_no_title(instance: dg.DagsterInstance, web: WebServer) -> None:
    box = opened(instance, web.url)
    box.put([message(f"number {n}") for n in range(MOST_WAITING)], "")
    assert box.waiting()[0].startswith(f"{MOST_WAITING} wait")
    box.put([message("last")], "")
    assert box.waiting()[0].startswith(f"{MOST_WAITING // 2 + 1} wait")
    assert box.deliver(20) == MOST_WAITING // 2 + 1
    title, text = web.received[0]
    assert title == "alerts: 101 messages"
    assert text.splitlines()[0] == "number 0: of number 0" and text.splitlines()[-1] == "… and 1 more"
    assert titles(web)[1:] == [f"number {n}" for n in range(101, MOST_WAITING)] + ["last"]


def test_storage_holds_no_address(tmp_path: Path, web: WebServer) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        box = opened(instance, web.url)
        box.put([message("one")], "")
        stored = b"".join(file.read_bytes() for file in tmp_path.rglob("*") if file.is_file())
    assert b"of one" in stored and PASSWORD.encode() not in stored
    assert PASSWORD not in repr(channels.parse(web.url))


def test_the_outbox_is_leased_to_one_process_at_a_time(instance: dg.DagsterInstance) -> None:
    storage = instance.daemon_cursor_storage
    with lease(storage, 60) as first, lease(storage, 60) as second:
        assert (first, second) == (True, False)
    with lease(storage, 0) as third:
        assert third
        with lease(storage, 60) as after_its_time:
            assert after_its_time
    with lease(storage, 60) as freed:
        assert freed


def test_the_command_tries_every_channel(web: WebServer, mail: MailServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def tried(*urls: str) -> tuple[int, list[str]]:
        monkeypatch.setenv("ALERT_URLS", " ".join(urls))
        out = io.StringIO()
        return try_channels(out), out.getvalue().splitlines()

    assert tried(web.url, mail.url) == (0, ["ALERT_URLS[1] (json): delivered", "ALERT_URLS[2] (mailto): delivered"])
    assert titles(web) == titles(mail) == ["batch_scoring: test message"]
    wrong = mail.url.replace(PASSWORD, "battery-staple")
    assert tried(wrong, "nosuch://x") == (
        1,
        ["ALERT_URLS[1] (mailto): not accepted or not reached", "ALERT_URLS[2]: not understood by apprise"],
    )
    assert tried() == (1, ["ALERT_URLS is not set: messages go to the log of the sensor alerts"])


def test_a_joined_message_is_as_grave_as_its_gravest() -> None:
    calm = Message(topic="t", title="a", body="b", kind="success")
    assert outbox.join("t", [calm, calm]).kind == "success"
    assert outbox.join("t", [calm, message("x"), calm]).kind == "failure"
