"""Calibration: learn a model's reference profile from the reference in its bundle.

Every threshold is a rank among the reference's own days, each compared with the others of its class; its alarm rate is
then tested on held-out days (8 folds by the day's number; 7 folds would each hold out one weekday). The method and its
formulas are in `distances.py`; here the days of a column are rows of one matrix over its distinct values, so that 90
days take seconds.
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from batch_scoring.daily import trailing_days
from batch_scoring.errors import CalibrationError
from batch_scoring.inference.bundle import Bundle
from batch_scoring.inference.heads.head import Head
from batch_scoring.inference.reference_profile import ColumnProfile, Grain, Held, Kind, ReferenceProfile, Scores
from batch_scoring.monitoring.drift import distances

ALPHA = 0.01
"""Share of ordinary days that may lie beyond a column's own threshold."""
ALARM_EVERY = 30
"""Least number of ordinary days per false alarm."""
FOLDS = 8
SUBSAMPLES = (30, 100, 300)
"""Rows of a day at which an alarm must be as rare as for the whole day."""
DRAWS = 3
"""Subsamples of each size and day."""
SAMPLING_ROWS, SAMPLING_DRAWS = (100, 300), 400
LEAST_REFERENCE_DAYS = 28
"""Least number of days in the reference; ranks among fewer say nothing."""
LEAST_OF_A_CLASS = 14
"""Weekdays and weekend days needed, each, to compare the two apart."""
_CELLS = 4_000_000
"""Limit on the values of a matrix in memory at once."""


class Draw(NamedTuple):
    """Days of a column as they are compared: whole, or a number of values of each."""

    day: np.ndarray
    """int[draws]: the reference day of each."""
    values: np.ndarray
    """int[draws]: how many values."""
    drawn: np.ndarray | None
    """int[draws, rows]: positions in the support; None if the days are whole."""


@dataclass(frozen=True)
class Thresholds:
    """The thresholds learned from a set of reference days."""

    day: dict[str, float]
    """T0 of each column."""
    factor: float
    """c."""


def calibrate(bundle: Bundle, day_grain: Sequence[str]) -> ReferenceProfile:
    """Learn the reference profile of a bundle.

    Args:
        bundle: with a reference that has the column `dt` and rows of each of its days.
        day_grain: features that move as a whole from day to day.

    Raises:
        BundleError: the reference cannot be read, or `dt` does not say a day in every row.
        CalibrationError: the reference has no `dt`, too few days or rows a day, or not all features and scores.
    """
    manifest, reference = bundle.manifest, _ordered_reference(bundle)
    days = sorted(reference["dt"].unique().to_pylist())
    sizes = _rows_by_day(bundle, reference)
    kinds: dict[str, Kind] = {name: "numeric" for name in manifest.compared_numeric}
    kinds |= {name: "categorical" for name in manifest.categorical}
    grains: dict[str, Grain] = {name: "day" if name in day_grain else "row" for name in kinds}
    parts = np.split(np.arange(len(reference)), np.cumsum(sizes)[:-1])
    columns = {name: ColumnDays.of(name, kind, reference[name], parts) for name, kind in kinds.items()}
    scores = {name: ColumnDays.of(name, "numeric", reference[name], parts) for name in manifest.task.score_columns}
    left_out = {name: reason for name, column in (columns | scores).items() if (reason := _useless(column))}
    used = {name: column for name, column in columns.items() if name not in left_out}
    by_row = {name: column for name, column in used.items() if grains[name] == "row" and column.has_days}

    weekend = np.array([day.weekday() >= 5 for day in days])
    apart = min(weekend.sum(), (~weekend).sum()) >= LEAST_OF_A_CLASS
    classes = weekend.astype(int) if apart else np.zeros(len(days), int)
    sampling = {name: column.sampling(classes) for name, column in (used | scores).items()}
    rows = int(np.median(sizes))
    work = Calibration(by_row, classes, {name: sampling[name] for name in by_row}, rows)
    everything = np.ones(len(days), bool)
    learned = work.learn(everything)

    shares = {(name, "missing"): column.missing / sizes for name, column in columns.items()}
    shares |= {(name, "repeated"): column.repeated for name, column in used.items()}
    usual = {key: usual_share(share) for key, share in shares.items()}

    def described(name: str, column: ColumnDays, grain: Grain) -> ColumnProfile:
        return ColumnProfile(
            kind=column.kind,
            grain=grain,
            day=learned.day.get(name),
            sampling=sampling.get(name, 0.0),
            trailing=column.trailing() if name not in left_out else None,
            missing=usual.get((name, "missing"), 1.0),
            repeated=usual.get((name, "repeated"), 1.0),
        )

    held_out, share_alarms = work.held_out(), _share_alarms(shares, sizes, rows)
    return ReferenceProfile(
        first=str(days[0]),
        last=str(days[-1]),
        days=len(days),
        rows=rows,
        weekends_apart=bool(apart),
        factor=learned.factor,
        columns={name: described(name, column, grains[name]) for name, column in columns.items()},
        scores={name: described(name, column, "day") for name, column in scores.items()},
        left_out=left_out,
        everyday={name: found for name, c in columns.items() if c.kind == "categorical" and (found := c.everyday())},
        score_days=_score_days(reference, manifest.task, parts),
        held_out=tuple(held_out),
        share_alarms=share_alarms,
        exceeding=_exceeding(work, learned, days, shares, usual, sizes, rows),
    )


def _ordered_reference(bundle: Bundle) -> pa.Table:
    """The reference, sorted by day, with all columns that are compared."""
    reference, manifest = bundle.reference, bundle.manifest
    where = f"{bundle.uri}: its reference"
    if "dt" not in reference.column_names:
        raise CalibrationError(f"{where} has no column dt; write the bundle with the day of each row")
    columns = (*manifest.compared_numeric, *manifest.categorical)
    wanted = (*columns, *manifest.task.score_columns, manifest.task.confidence_column)
    if absent := [name for name in dict.fromkeys(wanted) if name not in reference.column_names]:
        raise CalibrationError(f"{where} has no column {', '.join(absent)}; write the bundle with all of them")
    return reference.sort_by("dt")


def _rows_by_day(bundle: Bundle, reference: pa.Table) -> np.ndarray:
    """int[days]: rows of each day, of enough days with enough rows."""
    where = f"{bundle.uri}: its reference"
    sizes = np.asarray(reference["dt"].combine_chunks().value_counts().field("counts"))
    if len(sizes) < LEAST_REFERENCE_DAYS:
        raise CalibrationError(f"{where} has {len(sizes)} days; expected at least {LEAST_REFERENCE_DAYS}")
    if np.median(sizes) < distances.LEAST_ROWS:
        raise CalibrationError(
            f"{where} has {np.median(sizes):.0f} rows a day (median); expected at least {distances.LEAST_ROWS}: "
            "write the bundle with a larger sample"
        )
    return sizes


def usual_share(shares: np.ndarray) -> float:
    """b: the share that ordinary days stay below, from the shares of the reference days; 1 if no day has any."""
    known = shares[~np.isnan(shares)]
    if not len(known):
        return 1.0
    median, high = np.median(known), np.quantile(known, 0.95)
    return float(min(1.0, median + 4 * (high - median)))


@dataclass(frozen=True)
class ColumnDays:
    """The reference days of one column: float64[days, values] over its distinct values."""

    name: str
    kind: Kind
    support: np.ndarray
    counts: np.ndarray
    missing: np.ndarray
    """Missing values of each day."""

    @classmethod
    def of(cls, name: str, kind: Kind, column: pa.ChunkedArray, parts: Sequence[np.ndarray]) -> "ColumnDays":
        """Count a column, sorted by day, at the positions of each day."""
        whole = column.combine_chunks()
        try:
            values = [distances.values_of(whole.slice(part[0], len(part)), kind) for part in parts]
        except pa.ArrowException as error:
            raise CalibrationError(f"the reference's column {name} is {column.type}, not {kind}: {error}") from error
        support, counts = distances.counted(values)
        missing = np.array([len(part) - len(value) for part, value in zip(parts, values, strict=True)])
        return cls(name, kind, support, counts, missing)

    @property
    def values(self) -> np.ndarray:
        """Values of each day."""
        values: np.ndarray = self.counts.sum(axis=1)
        return values

    @property
    def repeated(self) -> np.ndarray:
        """float64[days]: the share of each day's most frequent value; NaN of a day with fewer than 30 values."""
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.where(self.values >= distances.LEAST_ROWS, self.counts.max(axis=1) / self.values, np.nan)

    @property
    def has_days(self) -> bool:
        """Whether enough days have enough values to be compared one by one."""
        return int((self.values >= distances.LEAST_ROWS).sum()) >= LEAST_OF_A_CLASS

    def seed(self, *more: int) -> np.random.Generator:
        """Random numbers: the same in each run, different for each column."""
        return np.random.default_rng([zlib.crc32(self.name.encode()), *more])

    def distances(self, draw: Draw, classes: np.ndarray, within: np.ndarray) -> np.ndarray:
        """Distance of each draw to the days `within` of its class, its own day left out: float64[draws]."""
        found = np.full(len(draw.day), np.nan)
        for group in np.unique(classes):
            days = np.flatnonzero(within & (classes == group))
            total = self.counts[days].sum(axis=0)
            if not total.sum():
                continue
            unit = distances.deviation(self.support, total, self.kind)
            mine = np.flatnonzero((classes[draw.day] == group) & (draw.values >= distances.LEAST_ROWS))
            for chunk in np.array_split(mine, max(1, len(mine) * len(self.support) // _CELLS)):
                own = self.counts[draw.day[chunk]] * within[draw.day[chunk], None]
                rest = total - own
                enough = rest.sum(axis=1) > 0
                levels = distances.level(self._counts(draw, chunk[enough]), self.kind)
                others = distances.level(rest[enough], self.kind)
                found[chunk[enough]] = distances.between(levels, others, self.support, self.kind) / unit
        return found

    def draw(self, rows: int | None) -> Draw:
        """Every day whole (None), or three subsamples of each day that has enough values."""
        if rows is None:
            return Draw(np.arange(len(self.counts)), self.values, None)
        days = np.repeat(np.flatnonzero(self.values >= rows), DRAWS)
        random = self.seed(rows)
        drawn = [random.permutation(np.repeat(np.arange(len(self.support)), held))[:rows] for held in self._whole[days]]
        return Draw(days, np.full(len(days), rows), np.array(drawn, np.int64).reshape(len(days), rows))

    @property
    def _whole(self) -> np.ndarray:
        return self.counts.astype(np.int64)

    def _counts(self, draw: Draw, chunk: np.ndarray) -> np.ndarray:
        """Counts of some draws: float64[len(chunk), values]."""
        if draw.drawn is None:
            counts: np.ndarray = self.counts[draw.day[chunk]]
            return counts
        width = len(self.support)
        places = np.arange(len(chunk))[:, None] * width + draw.drawn[chunk]
        return np.bincount(places.ravel(), minlength=len(chunk) * width).reshape(-1, width).astype(np.float64)

    def sampling(self, classes: np.ndarray) -> float:
        """s: what sampling adds to a distance, times the square root of the rows."""
        largest = 0.0
        for group in np.unique(classes):
            total = self.counts[classes == group].sum(axis=0)
            if not total.sum():
                continue
            whole = distances.level(total, self.kind)
            unit = distances.deviation(self.support, total, self.kind)
            for rows in SAMPLING_ROWS:
                random = self.seed(rows, int(group))
                apart = []
                for size in _chunks(SAMPLING_DRAWS, len(self.support)):
                    drawn = random.multinomial(rows, total / total.sum(), size).astype(np.float64)
                    apart.append(
                        distances.between(distances.level(drawn, self.kind), whole, self.support, self.kind) / unit
                    )
                limit = np.quantile(np.concatenate(apart), 1 - ALPHA)
                largest = max(largest, float(limit) * math.sqrt(rows))
        return largest

    def trailing(self) -> float | None:
        """L: the largest distance of 28 consecutive reference days to the rest of the reference."""
        if len(self.counts) < distances.TRAILING_REFERENCE_DAYS:
            return None
        window, total = trailing_days.TRAILING_DAYS, self.counts.sum(axis=0)
        unit = distances.deviation(self.support, total, self.kind)
        largest = 0.0
        for first in range(len(self.counts) - window + 1):
            inside = self.counts[first : first + window].sum(axis=0)
            if inside.sum() and (total - inside).sum():
                levels = distances.level(np.stack([inside, total - inside]), self.kind)
                largest = max(largest, float(distances.between(levels[0], levels[1], self.support, self.kind)) / unit)
        return largest

    def everyday(self) -> dict[str, float]:
        """The values that every reference day has, with their smallest share of a day."""
        shares = self.counts / np.maximum(self.values, 1)[:, None]
        least = shares.min(axis=0)
        return {str(value): float(share) for value, share in zip(self.support, least, strict=True) if share > 0}


class Calibration:
    """Calibration of the day tests, for the columns that have one."""

    def __init__(
        self, columns: Mapping[str, ColumnDays], classes: np.ndarray, sampling: Mapping[str, float], rows: int
    ) -> None:
        """`rows`: median of a reference day."""
        self._columns, self._classes, self._rows = columns, classes, rows
        self._sampling = dict(sampling)
        self._draws = {
            size: {name: column.draw(size) for name, column in columns.items()} for size in (None, *SUBSAMPLES)
        }

    def learn(self, within: np.ndarray) -> Thresholds:
        """Thresholds from some of the reference days."""
        own = {name: self._distances(None, name, within) for name in self._columns}
        without = {name: _ranks_without(found, within) for name, found in own.items()}
        factor = 1.0
        for size in (None, *SUBSAMPLES):
            ratios = _largest(self.ratios(size, within, without))[within[self._days(size)]]
            ratios = np.sort(ratios[~np.isnan(ratios)])
            if place := (len(ratios) + 1) // ALARM_EVERY:
                factor = max(factor, float(ratios[-place]))
        return Thresholds({name: _rank(found[within]) for name, found in own.items()}, factor)

    def ratios(self, size: int | None, within: np.ndarray, day: Mapping[str, np.ndarray | float]) -> np.ndarray:
        """float64[columns, draws]: distance to the days within, in units of T; NaN where nothing is tested.

        Args:
            size: rows of a subsample, None for whole days.
            within: bool[days]: the reference.
            day: T0 of each column, or of each column and day.
        """
        days = self._days(size)
        ratios = np.full((len(self._columns), len(days)), np.nan)
        for index, name in enumerate(self._columns):
            draw = self._draws[size][name]
            learned = np.broadcast_to(day[name], len(self._classes))[draw.day]
            with np.errstate(divide="ignore", invalid="ignore"):
                limits = np.sqrt(learned**2 + self._sampling[name] ** 2 / np.minimum(draw.values, self._rows))
                ratios[index, np.isin(days, draw.day)] = self._distances(size, name, within) / limits
        return ratios

    def _distances(self, size: int | None, name: str, within: np.ndarray) -> np.ndarray:
        return self._columns[name].distances(self._draws[size][name], self._classes, within)

    def _days(self, size: int | None) -> np.ndarray:
        """int[draws]: the day of each draw that some column has."""
        count = len(self._classes)
        return np.arange(count) if size is None else np.repeat(np.arange(count), DRAWS)

    def held_out(self) -> list[Held]:
        """Alarm rates of held-out days: one entry for whole days, and one for each subsample size."""
        folds = np.arange(len(self._classes)) % FOLDS
        ratios: dict[int | None, list[np.ndarray]] = {size: [] for size in (None, *SUBSAMPLES)}
        factors: dict[int | None, list[np.ndarray]] = {size: [] for size in (None, *SUBSAMPLES)}
        for fold in range(FOLDS):
            learned = self.learn(folds != fold)
            for size in ratios:
                ratios[size].append(self.ratios(size, folds != fold, learned.day)[:, folds[self._days(size)] == fold])
                factors[size].append(np.full(ratios[size][-1].shape[1], learned.factor))
        held = []
        for size, of_folds in ratios.items():
            every, factor = np.concatenate(of_folds, axis=1), np.concatenate(factors[size])
            tested = ~np.isnan(every).all(axis=0)
            every, factor = every[:, tested], factor[tested]
            if tested.any():
                held.append(
                    Held(
                        rows="whole" if size is None else str(size),
                        days=len(factor),
                        columns=float((every > 1).sum() / (~np.isnan(every)).sum()),
                        any_column=float((every > 1).any(axis=0).mean()),
                        alarms=float((every > factor).any(axis=0).mean()),
                    )
                )
        return held

    def exceeding(self, learned: Thresholds) -> list[tuple[int, list[str], bool]]:
        """Reference days beyond a threshold learned from them: day, columns, whether it alarms."""
        ratios = self.ratios(None, np.ones(len(self._classes), bool), learned.day)
        found = []
        for day, column in enumerate(ratios.T):
            beyond = [name for name, ratio in zip(self._columns, column, strict=True) if ratio > 1]
            if beyond:
                found.append((day, beyond, bool(np.nanmax(column) > learned.factor)))
        return found


def _rank(found: np.ndarray) -> float:
    """T0: of N days' distances the (1 + ⌈α N⌉)-th largest, so that one ruined reference day cannot set it."""
    known = np.sort(found[~np.isnan(found)])
    return float(known[-min(1 + math.ceil(ALPHA * len(known)), len(known))]) if len(known) else 0.0


def _ranks_without(found: np.ndarray, within: np.ndarray) -> np.ndarray:
    """float64[days]: `_rank` over the days within, each day's own distance left out."""
    used = np.where(within, found, np.nan)
    return np.array([_rank(np.delete(used, day)) for day in range(len(used))])


def _largest(ratios: np.ndarray) -> np.ndarray:
    """The largest over the columns; NaN where none is tested."""
    filled = np.where(np.isnan(ratios), -np.inf, ratios).max(axis=0, initial=-np.inf)
    return np.where(np.isinf(filled), np.nan, filled)


def _chunks(count: int, width: int) -> list[int]:
    size = max(1, _CELLS // max(width, 1))
    return [min(size, count - start) for start in range(0, count, size)]


def _useless(column: ColumnDays) -> str | None:
    """Why no distance of the column is informative; None if they are."""
    if not column.counts.sum():
        return "no value in the reference"
    if len(column.support) == 1:
        return "one value in the reference"
    if ((column.counts > 0).sum(axis=1) <= 1).all():
        return "one value a day"
    return None


def _share_alarms(shares: Mapping[tuple[str, str], np.ndarray], sizes: np.ndarray, rows: int) -> float:
    """Share of held-out days on which too many values of some column are missing or the same."""
    folds = np.arange(len(sizes)) % FOLDS
    alarms = np.zeros(len(sizes), bool)
    for fold in range(FOLDS):
        out = folds == fold
        for share in shares.values():
            alarms[out] |= _too_many(share[out], usual_share(share[~out]), sizes[out], rows)
    return float(alarms.mean())


def _too_many(shares: np.ndarray, usual: float, sizes: np.ndarray, rows: int) -> np.ndarray:
    if usual >= 1:
        return np.zeros(len(shares), bool)
    return shares > distances.share_threshold(usual, np.minimum(sizes, rows))


def _score_days(reference: pa.Table, head: Head, parts: Sequence[np.ndarray]) -> Scores:
    """The scores of ordinary days."""
    confident = reference[head.confidence_column].to_numpy().astype(np.float64)
    spreads = reference[head.score_columns[0]].to_numpy().astype(np.float64)
    means = np.array([confident[part].mean() for part in parts])
    return Scores(
        confidence=trailing_deviation(means),
        confidence_sd=float(confident.std()),
        spread=float(min(spreads[part].std() for part in parts)),
        **_class_days(reference, head, parts),
    )


def trailing_deviation(means: np.ndarray) -> float:
    """The second largest deviation of a day's mean from the median of those of the 28 days before it, of at least 7."""
    apart = [
        abs(mean - np.median(means[max(0, day - trailing_days.TRAILING_DAYS) : day]))
        for day, mean in enumerate(means)
        if day >= trailing_days.LEAST_DAYS
    ]
    return float(np.sort(apart)[-2])


def _class_days(reference: pa.Table, head: Head, parts: Sequence[np.ndarray]) -> dict[str, Any]:
    """The largest share of one class on a day, or of each label the smallest and the largest; None without classes."""
    if not head.class_names:
        return {"largest_class": None}
    days = (reference.slice(part[0], len(part)) for part in parts)
    shares = np.array([head.class_counts(day) / len(day) for day in days])
    if head.is_exclusive:
        return {"largest_class": float(shares.max())}
    return {
        "largest_class": None,
        "labels": {str(label): (float(of.min()), float(of.max())) for label, of in enumerate(shares.T)},
    }


def _exceeding(
    work: Calibration,
    learned: Thresholds,
    days: Sequence[date],
    shares: Mapping[tuple[str, str], np.ndarray],
    usual: Mapping[tuple[str, str], float],
    sizes: np.ndarray,
    rows: int,
) -> dict[str, str]:
    """Reference days that exceed a threshold themselves: by which value, and whether it alarms."""
    found: dict[int, list[str]] = {}
    for day, columns, alarms in work.exceeding(learned):
        found[day] = [", ".join(columns) + (" (alarms)" if alarms else "")]
    for (name, what), share in shares.items():
        for place in np.flatnonzero(_too_many(share, usual[name, what], sizes, rows)):
            found.setdefault(int(place), []).append(f"{name} {what} {share[place]:.0%} (alarms)")
    return {str(days[day]): "; ".join(found[day]) for day in sorted(found)}
