"""The checks of validated_features, made to fail through the whole pipeline."""

import math
from collections import Counter
from datetime import date

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pyarrow.csv import write_csv
from scipy.stats import binom

from batch_scoring.config.spec import Checks, QuarantineSize
from batch_scoring.monitoring.checks.feature_checks import known_categories
from batch_scoring_tests.checked import finding, profiled, settings
from batch_scoring_tests.tiny import DAY, TinyProject, checks, error_of


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


def test_values_that_the_model_has_not_seen_are_listed(tiny: TinyProject) -> None:
    settings(tiny)
    rows = tiny.rows(100).set_column(4, "c", pa.array(["red"] * 95 + ["mauve"] * 3 + ["puce"] * 2))
    tiny.land(DAY, rows)
    found = finding(tiny.run(), "categories_are_known")
    assert not found.passed and 'above that: c (5 of 100 rows: "mauve", "puce")' in (found.description or "")
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
        "knows them; for c the model knows the same words with blanks around them, but they are trimmed: set "
        "input.csv.trim: false, or train it again; nothing is published with such scores"
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
    assert finding(result, "categories_are_known").description == "not tested: no model is active yet"


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
