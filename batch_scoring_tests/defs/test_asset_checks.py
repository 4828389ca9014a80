"""Every check of the assets, made to fail through the whole pipeline (raw_input's and the model's own stand there)."""

import math
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import date

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.csv import write_csv
from scipy.stats import binom

from batch_scoring.config.spec import Checks, QuarantineSize
from batch_scoring.daily.history import days_before
from batch_scoring.defs.sensors import STEPS
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.reference_profile import Profile, Scores
from batch_scoring.monitoring.checks.feature_checks import known_categories
from batch_scoring.operations import failures
from batch_scoring_tests.tiny import DAY, NETWORK, TinyProject, checks, error_of

CONSTANT = NETWORK.replace("result = self.layers(", "result = 0.0 * self.layers(")
LATE = "2024-03-20"


def finding(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    return next(e for e in result.get_asset_check_evaluations() if e.check_name == name)


def settings(tiny: TinyProject, **checks: dict[str, object]) -> None:
    tiny.spec["checks"] = checks
    tiny.write_spec()


def days(tiny: TinyProject, rows: Callable[[int], pa.Table], count: int = 8, steps: Sequence[str] = STEPS) -> None:
    """Run days before the late one."""
    definitions = tiny.definitions
    for number, before in enumerate(days_before(LATE, count)):
        tiny.land(before, rows(number))
        tiny.run(before, steps, definitions=definitions)


def profiled(tiny: TinyProject, **changes: object) -> None:
    """Give the bundle a profile, as a calibration might have learned it."""
    bundle = read_bundle(tiny.pipeline.bundle)
    values: dict[str, object] = {
        "first": "2023-12-01",
        "last": "2024-02-28",
        "days": 90,
        "rows": 100,
        "weekends_apart": False,
        "factor": 1.1,
        "columns": {},
        "scores": {},
        "left_out": {},
        "everyday": {},
        "held_out": (),
        "share_alarms": 0.0,
        "exceeding": {},
        "score_days": Scores(confidence=0.02, confidence_sd=0.0, spread=0.001, largest_class=0.5),
    } | changes
    bundle.with_profile(Profile.model_validate(values), "v1").write(tiny.pipeline.bundle)


# row_count_is_usual


def test_a_day_with_half_of_the_rows_warns_and_is_scored(tiny: TinyProject) -> None:
    days(tiny, lambda number: tiny.rows(100 + number), steps=["raw_input"])
    tiny.land(LATE, tiny.rows(50))
    result = tiny.run(LATE)
    found = finding(result, "row_count_is_usual")
    assert result.success and not found.passed and found.severity == dg.AssetCheckSeverity.WARN
    assert found.description == (
        "50 rows, expected 75 to 134 rows, by the 8 days before; ask who delivers the files, then upload what is "
        "missing or take away what is too much"
    )
    figures = {name: value.value for name, value in found.metadata.items() if name != "trend"}
    assert figures == {
        "observed": 50.0,
        "expected": "75 to 134 rows, by the 8 days before",
        "threshold_low": 75.0,
        "threshold_high": 133.75,
    }
    assert "row_count_is_usual, 9 days" in str(found.metadata["trend"].value)


def test_it_stops_the_day_if_the_spec_says_so(tiny: TinyProject) -> None:
    settings(tiny, row_count_is_usual={"blocking": True})
    days(tiny, lambda number: tiny.rows(100), steps=["raw_input"])
    tiny.land(LATE, tiny.rows(50))
    result = tiny.run(LATE, raise_on_error=False)
    assert error_of(result).startswith("row_count_is_usual: 50 rows, expected 75 to 125 rows")
    assert finding(result, "row_count_is_usual").severity == dg.AssetCheckSeverity.ERROR
    assert not tiny.pipeline.output.list(f"state/dt={LATE}/input.json"), "nothing is pinned"
    said = tiny.state.checks("raw_input", LATE)
    assert said is not None and not said.checks["row_count_is_usual"].passed, "it is remembered all the same"


def test_no_history_yet_is_said_and_not_failed(tiny: TinyProject) -> None:
    days(tiny, lambda number: tiny.rows(100), 6, ["raw_input"])
    tiny.land(LATE, tiny.rows(1))
    found = finding(tiny.run(LATE), "row_count_is_usual")
    assert found.passed and "no history yet: 6 of the 28 days before" in (found.description or "")


# quarantine_is_small


def spoiled(tiny: TinyProject, bad: int, of: int) -> pa.Table:
    return tiny.rows(of).set_column(3, "n", pa.array([-1] * bad + [1] * (of - bad), pa.int64()))


@pytest.mark.parametrize(
    ("bad", "of", "bounds", "outcome"),
    [
        pytest.param(52, 811, {}, "passes", id="five percent and what chance adds"),
        pytest.param(75, 811, {}, "warns", id="nearly a tenth of a small day"),
        pytest.param(10, 100, {}, "warns", id="a tenth of a smaller one"),
        pytest.param(3, 10, {}, "passes", id="three rows are never worth a word"),
        pytest.param(100, 201, {"rows": 100}, "passes", id="rows that the spec names"),
        pytest.param(101, 2020, {"rows": 100}, "passes", id="or the share, as it is"),
        pytest.param(102, 2020, {"rows": 100}, "warns", id="more than either"),
        pytest.param(2, 3, {}, "stops", id="beyond the second bound, however small the day"),
    ],
)
def test_the_quarantine_is_small_in_rows_or_in_share(
    tiny: TinyProject, bad: int, of: int, bounds: dict[str, int], outcome: str
) -> None:
    settings(tiny, categories_are_known={"share": 1}, quarantine_is_small=bounds)
    tiny.land(DAY, spoiled(tiny, bad, of))
    result = tiny.run(raise_on_error=False)
    found = finding(result, "quarantine_is_small")
    assert found.passed == (outcome == "passes") and result.success == (outcome != "stops")
    assert found.severity.value == ("ERROR" if outcome == "stops" else "WARN")
    assert "reasons: n: greater_than_or_equal_to(0)" in (found.description or "")


def test_nothing_is_published_beyond_the_second_bound_and_what_stood_stands(tiny: TinyProject) -> None:
    settings(tiny, categories_are_known={"share": 1})
    tiny.land(DAY, tiny.rows(10))
    tiny.run()
    tiny.land(DAY, spoiled(tiny, 8, 10))
    result = tiny.run(raise_on_error=False)
    assert error_of(result).startswith("quarantine_is_small: 8 of 10 rows (80.0%)")
    assert tiny.read().num_rows == 10


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
    assert result.dagster_run.tags[failures.TAG] == "bad_model"
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


@given(rows=st.integers(1, 2_000_000), share=st.floats(0, 1), fewest=st.none() | st.integers(0, 1000))
def test_what_a_day_may_lose_is_never_less_than_its_share_and_grows_with_the_day(
    rows: int, share: float, fewest: int | None
) -> None:
    bounds = QuarantineSize(rows=fewest, share=share)
    assert bounds.most(rows + 1) >= bounds.most(rows) >= share * rows
    if fewest is not None:
        assert bounds.most(rows) == max(fewest, share * rows), "a spec that names rows means just these"


@pytest.mark.parametrize(("loss", "often"), [(0.001, 1e-7), (0.01, 1 / 3900), (0.03, 1 / 74)])
def test_an_ordinary_loss_is_rarely_told_whatever_the_size_of_the_day(loss: float, often: float) -> None:
    """By the exact binomial tail, of every size up to 2,000 rows and some up to a million."""
    for rows in [*range(1, 2_001), 10_000, 100_000, 1_000_000]:
        assert binom.sf(math.floor(QuarantineSize().most(rows)), rows, loss) < often, rows


# categories_are_known


def test_values_that_the_model_has_not_seen_are_listed(tiny: TinyProject) -> None:
    settings(tiny)
    rows = tiny.rows(100).set_column(4, "c", pa.array(["red"] * 95 + ["mauve"] * 3 + ["puce"] * 2))
    tiny.land(DAY, rows)
    found = finding(tiny.run(), "categories_are_known")
    assert not found.passed and 'beyond: c (5 of 100 rows: "mauve", "puce")' in (found.description or "")
    table = found.metadata["unknown_values"]
    assert isinstance(table, dg.TableMetadataValue)
    assert [record.data for record in table.records] == [
        {"column": "c", "value": "mauve", "rows": 3},
        {"column": "c", "value": "puce", "rows": 2},
    ]


def test_words_that_lost_the_blanks_which_the_model_knows_stop_the_day_with_the_setting() -> None:
    day = {"c": Counter({"Private": 9, "x" * 5_000: 1})}
    told = known_categories(day, {"c": (" Private", " Public")}, Checks())
    assert not told.passed and told.blocks
    assert told.message.endswith(
        f'(10 of 10 rows: "Private", "{"x" * 200}… (5000 characters)"); they are scored as unknown: train a model that '
        "knows them; of c the model knows the same words with blanks around, which are trimmed here: set "
        "input.csv.trim: false, or train it anew; nothing is published with such scores"
    )
    other = known_categories(day, {"c": ("Public",)}, Checks())
    assert "blanks" not in other.message and not other.passed and not other.blocks


def test_a_model_of_words_with_blanks_scores_csv_files_only_where_blanks_are_kept(tiny: TinyProject) -> None:
    words = (" red", " green", " blue")
    rows = tiny.rows(100).set_column(4, "c", pa.array([words[number % 3] for number in range(100)]))
    reference = rows.append_column("dt", pa.array([date(2024, 1, 1)] * 100))
    tiny.deliver("v2", words=words, reference=reference, calibrated=False)
    sink = pa.BufferOutputStream()
    write_csv(rows, sink)
    tiny.land(DAY, sink.getvalue().to_pybytes(), "a.csv")
    result = tiny.run(raise_on_error=False)
    assert not result.success and not finding(result, "categories_are_known").passed
    assert "input.csv.trim: false" in error_of(result)
    tiny.spec["input"]["csv"] = {"trim": False}
    tiny.write_spec()
    assert finding(tiny.run(), "categories_are_known").passed
    assert tiny.read().num_rows == 100


def test_two_unknown_rows_of_a_small_day_are_no_failure(tiny: TinyProject) -> None:
    settings(tiny)
    tiny.land(DAY, tiny.rows(30).set_column(4, "c", pa.array(["red"] * 28 + ["mauve"] * 2)))
    found = finding(tiny.run(), "categories_are_known")
    assert found.passed and found.metadata["observed"].value == pytest.approx(2 / 30)


def test_categories_are_not_tested_before_a_model_is_in_force(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(30))
    result = tiny.run(steps=["raw_input", "validated_features"])
    assert all(checks(result).values())
    assert finding(result, "categories_are_known").description == "not tested: no model is in force yet"


# categories_are_present


def test_a_value_that_every_reference_day_has_must_not_be_absent(tiny: TinyProject) -> None:
    profiled(tiny, everyday={"c": {"red": 0.2, "green": 0.2, "blue": 0.04}})
    tiny.land(DAY, tiny.rows(100).set_column(4, "c", pa.array(["red"] * 100)))
    found = finding(tiny.run(), "categories_are_present")
    assert not found.passed
    assert "1 of 2 values are absent" in (found.description or "") and "c green (about 20 rows)" in (
        found.description or ""
    )


def test_a_value_of_which_too_few_rows_are_expected_may_be_absent(tiny: TinyProject) -> None:
    profiled(tiny, everyday={"c": {"red": 0.2, "green": 0.2}})
    tiny.land(DAY, tiny.rows(20).set_column(4, "c", pa.array(["red"] * 20)))
    assert finding(tiny.run(), "categories_are_present").passed


# predictions


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


# metrics_meet_threshold


def test_a_metric_below_what_the_spec_asks_for_warns_or_keeps_the_model_out(tiny: TinyProject) -> None:
    settings(tiny, metrics_meet_threshold={"least": {"auc": 0.7}})
    result = tiny.run(steps=["model"])
    assert finding(result, "metrics_meet_threshold").description == (
        "0 of 1 metrics meet their threshold; auc is not recorded, expected at least 0.7"
    )
    settings(tiny, metrics_meet_threshold={"least": {"auc": 0.7}, "blocking": True})
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert error_of(result).startswith("metrics_meet_threshold: ") and not result.success


# spec


def test_what_guards_a_promise_cannot_be_switched_off(tiny: TinyProject) -> None:
    settings(tiny, rows_are_conserved={"blocking": False}, days_are_current={"blocking": True})
    with pytest.raises(ValueError, match="2 faults") as error:
        _ = tiny.pipeline
    assert "checks.rows_are_conserved.blocking: False: " in str(error.value)
    assert "expected true: it guards a promise" in str(error.value)
    assert "expected false: it cannot stop a day" in str(error.value)
