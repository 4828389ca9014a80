"""A month of a pipeline, read from the state: findings of checks, published days, distances, failed runs.

`page.py` draws it.
"""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

from batch_scoring.config.days import of_month
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.config.spec import Prices
from batch_scoring.errors import StateError
from batch_scoring.inference.heads.task import telling_column
from batch_scoring.monitoring.checks import decision_checks, feature_checks, input_checks, prediction_checks
from batch_scoring.monitoring.cost import step_cost
from batch_scoring.monitoring.drift import findings
from batch_scoring.monitoring.report.page import Checked, Day, Month, Status
from batch_scoring.operations import failure_history
from batch_scoring.storage.state import CheckRecord, ColumnDrift, DayDrift, DayInput, PublishedDay, State

DOCUMENTS: Mapping[str, tuple[str, Iterable[str]]] = {
    "raw_input": ("raw_input", input_checks.CHECKS),
    "validated_features": ("validated_features", feature_checks.CHECKS),
    "features_drift": ("validated_features", [findings.CHECKS["features"].name]),
    "predictions": ("predictions", prediction_checks.CHECKS),
    "predictions_drift": ("predictions", [findings.CHECKS["predictions"].name]),
}
"""Documents of the state that hold findings, in the order of the flow, with their asset and its checks."""
OF_DECISIONS: Mapping[str, tuple[str, Iterable[str]]] = {"decisions": ("decisions", decision_checks.CHECKS)}
"""The same of pipelines with decisions."""

FAILURES_OF = timedelta(days=30)

READERS = 4
"""Days read at once: on S3 a read is a round trip, and the stats of a day of thousands of shards take 100 MB."""

_Found = TypeVar("_Found")


def gather(pipeline: Pipeline, month: str, now: datetime, run_id: str) -> Month:
    """Read a month from the state.

    Args:
        pipeline: whose state.
        month: YYYY-MM.
        now: with a time zone; days that have not begun by then are left out.
        run_id: of the run that asks.
    """
    state = State(pipeline.output)
    today = now.astimezone(ZoneInfo(pipeline.spec.partitions.timezone)).date()
    begun = [str(day) for day in of_month(month) if pipeline.spec.partitions.start <= day <= today]
    documents = {**DOCUMENTS, **(OF_DECISIONS if pipeline.spec.decisions else {})}
    prices = pipeline.spec.prices
    with ThreadPoolExecutor(READERS) as pool:
        days = list(pool.map(partial(read_day, state, documents=documents, prices=prices), begun))
    if days and days[-1].day == str(today) and days[-1].status == "missing":
        days.pop()  # its files may still land
    known = tuple((asset, name) for asset, names in documents.values() for name in names)
    failed = failure_history.statistics(state, now - FAILURES_OF)
    currency = prices.currency if prices else None
    return Month(pipeline.name, month, tuple(days), known, now, run_id, currency, failed)


def read_day(
    state: State,
    day: str,
    documents: Mapping[str, tuple[str, Iterable[str]]] = DOCUMENTS,
    prices: Prices | None = None,
) -> Day:
    """Read a day's figures; damaged documents are left out and named.

    Args:
        state: of the pipeline.
        day: YYYY-MM-DD.
        documents: those that hold findings.
        prices: of the spec.
    """
    damage: list[str] = []

    def read(ask: Callable[[], _Found]) -> _Found | None:
        try:
            return ask()
        except StateError as error:
            damage.append(str(error))
            return None

    records: dict[Checked, CheckRecord] = {}
    for document, (asset, _) in documents.items():
        if found := read(partial(state.checks, document, day)):
            records |= {(asset, name): record for name, record in found.checks.items()}
    features, scored = (read(partial(state.published_day, step, day)) for step in ("validated_features", "predictions"))
    pinned = read(partial(state.day_input, day)) if scored else None
    drift = read(partial(state.drift, day))
    published_days = [published_day for published_day in (features, scored) if published_day]
    decided = read(partial(state.published_day, "decisions", day)) if "decisions" in documents else None
    column = _score_column(scored) if scored else ""
    return Day(
        day=day,
        status=_status(records, pinned, features, scored),
        checks=records,
        scored=scored.rows if scored else 0,
        waiting=features.rows if features and not scored else 0,
        quarantined=sum(published_day.rows_quarantined for published_day in published_days),
        model_version=(scored and scored.model_version) or "",
        score=scored.moments(column) if scored and scored.rows else None,
        score_column=column,
        drift=_worst(drift) if drift else {},
        rows_per_second={
            published_day.step: speed for published_day in published_days if (speed := published_day.rows_per_second)
        },
        costs={one.step: step_cost(one, prices) for one in (*published_days, decided) if one},
        damage=tuple(damage),
    )


def _status(
    records: Mapping[Checked, CheckRecord],
    pinned: DayInput | None,
    features: PublishedDay | None,
    scored: PublishedDay | None,
) -> Status:
    if any(record.stopped for record in records.values()):
        return "failed"
    if scored and pinned and scored.fingerprint == pinned.fingerprint:
        return "scored"
    return "unfinished" if records or features or scored else "missing"


def _score_column(published_day: PublishedDay) -> str:
    return telling_column({column: None for shard in published_day.shards for column in shard.sums})


def _worst(drift: DayDrift) -> dict[str, ColumnDrift]:
    """For each comparison, the column with the largest distance in units of its threshold."""
    tested = {
        "the day": [column for column in drift.features if column.horizon != "trailing"],
        "28 days, features": [column for column in drift.features if column.horizon == "trailing"],
        "28 days, scores": drift.predictions,
    }
    comparable = {name: [column for column in columns if column.threshold > 0] for name, columns in tested.items()}
    return {
        name: max(columns, key=lambda column: column.observed / column.threshold)
        for name, columns in comparable.items()
        if columns
    }
