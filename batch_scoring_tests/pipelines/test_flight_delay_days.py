"""The special days of 2013 through the whole pipeline: dirt is quarantined row by row, honest weather is scored."""

import json
import shutil
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.config.loader import PROJECT, load_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.definitions import deploy
from batch_scoring.storage.state import State
from batch_scoring.tables import read_day
from batch_scoring_tests.tiny import checks

FIXTURES = PROJECT / "batch_scoring_tests" / "fixtures" / "flight_delay"

WHOLE = {"2013-02-08": 930, "2013-02-09": 684, "2013-11-01": 986, "2013-12-31": 776}
"""Rows of the days that are scored to the last row: two of a blizzard, two without weather."""

DIRTY = {"2013-02-12": (893, 331), "2013-07-27": (811, 1)}
"""Rows, and those of them in the quarantine."""


class Days:
    """The pipeline with the special days scored, each in a run of its own."""

    def __init__(self, root: Path) -> None:
        shutil.copytree(FIXTURES, root / "flight_delay" / "landing")
        shutil.copytree(PROJECT / "data/flight_delay/models/v1", root / "flight_delay" / "models" / "v1")
        found = {pipeline.name: pipeline for pipeline in _pipelines(root)}
        self.pipeline = found["flight_delay"]
        job = deploy([self.pipeline]).resolve_job_def("score_flight_delay")
        quiet = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
        self.results: dict[str, dg.ExecuteInProcessResult] = {
            day: job.execute_in_process(partition_key=day, run_config=quiet, raise_on_error=False)
            for day in sorted([*WHOLE, *DIRTY])
        }

    def read(self, day: str, table: str = "predictions") -> pa.Table:
        return read_day(self.pipeline, day, table)


def _pipelines(root: Path) -> list[Pipeline]:
    for name in ("customer_churn", "support_tickets"):
        shutil.copytree(PROJECT / "data" / name / "models/v1", root / name / "models" / "v1")
    return load_pipelines(root=str(root))


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> Days:
    return Days(tmp_path_factory.mktemp("data"))


TOLD = {
    "2013-02-12": {"validated_features/quarantine_is_small", "validated_features/features_match_reference"},
    "2013-11-01": {"validated_features/features_match_reference"},
    "2013-12-31": {"validated_features/features_match_reference"},
}
"""What the checks say of the special days: the wind of 1048 mph, no weather at two airports, none at all."""


@pytest.mark.parametrize("day", [*WHOLE, *DIRTY])
def test_the_day_is_scored_and_every_row_accounted_for(days: Days, day: str) -> None:
    result = days.results[day]
    assert result.success
    failed = {name for name, passed in checks(result).items() if not passed}
    assert failed - {"model/days_are_current"} == TOLD.get(day, set())
    rows, lost = DIRTY.get(day, (WHOLE.get(day, 0), 0))
    state = State(days.pipeline.output)
    features, scored = state.published_day("validated_features", day), state.published_day("predictions", day)
    assert features is not None and scored is not None
    assert (features.rows_in, features.rows_quarantined, scored.rows_quarantined) == (rows, lost, 0)
    assert days.read(day).num_rows == scored.rows == rows - lost
    assert days.read(day, "quarantine").num_rows == lost


@pytest.mark.parametrize("day", WHOLE)
def test_storm_days_and_days_without_weather_are_scored_whole(days: Days, day: str) -> None:
    scored, features = days.read(day), days.read(day, "validated_features")
    assert scored["flight_id"].to_pylist() == features["flight_id"].to_pylist()
    score = scored["prob_class_1"].to_numpy()
    assert np.isfinite(score).all() and score.min() > 0 and score.max() < 1
    assert np.unique(score).size > rows_that_differ(features) * 0.9


def rows_that_differ(features: pa.Table) -> int:
    """Rows less those that are another row's equal in all that the model sees."""
    names = [name for name in features.column_names if name not in ("flight_id", "source_file", "row_number", "dt")]
    return features.select(names).group_by(names).aggregate([]).num_rows


def test_a_wind_of_1048_miles_an_hour_quarantines_its_rows_by_name(days: Days) -> None:
    lost = days.read("2013-02-12", "quarantine")
    assert set(zip(lost["stage"].to_pylist(), lost["column"].to_pylist(), strict=True)) == {("rule", "w3_wind_speed")}
    assert len(set(lost["rule"].to_pylist())) == 1 and "150" in lost["rule"][0].as_py()
    assert {round(float(value)) for value in lost["value"].to_pylist()} == {1048}
    assert {json.loads(raw)["origin"] for raw in lost["raw"].to_pylist()} == {"EWR"}
    assert not pc.any(pc.is_in(days.read("2013-02-12")["flight_id"], value_set=lost["flight_id"])).as_py()
    assert len(set(lost["row_number"].to_pylist())) == 331


def test_a_flight_from_new_york_to_new_york_is_one_row_in_the_quarantine(days: Days) -> None:
    (row,) = days.read("2013-07-27", "quarantine").to_pylist()
    assert (row["stage"], row["column"], row["value"]) == ("rule", "dest", "LGA")
    assert row["flight_id"].startswith("2013-07-27_") and row["flight_id"].endswith("_EWR")
    assert row["source_file"] == "dt=2013-07-27/flights.parquet"
    cells = json.loads(row["raw"])
    assert (cells["origin"], cells["dest"], cells["flight_id"]) == ("EWR", "LGA", row["flight_id"])


def test_a_day_without_any_weather_is_scored_from_the_rest(days: Days) -> None:
    weather = [name for name in days.pipeline.spec.features.numeric if name.startswith("w3_")]
    features = days.read("2013-12-31", "validated_features")
    assert all(features[name].null_count == features.num_rows == 776 for name in weather)
    assert days.read("2013-12-31")["prob_class_1"].null_count == 0


def test_a_storm_scores_worse_than_a_clear_day(days: Days) -> None:
    def mean(day: str) -> float:
        return float(pc.mean(days.read(day)["prob_class_1"]).as_py())

    assert mean("2013-02-09") > 1.3 * mean("2013-11-01"), "yesterday's lateness is a feature"
