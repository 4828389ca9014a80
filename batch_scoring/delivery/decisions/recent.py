"""The keys that had an action on the days before, for `not_within_days`: from those days' published decisions."""

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, timedelta

import pyarrow as pa

from batch_scoring.config.delivery_spec import Decisions
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.tables import decisions_table
from batch_scoring.daily.trailing_days import days_before
from batch_scoring.delivery.decisions.decided import keys_with
from batch_scoring.errors import StateError
from batch_scoring.storage import shards
from batch_scoring.storage.state import PublishedDay, State


def find(pipeline: Pipeline, decisions: Decisions, day: str) -> list[PublishedDay]:
    """The days before whose decisions count, the oldest first; a day without decisions is left out."""
    days = days_before(day, decisions.look_back)
    return State(pipeline.output).published_days_of("decisions", days) if days else []


def keys(
    pipeline: Pipeline, decisions: Decisions, day: str, earlier: Sequence[PublishedDay], kind: pa.DataType
) -> Mapping[str, pa.Array]:
    """The keys, by action, that had it or were its control within `not_within_days`.

    Args:
        pipeline: whose table to read.
        decisions: the rules that are asked for.
        day: to be decided.
        earlier: see `find`.
        kind: type of the keys.

    Raises:
        StateError: the decisions of one of those days are gone.
    """
    windows = {name: action.not_within_days for name, action in decisions.actions.items() if action.not_within_days}
    found: dict[str, list[pa.Array]] = {name: [] for name in windows}
    for published in earlier:
        age = date.fromisoformat(day) - date.fromisoformat(published.day)
        asked = [name for name, days in windows.items() if age <= timedelta(days=days)]
        for batch in _read(pipeline, published) if asked else ():
            for name in asked:
                found[name].append(keys_with(name, batch, pipeline.spec.input.key).cast(kind))
    return {name: pa.concat_arrays([pa.array([], kind), *parts]) for name, parts in found.items()}


def _read(pipeline: Pipeline, published: PublishedDay) -> Iterator[pa.RecordBatch]:
    """The rows of a day's decisions: key, action, reason."""
    folder = decisions_table(pipeline).folder
    try:
        for path in published.table.files:
            yield from shards.read(folder, path, [pipeline.spec.input.key, "action", "reason"])
    except FileNotFoundError as error:
        raise StateError(
            f"not_within_days asks for the decisions of {published.day}, and their file {error.filename} is gone; "
            f"run: batch-scoring backfill {pipeline.name} {published.day} {published.day}"
        ) from error
