"""Messages of an SQS queue as hints about which days to examine.

They come from S3 -> SQS, S3 -> SNS -> SQS, EventBridge -> SQS, or as a plain `{"pipeline": …, "day": …}`; duplicated,
late or out of order. A message is only a hint: its day is listed and compared as in `landing_scan.py`. It is deleted in
the tick after the one that read it, once Dagster has stored what that tick decided, so a tick that dies loses none. A
scan of the landing folder every ten minutes makes up for messages that are lost nevertheless: its names, the newest
days and some of the older ones in turn.
"""

import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from logging import Logger
from typing import Any
from urllib.parse import unquote_plus

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.operations.automation import landing_scan, planner
from batch_scoring.operations.automation.landing_scan import Tick
from batch_scoring.operations.automation.planner import TickState, UnexpectedObject
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage import aws

SWEEP = 600.0
"""Seconds between two scans of days that no message has named."""
MOST_MESSAGES = 100
"""Messages read in a tick."""
QUEUE_TIMEOUT = 15.0
"""Timeout of the queue, in seconds."""
MOST_HINTED = 1_000
_BATCH = 10
"""SQS's limit for one request."""
_LEAST_HIDDEN = 60
"""Seconds for which a message is invisible after it was read."""
_HIDDEN_TICKS = 3
_SHOWN = 200
"""Characters shown of an invalid message."""
_EXPECTED = 'an S3 event (from S3, SNS or EventBridge) or {"pipeline": "name", "day": "YYYY-MM-DD"}'


@dataclass(frozen=True)
class ObjectKey:
    """The S3 object of an event."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """Its address."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class NamedDay:
    """The day named by a plain message."""

    pipeline: str
    day: str


@dataclass(frozen=True)
class Read:
    """What a tick has read from the queue."""

    days: tuple[str, ...] = ()
    unexpected: tuple[UnexpectedObject, ...] = ()
    outside: int = 0
    """Objects in no landing folder."""
    receipts: tuple[str, ...] = ()
    """Of the messages to delete once their days are stored."""
    others: tuple[str, ...] = ()
    """Receipts of messages for other pipelines, whose own sensors read the same queue."""


@dataclass
class Sorted:
    """Days and pipelines that a message is about."""

    days: list[str] = field(default_factory=list)
    """Of the pipeline whose sensor read it."""
    unexpected: list[UnexpectedObject] = field(default_factory=list)
    has_others: bool = False
    """Whether part of it is for another pipeline."""
    outside: int = 0
    """Objects in no landing folder: tables, state and models, if the queue covers the whole bucket."""

    @property
    def is_for_others(self) -> bool:
        """Whether none of it concerns the sensor that read it."""
        return self.has_others and not self.days and not self.unexpected


def parse(body: str) -> Iterator[ObjectKey | NamedDay]:
    """Objects and days in the body of a message; none in S3's test event.

    Raises:
        ValueError: the message is of no supported kind.
    """
    try:
        message: Any = json.loads(body)
        if isinstance(message, dict) and message.get("Type") == "Notification":
            yield from parse(message["Message"])
        elif isinstance(message, dict) and message.get("Event") == "s3:TestEvent":
            return
        elif isinstance(message, dict) and "Records" in message:
            for record in message["Records"]:
                # S3 form-encodes keys, EventBridge does not
                yield ObjectKey(record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        elif isinstance(message, dict) and message.get("source") == "aws.s3":
            yield ObjectKey(message["detail"]["bucket"]["name"], message["detail"]["object"]["key"])
        else:
            yield NamedDay(str(message["pipeline"]), str(message["day"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"an invalid message: {body[:_SHOWN]!r}; expected {_EXPECTED}") from error


def sort_message(body: str, pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> Sorted:
    """Sort a message's objects and days by pipeline."""
    found = Sorted()
    try:
        for one in parse(body):
            _sort(one, pipeline, pipelines, found)
    except ValueError as error:
        found.unexpected.append(UnexpectedObject("a message", str(error)))
    return found


def _sort(one: ObjectKey | NamedDay, pipeline: Pipeline, pipelines: Sequence[Pipeline], into: Sorted) -> None:
    owners = _owners(one, pipelines)
    if pipeline.name in {owner.name for owner in owners}:
        folder = f"dt={one.day}" if isinstance(one, NamedDay) else _folder(one, pipeline)
        reason = planner.why_no_day(folder, pipeline.spec.partitions.start, landing_scan.today(pipeline, time.time()))
        if not reason:
            into.days.append(folder.removeprefix("dt="))
        elif isinstance(one, NamedDay):
            into.unexpected.append(UnexpectedObject(f"{one.pipeline} {one.day}", reason))
        else:
            into.outside += 1  # the scan of the landing folder reports its names
    elif any(owner.spec.events.queue == pipeline.spec.events.queue for owner in owners):
        into.has_others = True
    elif isinstance(one, NamedDay):
        listening = ", ".join(p.name for p in pipelines if p.spec.events.queue == pipeline.spec.events.queue)
        reason = f"the name of no pipeline that reads this queue; those that do: {listening}"
        into.unexpected.append(UnexpectedObject(f"{one.pipeline} {one.day}", reason))
    else:
        into.outside += 1


def _owners(one: ObjectKey | NamedDay, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """The pipelines that a message is for; of nested landing folders, the innermost."""
    if isinstance(one, NamedDay):
        return [pipeline for pipeline in pipelines if pipeline.name == one.pipeline]
    above = [pipeline for pipeline in pipelines if one.uri.startswith(f"{pipeline.landing.uri}/")]
    innermost = max((len(pipeline.landing.uri) for pipeline in above), default=0)
    return [pipeline for pipeline in above if len(pipeline.landing.uri) == innermost]


def _folder(one: ObjectKey, pipeline: Pipeline) -> str:
    """Name of the object's top folder in the landing folder; empty if it is in none."""
    return one.uri.removeprefix(f"{pipeline.landing.uri}/").rpartition("/")[0].split("/")[0]


def receive(pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> Read:
    """Read up to a hundred messages of the queue; they become invisible for a while, but are not deleted.

    Raises:
        OSError: the queue did not answer, does not exist, or denies access.
    """
    queue = pipeline.spec.events.queue
    read: dict[str, Sorted] = {}  # by receipt
    # until the next tick has deleted it, whatever the visibility timeout of the queue
    hidden_for = max(_LEAST_HIDDEN, _HIDDEN_TICKS * pipeline.spec.events.interval_seconds)
    with aws.as_os_errors(queue):
        while len(read) < MOST_MESSAGES:
            found = aws.client("sqs").receive_message(
                QueueUrl=queue,
                MaxNumberOfMessages=_BATCH,
                WaitTimeSeconds=0 if read else 1,
                VisibilityTimeout=hidden_for,
            )
            if not found.get("Messages"):
                break
            for message in found["Messages"]:
                read[message["ReceiptHandle"]] = sort_message(message["Body"], pipeline, pipelines)
    return Read(
        days=tuple(dict.fromkeys(day for message in read.values() for day in message.days)),
        unexpected=tuple(one for message in read.values() for one in message.unexpected),
        outside=sum(message.outside for message in read.values()),
        receipts=tuple(receipt for receipt, message in read.items() if not message.is_for_others),
        others=tuple(receipt for receipt, message in read.items() if message.is_for_others),
    )


def tick(
    pipeline: Pipeline, pipelines: Sequence[Pipeline], instance: dg.DagsterInstance, memory: TickState, log: Logger
) -> Tick:
    """Delete the messages that the previous tick handled, read new ones, examine the days that they name.

    Raises:
        OSError: queue or store did not answer, or denied access; nothing was decided, the next tick tries again.
    """
    queue = pipeline.spec.events.queue

    def ask() -> Read:
        if left := _delete(queue, memory.handled):
            log.warning(f"{queue}: {left} messages were not deleted and will be delivered again, which is harmless")
        read = receive(pipeline, pipelines)
        _release(queue, read.others)
        return read

    try:
        read = call_within(QUEUE_TIMEOUT, f"events of {pipeline.name}", ask)
    except TimeoutError as error:
        raise TimeoutError(f"{queue}: {error}; the next tick tries again") from error
    if read.receipts:
        log.info(
            f"read {len(read.receipts)} messages: {len(read.days)} days; {read.outside} objects of no landing folder"
        )
    hinted = sorted({*memory.hinted, *read.days}, reverse=True)[:MOST_HINTED]
    now = time.time()
    return landing_scan.tick(
        pipeline,
        instance,
        memory.model_copy(update={"hinted": hinted, "handled": list(read.receipts)}),
        now=now,
        sweeps=not memory.swept <= now < memory.swept + SWEEP,
        odd=read.unexpected,
    )


def _delete(queue: str, receipts: Sequence[str]) -> int:
    """Delete messages; the number that remain because their receipts have expired."""
    with aws.as_os_errors(queue):
        answers = [
            aws.client("sqs").delete_message_batch(QueueUrl=queue, Entries=entries) for entries in _batches(receipts)
        ]
    return sum(len(answer.get("Failed", ())) for answer in answers)


def _release(queue: str, receipts: Sequence[str]) -> None:
    """Make messages visible again at once, for the sensors of the other pipelines."""
    with aws.as_os_errors(queue):
        for entries in _batches(receipts):
            visible = [{**entry, "VisibilityTimeout": 0} for entry in entries]
            aws.client("sqs").change_message_visibility_batch(QueueUrl=queue, Entries=visible)


def _batches(receipts: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(receipts), _BATCH):
        part = receipts[start : start + _BATCH]
        yield [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(part)]
