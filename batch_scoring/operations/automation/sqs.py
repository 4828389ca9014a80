"""Messages of an SQS queue as hints of which days to look at.

S3 -> SQS, S3 -> SNS -> SQS, EventBridge -> SQS, or somebody's plain `{"pipeline": …, "day": …}`; twice, late or in any
order. What a message says is never believed: the day is listed and compared as in `uploads.py`. A message is deleted
in the tick after the one that has read it, when Dagster has stored what that one decided; so a tick that dies loses
none. One that is lost all the same is made up for by looks at the landing folder as `uploads.py` has them: every ten
minutes at its names, its newest days and some of the older ones in turn.
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
from batch_scoring.operations.automation.planner import Memory, Stranger
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage import aws

SWEEP = 600.0
"""Seconds between two looks at days that no message has named."""
MOST_MESSAGES = 100
"""Read in a tick."""
LIMIT = 15.0
"""Seconds that the queue has for its answers."""
MOST_HINTED = 1_000
_BATCH = 10
"""The most that SQS gives, or takes, at once."""
_LEAST_HIDDEN = 60
"""Seconds for which a message that was read is not given again."""
_HIDDEN_TICKS = 3
_SHOWN = 200
"""Characters of a message that is not understood."""
_EXPECTED = 'an S3 event (from S3, SNS or EventBridge) or {"pipeline": "name", "day": "YYYY-MM-DD"}'


@dataclass(frozen=True)
class ObjectKey:
    """An object that an event is about."""

    bucket: str
    key: str

    @property
    def uri(self) -> str:
        """Its address."""
        return f"s3://{self.bucket}/{self.key}"


@dataclass(frozen=True)
class NamedDay:
    """A day that a plain message names."""

    pipeline: str
    day: str


@dataclass(frozen=True)
class Read:
    """What a tick has read from the queue."""

    days: tuple[str, ...] = ()
    strangers: tuple[Stranger, ...] = ()
    outside: int = 0
    """Objects in no landing folder."""
    receipts: tuple[str, ...] = ()
    """Of the messages that are dealt with as soon as the days are remembered."""
    others: tuple[str, ...] = ()
    """Receipts of messages for other pipelines, which have their own sensors at the same queue."""


@dataclass
class Sorted:
    """What a message is about."""

    days: list[str] = field(default_factory=list)
    """Of the pipeline whose sensor has read it."""
    strangers: list[Stranger] = field(default_factory=list)
    has_others: bool = False
    """Whether something in it is for another pipeline."""
    outside: int = 0
    """Objects in no landing folder: tables, state and models, if the queue hears of the whole bucket."""

    @property
    def is_for_others(self) -> bool:
        """Whether the sensor that has read it has nothing to do with it."""
        return self.has_others and not self.days and not self.strangers


def said(body: str) -> Iterator[ObjectKey | NamedDay]:
    """What a message's body is about; nothing if it is S3's test of the queue.

    Raises:
        ValueError: it is none of the kinds that are understood.
    """
    try:
        message: Any = json.loads(body)
        if isinstance(message, dict) and message.get("Type") == "Notification":
            yield from said(message["Message"])
        elif isinstance(message, dict) and message.get("Event") == "s3:TestEvent":
            return
        elif isinstance(message, dict) and "Records" in message:
            for record in message["Records"]:
                # S3 encodes keys as in a form, EventBridge does not
                yield ObjectKey(record["s3"]["bucket"]["name"], unquote_plus(record["s3"]["object"]["key"]))
        elif isinstance(message, dict) and message.get("source") == "aws.s3":
            yield ObjectKey(message["detail"]["bucket"]["name"], message["detail"]["object"]["key"])
        else:
            yield NamedDay(str(message["pipeline"]), str(message["day"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError) as error:
        raise ValueError(f"a message that is not understood: {body[:_SHOWN]!r}; expected {_EXPECTED}") from error


def sort_message(body: str, pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> Sorted:
    """Whose a message is, and which days of the pipeline it is about."""
    found = Sorted()
    try:
        for one in said(body):
            _sort(one, pipeline, pipelines, found)
    except ValueError as error:
        found.strangers.append(Stranger("a message", str(error)))
    return found


def _sort(one: ObjectKey | NamedDay, pipeline: Pipeline, pipelines: Sequence[Pipeline], into: Sorted) -> None:
    owners = _owners(one, pipelines)
    if pipeline.name in {owner.name for owner in owners}:
        folder = f"dt={one.day}" if isinstance(one, NamedDay) else _folder(one, pipeline)
        reason = planner.why_no_day(folder, pipeline.spec.partitions.start, landing_scan.today(pipeline, time.time()))
        if not reason:
            into.days.append(folder.removeprefix("dt="))
        elif isinstance(one, NamedDay):
            into.strangers.append(Stranger(f"{one.pipeline} {one.day}", reason))
        else:
            into.outside += 1  # the look at the whole landing folder tells its names
    elif any(owner.spec.events.queue == pipeline.spec.events.queue for owner in owners):
        into.has_others = True
    elif isinstance(one, NamedDay):
        listening = ", ".join(p.name for p in pipelines if p.spec.events.queue == pipeline.spec.events.queue)
        reason = f"of no pipeline that listens to this queue; these do: {listening}"
        into.strangers.append(Stranger(f"{one.pipeline} {one.day}", reason))
    else:
        into.outside += 1


def _owners(one: ObjectKey | NamedDay, pipelines: Sequence[Pipeline]) -> list[Pipeline]:
    """The pipelines that a message is for: of landing folders within each other the innermost."""
    if isinstance(one, NamedDay):
        return [pipeline for pipeline in pipelines if pipeline.name == one.pipeline]
    above = [pipeline for pipeline in pipelines if one.uri.startswith(f"{pipeline.landing.uri}/")]
    innermost = max((len(pipeline.landing.uri) for pipeline in above), default=0)
    return [pipeline for pipeline in above if len(pipeline.landing.uri) == innermost]


def _folder(one: ObjectKey, pipeline: Pipeline) -> str:
    """The name of the folder in the landing folder in which an object lies; empty if it lies in none."""
    return one.uri.removeprefix(f"{pipeline.landing.uri}/").rpartition("/")[0].split("/")[0]


def receive(pipeline: Pipeline, pipelines: Sequence[Pipeline]) -> Read:
    """Read what waits in the queue, up to a hundred messages; they are hidden for a while, and stay.

    Raises:
        OSError: the queue did not answer, is not there, or denies access.
    """
    queue = pipeline.spec.events.queue
    read: dict[str, Sorted] = {}  # by receipt
    # until the next tick has deleted it, whatever the queue's own time is
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
        strangers=tuple(stranger for message in read.values() for stranger in message.strangers),
        outside=sum(message.outside for message in read.values()),
        receipts=tuple(receipt for receipt, message in read.items() if not message.is_for_others),
        others=tuple(receipt for receipt, message in read.items() if message.is_for_others),
    )


def tick(
    pipeline: Pipeline, pipelines: Sequence[Pipeline], instance: dg.DagsterInstance, memory: Memory, log: Logger
) -> Tick:
    """Delete what the tick before has dealt with, read what came, look at the days that are named.

    Raises:
        OSError: queue or store did not answer, or deny access; nothing was decided, the next tick looks again.
    """
    queue = pipeline.spec.events.queue

    def ask() -> Read:
        if left := _delete(queue, memory.handled):
            log.warning(f"{queue}: {left} messages were not deleted and come again; they are harmless")
        read = receive(pipeline, pipelines)
        _release(queue, read.others)
        return read

    try:
        read = call_within(LIMIT, f"events of {pipeline.name}", ask)
    except TimeoutError as error:
        raise TimeoutError(f"{queue}: {error}; the next tick looks again") from error
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
        odd=read.strangers,
    )


def _delete(queue: str, receipts: Sequence[str]) -> int:
    """Take messages away; how many have stayed, because their receipt is no longer good."""
    with aws.as_os_errors(queue):
        answers = [
            aws.client("sqs").delete_message_batch(QueueUrl=queue, Entries=entries) for entries in _batches(receipts)
        ]
    return sum(len(answer.get("Failed", ())) for answer in answers)


def _release(queue: str, receipts: Sequence[str]) -> None:
    """Let the other pipelines' sensors see their messages at once."""
    with aws.as_os_errors(queue):
        for entries in _batches(receipts):
            visible = [{**entry, "VisibilityTimeout": 0} for entry in entries]
            aws.client("sqs").change_message_visibility_batch(QueueUrl=queue, Entries=visible)


def _batches(receipts: Sequence[str]) -> Iterator[list[dict[str, Any]]]:
    for start in range(0, len(receipts), _BATCH):
        part = receipts[start : start + _BATCH]
        yield [{"Id": str(index), "ReceiptHandle": receipt} for index, receipt in enumerate(part)]
