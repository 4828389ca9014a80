"""A day's decisions, published without the asset that decides, for tests of what reads them."""

import pyarrow as pa

from batch_scoring.daily.freshness import decided_from
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.storage import shards
from batch_scoring.storage.state import PublishedDay, ShardStats
from batch_scoring_tests.tiny import DAY, TinyProject, run_of_test


def keys_in_order(tiny: TinyProject, day: str = DAY) -> list[str]:
    """The keys of a day's predictions, in the order of its shards."""
    published_day = tiny.published_day("predictions", day)
    folder = DayStep(tiny.pipeline, day, "predictions").table.table.folder
    by_identity = {shards.identity_of(path): path for path in published_day.table.files}
    paths = [by_identity[f"dt={day}/{shard.digest}"] for shard in published_day.shards]
    return [key for path in paths for batch in shards.read(folder, path, ["id"]) for key in batch["id"].to_pylist()]


def decide(tiny: TinyProject, day: str = DAY, *, called: int = 2, keys: list[str] | None = None) -> PublishedDay:
    """Publish decisions about a day's predictions: the first rows are called."""
    keys = keys_in_order(tiny, day) if keys is None else keys
    rows = pa.RecordBatch.from_pydict(
        {
            "id": keys,
            "action": ["call" if row < called else "none" for row in range(len(keys))],
            "rank": pa.array([row + 1 if row < called else None for row in range(len(keys))], pa.int32()),
            "model_version": ["of the decisions"] * len(keys),
        }
    )
    step, predictions, run = (
        DayStep(tiny.pipeline, day, "decisions"),
        tiny.published_day("predictions", day),
        run_of_test(),
    )
    source = decided_from(predictions)
    digest = shards.digest("decisions", source, called, *keys)
    stats = ShardStats(digest=digest, source=source, run_id=run.id, rows_in=len(keys), rows=len(keys))
    with step.draft(rows.schema, dictionary=["action"]) as draft:
        draft._writer.write(rows)
        shard = step.finished().find(digest) or draft.finish(stats, run.meter)
    published_day, _ = step.publish(
        Prepared((shard,), rows.schema),
        run,
        fingerprint=predictions.fingerprint,
        code="decisions",
        model=None,
        check_current=lambda: None,
    )
    return published_day
