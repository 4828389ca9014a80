"""Distances are scipy's and Evidently's, thresholds are the recipe's, whatever is missing, infinite or tied."""

import math
from collections import Counter
from datetime import date

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon
from scipy.stats import wasserstein_distance

from batch_scoring.inference.reference_profile import ColumnProfile, Kind, ReferenceProfile, Scores
from batch_scoring.monitoring.drift import distances
from batch_scoring.monitoring.drift.distances import FARTHEST, Distribution, Reference, counted, distance, values_of
from batch_scoring_tests.tiny import ordinary, reference_rows

NUMBERS = st.one_of(
    st.none(),
    st.sampled_from([math.nan, math.inf, -math.inf]),
    st.sampled_from([0.0, -0.0, 1.0, 2.5]),  # ties
    st.floats(-1e6, 1e6).map(lambda value: round(value, 3)),
)

WORDS = st.one_of(st.none(), st.sampled_from(["", "red", "green", "blue"]), st.text(max_size=2))


def profile(columns: dict[str, ColumnProfile], **changed: object) -> ReferenceProfile:
    settings: dict[str, object] = {
        "first": "2024-01-01",
        "last": "2024-03-31",
        "days": 91,
        "rows": 60,
        "weekends_apart": True,
        "factor": 1.25,
        "columns": columns,
        "scores": {},
        "left_out": {},
        "everyday": {},
        "held_out": (),
        "share_alarms": 0.0,
        "exceeding": {},
        "score_days": Scores(confidence=None, confidence_sd=0.1, spread=None, largest_class=None),
    }
    return ReferenceProfile.model_validate(settings | changed)


def column(kind: Kind = "numeric", **changed: object) -> ColumnProfile:
    described = {"kind": kind, "grain": "row", "day": 0.3, "sampling": 2.4, "trailing": 0.1, "missing": 0.05}
    return ColumnProfile.model_validate(described | changed)


def seen(rows: list[object], kind: Kind) -> Distribution:
    return counted([values_of(pa.array(rows), kind)])


@settings(max_examples=200, deadline=None)
@given(st.lists(NUMBERS, min_size=1, max_size=60), st.lists(NUMBERS, min_size=1, max_size=60))
def test_a_numeric_distance_is_scipys_over_the_standard_deviation(one: list[object], other: list[object]) -> None:
    reference, current = (values_of(pa.array(rows, pa.float64()), "numeric") for rows in (one, other))
    if len(reference) and len(current):
        expected = min(wasserstein_distance(reference, current) / max(np.std(reference), 0.001), FARTHEST)
        assert distance(counted([reference]), current, "numeric") == pytest.approx(expected, rel=1e-9, abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=60), st.lists(WORDS, min_size=1, max_size=60))
def test_a_categorical_distance_is_scipys_over_the_union_of_the_values(one: list[object], other: list[object]) -> None:
    reference, current = (values_of(pa.array(rows, pa.string()), "categorical") for rows in (one, other))
    if len(reference) and len(current):
        counts = [Counter(values.tolist()) for values in (reference, current)]
        words = sorted(set().union(*counts))
        shares = [[count[word] / count.total() for word in words] for count in counts]
        expected = jensenshannon(*shares)
        # a square root: where scipy's rounding leaves 1e-17 of nothing, it makes 3e-9 of that
        assert distance(counted([reference]), current, "categorical") == pytest.approx(expected, rel=1e-9, abs=1e-7)


def test_on_days_as_they_come_the_distances_agree_to_the_last_digits() -> None:
    reference = reference_rows()
    for day in ("2024-03-04", "2024-03-10"):
        current = ordinary(day, 930)
        for name in ("x", "y", "n"):
            values = reference[name].to_numpy()
            expected = wasserstein_distance(values, current[name].to_numpy()) / values.std()
            found = distance(
                counted([values_of(reference[name], "numeric")]), values_of(current[name], "numeric"), "numeric"
            )
            assert found == pytest.approx(expected, abs=3e-15)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array([True, None, False]), [1.0, 0.0]),
        (pa.array([3, None, 4], pa.int64()), [3.0, 4.0]),
        (pa.array([1.5, math.nan, math.inf, None], pa.float32()), [1.5]),
        (pa.nulls(3), []),
        (pa.nulls(3, pa.float64()), []),
        (pa.chunked_array([[1.0], [], [None, 2.0]], pa.float64()), [1.0, 2.0]),
    ],
)
def test_the_numbers_of_any_numeric_column_are_taken(values: pa.Array, expected: list[float]) -> None:
    assert values_of(values, "numeric").tolist() == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (pa.array(["a", None, "b"]).dictionary_encode(), ["a", "b"]),
        (pa.chunked_array([pa.array(["a"]).dictionary_encode(), pa.array(["b"]).dictionary_encode()]), ["a", "b"]),
        (pa.array(["a"], pa.large_string()), ["a"]),
        (pa.array([7, None]), ["7"]),
        (pa.array([True]), ["true"]),
        (pa.array([date(2024, 1, 1)]), ["2024-01-01"]),
        (pa.nulls(3, pa.string()), []),
    ],
)
def test_the_words_of_any_categorical_column_are_taken(values: pa.Array, expected: list[str]) -> None:
    assert values_of(values, "categorical").tolist() == expected


def test_a_constant_reference_is_divided_by_the_floor_that_evidently_has() -> None:
    assert distance(seen([5.0] * 40, "numeric"), np.array([5.5]), "numeric") == pytest.approx(0.5 / 0.001)
    assert distance(seen([5.0] * 40, "numeric"), np.array([5.0]), "numeric") == 0.0


@pytest.mark.parametrize(("rows", "counts"), [(30, 30), (60, 60), (600, 60), (50_000, 60)])
def test_a_threshold_falls_with_the_rows_up_to_those_of_a_reference_day(rows: int, counts: int) -> None:
    assert distances.threshold(column(), rows, 60) == pytest.approx(math.sqrt(0.3**2 + 2.4**2 / counts))


def test_the_trailing_threshold_is_twice_the_largest_distance_and_its_own_sampling() -> None:
    assert distances.trailing_threshold(column(), 1200) == pytest.approx(math.sqrt(0.2**2 + 2.4**2 / 1200))


@pytest.mark.parametrize(
    ("share", "rows", "drifted"),
    [(0.0, 60, False), (0.15, 60, False), (0.16, 60, True), (0.16, 40, False), (1.0, 29, None)],
)
def test_missing_values_are_compared_with_the_usual_share_and_its_chance(
    share: float, rows: int, drifted: bool
) -> None:
    """0.05 + 3 √(0.05 · 0.95 / 60) + 0.02 = 0.154; of 40 rows 0.173."""
    tests = distances.missing_tests(profile({"x": column()}), {"x": round(share * rows)}, rows)
    assert [test.drifted for test in tests] == ([] if drifted is None else [drifted])


@pytest.mark.parametrize(("same", "rows", "drifted"), [(9, 60, False), (10, 60, True), (29, 29, None)])
def test_one_value_of_too_many_rows_is_a_drift(same: int, rows: int, drifted: bool | None) -> None:
    """0.05 + 3 √(0.05 · 0.95 / 60) + 0.02 = 0.154."""
    current = pa.table({"x": [7.0] * same + [float(n) for n in range(100, 100 + rows - same)]})
    tests = distances.repeated_tests(profile({"x": column(repeated=0.05)}), current)
    assert [test.drifted for test in tests] == ([] if drifted is None else [drifted])


def test_missing_values_are_no_repeated_ones_and_a_column_of_one_value_by_nature_is_not_tested() -> None:
    current = pa.table({"x": [None] * 60 + [float(n) for n in range(40)], "y": [1.0] * 100})
    learned = profile({"x": column(repeated=0.05), "y": column(repeated=1.0)})
    assert [(test.column, test.share) for test in distances.repeated_tests(learned, current)] == [("x", 1 / 40)]


def test_a_column_that_is_missing_by_nature_and_one_that_nobody_counted_are_not_tested() -> None:
    learned = profile({"x": column(missing=1.0), "y": column()})
    assert distances.missing_tests(learned, {"x": 60}, 60) == []


@pytest.mark.parametrize("huge", [1e155, 1e300, -1.7e308])
def test_one_value_beyond_all_measure_is_far_away_and_no_nan(huge: float) -> None:
    reference = distances.counted([np.arange(100.0)])
    assert distances.distance(reference, np.array([*range(99), huge], float), "numeric") == distances.FARTHEST


def test_a_distance_that_reaches_its_threshold_has_drifted_as_for_evidently() -> None:
    assert (
        distances.Tested("x", "numeric", 60, 0.5, 0.5).drifted
        and not distances.Tested("x", "numeric", 60, 0.499, 0.5).drifted
    )


WEEK = pa.table(
    {
        "x": [float(number // 60) for number in range(420)],
        "dt": [date(2024, 1, 1 + number // 60) for number in range(420)],
    }
)
"""Monday to Sunday; x is the number of the day."""

MONDAY, SUNDAY = date(2024, 3, 4), date(2024, 3, 10)


def test_weekdays_are_compared_with_weekdays_if_there_are_enough_of_both() -> None:
    apart, alike = (Reference(profile({"x": column()}, weekends_apart=apart), WEEK) for apart in (True, False))
    assert set(apart.rows(MONDAY)["x"].to_pylist()) == {0, 1, 2, 3, 4}
    assert set(apart.rows(SUNDAY)["x"].to_pylist()) == {5, 6}
    assert apart.rows().num_rows == alike.rows(SUNDAY).num_rows == 420
    assert apart.distribution("x", "numeric", SUNDAY).counts.tolist() == [[60, 60]]


def test_a_day_is_tested_by_the_columns_that_have_a_day_test_and_thirty_values() -> None:
    learned = profile({"x": column(), "d": column(day=None), "gone": column()})
    rows = WEEK.append_column("d", WEEK["x"]).append_column("gone", pa.nulls(420, pa.float64()))
    (tested,) = distances.day_tests(Reference(learned, rows), MONDAY, rows.slice(0, 60))
    assert (tested.column, tested.rows) == ("x", 60)
    assert tested.threshold == pytest.approx(1.25 * distances.threshold(column(), 60, 60))
    assert tested.distance == pytest.approx(2.0 / math.sqrt(2), abs=1e-12), "the mean of 0 to 4 from 0"
    assert distances.day_tests(Reference(learned, rows), MONDAY, rows.slice(0, 29)) == []


def test_the_trailing_days_are_compared_with_the_whole_reference() -> None:
    columns = {"x": column(), "not": column(trailing=None)}
    reference = Reference(profile(columns), WEEK)
    (tested,) = distances.trailing_tests(columns, reference, WEEK)
    assert (tested.column, tested.distance, tested.rows) == ("x", 0.0, 420)
    assert tested.threshold == distances.trailing_threshold(column(), 420)
