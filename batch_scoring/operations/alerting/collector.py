"""What is worth a message, each thing once: runs that have ended, checks that began to fail, days that are late.

All runs of the instance count, wherever they were started. What was told before is remembered in the outbox, written
together with the messages: neither a restart nor a sensor's lost cursor tells anything twice.
"""

import functools
import itertools
import math
import operator
import os
import re
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from logging import Logger
from typing import TextIO

import dagster as dg
from pydantic import BaseModel

from batch_scoring.config.loader import Broken
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.errors import StateError
from batch_scoring.ingest import landing_files
from batch_scoring.operations import failures, run_history
from batch_scoring.operations.alerting import channels, deadlines
from batch_scoring.operations.alerting import messages as digests
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.outbox import Outbox, join, lease
from batch_scoring.operations.automation import landing_scan, planner, sensor_status
from batch_scoring.runtime.printable import printable
from batch_scoring.runtime.timeouts import answer
from batch_scoring.storage.state import State

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
FIRST_LOOK_BACK = 24 * 3600.0
"""Seconds before an instance's first tick."""
OVERLAP = 300.0
"""Seconds by which an end may be stored late, or by another machine's clock."""
PAGE = 50
SAID_EVERY = 3600.0
"""Seconds from one line in the log about a mistyped address to the next."""
STORM = 10
"""New messages of one topic in a tick; more are joined."""
MOST_STATES = 1000
RUNS_UNTIL, DAYS_UNTIL, DELIVER_UNTIL = 10.0, 18.0, 30.0
"""Seconds after which a tick stops looking at runs, at days, and begins no delivery; Dagster ends a tick after 60."""
STORE_SECONDS = 4.0
"""That the data's store has for an answer."""

_LINE = re.compile(r" line \d+")
"""Of a fault; it moves as the file is edited."""
_said_at: dict[str, float] = {}
"""When this process said a mistake last, on the monotonic clock."""


class Memory(BaseModel):
    """What was told."""

    until: float
    """Runs that ended up to OVERLAP before this moment (seconds since 1970) are dealt with."""
    runs: dict[str, float] = {}
    """Those dealt with that ended later: id and end."""
    failing: dict[str, list[str]] = {}
    """Checks of assets without days that failed when they were last evaluated, and what of them was told."""
    days: set[str] = set()
    """Deadlines that were kept, or whose miss was told."""
    broken: set[str] = set()
    """Sensors that were told to be broken, and still are."""
    faults: dict[str, list[str]] = {}
    """Of the pipelines that are left out of the deployment, by their names: those that were told, without lines."""


def tick(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], log: Logger, left_out: Sequence[Broken] = ()
) -> str:
    """Find what is new, store it, deliver what waits; what was done, in words.

    Without a channel the messages go to the log.

    Args:
        instance: whose runs and sensors are looked at.
        pipelines: that the deployment has.
        log: is told what cannot be delivered.
        left_out: pipelines that it does not have, since they are broken.
    """
    began = time.monotonic()
    storage = instance.daemon_cursor_storage
    with lease(storage, 60.0) as free:
        if not free:
            return "another process is at it"
        named = channels.parse(os.environ.get("ALERT_URLS", ""))
        mistakes, said = channels.mistakes(named), list[str]()
        outbox = Outbox(storage, named)
        memory = _remembered(outbox)
        gone = {broken.name for broken in left_out}
        found = [
            *_of_broken(left_out, memory),
            *_of_runs(instance, pipelines, memory, began + RUNS_UNTIL),
            *_of_days(instance, pipelines, memory, began + DAYS_UNTIL, said, gone),
            *_of_sensors(instance, pipelines, memory, gone),
        ]
        messages = list(_calmed(found))
        for message in messages if len(mistakes) == len(named) else ():
            log.warning(f"{message.title}\n{message.body}")
        outbox.put(messages, memory.model_dump_json())
        delivered = outbox.deliver(began + DELIVER_UNTIL - time.monotonic())
        for problem in [*filter(_is_due, mistakes), *said]:
            log.error(printable(problem))
        summary = [f"{len(messages)} new"] if messages else []
        summary += [f"delivered {delivered}"] if delivered else []
        waiting = outbox.waiting()
        if outbox.orphaned:
            waiting.append(f"{outbox.orphaned} wait for a channel that is no longer in ALERT_URLS, or for a new one")
        return "; ".join([*summary, *waiting, *mistakes, *said]) or "nothing to tell"


def warn_of_mistakes() -> None:
    """Warn of addresses that nobody understands when the code location is loaded."""
    for mistake in channels.mistakes(channels.parse(os.environ.get("ALERT_URLS", ""))):
        warnings.warn(mistake, stacklevel=2)


def _is_due(mistake: str) -> bool:
    """Whether a mistake was not said within the last hour, by this process."""
    now = time.monotonic()
    is_due = now - _said_at.get(mistake, -math.inf) >= SAID_EVERY
    if is_due:
        _said_at[mistake] = now
    return is_due


def try_channels(out: TextIO) -> int:
    """Send a test message to every channel of ALERT_URLS; 0 if all have taken it, else 1."""
    named = channels.parse(os.environ.get("ALERT_URLS", ""))
    if not named:
        out.write("ALERT_URLS is not set: messages go to the log of the sensor alerts\n")
    text = "This channel receives what batch_scoring tells."
    message = Message(topic="test", title="batch_scoring: test message", body=text, kind="info")
    errors = dict(channels.send({channel: [message] for channel in named if channel.scheme}, seconds=30))
    outcomes = [errors.get(channel, "not understood by apprise") or "delivered" for channel in named]
    out.writelines(f"{channel}: {outcome}\n" for channel, outcome in zip(named, outcomes, strict=True))
    return 0 if named and set(outcomes) == {"delivered"} else 1


def _remembered(outbox: Outbox) -> Memory:
    if outbox.memory is None:
        return Memory(until=time.time() - FIRST_LOOK_BACK + OVERLAP)
    return Memory.model_validate_json(outbox.memory)


def _calmed(found: Iterable[Message]) -> Iterator[Message]:
    """Messages, or one in the place of a storm of them."""
    by_topic = operator.attrgetter("topic")
    for topic, group in itertools.groupby(sorted(found, key=by_topic), by_topic):
        messages = list(group)
        yield from messages if len(messages) <= STORM else [join(topic, messages)]


# runs


def _of_runs(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], memory: Memory, stop_at: float
) -> Iterator[Message]:
    """The messages of the runs that have ended; each is dealt with once."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    since = memory.until - OVERLAP
    for record in sorted(_ended(instance, since), key=lambda record: (run_history.ended_at(record), record.storage_id)):
        run_id, end = record.dagster_run.run_id, run_history.ended_at(record)
        if end < since or run_id in memory.runs:
            continue
        if time.monotonic() > stop_at:
            break
        try:
            is_noted = failures.is_noted(record.dagster_run)
            if failures.note_end(instance, record.dagster_run) and not is_noted:
                record = instance.get_run_record_by_id(run_id) or record
            if run_history.is_retried(instance, record):
                continue
            message = None if _is_asked_again(instance, record, by_name) else _of_run(instance, record, by_name, memory)
        except Exception as error:  # one run that cannot be read must not silence all others
            message = digests.unreadable(record, error)
        if message:
            yield message
        memory.runs[run_id] = end
        memory.until = max(memory.until, min(end, time.time()))  # another machine's clock may be ahead
    memory.runs = {run_id: end for run_id, end in memory.runs.items() if end >= memory.until - OVERLAP}


def _ended(instance: dg.DagsterInstance, since: float) -> Iterator[dg.RunRecord]:
    """The runs that ended after a moment, and older ones that were touched after it.

    By pages of ids, newest first: pages by update time would lose those of equal times at their borders.
    """
    filters = dg.RunsFilter(statuses=ENDED, updated_after=datetime.fromtimestamp(since, UTC))
    cursor = None
    while page := instance.get_run_records(filters, limit=PAGE, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _is_asked_again(instance: dg.DagsterInstance, record: dg.RunRecord, pipelines: Mapping[str, Pipeline]) -> bool:
    """Whether a sensor asks for the day again by itself: only the last try of the same files is worth a message."""
    run = record.dagster_run
    pipeline, day = pipelines.get(run.job_name.removeprefix("score_")), run.tags.get(run_history.PARTITION)
    if run.status != dg.DagsterRunStatus.FAILURE or pipeline is None or day is None:
        return False
    try:
        ask = functools.partial(_is_open, pipeline, day)
        is_open, is_done = answer(f"alerts of {pipeline.name}", STORE_SECONDS, ask)
    except (OSError, StateError):  # what the runs say has to do; the sensor's own trouble with the store is told too
        is_open, is_done = True, False
    is_superseded = failures.of_run(run) == "superseded"
    if is_superseded and is_done:
        return True  # another run has done it
    known, bounds = run_history.of_day(instance, pipeline, day), landing_scan.bounds_of(pipeline, instance)
    is_tried = is_superseded or planner.is_tried_again(run.run_id, known, bounds)
    later = itertools.takewhile(lambda one: one.id != run.run_id, known)
    has_gone_well = any(one.status == "succeeded" and one.is_whole for one in later)  # before anybody was told
    return (is_open or has_gone_well) and is_tried and sensor_status.is_any_on(instance, pipeline)


def _is_open(pipeline: Pipeline, day: str) -> tuple[bool, bool]:
    """Whether a sensor has something to do for a day, and whether nobody has: it is settled by the model in force."""
    files = landing_files.list_day(pipeline.landing, day)
    is_settled = landing_files.is_of(freshness.fingerprints(pipeline, [day]).get(day), files)
    state = State(pipeline.output)
    account, model = state.account("predictions", day), state.model_or_none()
    is_current = bool(account and model and account.model_sha256 == model.sha256)
    return bool(files) and not is_settled, is_settled and is_current


def _of_run(
    instance: dg.DagsterInstance, record: dg.RunRecord, pipelines: Mapping[str, Pipeline], memory: Memory
) -> Message | None:
    ended = digests.read(instance, record)
    failed = [evaluation for evaluation in ended.evaluations if _is_news(evaluation, memory)]
    pipeline = pipelines.get(ended.topic)
    if ended.run.is_success and not failed and not (pipeline and pipeline.spec.alerts.on_success):
        return None
    try:
        count = functools.partial(digests.row_counts, pipelines, ended)
        counts = answer(f"alerts of {ended.topic}", STORE_SECONDS, count)
    except (OSError, StateError) as error:
        counts = f"the rows' counts cannot be read: {error}"
    return digests.digest(instance, ended, failed, counts)


def _is_news(evaluation: dg.AssetCheckEvaluation, memory: Memory) -> bool:
    """Whether a check has failed, and that is no state which an earlier message has told."""
    is_news = not evaluation.passed and "continues_since" not in evaluation.metadata
    if evaluation.partition is not None:
        return is_news
    name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
    told = memory.failing.pop(name, None)
    if not evaluation.passed:
        said = str(evaluation.metadata["state"].value).split("\n") if "state" in evaluation.metadata else []
        memory.failing[name] = said
        memory.failing = dict(list(memory.failing.items())[-MOST_STATES:])
        return is_news and (told is None or bool(set(said) - set(told)))
    return False


# sensors


def _of_sensors(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], memory: Memory, gone: Collection[str]
) -> Iterator[Message]:
    """The messages of the sensors that have stopped working: Dagster shows it, and tells nobody."""
    broken = {door.sensor: door for door in sensor_status.broken(instance, pipelines)}
    for name in sorted(set(broken) - memory.broken):
        yield digests.of_sensor(broken[name])
    memory.broken = {*broken, *(name for name in memory.broken if name.rpartition("_")[0] in gone)}


# pipelines


def _of_broken(left_out: Sequence[Broken], memory: Memory) -> Iterator[Message]:
    """The messages of the pipelines that are left out of the deployment: each fault once, as long as it is there."""
    found = {broken.name: {_LINE.sub("", fault) for fault in broken.errors} for broken in left_out}
    for broken in left_out:
        if found[broken.name] - set(memory.faults.get(broken.name, ())):
            yield digests.of_broken(broken)
    memory.faults = {name: sorted(faults) for name, faults in found.items()}


# days


def _of_days(
    instance: dg.DagsterInstance,
    pipelines: Sequence[Pipeline],
    memory: Memory,
    stop_at: float,
    problems: list[str],
    gone: Collection[str],
) -> Iterator[Message]:
    """The messages of the days that are late; a pipeline whose store does not answer goes into `problems`."""
    now = datetime.now(UTC)
    late = list(deadlines.passed(pipelines, now))
    memory.days &= {*(deadline.name for deadline in late), *(name for name in memory.days if name.split()[0] in gone)}
    unreachable = set()
    for deadline in late:
        if deadline.name in memory.days or deadline.pipeline.name in unreachable or time.monotonic() > stop_at:
            continue
        try:
            judge = functools.partial(deadlines.judge, deadline, now)
            result = answer(f"alerts of {deadline.pipeline.name}", STORE_SECONDS, judge)
        except (OSError, StateError) as error:
            if isinstance(error, OSError):  # else it is about this day alone
                unreachable.add(deadline.pipeline.name)
            problems.append(f"{deadline.name}: {error}; tried again")
            continue
        if result.verdict == "missed":
            if deadline.aim == "landed":
                instance.report_runless_asset_event(deadlines.evaluation(deadline, result))
            yield deadlines.message(deadline, result)
        if result.verdict != "open":
            memory.days.add(deadline.name)
