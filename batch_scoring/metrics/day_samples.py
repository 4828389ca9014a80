"""The samples of one pipeline, from one look at its state: how its days stand, and the figures of the newest one.

Few documents are read: a listing says which have changed, and only those of the newest days are of interest. A damaged
document is counted and otherwise treated as missing; its day is then in progress, which an alert reports.
"""

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from datetime import date, datetime, time, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from batch_scoring.config.names import DECISIONS
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.freshness import are_of
from batch_scoring.delivery.day_rows import why_apart
from batch_scoring.delivery.exports import pending, published
from batch_scoring.errors import FAILURES, StateError
from batch_scoring.metrics import catalogue
from batch_scoring.metrics.catalogue import DAY_STATES, RECENT_DAYS, DayState, Outcome, Sample
from batch_scoring.monitoring.checks.decision_checks import counted
from batch_scoring.monitoring.cost import cost_of_day
from batch_scoring.monitoring.report.month import DOCUMENTS, OF_DECISIONS
from batch_scoring.operations import failure_history
from batch_scoring.operations.failure_history import FailureStatistics
from batch_scoring.storage.day_heads import InputHead, PublishedHead
from batch_scoring.storage.state import PublishedDay, StepName
from batch_scoring.storage.state_look import StateLook

LIMIT_HOURS = 36.0
"""Hours after its midnight within which a day is to be scored, without `alerts.scored_hours`."""
FAILED_WITHIN = timedelta(hours=24)
"""Age of the failures that are counted by class."""

_Days = Mapping[str, PublishedHead]


def of_pipeline(pipeline: Pipeline, now: datetime) -> list[Sample]:
    """Every sample of a pipeline, but for those about the reading itself.

    Args:
        pipeline: whose state.
        now: with a time zone.

    Raises:
        OSError: the store did not answer.
    """
    look = StateLook(pipeline.output)
    days = look.newest_days()[:RECENT_DAYS]
    scored = {day.day: day for day in look.published_heads("predictions", days)}
    failed = failure_history.statistics(look, now - timedelta(days=RECENT_DAYS))
    found = [*_days(pipeline, look, days, scored, failed), *_failures(look, failed, now), *_model(look)]
    found += _exports(pipeline, look, days)
    if newest := _newest(look, scored):
        found += [*_times(pipeline, newest, scored), *_rows(look, newest), *_use(pipeline, look, newest)]
        found += [*_scores(newest), *_checks(look, newest), *_drift(look, days), *_decisions(look, newest)]
    found.append(Sample(catalogue.DAMAGED_DOCUMENTS, (), len(look.damaged)))
    return [Sample(one.metric, (pipeline.name, *one.labels), one.value) for one in found]


def _days(
    pipeline: Pipeline, look: StateLook, days: Sequence[str], scored: _Days, failed: FailureStatistics
) -> Iterator[Sample]:
    """How the recent days stand whose input is pinned."""
    inputs = look.input_heads(days)
    failed_at = _failed_at(failed)
    awaited = [day for day in scored if pipeline.spec.decisions and DECISIONS in scored[day].followed_by]
    decided = {one.day for one in look.published_heads("decisions", awaited) if one.is_of(scored[one.day])}
    undecided = set(awaited) - decided
    states = {pinned.day: _state_of(pinned, scored, undecided, failed_at) for pinned in inputs}
    counts = Counter(states.values())
    for state in DAY_STATES:
        yield Sample(catalogue.RECENT_PARTITIONS, (state,), counts[state])
    if since := [pinned.pinned_at for pinned in inputs if states[pinned.day] == "in_progress"]:
        yield Sample(catalogue.IN_PROGRESS_SINCE, (), min(since).timestamp())


def _state_of(
    pinned: InputHead, scored: _Days, undecided: Collection[str], failed_at: Mapping[str, datetime]
) -> DayState:
    published_day = scored.get(pinned.day)
    if published_day and published_day.fingerprint == pinned.fingerprint and pinned.day not in undecided:
        return "scored"
    at = failed_at.get(pinned.day)
    return "failed" if at and at >= pinned.pinned_at else "in_progress"


def _failed_at(failed: FailureStatistics) -> dict[str, datetime]:
    """When the last run of a day failed, by day."""
    return {record.day: record.at for record in failed.failures if record.day and not record.export}


def _failures(look: StateLook, failed: FailureStatistics, now: datetime) -> Iterator[Sample]:
    counts = Counter(record.failure_class for record in failed.failures if record.at > now - FAILED_WITHIN)
    for name in FAILURES:
        if name != "superseded":
            yield Sample(catalogue.FAILED_RUNS, (name,), counts[name])
    left = {failure.last.day for failure in failed.open_failures if not failure.last.export}
    yield Sample(catalogue.FAILED_PARTITIONS, (), len(left - _without_files(look, sorted(left))))


def _without_files(look: StateLook, days: Sequence[str]) -> set[str]:
    """The days that failed because none of their files has landed: Sundays, of which nobody should be told for weeks.

    That a day is missing shows in the age of the newest one.
    """
    found = {said.day: said.checks.get("input_is_present") for said in look.checks_of("raw_input", days)}
    return {day for day, record in found.items() if record and not record.passed and not record.observed}


def _model(look: StateLook) -> Iterator[Sample]:
    try:
        model = look.model_or_none()
    except StateError:
        look.damaged.add("the active model")
        return
    if model:
        yield Sample(catalogue.MODEL_INFO, (model.version, model.sha256), 1)


def _exports(pipeline: Pipeline, look: StateLook, recent: Sequence[str]) -> Iterator[Sample]:
    for name, export in pipeline.spec.exports.items():
        if export.default_status == "running":  # of a stopped one nobody expects that it keeps up
            behind = [day for day in pending.recent(pipeline, name, look) if not day.is_gone]
            yield Sample(catalogue.EXPORTS_PENDING, (name,), len(behind))
        days = look.newest_published_days(export.of, export.recent_days, partial(published.is_day_of, export))
        ends = _ends(look, name, [day.day for day in days])
        ends = ends or next((older for day in recent if (older := _ends(look, name, [day]))), [])
        if ends:
            yield Sample(catalogue.EXPORT_LAST_SUCCESS, (name,), max(ends).timestamp())


def _ends(look: StateLook, name: str, days: Sequence[str]) -> list[datetime]:
    """When an export brought days to its sink."""
    receipts = look.receipts_of(name, days)
    return [receipt.finished_at for receipt in receipts if receipt.outcome in ("exported", "unchanged")]


def _newest(look: StateLook, scored: _Days) -> PublishedDay | None:
    """The newest scored day, also if none of the recent ones is."""
    days = sorted(scored, reverse=True)
    recent = (one for day in days for one in look.published_days_of("predictions", [day]))
    return next(recent, None) or next(iter(look.newest_published_days("predictions", 1, lambda day: True)), None)


def _times(pipeline: Pipeline, newest: PublishedDay, scored: _Days) -> Iterator[Sample]:
    zone, day = ZoneInfo(pipeline.spec.partitions.timezone), date.fromisoformat(newest.day)
    began = datetime.combine(day, time(), zone).timestamp()
    hours = pipeline.spec.alerts.scored_hours
    # within one zone by the wall clock, as the deadline itself
    next_due = datetime.combine(day, time(), zone) + timedelta(days=1, hours=LIMIT_HOURS if hours is None else hours)
    ends = [newest.finished_at, *(one.finished_at for one in scored.values())]
    yield Sample(catalogue.LAST_SUCCESS, (), max(ends).timestamp())
    yield Sample(catalogue.NEWEST_DAY, (), began)
    yield Sample(catalogue.NEWEST_DAY_LIMIT, (), next_due.timestamp() - began)


def _rows(look: StateLook, newest: PublishedDay) -> Iterator[Sample]:
    """Every input row of the newest scored day is in one outcome.

    While a corrected day is validated and not yet scored again, its rejected rows are not those of the scores.
    """
    published_features = look.published_days_of("validated_features", [newest.day])
    features = [one for one in published_features if not why_apart(one, newest, None)]
    rows: dict[Outcome, int] = {"scored": newest.rows, "unscored": newest.rows_quarantined}
    if features:
        rows["rejected"] = features[0].rows_quarantined
    for outcome, count in rows.items():
        yield Sample(catalogue.DAY_ROWS, (outcome,), count)


def _use(pipeline: Pipeline, look: StateLook, newest: PublishedDay) -> Iterator[Sample]:
    """Time and money of the newest scored day's steps."""
    others: tuple[StepName, ...] = ("validated_features", "decisions")
    days = [newest, *(day for step in others for day in look.published_days_of(step, [newest.day]))]
    for day in days:
        yield Sample(catalogue.DAY_DURATION, (day.step,), day.seconds)
        if usage := day.usage:
            yield Sample(catalogue.DAY_CPU, (day.step,), usage.cpu_seconds)
            yield Sample(catalogue.DAY_GPU, (day.step,), usage.gpu_seconds)
    if prices := pipeline.spec.prices:
        costs = [cost for day in days if (cost := cost_of_day(day, prices)) is not None]
        if len(costs) == len(days):
            yield Sample(catalogue.DAY_COST, (prices.currency,), sum(costs))


def _scores(newest: PublishedDay) -> Iterator[Sample]:
    for column in sorted({column for shard in newest.shards for column in shard.sums}) if newest.rows else ():
        yield Sample(catalogue.DAY_SCORE_MEAN, (column,), newest.moments(column).mean)


def _checks(look: StateLook, newest: PublishedDay) -> Iterator[Sample]:
    for document, (asset, _) in {**DOCUMENTS, **OF_DECISIONS}.items():
        for said in look.checks_of(document, [newest.day]):
            for check, record in said.checks.items():
                yield Sample(catalogue.DAY_CHECK_PASSED, (asset, check), record.passed)


def _drift(look: StateLook, days: Sequence[str]) -> Iterator[Sample]:
    """Of the newest day with a comparison, which comes minutes after the scores."""
    drift = next((one for day in days for one in look.drifts_of([day])), None)
    for side, columns in (("features", drift.features), ("predictions", drift.predictions)) if drift else ():
        if ratios := [column.observed / column.threshold for column in columns if column.threshold > 0]:
            yield Sample(catalogue.DAY_DRIFT, (side,), max(ratios))


def _decisions(look: StateLook, newest: PublishedDay) -> Iterator[Sample]:
    """None while a corrected day is scored again and not yet decided."""
    for decided in look.published_days_of("decisions", [newest.day]):
        if not are_of(decided, newest):
            continue
        for action, rows in counted(decided.shards, "actions").items():
            yield Sample(catalogue.DAY_DECISIONS, (action,), rows)
