"""Outbox of alerts: one queue for each channel, kept until the channel has accepted the messages.

It is stored in the Dagster instance, under a name of its own for each variable that holds channels, so it survives
restarts and does not depend on a sensor's cursor. The collector's memory is stored in the same write as its messages,
so neither is ever stored without the other. A message is delivered once, or twice if a crash comes between its delivery
and the record of it. Nothing here knows about pipelines.

A corrected or replaced address inherits the messages that waited for the old one: it is corrected because nothing
arrived, so they would be lost at the moment at which they could be delivered.
"""

import contextlib
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, get_args

from pydantic import BaseModel

from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.channels import Channel, Kind, Message

if TYPE_CHECKING:
    from batch_scoring.dagster_internals import DaemonCursorStorage

KEY = "batch_scoring/alerts"
LEASE = "batch_scoring/alerts/lease"
MOST_WAITING = 200
"""Longest queue of a channel; beyond it, the oldest messages are joined."""
KEPT = timedelta(days=7)
"""How long the queue of a removed channel waits for a new one, and a message for a mistyped address."""
MOST_LISTED = 100
"""Messages listed in a joined one."""


class Queue(BaseModel):
    """Messages that wait for one channel."""

    messages: list[Message] = []
    error: str | None = None
    """Error of the last attempt."""


class Content(BaseModel):
    """Stored content of the outbox, replaced in one write."""

    memory: str | None = None
    """State of the collector, as the collector serialised it."""
    queues: dict[str, Queue] = {}
    """Queues by the channel's id."""
    orphans: dict[str, Queue] = {}
    """Queues of removed channels: a new channel inherits them, as an address is replaced when it fails."""


class Outbox:
    """The queues of the current channels."""

    def __init__(self, storage: "DaemonCursorStorage", to: Sequence[Channel], key: str = KEY) -> None:
        """Read the queues.

        Args:
            storage: of the Dagster instance.
            to: the current channels; the queue of a channel that is missing from them is kept for the next new one. A
                channel with an invalid address has a queue, too, which its correction inherits.
            key: name of the outbox in the storage.
        """
        self._storage, self._channels, self._key = storage, to, key
        stored = storage.get_cursor_values({key}).get(key)
        before = Content.model_validate_json(stored) if stored else Content()
        self.memory = before.memory
        known, ids = _renamed(before.queues | before.orphans, to), {channel.id for channel in to}
        self._queues = {channel.id: known.get(channel.id, Queue()) for channel in to}
        self._orphans = {name: queue for name, queue in known.items() if name not in ids and queue.messages}
        if new := [channel.id for channel in to if channel.id not in known]:
            _inherit([self._queues[name] for name in new], self._orphans.values())
            self._orphans = {}
        for kind in {channels.kind_of(name) for name in ids.symmetric_difference(known)}:
            self._share(kind, known)
        self._orphans = {name: queue for name, queue in self._orphans.items() if _is_young(queue.messages[-1])}
        for channel in to:
            if channel.scheme is None:
                queue = self._queue(channel)
                queue.messages, queue.error = [*filter(_is_young, queue.messages)], "the address is not understood"

    def _share(self, kind: str, known: Mapping[str, Queue]) -> None:
        """Share all messages among addresses that differ only in secrets: which one was replaced is unknown.

        The queue of a removed one is still kept for a new channel, under a name that is not shared again.
        """
        heirs = [queue for name, queue in self._queues.items() if channels.kind_of(name) == kind]
        _inherit(heirs, [queue for name, queue in known.items() if channels.kind_of(name) == kind])
        self._orphans = {
            f"gone {name}" if heirs and channels.kind_of(name) == kind else name: queue
            for name, queue in self._orphans.items()
        }

    def put(self, messages: Sequence[Message], memory: str) -> None:
        """Queue messages for every channel and store the collector's memory, in one write."""
        self.memory = memory
        for queue in self._queues.values():
            queue.messages += messages
            if len(queue.messages) > MOST_WAITING:
                old = len(queue.messages) - MOST_WAITING // 2
                queue.messages[:old] = [join("alerts", queue.messages[:old])]
        self._store()

    def deliver(self, seconds: float) -> int:
        """Send the waiting messages for about this long, recording each delivery; return the number delivered."""
        understood = [channel for channel in self._channels if channel.scheme]
        waiting = {channel: queue.messages for channel in understood if (queue := self._queue(channel)).messages}
        delivered = 0
        for channel, error in channels.send(waiting, seconds):
            queue = self._queue(channel)
            queue.error = error
            if error is None:
                del queue.messages[0]
                delivered += 1
            self._store()
        return delivered

    def waiting(self) -> list[str]:
        """Description of each queue that is not empty."""
        return [
            f"{len(queue.messages)} wait for {channel} since {stamp(queue.messages[0].at)}, last error: {queue.error}"
            for channel in self._channels
            if (queue := self._queue(channel)).messages
        ]

    @property
    def orphaned(self) -> int:
        """Number of messages that wait for a removed channel."""
        return sum(len(queue.messages) for queue in self._orphans.values())

    def _queue(self, channel: Channel) -> Queue:
        return self._queues[channel.id]

    def _store(self) -> None:
        content = Content(memory=self.memory, queues=self._queues, orphans=self._orphans)
        self._storage.set_cursor_values({self._key: content.model_dump_json()})


def _renamed(queues: dict[str, Queue], to: Sequence[Channel]) -> dict[str, Queue]:
    """Queues that an earlier version named by a digest of the address, under their current names."""
    names = {channel.former_id: channel.id for channel in to if channel.id not in queues}
    gone = (name for name in queues if re.fullmatch("[0-9a-f]{12}", name) and name not in names)
    names |= {name: f"gone {number}" for number, name in enumerate(gone, start=1)}
    return {names.get(name, name): queue for name, queue in queues.items()}


def _inherit(heirs: Sequence[Queue], queues: Iterable[Queue]) -> None:
    """Add the messages of other queues to each heir, without duplicates, oldest first."""
    waiting = {message.model_dump_json(): message for queue in [*queues] for message in queue.messages}
    for heir in heirs:
        own = {message.model_dump_json(): message for message in heir.messages}
        heir.messages = sorted((waiting | own).values(), key=lambda message: message.at)


def _is_young(message: Message) -> bool:
    return datetime.now(UTC) - message.at < KEPT


def join(topic: str, messages: Sequence[Message]) -> Message:
    """Join messages into one that lists the title and the first line of each."""
    lines = [f"{message.title}: {message.body.splitlines()[0][:200]}" for message in messages[:MOST_LISTED]]
    if len(messages) > MOST_LISTED:
        lines.append(f"… and {len(messages) - MOST_LISTED} more")
    worst = min((message.kind for message in messages), key=get_args(Kind).index)
    return Message(
        topic=topic, title=f"{topic}: {len(messages)} messages", body="\n".join(lines), kind=worst, at=messages[0].at
    )


def stamp(at: datetime) -> str:
    """A time as shown in messages."""
    return at.strftime("%Y-%m-%d %H:%M %Z")


@contextlib.contextmanager
def lease(storage: "DaemonCursorStorage", seconds: float) -> Iterator[bool]:
    """Lease the outbox for some seconds; yield whether it was free. A lease too far ahead (a wrong clock) is ignored.

    The process of a killed daemon may run on beside its successor, and a tick can be tested in the UI: both would send
    the same message. (Two that start within the same milliseconds are not distinguished.)
    """
    held = storage.get_cursor_values({LEASE}).get(LEASE)
    if held and 0 < float(held) - time.time() <= seconds:
        yield False
        return
    mine = str(time.time() + seconds)
    storage.set_cursor_values({LEASE: mine})
    try:
        yield True
    finally:
        if storage.get_cursor_values({LEASE})[LEASE] == mine:
            storage.set_cursor_values({LEASE: "0"})
