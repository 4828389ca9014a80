"""The findings of predictions' checks on a day, from its shard stats alone: no score is read again."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from batch_scoring.config.spec import Checks, Cost
from batch_scoring.daily import trailing_days
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.inference.bundle import read_description
from batch_scoring.inference.manifest import Manifest
from batch_scoring.inference.reference_profile import ReferenceProfile
from batch_scoring.monitoring.checks.feature_checks import quarantine_size
from batch_scoring.monitoring.drift.distances import LEAST_ROWS
from batch_scoring.monitoring.finding import Finding
from batch_scoring.storage.state import ActiveModel, PublishedDay, ShardStats, moments

CHECKS = {
    "rows_are_conserved": "Every row of the day's features is scored or in the quarantine, exactly once.",
    "quarantine_is_small": "Few rows of the day are lost, unscored rows included. Fails above `share`, 5 % by "
    "default; above `blocking_share`, 50 %, nothing is published.",
    "scores_are_probabilities": "Every score is finite; probabilities lie in 0 … 1, and sum to 1 if a row has one "
    "class; some row is scored.",
    "confidence_is_usual": "The mean confidence is near that of the 28 days before, as on the reference's days.",
    "classes_are_balanced": "No class has nearly all rows (`share`, 95 % by default), unless that happens on the "
    "reference's days. If a row has several labels, each has about as many rows as on the reference's days.",
    "quantiles_are_ordered": "Few rows (`share`, 1 % by default) have a quantile below that of a lower level.",
    "scores_vary": "The scores spread at least half as much as on the narrowest day of the reference.",
    "cost_is_usual": "A row takes at most 1.5 times (`factor`) the CPU time that it took on the 28 days before, by the "
    "median of the days with the same model, code and kind of device, from 100,000 rows (`rows`) on. A day whose "
    "rows take less than 2 CPU seconds more than usual never fails.",
}

COST_SLACK = 2.0
"""CPU seconds more than usual that never fail a day: a new process needs some to warm up, and neighbours add some."""
SAMPLING = 3.0
"""Standard errors by which the mean of a day may differ by chance alone."""


def findings(step: DayStep, prepared: Prepared, features: PublishedDay, model: ActiveModel) -> list[Finding]:
    """The findings of every check, before anything is published."""
    shard_stats, thresholds = prepared.shard_stats, step.pipeline.spec.checks
    manifest, profile = read_description(step.state.models.subfolder(model.sha256))
    before = [
        published
        for published in trailing_days.published_days(step.state, "predictions", step.day)
        if published.model_sha256 == model.sha256 and published.rows
    ]
    return [
        *_conservation(shard_stats, features, manifest),
        _quarantine_size(shard_stats, features, thresholds),
        _confidence(shard_stats, before, manifest, profile, thresholds),
        _balance(shard_stats, manifest, profile, thresholds),
        _ordering(shard_stats, manifest, thresholds),
        _spread(shard_stats, manifest, profile, thresholds),
        usual_cost(
            shard_stats,
            [published for published in before if published.code == step.pipeline.scoring_code],
            thresholds.cost_is_usual,
        ),
    ]


def _conservation(shard_stats: Sequence[ShardStats], features: PublishedDay, manifest: Manifest) -> list[Finding]:
    rows, rejected = sum(shard.rows for shard in shard_stats), sum(shard.rows_quarantined for shard in shard_stats)
    lost = [shard.source for shard in shard_stats if not shard.is_balanced]
    advice = f"; rows are lost or doubled in {len(lost)} shards: remove their files and run again" if lost else ""
    return [
        Finding(
            "rows_are_conserved",
            features.rows == rows + rejected and not lost,
            f"{features.rows} rows of features, {rows} scored, {rejected} in the quarantine{advice}",
            {"rows_in": features.rows, "rows": rows, "rows_quarantined": rejected},
            observed=rows + rejected,
            expected=f"{features.rows} rows",
        ),
        probabilities(shard_stats, features.rows, manifest),
    ]


def _quarantine_size(shard_stats: Sequence[ShardStats], features: PublishedDay, thresholds: Checks) -> Finding:
    """Lost rows of both stages together; if scoring lost none, the finding of validated_features reports them."""
    if not sum(shard.rows_quarantined for shard in shard_stats):
        check, rows = "quarantine_is_small", features.rows
        return Finding(check, True, f"none of {rows} rows is lost in scoring", {"rows": rows}, observed=0.0)
    return quarantine_size([*features.shards, *shard_stats], thresholds, features.rows_in)


def probabilities(shard_stats: Sequence[ShardStats], rows_in: int, manifest: Manifest) -> Finding:
    """The finding scores_are_probabilities; `rows_in`: how many there were to score."""
    rows, bad = sum(shard.rows for shard in shard_stats), sum(shard.not_probabilities for shard in shard_stats)
    none = "" if rows or not rows_in else "; the model scores no row at all: is it the right model?"
    return Finding(
        "scores_are_probabilities",
        not bad and (rows > 0 or rows_in == 0),
        f"{bad} of {rows} scored rows {manifest.task.broken}{none}",
        {"rows": rows, "not_probabilities": bad},
        observed=bad,
        expected=manifest.task.rule,
        limits=[0],
    )


def _confidence(
    shard_stats: Sequence[ShardStats],
    before: Sequence[PublishedDay],
    manifest: Manifest,
    profile: ReferenceProfile | None,
    thresholds: Checks,
) -> Finding:
    check, column = "confidence_is_usual", manifest.task.confidence_column
    day, learned = moments(shard_stats, column), profile.score_days if profile else None
    allowed = thresholds.confidence_is_usual.deviation or (learned and learned.confidence)
    usual = trailing_days.median([stats.moments(column).mean for stats in before])
    if not day.rows:
        return Finding(check, True, "not tested: no row is scored")
    seen = f"the mean {column} is {day.mean:.4f}"
    if not allowed:
        why = "the bundle has no reference profile and the spec no deviation"
        return Finding(check, True, f"{seen}; not tested: {why}")
    if usual is None:
        days = f"{len(before)} of the 28 days before, with this model; expected at least 7"
        return Finding(check, True, f"{seen}; no history yet: {days}", observed=day.mean)
    allowed += SAMPLING * (learned.confidence_sd if learned else day.deviation) / math.sqrt(day.rows)
    passed = abs(day.mean - usual) <= allowed
    expected = f"{usual:.4f} ± {allowed:.4f}, by the {len(before)} days before"
    advice = "" if passed else "; check the drift of the features, and the actuals once they are known"
    return Finding(
        check,
        passed,
        f"{seen}, expected {expected}{advice}",
        observed=day.mean,
        expected=expected,
        limits=[usual - allowed, usual + allowed],
    )


def _balance(
    shard_stats: Sequence[ShardStats], manifest: Manifest, profile: ReferenceProfile | None, thresholds: Checks
) -> Finding:
    check = "classes_are_balanced"
    counts: Counter[str] = Counter()
    for shard in shard_stats:
        counts.update(shard.classes)
    names = manifest.task.class_names
    if not names:
        return Finding(check, True, "not tested: no classes")
    if not manifest.task.is_exclusive:
        return _label_shares(counts, sum(shard.rows for shard in shard_stats), names, profile)
    if not (rows := counts.total()):
        return Finding(check, True, "not tested: no row is scored")
    winner, most = counts.most_common(1)[0]
    name, share = names[int(winner)], most / rows
    known = profile.score_days.largest_class if profile else None
    limit = max(thresholds.classes_are_balanced.share, known or 0.0)
    seen = f"{share:.1%} of {rows} rows are {name}"
    if limit >= 1:
        return Finding(
            check, True, f"{seen}; not tested: on a day of the reference one class has all rows", observed=share
        )
    if rows < LEAST_ROWS:
        return Finding(check, True, f"{seen}; not enough rows, expected at least {LEAST_ROWS}", observed=share)
    advice = "" if share <= limit else "; is this the right model, and are its features what they were in training?"
    return Finding(
        check,
        share <= limit,
        f"{seen}, expected at most {limit:.1%}{advice}",
        dict(counts),
        observed=share,
        expected=f"at most {limit:.1%} of one class",
        limits=[limit],
    )


def _label_shares(counts: Counter[str], rows: int, names: Sequence[str], profile: ReferenceProfile | None) -> Finding:
    """The finding classes_are_balanced of several labels: each has its usual share of the rows.

    Beyond the reference's days a share may lie by their own range, and by chance. What is observed is the label
    furthest beyond that, or nearest to it.
    """
    check, known = "classes_are_balanced", profile.score_days.labels if profile else {}
    if not known:
        return Finding(check, True, "not tested: the bundle has no reference profile")
    if rows < LEAST_ROWS:
        return Finding(check, True, f"not enough rows: {rows}, expected at least {LEAST_ROWS}")
    excess = {}
    for label, (low, high) in known.items():
        least, most = low - (high - low) - _chance(low, rows), high + (high - low) + _chance(high, rows)
        excess[label] = max(least - counts[label] / rows, counts[label] / rows - most), least, most
    label = max(excess, key=lambda label: excess[label][0])
    (beyond, least, most), share = excess[label], counts[label] / rows
    expected = f"{max(least, 0):.1%} to {min(most, 1):.1%}"
    advice = "" if beyond <= 0 else "; is this the right model, and are its features what they were in training?"
    return Finding(
        check,
        beyond <= 0,
        f"{share:.1%} of {rows} rows have the label {names[int(label)]}, expected {expected}{advice}",
        dict(counts),
        observed=share,
        expected=f"each label's usual share: {names[int(label)]} {expected}",
        limits=[max(least, 0.0), min(most, 1.0)],
    )


def _chance(share: float, rows: int) -> float:
    """How far chance alone moves a share of so many rows; by a row or two where the share is 0 or 1."""
    return SAMPLING * math.sqrt(max(share * (1 - share), 0.25 / rows) / rows)


def _ordering(shard_stats: Sequence[ShardStats], manifest: Manifest, thresholds: Checks) -> Finding:
    check, limit = "quantiles_are_ordered", thresholds.quantiles_are_ordered.share
    rows, crossed = sum(shard.rows for shard in shard_stats), sum(shard.quantiles_crossed for shard in shard_stats)
    if not manifest.task.has_quantiles:
        return Finding(check, True, "not tested: the model gives no quantiles")
    if not rows:
        return Finding(check, True, "not tested: no row is scored")
    share = crossed / rows
    advice = "" if share <= limit else "; such intervals say nothing: let the network add positive steps to the lowest"
    return Finding(
        check,
        share <= limit,
        f"{crossed} of {rows} rows have a quantile below that of a lower level, expected at most {limit:.1%}{advice}",
        {"rows": rows, "quantiles_crossed": crossed},
        observed=share,
        expected=f"at most {limit:.1%} of the rows",
        limits=[limit],
    )


def _spread(
    shard_stats: Sequence[ShardStats], manifest: Manifest, profile: ReferenceProfile | None, thresholds: Checks
) -> Finding:
    check, column = "scores_vary", manifest.task.score_columns[0]
    day = moments(shard_stats, column)
    if day.rows < LEAST_ROWS:
        return Finding(check, True, f"not enough rows: {day.rows}, expected at least {LEAST_ROWS}")
    least = thresholds.scores_vary.share * ((profile and profile.score_days.spread) or 0.0)
    passed = day.deviation >= least and day.deviation > 0
    expected = f"at least {least:.4f}" + ("" if profile else " (the bundle has no reference profile)")
    advice = "" if passed else "; the model gives nearly the same score to every row: are its features present?"
    return Finding(
        check,
        passed,
        f"the standard deviation of {column} is {day.deviation:.4f}, expected {expected}{advice}",
        observed=day.deviation,
        expected=expected,
        limits=[least],
    )


class _Work(NamedTuple):
    """What a day's shards took, without the overhead of its steps: that does not grow with the rows."""

    rows: int
    cpu_seconds: float
    is_on_gpu: bool

    @property
    def per_million(self) -> float:
        return self.cpu_seconds / self.rows * 1e6


def _work(shard_stats: Sequence[ShardStats]) -> _Work:
    """The work on those shards that were measured."""
    measured = [(shard.rows_in, shard.usage) for shard in shard_stats if shard.usage]
    return _Work(
        sum(rows for rows, _ in measured),
        sum(usage.cpu_seconds for _, usage in measured),
        any(usage.gpu_seconds for _, usage in measured),
    )


def usual_cost(shard_stats: Sequence[ShardStats], before: Sequence[PublishedDay], thresholds: Cost) -> Finding:
    """The finding cost_is_usual; `before`: days with the same model and code.

    Measured on 2 cores that three other processes kept busy: of 38 days of 100,000 to 1,000,000 rows, a tenth of a
    second's to a second's work, none fails, and three would if `COST_SLACK` were 0. Days of 2 million rows stayed
    within 20 % of their median.
    """
    check, day = "cost_is_usual", _work(shard_stats)
    if day.rows < thresholds.rows:
        return Finding(check, True, f"not tested: {day.rows} measured rows, expected at least {thresholds.rows}")
    others = [_work(published.shards) for published in before]
    alike = [work for work in others if work.rows >= thresholds.rows and work.is_on_gpu == day.is_on_gpu]
    usual = trailing_days.median([work.per_million for work in alike])
    seen = f"a million rows take {day.per_million:.2f} CPU seconds"
    if usual is None:
        days = f"{len(alike)} of the 28 days before, of such a size, with this model, code and kind of device"
        return Finding(check, True, f"{seen}; no history yet: {days}; expected at least 7", observed=day.per_million)
    limit = max(thresholds.factor * usual, usual + COST_SLACK / day.rows * 1e6)
    passed = day.per_million <= limit
    expected = f"at most {limit:.2f}, by the median {usual:.2f} of {len(alike)} days before"
    advice = "" if passed else "; is it another machine, are there other processes on it, other scoring settings?"
    return Finding(
        check,
        passed,
        f"{seen}, expected {expected}{advice}",
        {"rows": day.rows, "cpu_seconds": round(day.cpu_seconds, 4), "usual_per_million": round(usual, 4)},
        observed=day.per_million,
        expected=expected,
        limits=[limit],
    )
