"""A shift that stays is a state of the trailing days: it begins once, is kept by day, and ends with the model."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.config.names import DAILY_ASSETS
from batch_scoring.monitoring.drift import samples
from batch_scoring.monitoring.drift.comparison import compare
from batch_scoring.storage.state import DayDrift
from batch_scoring_tests.tiny import TinyProject, ordinary, reference_rows

FIRST = date(2024, 7, 1)
FEATURES, PREDICTIONS = "features_match_reference", "predictions_match_reference"


def shifted(day: str, x: float) -> pa.Table:
    rows = ordinary(day)
    return rows.set_column(1, "x", pc.add(rows["x"], x))


@dataclass
class Month:
    """Days whose x is a quarter of a standard deviation too large: too little for any one of them."""

    tiny: TinyProject
    days: list[str] = field(default_factory=list)
    said: dict[str, dict[str, dg.AssetCheckEvaluation]] = field(default_factory=dict)

    def go_on(self, count: int = 1, x: float = 1.3) -> None:
        definitions = self.tiny.definitions
        self.tiny.run(str(FIRST), ["model"], definitions=definitions)
        for _ in range(count):
            day = str(FIRST + timedelta(len(self.days)))
            self.tiny.land(day, shifted(day, x))
            result = self.tiny.run(day, DAILY_ASSETS[1:], definitions=definitions)
            self.days.append(day)
            self.said[day] = {said.check_name: said for said in result.get_asset_check_evaluations()}

    def drift(self, day: str) -> DayDrift:
        found = self.tiny.state.drift(day)
        assert found is not None
        return found


@pytest.fixture(scope="module")
def month(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Month]:
    tiny = TinyProject(tmp_path_factory.mktemp("project"))
    tiny.deliver("v1", seed=2, reference=reference_rows())
    days = Month(tiny)
    days.go_on(23)
    yield days


def test_too_few_days_are_not_tested_and_counted(month: Month) -> None:
    """20 days; every one of them is ordinary."""
    for day in month.days[:20]:
        assert all(said.passed for said in month.said[day].values()), day
        assert not any(column.horizon == "trailing" for column in month.drift(day).features)
    words = month.said[month.days[19]]
    assert "the trailing 28 days: not tested, 20 of them are there, expected at least 21" in words[FEATURES].description
    assert words[PREDICTIONS].description.endswith("expected at least 21 by this model")


def test_a_small_shift_that_stays_is_seen_when_there_are_enough_days(month: Month) -> None:
    began = month.days[20]
    said = month.said[began][FEATURES]
    assert not said.passed and said.severity == dg.AssetCheckSeverity.WARN
    assert "the day: 4 columns are distributed as in the reference" in said.description
    assert "the trailing 28 days, since today: beyond the threshold: x (distance 0.2" in said.description
    assert "continues_since" not in said.metadata, "it is news"
    assert said.metadata["observed"].value > 1, "the number is that of the worst column, over the trailing days too"
    drifted = [column for column in month.drift(began).features if column.drifted]
    assert [(column.column, column.horizon, column.rows) for column in drifted] == [("x", "trailing", 21 * 60)]


def test_scores_that_moved_for_weeks_are_seen_too(month: Month) -> None:
    began, next_day = month.days[20:22]
    said = month.said[began][PREDICTIONS]
    assert not said.passed
    assert "since today: beyond the threshold: prob_class_1 (distance 0.2" in said.description
    assert [column.column for column in month.drift(began).predictions if column.drifted] == ["prob_class_1"]
    assert month.said[next_day][PREDICTIONS].metadata["continues_since"].value == began


def test_a_trailing_shift_begins_once(month: Month) -> None:
    began = month.days[20]
    for day in month.days[21:23]:
        said = month.said[day][FEATURES]
        assert not said.passed and f"the trailing 28 days, since {began}: " in said.description
        assert said.metadata["continues_since"].value == began
        assert month.drift(day).since == {"features": began, "predictions": began}


def test_the_page_of_a_trailing_shift_is_drawn_when_it_begins(month: Month) -> None:
    reports = Path(month.tiny.pipeline.output.uri, "reports")
    there = sorted(str(file.relative_to(reports)) for file in reports.rglob("*.html"))
    assert there == [f"dt={month.days[20]}/predictions.html", f"dt={month.days[20]}/trailing.html"]
    assert month.said[month.days[20]][FEATURES].metadata["trailing"].value == str(reports / there[1])
    assert month.said[month.days[20]][PREDICTIONS].metadata["predictions"].value == str(reports / there[0])


def test_a_day_that_is_run_again_says_the_same(month: Month) -> None:
    for day in (month.days[20], month.days[22]):
        before = month.drift(day)
        result = month.tiny.run(day)
        again = {said.check_name: said for said in result.get_asset_check_evaluations()}
        assert again[FEATURES].description == month.said[day][FEATURES].description
        assert again[FEATURES].metadata.keys() == month.said[day][FEATURES].metadata.keys()
        assert month.drift(day).model_dump(exclude={"run_id"}) == before.model_dump(exclude={"run_id"})


@pytest.mark.parametrize(("step", "side"), [("validated_features", "features"), ("predictions", "predictions")])
def test_an_asset_that_runs_alone_leaves_the_other_sides_state_as_it_is(month: Month, step: str, side: str) -> None:
    day = month.days[22]
    before, sample = month.drift(day), samples.get(month.tiny.pipeline.output, day)
    result = month.tiny.run(day, [step])
    ran = {said.check_name for said in result.get_asset_check_evaluations()}
    assert ran & {FEATURES, PREDICTIONS} == {f"{side}_match_reference"}
    assert month.drift(day).model_dump(exclude={"run_id"}) == before.model_dump(exclude={"run_id"})
    kept = samples.get(month.tiny.pipeline.output, day)
    assert kept is not None and sample is not None and kept.rows.equals(sample.rows)


def test_a_damaged_comparison_of_another_day_fails_no_day(month: Month) -> None:
    damaged = Path(month.tiny.pipeline.output.uri, "state", f"dt={month.days[21]}", "drift.json")
    whole = damaged.read_text()
    try:
        damaged.write_text(whole[:100])
        compared = compare(month.tiny.pipeline, month.days[22], ["features"], "a-test")
        assert compared.since == {"features": month.days[20]}, "by the day before that one"
    finally:
        damaged.write_text(whole)
    compare(month.tiny.pipeline, month.days[22], ["features", "predictions"], "a-test")


def test_days_without_a_feature_are_no_days_of_the_window(month: Month) -> None:
    output, kept = month.tiny.pipeline.output, []
    for day in month.days[:3]:
        sample = samples.get(output, day)
        assert sample is not None
        kept.append(sample)
        samples.put(output, samples.Sample(day, sample.rows.drop_columns("y"), sample.of, sample.model_sha256))
    try:
        compared = compare(month.tiny.pipeline, month.days[22], ["features", "predictions"], "a-test")
        assert compared.days == {"features": 20, "predictions": 23}
        assert not compared.trailing_tests["features"] and compared.trailing_tests["predictions"]
    finally:
        for sample in kept:
            samples.put(output, sample)
    compare(month.tiny.pipeline, month.days[22], ["features", "predictions"], "a-test")


def test_a_model_that_is_promoted_meanwhile_begins_anew(month: Month) -> None:
    """The last test of the month: its days end with another model."""
    month.tiny.deliver("v2", seed=3, reference=reference_rows())
    month.go_on()
    day = month.days[-1]
    assert "since today: beyond the threshold: x" in month.said[day][FEATURES].description, "of its own reference"
    assert "continues_since" not in month.said[day][FEATURES].metadata
    assert "not tested, 1 of them are there, expected at least 21 by this model" in (
        month.said[day][PREDICTIONS].description
    )
    assert month.said[day][PREDICTIONS].passed
    assert month.drift(day).since == {"features": day}
