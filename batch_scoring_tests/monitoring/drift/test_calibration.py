"""What is learned from a reference holds on days that come after it; what cannot be learned is said."""

from collections.abc import Callable, Sequence
from datetime import date, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.errors import BundleError, CalibrationError
from batch_scoring.inference.bundle import Bundle, read_bundle
from batch_scoring.inference.heads.labels import Labels
from batch_scoring.inference.reference_profile import ReferenceProfile
from batch_scoring.monitoring.drift.calibration import (
    ColumnDays,
    _ranks_without,
    calibrate,
    trailing_deviation,
    usual_share,
)
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import TinyProject, reference_rows

REFERENCE = reference_rows()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return TinyProject(tmp_path_factory.mktemp("project"))


@pytest.fixture(scope="module")
def learn(project: TinyProject) -> Callable[..., ReferenceProfile]:
    """Deliver a reference and learn its profile."""

    def learned(reference: pa.Table, day_grain: Sequence[str] = (), **delivery: object) -> ReferenceProfile:
        project.deliver("learned", reference=reference, calibrated=False, promote=False, **delivery)  # type: ignore[arg-type]
        return calibrate(delivered(project, "learned"), day_grain)

    return learned


@pytest.fixture(scope="module")
def profile(learn: Callable[..., ReferenceProfile]) -> ReferenceProfile:
    return learn(REFERENCE)


def delivered(project: TinyProject, version: str) -> Bundle:
    return read_bundle(open_folder(f"{project.data_root}/{project.name}/models/{version}"))


def with_column(rows: pa.Table, name: str, values: object) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, values)


def on(day: str) -> pa.Array:
    return pc.equal(REFERENCE["dt"], date.fromisoformat(day)).combine_chunks()


def where(rows: pa.Table, mask: pa.Array, name: str, value: object) -> pa.Table:
    """The rows with a value in those of the mask."""
    return with_column(rows, name, pc.if_else(mask, pa.scalar(value, rows[name].type), rows[name]))


# the promise


def test_the_same_reference_gives_the_same_profile(
    learn: Callable[..., ReferenceProfile], profile: ReferenceProfile
) -> None:
    assert learn(REFERENCE) == profile


def test_the_order_of_a_references_rows_decides_no_rank(
    learn: Callable[..., ReferenceProfile], profile: ReferenceProfile
) -> None:
    shuffled = learn(REFERENCE.take(pa.array(np.random.default_rng(1).permutation(len(REFERENCE)))))
    for name, column in profile.columns.items():
        assert shuffled.columns[name].day == pytest.approx(column.day, rel=1e-9)
        assert shuffled.columns[name].sampling == pytest.approx(column.sampling, rel=0.2), "drawn at random"


def test_on_a_stationary_table_days_held_out_keep_the_promise(profile: ReferenceProfile) -> None:
    assert [held.rows for held in profile.held_out] == ["whole", "30"], "no day has 100 rows"
    for held in profile.held_out:
        assert held.columns <= 0.02 and held.alarms <= 1 / 20
    assert profile.share_alarms <= 1 / 20
    assert profile.alarms_a_month <= 2


def test_the_factor_makes_up_for_days_that_are_beyond_one_threshold_each(
    learn: Callable[..., ReferenceProfile],
) -> None:
    """Three days, each far in another column: no T0 is set by them, so c must keep the alarms to 1 in 30."""
    moved = REFERENCE
    for name, day, value in (("x", "2024-01-10", 12.0), ("y", "2024-01-17", 20.0), ("n", "2024-02-06", 6)):
        moved = where(moved, on(day), name, value)
    learned = learn(moved)
    assert learned.factor > 2
    assert learned.held_out[0].any_column > learned.held_out[0].alarms <= 1 / 20


def test_what_was_learned_is_about_the_reference(profile: ReferenceProfile) -> None:
    assert (profile.first, profile.last, profile.days, profile.rows) == ("2023-11-27", "2024-02-25", 91, 60)
    assert list(profile.columns) == ["x", "y", "n", "c"] and list(profile.scores) == ["prob_class_1"]
    assert {name: column.kind for name, column in profile.columns.items()}["c"] == "categorical"
    assert all(column.day and column.trailing for column in profile.columns.values())
    assert profile.scores["prob_class_1"].day is None and profile.scores["prob_class_1"].trailing
    assert profile.left_out == {}


def days_of(values: Sequence[Sequence[float]]) -> ColumnDays:
    whole = pa.chunked_array([[value for day in values for value in day]], pa.float64())
    ends = np.cumsum([len(day) for day in values])
    return ColumnDays.of("x", "numeric", whole, np.split(np.arange(ends[-1]), ends[:-1]))


def test_a_days_own_distance_is_to_the_days_without_it() -> None:
    days = days_of([[0.0] * 30, [1.0] * 30, [3.0] * 30])
    own = days.distances(days.draw(None), np.zeros(3, int), np.ones(3, bool))
    assert own * np.std([0.0, 1.0, 3.0]) == pytest.approx([2.0, 1.5, 2.5])


def test_no_day_helps_to_set_the_threshold_that_the_factor_is_learned_with() -> None:
    distances, within = np.array([1.0, 2.0, 3.0, 10.0, np.nan, 50.0]), np.array([True] * 5 + [False])
    assert _ranks_without(distances, within).tolist() == [3.0, 3.0, 2.0, 2.0, 3.0, 3.0], "the second largest"


def test_a_days_own_distance_is_to_the_days_of_its_class() -> None:
    days = days_of([[0.0] * 30, [1.0] * 30, [7.0] * 30, [9.0] * 30])
    own = days.distances(days.draw(None), np.array([0, 0, 1, 1]), np.ones(4, bool))
    assert own == pytest.approx([2.0, 2.0, 2.0, 2.0]), "in standard deviations of the class"


def test_a_day_of_too_few_values_teaches_nothing_as_it_is_not_tested_either() -> None:
    days = days_of([[0.0] * 30, [1.0] * 30, [50.0] * 29])
    own = days.distances(days.draw(None), np.zeros(3, int), np.ones(3, bool))
    assert np.isnan(own).tolist() == [False, False, True]


def test_one_ruined_reference_day_does_not_set_the_threshold_and_is_named(
    learn: Callable[..., ReferenceProfile], profile: ReferenceProfile
) -> None:
    ruined = on("2024-01-10")
    learned = learn(where(REFERENCE, ruined, "x", 40.0))
    assert learned.columns["x"].day == pytest.approx(profile.columns["x"].day, rel=0.3)
    assert "x" in learned.exceeding["2024-01-10"] and "(alarms)" in learned.exceeding["2024-01-10"]


def test_reference_days_with_unusually_many_missing_values_are_named(learn: Callable[..., ReferenceProfile]) -> None:
    ruined = on("2024-01-10")
    learned = learn(where(REFERENCE, ruined, "y", None))
    assert "y missing 100% (alarms)" in learned.exceeding["2024-01-10"]
    assert learned.columns["y"].missing == 0.0, "one day does not make it usual"


# weekdays and weekends


def test_weekdays_and_weekends_are_apart_with_fourteen_days_of_each(learn: Callable[..., ReferenceProfile]) -> None:
    assert learn(reference_rows(days=49)).weekends_apart, "seven weeks"
    assert not learn(reference_rows(days=48)).weekends_apart, "13 weekend days"


def test_weekends_that_are_elsewhere_do_not_widen_the_thresholds_of_weekdays(
    learn: Callable[..., ReferenceProfile], profile: ReferenceProfile
) -> None:
    weekend = pa.array([day.weekday() >= 5 for day in REFERENCE["dt"].to_pylist()])
    shifted = with_column(REFERENCE, "x", pc.add(REFERENCE["x"], pc.if_else(weekend, 50.0, 0.0)))
    assert learn(shifted).columns["x"].day == pytest.approx(profile.columns["x"].day, rel=0.05)


# what cannot be learned


def test_columns_that_no_test_can_use_are_left_out_with_the_reason(learn: Callable[..., ReferenceProfile]) -> None:
    number = pa.array([float(place // 60) for place in range(len(REFERENCE))])
    rows = with_column(REFERENCE, "x", number)
    rows = with_column(rows, "n", pa.array([4] * len(rows), pa.int64()))
    rows = with_column(rows, "y", pa.nulls(len(rows), pa.float64()))
    learned = learn(rows)
    assert learned.left_out == {
        "x": "one value a day",
        "n": "one value in the reference",
        "y": "no value in the reference",
    }
    for name in learned.left_out:
        assert (learned.columns[name].day, learned.columns[name].trailing) == (None, None)
    assert learned.columns["y"].missing == 1.0 and learned.columns["n"].missing == 0.0
    assert learned.columns["c"].day


def test_scores_that_are_all_the_same_have_no_test(learn: Callable[..., ReferenceProfile]) -> None:
    """Else every day would be as far from the reference as its threshold allows: 0."""
    constant = REFERENCE
    for name, value in (("x", 1.0), ("y", 1.0), ("n", 1), ("c", "red")):
        constant = where(constant, pa.array([True] * len(constant)), name, value)
    learned = learn(constant)
    assert learned.scores["prob_class_1"].trailing is None
    assert learned.left_out["prob_class_1"] == "one value in the reference"


def test_features_of_day_grain_have_no_day_test(learn: Callable[..., ReferenceProfile]) -> None:
    learned = learn(REFERENCE, ["y"])
    assert (learned.columns["y"].grain, learned.columns["y"].day) == ("day", None)
    assert learned.columns["y"].trailing and learned.columns["y"].missing == 0.0


def test_a_column_that_few_days_have_values_of_has_no_day_test(learn: Callable[..., ReferenceProfile]) -> None:
    early = pc.less(REFERENCE["dt"], date(2024, 2, 15)).combine_chunks()
    learned = learn(where(REFERENCE, early, "y", None))
    assert learned.columns["y"].day is None and learned.columns["x"].day


@pytest.mark.parametrize(("days", "tested"), [(83, False), (84, True)])
def test_the_trailing_days_are_tested_from_84_reference_days_on(
    learn: Callable[..., ReferenceProfile], days: int, tested: bool
) -> None:
    learned = learn(reference_rows(days=days))
    assert {column.trailing is not None for column in (learned.columns | learned.scores).values()} == {tested}


def test_the_trailing_bound_is_the_largest_distance_of_28_days_to_the_rest() -> None:
    """A step in the middle of 84 days: the windows of one side alone are farthest from what is left."""
    days = days_of([[0.0] * 30] * 42 + [[1.0] * 30] * 42)
    assert days.trailing() == pytest.approx((42 / 56) / 0.5)


def test_values_of_every_reference_day_are_known_with_their_smallest_share(
    learn: Callable[..., ReferenceProfile],
) -> None:
    monday = on("2024-01-08")
    nobody = where(REFERENCE, pc.and_(monday, pc.equal(REFERENCE["c"], "blue").combine_chunks()), "c", "green")
    learned = learn(nobody)
    assert set(learned.everyday["c"]) == {"red", "green"}
    by_day = nobody.filter(pc.is_valid(nobody["c"])).group_by("dt").aggregate([("c", "count")])
    reds = nobody.filter(pc.equal(nobody["c"], "red")).group_by("dt").aggregate([("c", "count")])
    counts, all_of = (dict(zip(t["dt"].to_pylist(), t["c_count"].to_pylist(), strict=True)) for t in (reds, by_day))
    assert learned.everyday["c"]["red"] == pytest.approx(min(counts[day] / all_of[day] for day in counts))


def test_the_usual_share_of_missing_values_is_four_times_beyond_the_median_and_at_most_all() -> None:
    shares = np.concatenate([np.full(90, 0.1), np.full(10, 0.2)])
    assert usual_share(shares) == pytest.approx(0.1 + 4 * 0.1)
    assert usual_share(np.array([0.0] * 50 + [1.0] * 50)) == 1.0


def test_confidence_may_deviate_as_much_as_on_all_reference_days_but_one() -> None:
    means = np.full(40, 0.5)
    means[20], means[30] = 0.9, 0.6
    assert trailing_deviation(means) == pytest.approx(0.1)


@pytest.mark.parametrize("outputs", [3, 1])
def test_a_model_of_three_classes_and_a_regression_are_calibrated_too(
    learn: Callable[..., ReferenceProfile], outputs: int
) -> None:
    task = "classification" if outputs == 3 else "regression"
    learned = learn(reference_rows(days=30), outputs=outputs, task=task)
    expected = ["prob_class_0", "prob_class_1", "prob_class_2"] if outputs == 3 else ["prediction"]
    assert list(learned.scores) == expected
    assert (learned.score_days.largest_class is None) == (outputs == 1)
    assert ReferenceProfile.model_validate_json(learned.model_dump_json()) == learned


def test_of_several_labels_the_shares_of_each_are_learned(learn: Callable[..., ReferenceProfile]) -> None:
    learned = learn(reference_rows(days=30), task=Labels(labels=("fast", "cheap")))
    assert list(learned.scores) == ["prob_label_0", "prob_label_1"]
    assert learned.score_days.largest_class is None and set(learned.score_days.labels) == {"0", "1"}
    for low, high in learned.score_days.labels.values():
        assert 0 <= low <= high <= 1
    assert max(high for _, high in learned.score_days.labels.values()) > 0
    assert ReferenceProfile.model_validate_json(learned.model_dump_json()) == learned


def test_a_profile_without_labels_is_written_as_before(profile: ReferenceProfile) -> None:
    assert '"labels"' not in profile.model_dump_json()


# the reference as it was delivered


@pytest.mark.parametrize("kind", [pa.date32(), pa.timestamp("ns"), pa.timestamp("us", "UTC"), pa.string(), pa.date64()])
def test_the_days_of_a_reference_may_be_of_any_type_that_says_a_day(
    learn: Callable[..., ReferenceProfile], profile: ReferenceProfile, kind: pa.DataType
) -> None:
    assert learn(with_column(REFERENCE, "dt", REFERENCE["dt"].cast(kind))) == profile


def test_the_days_of_a_reference_may_be_encoded_text(
    learn: Callable[..., ReferenceProfile], profile: ReferenceProfile
) -> None:
    assert learn(with_column(REFERENCE, "dt", REFERENCE["dt"].cast(pa.string()).dictionary_encode())) == profile


def test_two_hours_of_a_day_are_one_day(learn: Callable[..., ReferenceProfile], profile: ReferenceProfile) -> None:
    hours = pa.array([timedelta(hours=place % 24) for place in range(len(REFERENCE))], pa.duration("us"))
    stamps = pc.add(REFERENCE["dt"].cast(pa.timestamp("us")), hours)
    assert learn(with_column(REFERENCE, "dt", stamps)).days == profile.days


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda rows: rows.drop_columns("dt"), "its reference has no column dt; write the bundle with the day"),
        (lambda rows: rows.slice(0, 27 * 60), "has 27 days; expected at least 28"),
        (lambda rows: reference_rows(count=29), r"has 29 rows a day \(median\); expected at least 30"),
        (
            lambda rows: with_column(rows, "dt", rows["n"]),
            "dt is int64, not the day",
        ),
        (lambda rows: with_column(rows, "dt", pa.array(["yesterday"] * len(rows))), "dt is string, not the day"),
        (lambda rows: where(rows, on("2024-01-10"), "dt", None), "60 of 5460 rows have no day in dt"),
    ],
)
def test_a_reference_that_cannot_be_learned_from_is_refused_with_the_reason(
    learn: Callable[..., ReferenceProfile], change: Callable[[pa.Table], pa.Table], says: str
) -> None:
    with pytest.raises((CalibrationError, BundleError), match=says):
        learn(change(REFERENCE))


def test_a_reference_without_a_feature_is_refused_by_its_name(project: TinyProject) -> None:
    project.deliver("learned", reference=REFERENCE, calibrated=False, promote=False)
    bundle = delivered(project, "learned")
    features = dict.fromkeys(("x", "y", "gone"))
    manifest = bundle.manifest.model_copy(update={"numeric": tuple(features)})
    object.__setattr__(bundle, "manifest", manifest)
    with pytest.raises(CalibrationError, match="its reference has no column gone; write the bundle with all of them"):
        calibrate(bundle, ())


def test_a_column_of_another_kind_is_refused_by_its_name() -> None:
    days = pa.chunked_array([[date(2024, 1, 1)] * 3])
    with pytest.raises(CalibrationError, match=r"column when is date32.*, not numeric"):
        ColumnDays.of("when", "numeric", days, [np.arange(3)])
