"""Alerts by action: a team's own channels learn which recent days have rows with an action, once per published version.

Each variable that holds channels has an outbox of its own, so no message of one team reaches another, whatever address
is corrected or replaced. What was sent before is stored in it, in the same write as the messages.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from logging import Logger
from typing import TYPE_CHECKING
from zoneinfo import ZoneInfo

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel

from batch_scoring.config.delivery_spec import ActionAlert
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.first_rows import FirstRows
from batch_scoring.daily.stream import RowTotal
from batch_scoring.daily.tables import decisions_table
from batch_scoring.errors import StateError
from batch_scoring.ingest.key_index import hash64
from batch_scoring.operations.alerting import channels
from batch_scoring.operations.alerting.channels import Message
from batch_scoring.operations.alerting.messages import link
from batch_scoring.operations.alerting.outbox import KEY, Outbox
from batch_scoring.runtime.printable import one_line
from batch_scoring.runtime.timeouts import call_within
from batch_scoring.storage import shards
from batch_scoring.storage.state import PublishedDay, State

if TYPE_CHECKING:
    from batch_scoring.dagster_internals import DaemonCursorStorage

RECENT_DAYS = 3
"""Days that are announced: today and those before. A backfill of older days is silent: nobody acts on them."""
FIRST_LOOK_BACK = timedelta(hours=24)
"""Before the first tick with a variable."""
STORE_SECONDS = 4.0
"""Timeout of a pipeline's store."""


class _Announced(BaseModel):
    """What was sent about a day's rows with an action."""

    digest: str
    """Of the decisions."""
    rows: int
    keys: int | None = None
    """Sum of the hashes of their keys; None if they were not read."""

    def is_of_same_rows(self, now: "_Announced") -> bool:
        """Whether the same keys have the action; not if that is unknown."""
        return self.rows == now.rows and self.keys is not None and self.keys == now.keys


@dataclass(frozen=True)
class _Acting:
    """What a message needs to know of the rows with an action."""

    keys: int
    """Sum of the hashes of their keys."""
    first: str
    """The line that names some of them; empty if it names none."""


class _Memory(BaseModel):
    """What an outbox of actions remembers."""

    since: datetime
    """Decisions that were published before are not announced."""
    announced: dict[str, _Announced] = {}
    """By pipeline, day and action."""


@dataclass(frozen=True)
class _Team:
    """The alerts that go to the channels of one variable."""

    variable: str
    alerts: tuple[tuple[Pipeline, str, ActionAlert], ...]
    """Pipeline, action and settings."""


def tick(
    storage: "DaemonCursorStorage", pipelines: Sequence[Pipeline], log: Logger, deliver_until: Callable[[], float]
) -> list[str]:
    """Announce new decisions and deliver what is waiting; return a summary.

    Args:
        storage: of the Dagster instance.
        pipelines: of the deployment.
        log: receives what cannot be read.
        deliver_until: seconds that are left for deliveries.
    """
    summary: list[str] = []
    waiting: list[Outbox] = []
    for team in _teams(pipelines):
        named = channels.of(team.variable)
        if not named:
            summary.append(f"{team.variable} is not set: {_names(team)} are not announced")
            continue
        outbox = Outbox(storage, named, f"{KEY}/{team.variable}")
        memory = _remembered(outbox)
        found = list(_new_messages(team, memory, log))
        outbox.put(found, memory.model_dump_json())
        waiting.append(outbox)
        summary += [f"{team.variable}: {len(found)} new"] if found else []
        summary += channels.mistakes(named)
    if waiting:
        with ThreadPoolExecutor(len(waiting)) as pool:  # a channel that hangs delays no other team
            delivered = sum(pool.map(lambda outbox: outbox.deliver(deliver_until()), waiting))
        summary += [f"delivered {delivered} by action"] if delivered else []
        summary += [text for outbox in waiting for text in outbox.waiting()]
    return summary


def variables(pipelines: Sequence[Pipeline]) -> list[str]:
    """The environment variables that hold channels of teams."""
    return [team.variable for team in _teams(pipelines)]


def _teams(pipelines: Sequence[Pipeline]) -> list[_Team]:
    found: dict[str, list[tuple[Pipeline, str, ActionAlert]]] = {}
    for pipeline in pipelines:
        for action, alert in pipeline.spec.alerts.actions.items():
            found.setdefault(alert.channels_from, []).append((pipeline, action, alert))
    return [_Team(variable, tuple(alerts)) for variable, alerts in sorted(found.items())]


def _names(team: _Team) -> str:
    return ", ".join(f"{pipeline.name} {action}" for pipeline, action, _ in team.alerts)


def _remembered(outbox: Outbox) -> _Memory:
    if outbox.memory is None:
        return _Memory(since=datetime.now(UTC) - FIRST_LOOK_BACK)
    return _Memory.model_validate_json(outbox.memory)


def _new_messages(team: _Team, memory: _Memory, log: Logger) -> Iterator[Message]:
    """Messages about decisions that were not announced before; `memory` is brought up to date."""
    seen = set()
    for pipeline, action, alert in team.alerts:
        try:
            days = call_within(STORE_SECONDS, f"decisions of {pipeline.name}", functools.partial(_recent, pipeline))
        except (OSError, StateError) as error:
            log.error(f"{pipeline.name}: decisions cannot be read, tried again: {error}")
            seen |= {name for name in memory.announced if name.startswith(f"{pipeline.name} ")}
            continue
        for decided in days:
            name = f"{pipeline.name} {decided.day} {action}"
            seen.add(name)
            before, now = memory.announced.get(name), _count(decided, action)
            if decided.finished_at < memory.since or (before and before.digest == now.digest):
                continue
            memory.announced[name] = now
            if now.rows < alert.at_least and (before is None or before.rows < alert.at_least):
                continue
            acting = _acting(pipeline, decided, action, alert.keys)
            now.keys = acting.keys if acting else None
            if before is None or not before.is_of_same_rows(now):
                yield _message(pipeline, decided, action, acting.first if acting else "", before)
    memory.announced = {name: said for name, said in memory.announced.items() if name in seen}


def _recent(pipeline: Pipeline) -> list[PublishedDay]:
    """What is decided about the recent days, the oldest first."""
    today = datetime.now(ZoneInfo(pipeline.spec.partitions.timezone)).date()
    days = [str(today - timedelta(back)) for back in range(RECENT_DAYS - 1, -1, -1)]
    return State(pipeline.output).published_days_of("decisions", days)


def _count(decided: PublishedDay, action: str) -> _Announced:
    rows = sum(shard.actions.get(action, 0) for shard in decided.shards)
    return _Announced(digest=shards.digest(*(shard.digest for shard in decided.shards)), rows=rows)


def _message(pipeline: Pipeline, decided: PublishedDay, action: str, first: str, before: _Announced | None) -> Message:
    rows = _count(decided, action).rows
    control = sum(shard.arms.get(action, {}).get("control", 0) for shard in decided.shards)
    lines = [f"{rows:,} of {decided.rows:,} rows have the action {action}"]
    lines += [f"corrected: {before.rows:,} rows had it before"] if before else []
    lines += [f"{control:,} more are held out as its control group: leave them alone"] if control else []
    lines += [first] if first else []
    lines.append(link(f"assets/{pipeline.name}/decisions?partition={decided.day}"))
    title = f"{pipeline.name} {decided.day}: {rows:,} rows with the action {action}"
    title += ", corrected" if before else ""
    return Message(topic=pipeline.name, title=title, body="\n".join(lines), kind="info")


def _acting(pipeline: Pipeline, decided: PublishedDay, action: str, most: int) -> _Acting | None:
    """The rows with an action; None if they cannot be read, or not in time."""
    try:
        return call_within(
            STORE_SECONDS, f"decisions of {pipeline.name}", lambda: _read_acting(pipeline, decided, action, most)
        )
    except (OSError, pa.ArrowException):  # the latter if a file is damaged
        return None


def _read_acting(pipeline: Pipeline, decided: PublishedDay, action: str, most: int) -> _Acting:
    key, folder = pipeline.spec.input.key, decisions_table(pipeline).folder
    columns = [key, "action", *(["rank", "score"] if most else [])]
    total, first = RowTotal(), FirstRows(action, most)
    for path in decided.table.files:
        for batch in shards.read(folder, path, columns):
            total.add(hash64(batch.column(key).filter(pc.equal(batch.column("action"), action))))
            if most:
                first.add(batch)
    keys = [one_line(str(cell)) for cell in first.column(key)]
    by = "rank" if any(first.column("rank")) else "score"
    named = f"first by {by}: {', '.join(keys)}" if keys else ""
    return _Acting(total.identity, named)
