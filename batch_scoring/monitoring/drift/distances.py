"""Distances of a day to the model's reference, and the learned thresholds above which a distance is drift.

Evidently's default thresholds fire on 40 to 47 % of the columns on ordinary days of the reference itself, so ours are
learned (`calibration.py`). Each column has two numbers: T0, below which whole ordinary days stay, and s, what sampling
adds. For n rows the threshold is

    T(n) = sqrt(T0² + s² / min(n, rows of a reference day))

A day alarms when its largest distance, in units of T(n), is beyond c. Columns that move as a whole from day to day
(weather, history) and the scores have no day test; every column is compared over the trailing 28 days too. The share
of missing values, and that of the most frequent value (a sensor that is stuck, a feature store that returns 0), have
thresholds of their own, for every column, on the day.

Distances are those of scipy and Evidently: for numbers Wasserstein's first, in standard deviations of the reference;
for categories Jensen and Shannon's, natural logarithm. Missing and infinite values are left out of both.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal, NamedTuple, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring.inference.reference_profile import ColumnProfile, Kind, ReferenceProfile

Rows = TypeVar("Rows", pa.Table, pa.ChunkedArray)

LEAST_ROWS = 30
"""Least number of a day's rows; distances of fewer are not informative."""

LEAST_TRAILING_DAYS = 21
"""Least number of the 28 days, so that a new pipeline is not tested on its first week alone."""

TRAILING_REFERENCE_DAYS = 84
"""Reference days that a test of the trailing days needs: three windows."""

SMALLEST_DEVIATION = 0.001
"""Evidently's floor for the standard deviation that a numeric distance is divided by."""

FARTHEST = 1e9
"""The distance where a computed one is infinite or NaN: a single 1e300 moves a mean out of sight."""

SLACK = 0.02
"""Excess over the usual share that is never an alarm by itself."""


@dataclass(frozen=True)
class Tested:
    """One column compared with the reference."""

    column: str
    kind: Kind
    rows: int
    """Values compared."""
    distance: float
    threshold: float
    """The distance at which the column has drifted."""

    @property
    def drifted(self) -> bool:
        """Evidently's rule: a distance that reaches its threshold has drifted."""
        return self.distance >= self.threshold


@dataclass(frozen=True)
class Proportion:
    """The share of a column's values on the day that are missing, or are one and the same."""

    column: str
    what: Literal["missing", "repeated"]
    share: float
    threshold: float

    @property
    def drifted(self) -> bool:
        """Whether it is larger than on any ordinary day."""
        return self.share > self.threshold


class Distribution(NamedTuple):
    """How often each value occurs."""

    support: np.ndarray
    """Distinct values, sorted if they are numbers."""
    counts: np.ndarray
    """float64[..., values]."""

    @property
    def rows(self) -> int:
        """Values counted."""
        return int(self.counts.sum())


class Reference:
    """A model's reference with its reference profile, counted once for any number of days."""

    def __init__(self, profile: ReferenceProfile, rows: pa.Table) -> None:
        """`rows`: the bundle's reference, with `dt`."""
        self.profile, self._rows = profile, rows
        weekend = pc.greater_equal(pc.day_of_week(rows["dt"]), 5).to_numpy()
        self._of_weekend = {True: weekend, False: ~weekend}
        self._counted: dict[tuple[str, bool | None], Distribution] = {}

    def rows(self, day: date | None = None) -> pa.Table:
        """All rows, or those that a day is compared with: weekdays with weekdays, if there are enough of both."""
        return self._of_group(self._rows, self._group(day))

    def distribution(self, column: str, kind: Kind, day: date | None = None) -> Distribution:
        """Of a column of `rows`."""
        key = column, self._group(day)
        if key not in self._counted:
            self._counted[key] = counted([values_of(self._of_group(self._rows[column], key[1]), kind)])
        return self._counted[key]

    def _of_group(self, rows: Rows, group: bool | None) -> Rows:
        return rows if group is None else rows.filter(pa.array(self._of_weekend[group]))

    def _group(self, day: date | None) -> bool | None:
        return day.weekday() >= 5 if day and self.profile.weekends_apart else None


def values_of(column: pa.ChunkedArray | pa.Array, kind: Kind) -> np.ndarray:
    """The values that a distance is computed of: float64 without NaN and infinity, or text without nulls."""
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if kind == "categorical":
        values: np.ndarray = column.drop_null().cast(pa.string()).to_numpy(zero_copy_only=False)
    else:
        values = column.cast(pa.float64(), safe=False).drop_null().to_numpy(zero_copy_only=False)
        values = values[np.isfinite(values)]
    return values


def counted(parts: Sequence[np.ndarray], weights: Sequence[np.ndarray] | None = None) -> Distribution:
    """The distinct values of all parts, and how often each part holds each: counts are float64[parts, values].

    Args:
        parts: values, as `values_of` gives them.
        weights: how often each of them counts; once if None.
    """
    whole = np.concatenate(parts)
    if whole.dtype == object:
        words = pa.array(whole, pa.string()).dictionary_encode()
        support = words.dictionary.to_numpy(zero_copy_only=False)
        codes = words.indices.to_numpy(zero_copy_only=False)
    elif len(parts) == 1 and weights is None:  # several times faster than finding each value's place
        support, counts_of_all = np.unique(whole, return_counts=True)
        return Distribution(support, counts_of_all[np.newaxis].astype(np.float64))
    else:
        support, codes = np.unique(whole, return_inverse=True)
    ends = np.cumsum([len(part) for part in parts])[:-1]
    counts = [
        np.bincount(code, None if weights is None else weights[index], len(support))
        for index, code in enumerate(np.split(codes, ends))
    ]
    return Distribution(support, np.asarray(counts, np.float64))


def level(counts: np.ndarray, kind: Kind) -> np.ndarray:
    """Distributions in the form that is compared, along the last axis: cumulative shares of numbers, else shares."""
    total = counts.sum(axis=-1, keepdims=True)
    levels: np.ndarray = (counts.cumsum(axis=-1) if kind == "numeric" else counts) / total
    return levels


def between(one: np.ndarray, other: np.ndarray, support: np.ndarray, kind: Kind) -> np.ndarray:
    """Distance of levels along the last axis, broadcast over the others; for numbers in their own unit."""
    if kind == "numeric":
        distances: np.ndarray = np.abs(one - other)[..., :-1] @ np.diff(support)
        return distances
    middle = (one + other) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        divergence = sum(np.where(part > 0, part * np.log(part / middle), 0.0).sum(axis=-1) for part in (one, other))
    distances = np.sqrt(np.maximum(divergence, 0.0) / 2)
    return distances


def deviation(support: np.ndarray, counts: np.ndarray, kind: Kind) -> float:
    """The unit of distances: the standard deviation of numbers, with Evidently's floor; else 1."""
    if kind == "categorical":
        return 1.0
    shares = counts / counts.sum()
    variance = shares @ (support - shares @ support) ** 2
    return max(float(np.sqrt(variance)), SMALLEST_DEVIATION)


def distance(reference: Distribution, current: np.ndarray, kind: Kind) -> float:
    """Distance of a sample to the reference, as Evidently computes it.

    Args:
        reference: counted.
        current: values, as `values_of` gives them.
        kind: of both.
    """
    weights = [reference.counts.ravel(), np.ones(len(current))]
    support, counts = counted([reference.support, current], weights)
    levels = level(counts, kind)
    with np.errstate(over="ignore", invalid="ignore"):
        apart = float(between(levels[0], levels[1], support, kind))
    apart /= deviation(reference.support, reference.counts.ravel(), kind)
    return min(apart, FARTHEST) if np.isfinite(apart) else FARTHEST


def threshold(column: ColumnProfile, rows: int, reference_rows: int) -> float:
    """T(n) of a column that is tested on the day.

    Args:
        column: with its T0 and s.
        rows: values compared.
        reference_rows: median rows of a reference day; with more rows, sampling no longer explains a distance.
    """
    assert column.day is not None, "the column has no day test"
    return float(np.sqrt(column.day**2 + column.sampling**2 / min(rows, reference_rows)))


def trailing_threshold(column: ColumnProfile, rows: int) -> float:
    """The threshold of the trailing days: twice L, which comes from three independent windows at most."""
    assert column.trailing is not None, "the column has no trailing test"
    return float(np.sqrt((2 * column.trailing) ** 2 + column.sampling**2 / rows))


def day_tests(reference: Reference, day: date, current: pa.Table) -> list[Tested]:
    """Compare a day's sample with the reference rows of its class, column by column of the row's grain.

    Columns with fewer than 30 values are not in the result: they are not tested.
    """
    profile = reference.profile
    columns = {name: column for name, column in profile.columns.items() if column.day is not None}
    return list(
        _tested(
            columns,
            lambda column, rows: profile.factor * threshold(column, rows, profile.rows),
            reference,
            current,
            day,
        )
    )


def trailing_tests(columns: Mapping[str, ColumnProfile], reference: Reference, current: pa.Table) -> list[Tested]:
    """Compare rows of the trailing days with the whole reference.

    Columns with fewer than 30 values are not in the result: they are not tested.

    Args:
        columns: features or scores of the profile.
        reference: of the model.
        current: rows of the trailing days, of each in proportion to its rows.
    """
    columns = {name: column for name, column in columns.items() if column.trailing is not None}
    return list(_tested(columns, trailing_threshold, reference, current))


def _tested(
    columns: Mapping[str, ColumnProfile],
    limit: Callable[[ColumnProfile, int], float],
    reference: Reference,
    current: pa.Table,
    day: date | None = None,
) -> Iterator[Tested]:
    for name, column in columns.items():
        values = values_of(current[name], column.kind)
        rows = len(values)
        if rows < LEAST_ROWS:
            continue
        against = reference.distribution(name, column.kind, day)
        if against.rows >= LEAST_ROWS:
            yield Tested(name, column.kind, rows, distance(against, values, column.kind), limit(column, rows))


def missing_tests(profile: ReferenceProfile, missing: Mapping[str, int], rows: int) -> list[Proportion]:
    """Compare the day's shares of missing values with those of the reference days.

    Args:
        profile: of the model.
        missing: missing values of the day, by column.
        rows: of the day.
    """
    tested = []
    for name, column in profile.columns.items():
        if column.missing < 1 and name in missing and rows >= LEAST_ROWS:
            limit = share_threshold(column.missing, min(rows, profile.rows))
            tested.append(Proportion(name, "missing", missing[name] / rows, float(limit)))
    return [test for test in tested if test.threshold < 1]


def repeated_tests(profile: ReferenceProfile, current: pa.Table) -> list[Proportion]:
    """Compare the shares of the most frequent values with those of the reference days.

    Columns with fewer than 30 values are not in the result: they are not tested.
    """
    tested = []
    for name, column in profile.columns.items():
        if column.repeated < 1:
            values = values_of(current[name], column.kind)
            if len(values) >= LEAST_ROWS:
                limit = share_threshold(column.repeated, min(len(values), profile.rows))
                most = counted([values]).counts.max()
                tested.append(Proportion(name, "repeated", float(most / len(values)), float(limit)))
    return [test for test in tested if test.threshold < 1]


def share_threshold(usual: float | np.ndarray, rows: int | np.ndarray) -> np.ndarray:
    """The share that n rows may reach by chance, where that of ordinary days stays below `usual`."""
    return np.asarray(usual + 3 * np.sqrt(usual * (1 - usual) / rows) + SLACK)
