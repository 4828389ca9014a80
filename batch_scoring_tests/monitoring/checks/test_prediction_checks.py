"""The checks of predictions, made to fail through the whole pipeline."""

import dagster as dg
import pyarrow as pa
import pytest

from batch_scoring.inference.reference_profile import Scores
from batch_scoring.operations import failed_runs
from batch_scoring_tests.checked import LATE, days, finding, profiled, settings
from batch_scoring_tests.tiny import DAY, NETWORK, TinyProject, error_of

CONSTANT = NETWORK.replace("result = self.layers(", "result = 0.0 * self.layers(")

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
