"""Collection of alerts, each sent once: ended runs, newly failing checks, late days, broken sensors and pipelines.

All runs of the instance count, wherever they were started. What was sent before is stored in the outbox, in the same
write as the messages: neither a restart nor a lost cursor of the sensor repeats an alert.
"""

import functools
import itertools
import math
import operator
import re
import time
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from logging import Logger
from typing import TextIO

import dagster as dg
from pydantic import BaseModel

from batch_scoring.config.loader import BrokenPipeline
from batch_scoring.config.names import exports_job_name
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import freshness
from batch_scoring.errors import StateError
from batch_scoring.ingest import landing_files
from batch_scoring.operations import export_runs, failed_runs, failure_records, run_history
from batch_scoring.operations.alerting import action_alerts, channels, deadlines, messages
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.outbox import Outbox, join, lease
from batch_scoring.operations.automation import landing_scan, planner, sensor_status
from batch_scoring.runtime.printable import printable
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage.state import State

ENDED = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED]
FIRST_LOOK_BACK = 24 * 3600.0
"""Seconds before the first tick of an instance."""
OVERLAP = 300.0
"""Seconds by which the end of a run may be recorded late, or another machine's clock may differ."""
ENDED_PER_QUERY = 50
SAID_EVERY = 3600.0
"""Seconds between two log lines about the same mistyped address."""
STORM = 10
"""Most messages of one topic in a tick; more are joined into one."""
MOST_STATES = 1000
MOST_UNRECORDED = 1000
RUNS_UNTIL, DAYS_UNTIL, DELIVER_UNTIL = 10.0, 18.0, 30.0
"""Seconds after which a tick examines no more runs, no more days, and starts no delivery; Dagster's limit is 60."""
STORE_SECONDS = 4.0
"""Timeout of the data's store."""

_LINE = re.compile(r" line \d+")
"""Line number in a validation error, which changes as the file is edited."""
_said_at: dict[str, float] = {}
"""When this process last logged a mistake, by the monotonic clock."""


class AlertState(BaseModel):
    """What was reported before; stored in the outbox."""

    until: float
    """Runs that ended more than OVERLAP before this moment (seconds since 1970) are done."""
    runs: dict[str, float] = {}
    """Runs done that ended later: id and end."""
    unrecorded: list[str] = []
    """Failed runs of which the state may have no record yet: their process was killed, or the store was down."""
    failing: dict[str, list[str]] = {}
    """Checks of assets without days that failed at their last evaluation, and what was reported of them."""
    days: set[str] = set()
    """Deadlines that were kept, or reported as missed."""
    broken: set[str] = set()
    """Sensors reported as broken that still are."""
    faults: dict[str, list[str]] = {}
    """Reported validation errors of the pipelines that are left out, by pipeline, without line numbers."""


def tick(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], log: Logger, left_out: Sequence[BrokenPipeline] = ()
) -> str:
    """Collect new alerts, store them and deliver what is waiting; return a summary.

    Without a channel the messages go to the log.

    Args:
        instance: whose runs and sensors are examined.
        pipelines: of the deployment.
        log: receives what cannot be delivered.
        left_out: broken pipelines, which are left out of the deployment.
    """
    began = time.monotonic()
    storage = instance.daemon_cursor_storage
    with lease(storage, 60.0) as free:
        if not free:
            return "another process holds the outbox"
        named = channels.of("ALERT_URLS")
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
        said += _record_failures(instance, pipelines, memory, began + DAYS_UNTIL)
        new = list(_calmed(found))
        for message in new if len(mistakes) == len(named) else ():
            log.warning(f"{message.title}\n{message.body}")
        outbox.put(new, memory.model_dump_json())
        with ThreadPoolExecutor(1) as beside:  # a team's channel that hangs delays nobody else
            by_action = beside.submit(action_alerts.tick, storage, pipelines, log, lambda: _left(began))
            delivered = outbox.deliver(_left(began))
            teams = by_action.result()
        for problem in [*filter(_is_due, mistakes), *said]:
            log.error(printable(problem))
        summary = [f"{len(new)} new"] if new else []
        summary += [f"delivered {delivered}"] if delivered else []
        waiting = outbox.waiting()
        if outbox.orphaned:
            waiting.append(f"{outbox.orphaned} wait for a channel that is no longer in ALERT_URLS, or for a new one")
        return "; ".join([*summary, *waiting, *teams, *mistakes, *said]) or "no new alerts"


def _left(began: float) -> float:
    """Seconds that are left of a tick for deliveries."""
    return began + DELIVER_UNTIL - time.monotonic()


def warn_of_mistakes() -> None:
    """Warn of invalid addresses when the code location is loaded."""
    for mistake in channels.mistakes(channels.of("ALERT_URLS")):
        warnings.warn(mistake, stacklevel=2)


def _is_due(mistake: str) -> bool:
    """Whether this process has not logged a mistake within the last hour."""
    now = time.monotonic()
    is_due = now - _said_at.get(mistake, -math.inf) >= SAID_EVERY
    if is_due:
        _said_at[mistake] = now
    return is_due


def try_channels(out: TextIO, variable: str = "ALERT_URLS") -> int:
    """Send a test message to every channel in an environment variable; 0 if all have accepted it, else 1."""
    named = channels.of(variable)
    if not named and variable == "ALERT_URLS":
        out.write("ALERT_URLS is not set: messages go to the log of the sensor alerts\n")
    elif not named:
        out.write(f"{variable} is not set: nobody is told\n")
    text = "This channel receives the alerts of batch_scoring."
    message = Message(topic="test", title="batch_scoring: test message", body=text, kind="info")
    errors = dict(channels.send({channel: [message] for channel in named if channel.scheme}, seconds=30))
    outcomes = [errors.get(channel, "not understood by apprise") or "delivered" for channel in named]
    out.writelines(f"{channel}: {outcome}\n" for channel, outcome in zip(named, outcomes, strict=True))
    return 0 if named and set(outcomes) == {"delivered"} else 1


def _remembered(outbox: Outbox) -> AlertState:
    if outbox.memory is None:
        return AlertState(until=time.time() - FIRST_LOOK_BACK + OVERLAP)
    return AlertState.model_validate_json(outbox.memory)


def _calmed(found: Iterable[Message]) -> Iterator[Message]:
    """Join many messages of one topic into one."""
    by_topic = operator.attrgetter("topic")
    for topic, group in itertools.groupby(sorted(found, key=by_topic), by_topic):
        messages = list(group)
        yield from messages if len(messages) <= STORM else [join(topic, messages)]


# runs


def _of_runs(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], memory: AlertState, stop_at: float
) -> Iterator[Message]:
    """Alerts for the runs that have ended; each run is examined once."""
    by_name = {pipeline.name: pipeline for pipeline in pipelines}
    since = memory.until - OVERLAP
    for record in sorted(_ended(instance, since), key=lambda record: (failed_runs.ended_at(record), record.storage_id)):
        run_id, end = record.dagster_run.run_id, failed_runs.ended_at(record)
        if end < since or run_id in memory.runs:
            continue
        if time.monotonic() > stop_at:
            break
        try:
            is_recorded = failed_runs.is_recorded(record.dagster_run)
            if failed_runs.record_failure(instance, record.dagster_run):
                record = record if is_recorded else instance.get_run_record_by_id(run_id) or record
                memory.unrecorded.append(run_id)
            if run_history.is_retried(instance, record):
                continue
            message = None if _is_retried(instance, record, by_name) else _of_run(instance, record, by_name, memory)
        except Exception as error:  # an unreadable run must not silence all others
            message = messages.unreadable(record, error)
        if message:
            yield message
        memory.runs[run_id] = end
        memory.until = max(memory.until, min(end, time.time()))  # the clock of another machine may be ahead
    memory.runs = {run_id: end for run_id, end in memory.runs.items() if end >= memory.until - OVERLAP}


def _record_failures(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], memory: AlertState, stop_at: float
) -> list[str]:
    """Record failed runs in the state; return what prevents it, once a pipeline. What is left is for the next tick."""
    problems: dict[str, str] = {}
    waiting = list(dict.fromkeys(memory.unrecorded))[-MOST_UNRECORDED:]
    memory.unrecorded = []
    for run_id in waiting:
        ended = instance.get_run_record_by_id(run_id)
        pipeline = failure_records.pipeline_of(ended.dagster_run, pipelines) if ended else None
        if not ended or not pipeline or run_history.is_stopped(ended.dagster_run):
            continue
        if pipeline.name in problems or time.monotonic() > stop_at:
            memory.unrecorded.append(run_id)
            continue
        try:
            failure_records.record_run(instance, ended, pipeline)
        except OSError as error:
            memory.unrecorded.append(run_id)
            problems[pipeline.name] = f"failed runs of {pipeline.name} are not recorded yet: {error}; tried again"
        except Exception as error:  # its events cannot be read, and will not be the next time
            problems[run_id] = f"the failed run {run_id} cannot be recorded: {error}"
    return list(problems.values())


def _ended(instance: dg.DagsterInstance, since: float) -> Iterator[dg.RunRecord]:
    """The runs that ended after a moment, and older ones that were updated after it.

    Paged by id, newest first: pages by update time would lose runs of equal times at their borders.
    """
    filters = dg.RunsFilter(statuses=ENDED, updated_after=datetime.fromtimestamp(since, UTC))
    cursor = None
    while page := instance.get_run_records(filters, limit=ENDED_PER_QUERY, cursor=cursor):
        yield from page
        cursor = page[-1].dagster_run.run_id


def _is_retried(instance: dg.DagsterInstance, record: dg.RunRecord, pipelines: Mapping[str, Pipeline]) -> bool:
    """Whether a sensor requests the day again: only the last attempt with the same files is worth an alert."""
    run = record.dagster_run
    if exporting := next((one for one in pipelines.values() if run.job_name == exports_job_name(one)), None):
        return _is_exported_again(instance, run, exporting)
    pipeline, day = pipelines.get(run.job_name.removeprefix("score_")), run.tags.get(run_history.PARTITION)
    if run.status != dg.DagsterRunStatus.FAILURE or pipeline is None or day is None:
        return False
    try:
        ask = functools.partial(_is_open, pipeline, day)
        is_open, is_done = call_within(STORE_SECONDS, f"alerts of {pipeline.name}", ask)
    except (OSError, StateError):  # the runs alone decide; the sensor reports its own errors of the store
        is_open, is_done = True, False
    is_superseded = failed_runs.of_run(run) == "superseded"
    if is_superseded and is_done:
        return True  # another run has scored it
    known, bounds = run_history.of_day(instance, pipeline, day), landing_scan.bounds_of(pipeline, instance)
    is_tried = is_superseded or planner.is_retried(run.run_id, known, bounds)
    later = itertools.takewhile(lambda one: one.id != run.run_id, known)
    has_gone_well = any(one.status == "succeeded" and one.is_whole for one in later)  # before the alert
    return (is_open or has_gone_well) and is_tried and sensor_status.is_any_on(instance, pipeline)


def _is_exported_again(instance: dg.DagsterInstance, run: dg.DagsterRun, pipeline: Pipeline) -> bool:
    """Whether the sensor tries a failed export again: a sink that fails is worth one alert, not one per attempt."""
    is_of_sensor = export_runs.VERSION in run.tags and sensor_status.exports_itself(instance, pipeline)
    if run.status != dg.DagsterRunStatus.FAILURE or not is_of_sensor:
        return False
    runs, pauses = export_runs.of_pipeline(instance, pipeline), landing_scan.bounds_of(pipeline, instance).pauses
    names = export_runs.exports_in(run, pipeline)
    return not any(export_runs.is_worth_an_alert(run.run_id, runs[name], pauses) for name in names)


def _is_open(pipeline: Pipeline, day: str) -> tuple[bool, bool]:
    """Whether a sensor still has to run a day, and whether the day is up to date with the active model."""
    files = landing_files.list_day(pipeline.landing, day)
    is_settled = landing_files.is_of(freshness.fingerprints(pipeline, [day]).get(day), files)
    state = State(pipeline.output)
    published_day, model = state.published_day("predictions", day), state.model_or_none()
    is_current = bool(published_day and model and published_day.model_sha256 == model.sha256)
    return bool(files) and not is_settled, is_settled and is_current


def _of_run(
    instance: dg.DagsterInstance, record: dg.RunRecord, pipelines: Mapping[str, Pipeline], memory: AlertState
) -> Message | None:
    ended = messages.read(instance, record)
    failed = [evaluation for evaluation in ended.evaluations if _is_news(evaluation, memory)]
    pipeline = pipelines.get(ended.topic)
    if ended.run.is_success and not failed and not (pipeline and pipeline.spec.alerts.on_success):
        return None
    try:
        count = functools.partial(messages.row_counts, pipelines, ended)
        counts = call_within(STORE_SECONDS, f"alerts of {ended.topic}", count)
    except (OSError, StateError) as error:
        counts = f"the row counts cannot be read: {error}"
    return messages.of_run(instance, ended, failed, counts)


def _is_news(evaluation: dg.AssetCheckEvaluation, memory: AlertState) -> bool:
    """Whether a check has failed in a way that was not reported before."""
    is_news = not evaluation.passed and "continues_since" not in evaluation.metadata
    if evaluation.partition is not None:
        return is_news
    name = f"{evaluation.asset_key.to_user_string()} {evaluation.check_name}"
    reported = memory.failing.pop(name, None)
    if not evaluation.passed:
        said = str(evaluation.metadata["state"].value).split("\n") if "state" in evaluation.metadata else []
        memory.failing[name] = said
        memory.failing = dict(list(memory.failing.items())[-MOST_STATES:])
        return is_news and (reported is None or bool(set(said) - set(reported)))
    return False


# sensors


def _of_sensors(
    instance: dg.DagsterInstance, pipelines: Sequence[Pipeline], memory: AlertState, gone: Collection[str]
) -> Iterator[Message]:
    """Alerts for sensors that fail, which Dagster shows only in its UI."""
    broken = {found.sensor: found for found in sensor_status.broken(instance, pipelines)}
    for name in sorted(set(broken) - memory.broken):
        yield messages.of_sensor(broken[name])
    memory.broken = {*broken, *(name for name in memory.broken if name.rpartition("_")[0] in gone)}


# pipelines


def _of_broken(left_out: Sequence[BrokenPipeline], memory: AlertState) -> Iterator[Message]:
    """Alerts for pipelines left out of the deployment: each validation error once, as long as it persists."""
    found = {broken.name: {_LINE.sub("", fault) for fault in broken.errors} for broken in left_out}
    for broken in left_out:
        if found[broken.name] - set(memory.faults.get(broken.name, ())):
            yield messages.of_broken(broken)
    memory.faults = {name: sorted(faults) for name, faults in found.items()}


# days


def _of_days(
    instance: dg.DagsterInstance,
    pipelines: Sequence[Pipeline],
    memory: AlertState,
    stop_at: float,
    problems: list[str],
    gone: Collection[str],
) -> Iterator[Message]:
    """Alerts for late days; a store that does not answer is added to `problems`."""
    now = datetime.now(UTC)
    late = list(deadlines.passed(pipelines, now))
    memory.days &= {*(deadline.name for deadline in late), *(name for name in memory.days if name.split()[0] in gone)}
    unreachable = set()
    for deadline in late:
        if deadline.name in memory.days or deadline.pipeline.name in unreachable or time.monotonic() > stop_at:
            continue
        try:
            check = functools.partial(deadlines.check, deadline, now)
            result = call_within(STORE_SECONDS, f"alerts of {deadline.pipeline.name}", check)
        except (OSError, StateError) as error:
            if isinstance(error, OSError):  # else only this day is affected
                unreachable.add(deadline.pipeline.name)
            problems.append(f"{deadline.name}: {error}; tried again")
            continue
        if result.status == "missed":
            if deadline.aim == "landed":
                instance.report_runless_asset_event(deadlines.evaluation(deadline, result))
            yield deadlines.message(deadline, result)
        if result.status != "open":
            memory.days.add(deadline.name)
