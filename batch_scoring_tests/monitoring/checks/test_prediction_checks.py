"""The checks of predictions, made to fail through the whole pipeline."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from types import SimpleNamespace

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.config.spec import Cost
from batch_scoring.daily.trailing_days import days_before
from batch_scoring.inference.heads.labels import Labels
from batch_scoring.inference.heads.quantiles import Quantiles
from batch_scoring.inference.reference_profile import Scores
from batch_scoring.monitoring.checks.prediction_checks import _label_shares, usual_cost
from batch_scoring.monitoring.finding import Finding
from batch_scoring.operations import failed_runs
from batch_scoring.runtime.usage import Usage
from batch_scoring.storage.state import PublishedDay, PublishedPart, ShardStats
from batch_scoring_tests.checked import LATE, days, finding, profiled, settings
from batch_scoring_tests.tiny import DAY, NETWORK, NEXT_DAY, TinyProject, error_of, ordinary, reference_rows

CONSTANT = NETWORK.replace("result = self.layers(", "result = 0.0 * self.layers(")

NO_DAYS = {"confidence": None, "confidence_sd": 0.0, "spread": None, "largest_class": None}

FAILS_TO_SCORE, SCORED_NAN = 666.0, 555.0
"""Values of x for which the network raises, and gives NaN."""


def unscorable(tiny: TinyProject, lost: int, of: int, x: float = SCORED_NAN) -> pa.Table:
    return tiny.rows(of).set_column(1, "x", pa.array([x] * lost + [1.0] * (of - lost)))


@pytest.mark.parametrize("shards", ["one_step", "fan_out"])
@pytest.mark.parametrize("x", [FAILS_TO_SCORE, SCORED_NAN])
def test_a_day_of_which_nearly_all_rows_could_not_be_scored_is_not_published(
    tiny: TinyProject, shards: str, x: float
) -> None:
    tiny.spec["scoring"]["shards"] = shards
    settings(tiny, categories_are_known={"share": 1})
    tiny.land(DAY, tiny.rows(20))
    tiny.run()
    tiny.land(DAY, unscorable(tiny, 99, 100, x))
    result = tiny.run(raise_on_error=False)
    assert error_of(result).startswith("quarantine_is_small: 99 of 100 rows (99.0%) are in the quarantine, expected ")
    assert error_of(result).endswith("nothing is published: see the rows and the model that cannot score them")
    assert failed_of(result) == {"predictions": dg.AssetCheckSeverity.ERROR}
    said = tiny.state.checks("predictions", DAY)
    assert said is not None and said.checks["quarantine_is_small"].stopped, "it is remembered all the same"
    assert result.dagster_run.tags[failed_runs.TAG] == "bad_model"
    assert tiny.read().num_rows == 20, "what stood stands"


@pytest.mark.parametrize(
    ("bad", "lost", "of", "told"),
    [
        pytest.param(0, 9, 100, {}, id="few rows"),
        pytest.param(0, 10, 100, {"predictions": "WARN"}, id="a tenth could not be scored"),
        pytest.param(5, 5, 100, {"predictions": "WARN"}, id="neither stage alone"),
        pytest.param(10, 0, 100, {"validated_features": "WARN"}, id="all before scoring: told once"),
        pytest.param(30, 21, 100, {"validated_features": "WARN", "predictions": "ERROR"}, id="half, both together"),
    ],
)
def test_the_rows_of_both_stages_count_together(
    tiny: TinyProject, bad: int, lost: int, of: int, told: dict[str, str]
) -> None:
    settings(tiny, categories_are_known={"share": 1})
    rows = unscorable(tiny, lost, of)
    tiny.land(DAY, rows.set_column(3, "n", pa.array([1] * (of - bad) + [-1] * bad, pa.int64())))
    result = tiny.run(raise_on_error=False)
    assert {asset: severity.value for asset, severity in failed_of(result).items()} == told
    assert result.success == ("ERROR" not in told.values())
    if lost:
        last = [e for e in result.get_asset_check_evaluations() if e.check_name == "quarantine_is_small"][-1]
        assert (last.description or "").startswith(f"{bad + lost} of {of} rows (")


def failed_of(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckSeverity]:
    """Assets whose check quarantine_is_small did not pass, with its severity."""
    found = (e for e in result.get_asset_check_evaluations() if e.check_name == "quarantine_is_small" and not e.passed)
    return {e.asset_key.path[-1]: e.severity for e in found}


def test_the_confidence_is_compared_with_that_of_the_days_before(tiny: TinyProject) -> None:
    settings(tiny, confidence_is_usual={"deviation": 0.0005}, categories_are_known={"share": 1})
    days(tiny, lambda number: tiny.rows(100))
    tiny.land(LATE, tiny.rows(100))
    assert finding(tiny.run(LATE), "confidence_is_usual").passed
    tiny.land(LATE, tiny.rows(100).set_column(1, "x", pa.array([900.0] * 100)))
    found = finding(tiny.run(LATE), "confidence_is_usual")
    assert not found.passed and "by the 8 days before" in (found.description or "")


def test_scores_of_another_model_are_no_history(tiny: TinyProject) -> None:
    settings(tiny, confidence_is_usual={"deviation": 0.0005}, categories_are_known={"share": 1})
    days(tiny, lambda number: tiny.rows(20))
    tiny.deliver("v2", seed=5)
    tiny.land(LATE, tiny.rows(20))
    found = finding(tiny.run(LATE), "confidence_is_usual")
    assert found.passed and "no history yet: 0 of the 28 days before" in (found.description or "")


LABELS = Labels(labels=("fast", "cheap"))
TWO_LABELS = {"0": (0.2, 0.3), "1": (0.9, 1.0)}


def label_shares(rows: int, fast: int, cheap: int) -> Finding:
    """The finding of a day with so many rows of each label."""
    counts, known = Counter({"0": fast, "1": cheap}), Scores.model_validate(NO_DAYS | {"labels": TWO_LABELS})
    return _label_shares(counts, rows, LABELS.labels, SimpleNamespace(score_days=known))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("fast", "cheap", "passed", "said"),
    [
        (2500, 9500, True, "95.0% of 10000 rows have the label cheap, expected 79."),
        (4100, 9500, True, "41.0% of 10000 rows have the label fast, expected 8."),
        (4300, 9500, False, "43.0% of 10000 rows have the label fast, expected 8.8% to 41."),
        (500, 9500, False, "5.0% of 10000 rows have the label fast, expected 8."),
        (2500, 0, False, "0.0% of 10000 rows have the label cheap, expected 79."),
        (2500, 10000, True, ""),
    ],
)
def test_each_label_has_its_usual_share(fast: int, cheap: int, passed: bool, said: str) -> None:
    found = label_shares(10_000, fast, cheap)
    assert found.passed == passed and said in found.message


def test_chance_moves_no_label_of_a_small_day() -> None:
    assert label_shares(40, 20, 34).passed and label_shares(5, 0, 0).message.startswith("not enough rows: 5")


def test_labels_are_compared_with_the_reference_through_a_day(tiny: TinyProject) -> None:
    tiny.deliver("v1", task=LABELS)
    tiny.land(DAY, tiny.rows(100))
    found = finding(tiny.run(), "classes_are_balanced")
    assert found.passed and found.description == "not tested: the bundle has no reference profile"
    tiny.deliver("v2", task=LABELS, reference=reference_rows(days=40))
    tiny.land(NEXT_DAY, ordinary(NEXT_DAY))
    found = finding(tiny.run(NEXT_DAY), "classes_are_balanced")
    assert found.passed and "rows have the label " in (found.description or "")


def test_crossing_quantiles_warn_and_do_not_stop_the_day(tiny: TinyProject) -> None:
    tiny.deliver("v1", task=Quantiles(levels=(0.1, 0.5, 0.9)))
    tiny.land(DAY, tiny.rows(100))
    result = tiny.run()
    rows = tiny.read().to_pylist()
    crossed = sum(not row["quantile_10"] <= row["quantile_50"] <= row["quantile_90"] for row in rows)
    found = finding(result, "quantiles_are_ordered")
    assert result.success and crossed and not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert (found.description or "").startswith(f"{crossed} of 100 rows have a quantile below that of a lower level")
    settings(tiny, quantiles_are_ordered={"share": 1.0})
    tiny.land(DAY, tiny.rows(99))
    assert finding(tiny.run(), "quantiles_are_ordered").passed


def test_a_model_without_quantiles_has_no_order_to_test(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(20))
    found = finding(tiny.run(), "quantiles_are_ordered")
    assert found.passed and found.description == "not tested: the model gives no quantiles"


def test_one_class_for_every_row_warns(tiny: TinyProject) -> None:
    tiny.write_code(network=NETWORK.replace("return torch.where", "result[:, 0] += 100\n        return torch.where"))
    tiny.deliver("v1")
    tiny.land(DAY, tiny.rows(100))
    found = finding(tiny.run(), "classes_are_balanced")
    assert not found.passed and (found.description or "").startswith("100.0% of 100 rows are 0, expected at most 95.0%")


def test_one_class_is_no_failure_if_the_reference_has_such_days(tiny: TinyProject) -> None:
    tiny.write_code(network=NETWORK.replace("return torch.where", "result[:, 0] += 100\n        return torch.where"))
    tiny.deliver("v1")
    profiled(tiny, score_days=Scores(confidence=0.02, confidence_sd=0.0, spread=0.0, largest_class=1.0))
    tiny.land(DAY, tiny.rows(100))
    found = finding(tiny.run(), "classes_are_balanced")
    assert found.passed and "not tested: on a day of the reference one class has all rows" in (found.description or "")


def test_a_model_that_says_the_same_of_every_row_warns(tiny: TinyProject) -> None:
    tiny.write_code(network=CONSTANT)
    tiny.deliver("v1")
    tiny.land(DAY, tiny.rows(100))
    found = finding(tiny.run(), "scores_vary")
    assert not found.passed and "the standard deviation of prob_class_1 is 0.0000" in (found.description or "")


def test_scores_that_spread_half_as_little_as_on_any_reference_day_warn(tiny: TinyProject) -> None:
    profiled(tiny, score_days=Scores(confidence=0.02, confidence_sd=0.0, spread=10.0, largest_class=0.5))
    tiny.land(DAY, tiny.rows(100))
    assert not finding(tiny.run(), "scores_vary").passed


def test_ten_rows_are_not_enough_for_a_spread(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    assert finding(tiny.run(), "scores_vary").description == "not enough rows: 10, expected at least 30"


# cost_is_usual


def a_day(*, cpu_seconds: float, rows: int = 1_000_000, gpu_seconds: float = 0.0, old: bool = False) -> PublishedDay:
    """A day of two shards that took so much CPU time together; `old`: published without being measured."""
    half = None if old else Usage(cpu_seconds=cpu_seconds / 2, gpu_seconds=gpu_seconds)
    stats = ShardStats(digest="", source="", run_id="", rows_in=rows // 2, rows=rows // 2, usage=half)
    return PublishedDay(
        pipeline="p",
        day=DAY,
        step="predictions",
        run_id="r",
        finished_at=datetime(2024, 3, 4, tzinfo=UTC),
        fingerprint="f",
        code="c",
        shards=(stats, stats),
        table=PublishedPart(transaction=1, version=1, files=()),
        overhead=Usage(cpu_seconds=1000),
    )


def cost_of(day: PublishedDay, before: Sequence[PublishedDay], **thresholds: float) -> Finding:
    return usual_cost(day.shards, before, Cost.model_validate(thresholds))


USUAL = [a_day(cpu_seconds=seconds) for seconds in (10.0, 9.0, 11.0, 10.0, 300.0, 10.0, 10.5)]
"""A week of days of 10 seconds, one of which was an accident."""


@pytest.mark.parametrize(
    ("seconds", "thresholds", "passed"),
    [(14.9, {}, True), (15.1, {}, False), (15.1, {"factor": 2}, True), (20.1, {"factor": 2}, False), (0.1, {}, True)],
)
def test_a_row_that_takes_half_as_much_time_again_as_usual_is_told(
    seconds: float, thresholds: dict[str, float], passed: bool
) -> None:
    found = cost_of(a_day(cpu_seconds=seconds), USUAL, **thresholds)
    assert found.passed == passed and found.observed == pytest.approx(seconds)
    assert found.message.startswith(f"a million rows take {seconds:.2f} CPU seconds, expected at most ")
    assert "by the median 10.00 of 7 days before" in found.message


def test_a_day_of_another_size_is_compared_by_the_row() -> None:
    assert cost_of(a_day(cpu_seconds=140, rows=10_000_000), USUAL).passed
    assert not cost_of(a_day(cpu_seconds=160, rows=10_000_000), USUAL).passed


def test_two_seconds_more_than_usual_are_no_alarm_on_a_small_day() -> None:
    """A new process warms up, and of a second's work a neighbour on the machine can double the time."""
    usual = [a_day(cpu_seconds=0.1, rows=100_000) for _ in range(7)]
    assert cost_of(a_day(cpu_seconds=2.0, rows=100_000), usual).passed
    assert not cost_of(a_day(cpu_seconds=2.2, rows=100_000), usual).passed


@pytest.mark.parametrize(
    ("day", "before", "why"),
    [
        (a_day(cpu_seconds=99, rows=99_998), USUAL, "not tested: 99998 measured rows, expected at least 100000"),
        (a_day(cpu_seconds=0, old=True), USUAL, "not tested: 0 measured rows, expected at least 100000"),
        (a_day(cpu_seconds=99), USUAL[:6], "no history yet: 6 of the 28 days before"),
        (a_day(cpu_seconds=99, gpu_seconds=3), USUAL, "no history yet: 0 of the 28 days before"),
        (a_day(cpu_seconds=99), [a_day(cpu_seconds=1, gpu_seconds=3)] * 7, "no history yet: 0 of the 28 days before"),
        (a_day(cpu_seconds=99), [a_day(cpu_seconds=1, rows=99_998)] * 7, "no history yet: 0 of the 28 days before"),
        (a_day(cpu_seconds=99), [a_day(cpu_seconds=1, old=True)] * 7, "no history yet: 0 of the 28 days before"),
    ],
    ids=["few rows", "not measured", "six days", "now a GPU", "a GPU before", "small days before", "older version"],
)
def test_days_that_are_not_alike_are_not_compared(day: PublishedDay, before: list[PublishedDay], why: str) -> None:
    found = cost_of(day, before)
    assert found.passed and why in found.message


def test_the_cost_is_compared_with_days_of_the_same_model_and_code(tiny: TinyProject) -> None:
    """What the state has recorded of a published day is what the check reads, also when nothing is left to do."""
    settings(tiny, cost_is_usual={"rows": 20}, categories_are_known={"share": 1})
    tiny.land(LATE, tiny.rows(20))
    assert "no history yet: 0 of" in (finding(tiny.run(LATE), "cost_is_usual").description or "")
    real = tiny.published_day("predictions", LATE)
    tiny.state.put_published_day(took(real, 90))
    mine, other_code, other_model = {}, {"code": "other"}, {"model_sha256": "other"}
    for changes, passed in ((mine, False), (other_code, True), (other_model, True)):
        for day in days_before(LATE, 10):
            tiny.state.put_published_day(took(real, 10).model_copy(update={"day": day, **changes}))
        found = finding(tiny.run(LATE, ["predictions"]), "cost_is_usual")
        assert (found.passed, found.severity) == (passed, dg.AssetCheckSeverity.WARN), changes
        history = "by the median 500000.00 of 10 days" if not changes else "no history yet: 0 of the 28 days before"
        assert history in (found.description or "")


def took(published_day: PublishedDay, cpu_seconds: float) -> PublishedDay:
    """The day, as if its only shard had taken so long."""
    (own,) = published_day.shards
    return published_day.model_copy(
        update={"shards": (own.model_copy(update={"usage": Usage(cpu_seconds=cpu_seconds)}),)}
    )
