"""The asset report: a month of a pipeline on one page, for a person.

What is on it of the days comes from the state, never from the Dagster instance and never from the tables: what the
checks said, the steps' accounts, the distances to the model's reference. The failed runs of the 30 days before it was
drawn come from the instance, which alone knows them. It can be drawn at any time, also of the current month, and
stands as one HTML file in `reports/month=YYYY-MM.html`.
"""

import calendar
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from functools import partial
from typing import TypeVar
from zoneinfo import ZoneInfo

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs import drift_checks
from batch_scoring.defs.assets import raw_input
from batch_scoring.defs.metadata import asset_key, asset_options, link, month_page
from batch_scoring.errors import StateError
from batch_scoring.monitoring.checks import feature_checks, prediction_checks
from batch_scoring.monitoring.report import page
from batch_scoring.monitoring.report.page import Checked, Day, Month, Status
from batch_scoring.operations.failures import step_run
from batch_scoring.operations.run_history import failed_since
from batch_scoring.storage.state import Account, CheckRecord, ColumnDrift, DayDrift, DayInput, State

DOCUMENTS: Mapping[str, tuple[str, Iterable[str]]] = {
    "raw_input": ("raw_input", raw_input.CHECKS),
    "validated_features": ("validated_features", feature_checks.CHECKS),
    "features_drift": ("validated_features", [drift_checks.CHECKS["features"][1]]),
    "predictions": ("predictions", prediction_checks.CHECKS),
    "predictions_drift": ("predictions", [drift_checks.CHECKS["predictions"][1]]),
}
"""Documents of the state that hold what checks said, in the order of the flow: the asset and its checks."""

FAILURES_OF = timedelta(days=30)
READERS = 4
"""Days read at once: on S3 a read is a round trip, and the accounts of a day of thousands of shards take 100 MB."""

_Found = TypeVar("_Found")


def months(pipeline: Pipeline) -> dg.MonthlyPartitionsDefinition:
    """The pipeline's months, the current one included, named by their first day."""
    partitions = pipeline.spec.partitions
    first = partitions.start.replace(day=1)  # of a start within a month Dagster would leave that month out
    return dg.MonthlyPartitionsDefinition(first.isoformat(), timezone=partitions.timezone, end_offset=1)


def report(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    # the days of a month that are still to come, or lie before the start, are none that have to be there
    predictions = dg.AssetDep(
        asset_key(pipeline, "predictions"),
        partition_mapping=dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True),
    )

    @dg.asset(
        key=asset_key(pipeline, "report"),
        description=__doc__,
        deps=[predictions],
        partitions_def=months(pipeline),
        **asset_options(pipeline, "report", kinds={"plotly"}),
    )
    def _report(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
        with step_run(context) as run:
            now = datetime.now(UTC)
            failed = failed_since(context.instance, pipeline, now - FAILURES_OF)
            month = replace(gather(pipeline, context.partition_key[:7], now, run.id), failed=tuple(failed))
            path = month_page(month.month)
            pipeline.output.put(path, page.draw(month))
            return dg.MaterializeResult(metadata={"report": link(pipeline, path), **describe(month)})

    return _report


def gather(pipeline: Pipeline, month: str, now: datetime, run_id: str) -> Month:
    """Read what the state has of a month.

    Args:
        pipeline: whose state.
        month: YYYY-MM.
        now: with a time zone; days that have not begun by then are left out.
        run_id: of the run that asks.
    """
    state = State(pipeline.output)
    today = now.astimezone(ZoneInfo(pipeline.spec.partitions.timezone)).date()
    with ThreadPoolExecutor(READERS) as pool:
        days = list(pool.map(partial(read_day, state), _days(month, pipeline.spec.partitions.start, today)))
    if days and days[-1].day == str(today) and days[-1].status == "missing":
        days.pop()  # its files may still land
    known = tuple((asset, name) for asset, names in DOCUMENTS.values() for name in names)
    return Month(pipeline.name, month, tuple(days), known, now, run_id)


def read_day(state: State, day: str) -> Day:
    """A day's figures; what is damaged is left out and named."""
    damage: list[str] = []

    def read(ask: Callable[[], _Found]) -> _Found | None:
        try:
            return ask()
        except StateError as error:
            damage.append(str(error))
            return None

    said: dict[Checked, CheckRecord] = {}
    for document, (asset, _) in DOCUMENTS.items():
        if found := read(partial(state.checks, document, day)):
            said |= {(asset, name): record for name, record in found.checks.items()}
    features, scored = (read(partial(state.account, step, day)) for step in ("validated_features", "predictions"))
    pinned = read(partial(state.day_input, day)) if scored else None
    drift = read(partial(state.drift, day))
    accounts = [account for account in (features, scored) if account]
    column = _score_column(scored) if scored else ""
    return Day(
        day=day,
        status=_status(said, pinned, features, scored),
        checks=said,
        scored=scored.rows if scored else 0,
        waiting=features.rows if features and not scored else 0,
        quarantined=sum(account.rows_quarantined for account in accounts),
        model_version=(scored and scored.model_version) or "",
        score=scored.moments(column) if scored and scored.rows else None,
        score_column=column,
        drift=_worst(drift) if drift else {},
        rows_per_second={account.step: speed for account in accounts if (speed := account.rows_per_second)},
        damage=tuple(damage),
    )


def describe(month: Month) -> dict[str, dg.MetadataValue]:
    """What an operator asks of the page."""
    days = {f"days_{status}": dg.MetadataValue.int(len(month.of_status(status))) for status in page.STATUSES}
    return {
        "summary": dg.MetadataValue.text(page.summary(month)),
        **days,
        "rows_scored": dg.MetadataValue.int(month.scored),
        "rows_quarantined": dg.MetadataValue.int(month.quarantined),
        "failed_runs_30_days": dg.MetadataValue.int(sum(one.runs for one in month.failed)),
        "models": dg.MetadataValue.text(", ".join(month.models)),
    }


def _days(month: str, start: date, today: date) -> list[str]:
    """The days of a month that are the pipeline's and have begun."""
    first = date.fromisoformat(f"{month}-01")
    every = (first.replace(day=n + 1) for n in range(calendar.monthrange(first.year, first.month)[1]))
    return [str(day) for day in every if start <= day <= today]


def _status(
    said: Mapping[Checked, CheckRecord], pinned: DayInput | None, features: Account | None, scored: Account | None
) -> Status:
    if any(record.stopped for record in said.values()):
        return "failed"
    if scored and pinned and scored.fingerprint == pinned.fingerprint:
        return "scored"
    return "unfinished" if said or features or scored else "missing"


def _score_column(account: Account) -> str:
    """The column that says most of a score: of two classes the second one's probability, as in the histogram."""
    columns = {column for shard in account.shards for column in shard.sums}
    if "prediction_proba" not in columns:
        return "prediction"
    return "prediction_proba" if "prob_class_2" in columns else "prob_class_1"


def _worst(drift: DayDrift) -> dict[str, ColumnDrift]:
    """By what was compared, the column with the largest part of its threshold."""
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
