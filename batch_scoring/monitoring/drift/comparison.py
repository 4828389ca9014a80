"""Comparison of a published day, and of the 28 days that end with it, with the reference of the model that scored it.

Rows come from the day's sample and from those of earlier days; the result is kept in the state.
"""

import functools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

import pyarrow as pa

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily import trailing_days
from batch_scoring.errors import NotComparableError, StateError
from batch_scoring.inference.bundle import build_descriptors, build_transform, read_bundle
from batch_scoring.monitoring.drift import distances, samples
from batch_scoring.monitoring.drift.distances import LEAST_TRAILING_DAYS, Proportion, Reference, Tested
from batch_scoring.monitoring.drift.samples import Engineering, Sample
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.state import ColumnDrift, DayDrift, Horizon, PublishedDay, State

Side = Literal["features", "predictions"]

TRAILING_ROWS = 20_000
"""Most rows of all trailing days that are compared."""

SINCE_DAYS = 7
"""Days back in which the last comparison with the same model decides whether a trailing drift continues."""


@dataclass(frozen=True)
class Compared:
    """The result of a comparison, and what it was computed from."""

    day: str
    reference: Reference
    sample: Sample
    days: dict[Side, int]
    """Trailing days with comparable rows, the day among them."""
    trailing_rows: dict[Side, pa.Table]
    day_tests: list[Tested]
    shares: list[Proportion]
    trailing_tests: dict[Side, list[Tested]]
    since: dict[Side, str]
    """First day of the trailing drift that continues on this day."""

    @property
    def of_day(self) -> list[Tested | Proportion]:
        """All tests of the day itself."""
        return [*self.day_tests, *self.shares]

    @property
    def day_drifted(self) -> bool:
        """Whether the day alarms by itself."""
        return any(test.drifted for test in self.of_day)

    def begins(self, side: Side) -> bool:
        """Whether a drift of the trailing days begins on this day."""
        return self.since.get(side) == self.day


def compare(pipeline: Pipeline, day: str, sides: Sequence[Side], run_id: str) -> Compared:
    """Compare a day and keep its sample and figures.

    Args:
        pipeline: of the day.
        day: published.
        sides: whether features or predictions or both.
        run_id: of the current run.

    Raises:
        NotComparableError: no model is active, or its bundle has no reference profile.
        StateError: the day is not published.
        BundleError: the model's bundle is damaged.
    """
    state = State(pipeline.output)
    features = state.published_day("validated_features", day)
    predictions = state.published_day("predictions", day)  # kept with the sample even if they are not requested
    if features is None or ("predictions" in sides and predictions is None):
        raise StateError(f"{pipeline.name} {day} is not published; run it first")
    model = state.model_or_none()
    scored_by = predictions.model_sha256 if predictions and "predictions" in sides else None
    sha256 = scored_by or (model and model.sha256)
    folder = state.models.subfolder(sha256).uri if sha256 else ""
    features_spec = pipeline.spec.features
    makes = features_spec.transform or features_spec.text or features_spec.vectors
    engineering = _engineering(pipeline, folder) if folder and makes else None
    sample = samples.take(pipeline, features, predictions, pipeline.spec.drift.sample_rows, engineering)
    samples.put(pipeline.output, sample)
    if not sha256:
        raise NotComparableError("no model is active yet")
    reference = _reference(folder)
    if reference is None:
        advice = f"batch-scoring calibrate {pipeline.name}"
        raise NotComparableError(f"the model's bundle has no reference profile; learn one with {advice}")
    window = [*samples.before(pipeline.output, trailing_days.days_before(day, trailing_days.TRAILING_DAYS - 1)), sample]
    usable = {side: _usable(window, side, reference) for side in sides}
    rows = {side: _trailing_rows(usable[side], side, reference) for side in sides}
    tests = {side: _trailing_tests(rows[side], side, reference) for side in sides}
    compared = Compared(
        day=day,
        reference=reference,
        sample=sample,
        trailing_rows=rows,
        days={side: len(known) for side, known in usable.items()},
        day_tests=_day_tests(sample, reference) if "features" in sides else [],
        shares=_shares(features, sample, reference) if "features" in sides else [],
        trailing_tests=tests,
        since={side: _since(state, day, side, sha256) for side in sides if any(test.drifted for test in tests[side])},
    )
    state.put_drift(_kept(compared, run_id, sha256, known_drift(state, day)))
    return compared


@functools.lru_cache(2)
def _reference(uri: str) -> Reference | None:
    """The reference of a bundle in the state, whose folder is named after its content; None without a profile."""
    bundle = read_bundle(open_folder(uri))
    return Reference(bundle.profile, bundle.reference) if bundle.profile else None


def _engineering(pipeline: Pipeline, uri: str) -> Engineering | None:
    """What a model in the state makes of columns, and how it describes texts and vectors; None if it does neither."""
    bundle, reference = read_bundle(open_folder(uri)), pipeline.spec.features.transform
    transform = build_transform(bundle, pipeline.load(reference) if reference else None)
    descriptors = build_descriptors(bundle)
    return Engineering(transform, descriptors, bundle.sha256) if transform or descriptors.columns else None


def _day_tests(sample: Sample, reference: Reference) -> list[Tested]:
    return distances.day_tests(reference, date.fromisoformat(sample.day), sample.rows)


def _shares(features: PublishedDay, sample: Sample, reference: Reference) -> list[Proportion]:
    missing = {name: sum(shard.missing.get(name, 0) for shard in features.shards) for name in reference.profile.columns}
    if sample.engineered_by and sample.rows.num_rows:
        counted = {name for shard in features.shards for name in shard.missing}
        rate = features.rows / sample.rows.num_rows  # of engineered features, the sample alone has values
        engineered = [name for name in missing if name not in counted and name in sample.rows.column_names]
        missing |= {name: round(sample.rows[name].null_count * rate) for name in engineered}
    repeated = distances.repeated_tests(reference.profile, sample.rows)
    return distances.missing_tests(reference.profile, missing, features.rows) + repeated


def _usable(window: Sequence[Sample], side: Side, reference: Reference) -> list[Sample]:
    """The trailing days that have all columns; scores and engineered features of other models say nothing about it."""
    columns, current = set(_columns(side, reference)), window[-1]
    return [
        sample
        for sample in window
        if columns <= set(sample.rows.column_names)
        and (
            sample.engineered_by == current.engineered_by
            if side == "features"
            else sample.model_sha256 == current.model_sha256
        )
    ]


def _trailing_rows(usable: Sequence[Sample], side: Side, reference: Reference) -> pa.Table:
    """Rows of the trailing days in proportion; none if there are too few of them."""
    enough = usable if len(usable) >= LEAST_TRAILING_DAYS else []
    return samples.in_proportion(enough, _columns(side, reference), TRAILING_ROWS)


def _columns(side: Side, reference: Reference) -> list[str]:
    return list(reference.profile.columns if side == "features" else reference.profile.scores)


def _trailing_tests(rows: pa.Table, side: Side, reference: Reference) -> list[Tested]:
    profile = reference.profile
    return distances.trailing_tests(profile.columns if side == "features" else profile.scores, reference, rows)


def _since(state: State, day: str, side: Side, model_sha256: str) -> str:
    """The first day of the trailing drift of `day`: one that began before, or begins now.

    Another model has another reference, so its drift is a new one.
    """
    for before in reversed(trailing_days.days_before(day, SINCE_DAYS)):
        known = known_drift(state, before)
        if known is not None:
            return known.since.get(side, day) if known.model_sha256 == model_sha256 else day
    return day


def known_drift(state: State, day: str) -> DayDrift | None:
    """A day's stored comparison; None also if its document is damaged: that must not fail another day's comparison."""
    try:
        return state.drift(day)
    except StateError:
        return None


def _kept(compared: Compared, run_id: str, model_sha256: str, earlier: DayDrift | None) -> DayDrift:
    """The record of a day; a side that was not compared now has an earlier run's result for the same model."""
    if earlier is None or earlier.model_sha256 != model_sha256:
        earlier = DayDrift(day=compared.day, run_id=run_id, model_sha256=model_sha256, features=(), predictions=())

    def records(horizon: Horizon, tests: Iterable[Tested]) -> list[ColumnDrift]:
        return [
            ColumnDrift(
                column=test.column,
                horizon=horizon,
                rows=test.rows,
                observed=test.distance,
                threshold=test.threshold,
                drifted=test.drifted,
            )
            for test in tests
        ]

    shares = [
        ColumnDrift(
            column=test.column,
            horizon=test.what,
            rows=compared.sample.of,
            observed=test.share,
            threshold=test.threshold,
            drifted=test.drifted,
        )
        for test in compared.shares
    ]
    found = {side: tuple(records("trailing", tests)) for side, tests in compared.trailing_tests.items()}
    if "features" in found:
        found["features"] = (*records("day", compared.day_tests), *shares, *found["features"])
    since = {side: day for side, day in earlier.since.items() if side not in found}
    return DayDrift(
        day=compared.day,
        run_id=run_id,
        model_sha256=model_sha256,
        features=found.get("features", earlier.features),
        predictions=found.get("predictions", earlier.predictions),
        since=since | {side: day for side, day in compared.since.items()},
    )
