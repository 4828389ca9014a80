"""What the page of a day shows: counts from the state, and what only the rows can say."""

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.config.delivery_spec import (
    NO_ACTION,
    AnyExport,
    Decisions,
    FileExport,
    PostgresExport,
    RedisExport,
)
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import trailing_days
from batch_scoring.daily.first_rows import FirstRows
from batch_scoring.daily.tables import decisions_table
from batch_scoring.delivery.day_rows import DayRows
from batch_scoring.errors import StateError
from batch_scoring.monitoring.checks.decision_checks import arms, counted, largest_groups, usual_rows
from batch_scoring.storage import shards
from batch_scoring.storage.state import PublishedDay, State

FIRST_ROWS = 50
"""Rows that are listed, of all actions together."""
MOST_SEGMENTS = 12
"""Values of a column by which actions are counted; a column with more is not."""
OVER = 1.25
"""From this ratio to the share of all rows on, and 3 standard errors, a segment is marked as over-represented."""
MOVED = 0.2
"""Change of a score since yesterday that is worth counting."""


@dataclass(frozen=True)
class ActionFacts:
    """An action on that day."""

    name: str
    rows: int
    control: int | None
    """Rows of its control group; None without a hold-out."""
    most: int | None
    usual: tuple[float, float] | None
    """Limits of the usual number of rows; None without a history."""
    entered: int | None = None
    """Rows whose key did not have the action on the day before; None if that day has no decisions."""
    left: int | None = None
    """Keys that had it on the day before and do not have it now."""
    moved: int | None = None
    """Keys that had it on both days and whose score has changed by more than 0.2."""


@dataclass(frozen=True)
class Segment:
    """The rows with one value of a column."""

    column: str
    value: str
    rows: int
    actions: Mapping[str, int]
    over: frozenset[str]
    """Actions in which it is over-represented."""


@dataclass(frozen=True)
class DayFacts:
    """The content of the page."""

    pipeline: str
    description: str
    day: str
    published_at: datetime
    model_version: str
    scored: int
    unscored: int
    """Rows of the day that have no score, of every stage."""
    actions: tuple[ActionFacts, ...]
    reasons: Mapping[str, int]
    """The most frequent first."""
    groups: tuple[tuple[str, str, str, int, int], ...]
    """Caps per value: action, column, the value with the most rows, its rows, the cap."""
    segments: tuple[Segment, ...]
    columns: tuple[str, ...]
    """Of the first rows."""
    first: tuple[Mapping[str, Any], ...]
    """Rows with an action, by action and rank."""
    exports: Mapping[str, str]
    """Where the day's exports of decisions go, by name; without user names and passwords."""
    run_id: str

    @property
    def acting(self) -> int:
        """Rows with an action."""
        return sum(action.rows for action in self.actions)


def gather(pipeline: Pipeline, day: str) -> DayFacts:
    """Gather the facts of a decided day.

    Raises:
        StateError: the day is not decided, or its tables do not belong together.
    """
    spec, state = pipeline.spec, State(pipeline.output)
    features, predictions, decided = (
        state.published_day(step, day) for step in ("validated_features", "predictions", "decisions")
    )
    if features is None or predictions is None or decided is None or spec.decisions is None:
        raise StateError(f"{pipeline.name} has no decisions of {day}")
    rows = DayRows(pipeline, features, predictions, decided)
    names = spec.decisions.actions
    counts = counted(decided.shards, "actions")
    return DayFacts(
        pipeline=pipeline.name,
        description=spec.description,
        day=day,
        published_at=decided.finished_at,
        model_version=decided.model_version or "",
        scored=predictions.rows,
        unscored=features.rows_in - predictions.rows,
        actions=tuple(_actions(pipeline, spec.decisions, state, decided)),
        reasons=dict(counted(decided.shards, "reasons").most_common()),
        groups=tuple(
            (action, column, value, count, names[action].most_per[column])
            for action, column, value, count in largest_groups(decided.shards)
            if action in names and column in names[action].most_per
        ),
        segments=tuple(_segments(pipeline, rows, counts, decided.rows)),
        columns=(*([spec.input.key] if spec.page.key else []), "action", "rank", "score", *spec.page.columns, "why"),
        first=tuple(_first(pipeline, rows, [*names])),
        exports={name: _target(export, day) for name, export in spec.exports.items() if export.of == "decisions"},
        run_id=decided.run_id,
    )


def _target(export: AnyExport, day: str) -> str:
    match export:
        case FileExport(path=path):
            return path.replace("{day}", day)
        case PostgresExport(table=table):
            return f"PostgreSQL, table {table}"
        case RedisExport(prefix=prefix):
            return f"Redis, {prefix}:…"


def _actions(pipeline: Pipeline, decisions: Decisions, state: State, decided: PublishedDay) -> Iterator[ActionFacts]:
    counts, groups = counted(decided.shards, "actions"), arms(decided.shards)
    published = trailing_days.published_days(state, "decisions", decided.day)
    before = [counted(one.shards, "actions") for one in published if one.code == decided.code]
    tolerance = pipeline.spec.checks.actions_are_usual.tolerance
    yesterday = state.published_day("decisions", str(date.fromisoformat(decided.day) - timedelta(1)))
    now, then = _acting(pipeline, decided), _acting(pipeline, yesterday) if yesterday else None
    for name, action in decisions.actions.items():
        yield ActionFacts(
            name=name,
            rows=counts[name],
            control=groups[name]["control"] if name in groups else None,
            most=action.most,
            usual=usual_rows([one[name] for one in before], tolerance),
            **(_change(now.get(name), then.get(name)) if then is not None else {}),
        )


def _acting(pipeline: Pipeline, decided: PublishedDay) -> dict[str, pa.Table]:
    """Key and score of the rows with an action, by action."""
    names = [pipeline.spec.input.key, "score"]
    found: dict[str, list[pa.RecordBatch]] = {}
    for path in decided.table.files:
        for batch in shards.read(decisions_table(pipeline).folder, path, [*names, "action"]):
            for name in pc.unique(batch.column("action")).to_pylist():
                found.setdefault(name, []).append(batch.filter(pc.equal(batch.column("action"), name)).select(names))
    return {name: pa.Table.from_batches(batches) for name, batches in found.items() if name != NO_ACTION}


def _change(now: pa.Table | None, then: pa.Table | None) -> dict[str, int]:
    if now is None or then is None:
        return {"entered": len(now or ()), "left": len(then or ()), "moved": 0}
    place = pc.index_in(now.column(0), value_set=then.column(0).combine_chunks())
    moved = pc.greater(pc.abs(pc.subtract(now["score"], then["score"].take(place))), MOVED)
    stayed = len(now) - place.null_count
    return {"entered": len(now) - stayed, "left": len(then) - stayed, "moved": pc.sum(moved).as_py() or 0}


def _segments(pipeline: Pipeline, rows: DayRows, counts: Mapping[str, int], total: int) -> Iterator[Segment]:
    """Rows and actions by the values of the columns that have few."""
    spec = pipeline.spec
    features = (name for name in spec.features.categorical if name in rows.schema.names)
    for column in dict.fromkeys((*spec.page.columns, *features)):
        values = _counted(rows, column)
        if len(values) < 2:
            continue
        for value, actions in sorted(values.items(), key=lambda item: -sum(item[1].values())):
            segment = sum(actions.values())
            taken = {name: actions.get(name, 0) for name in counts if name != NO_ACTION}
            over = (name for name, count in taken.items() if _is_over(count, segment, counts[name], total))
            yield Segment(column, value, segment, taken, frozenset(over))


def _counted(rows: DayRows, column: str) -> dict[str, Counter[str]]:
    """Rows by value and action; empty if the column has many values, as one of persons has: they are not gathered."""
    found: dict[str, Counter[str]] = {}
    for batch in rows.read([column, "action"]):
        table = pa.table({"value": _text(batch.column(column)), "action": batch.column("action")})
        if len(pc.unique(table["value"])) > MOST_SEGMENTS:
            return {}
        for row in table.group_by(["value", "action"]).aggregate([([], "count_all")]).to_pylist():
            value = "missing" if row["value"] is None else row["value"]
            found.setdefault(value, Counter())[row["action"]] += row["count_all"]
        if len(found) > MOST_SEGMENTS:
            return {}
    return found


def _text(column: pa.Array) -> pa.Array:
    """Cells as text."""
    return (column.dictionary_decode() if pa.types.is_dictionary(column.type) else column).cast(pa.string())


def _is_over(count: int, segment: int, acting: int, total: int) -> bool:
    """Whether a segment has more of an action than its share of all rows explains."""
    if not acting or not segment:
        return False
    share = segment / total
    expected = acting * share
    return count > OVER * expected and count - expected > 3 * math.sqrt(expected * (1 - share))


def _first(pipeline: Pipeline, rows: DayRows, actions: Sequence[str]) -> Iterator[Mapping[str, Any]]:
    """The first rows of each action; every action has its part of the list."""
    by_action = [FirstRows(name, FIRST_ROWS) for name in actions]
    for batch in rows.read(["action", "rank", "score", "why", *pipeline.spec.page.columns]):
        for first in by_action:
            first.add(batch)
    listed = [first.rows() for first in by_action]
    each = _shares([len(of_action) for of_action in listed], FIRST_ROWS)
    yield from itertools.chain.from_iterable(of_action[:count] for of_action, count in zip(listed, each, strict=True))


def _shares(sizes: Sequence[int], most: int) -> list[int]:
    """Divide a list among groups evenly; what a small one leaves goes to the others."""
    shares = np.zeros(len(sizes), int)
    while (left := most - int(shares.sum())) > 0 and (open_ := np.flatnonzero(shares < sizes)).size:
        for group in open_[: max(1, left)]:
            shares[group] += min(max(1, left // len(open_)), sizes[group] - shares[group])
    return [int(share) for share in shares]
