"""A day's sample is bounded, the same however the day was cut, spread over all of it, and another one the next day."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from batch_scoring.daily.tables import features_table
from batch_scoring.monitoring.drift import samples
from batch_scoring.monitoring.drift.samples import Sample, in_proportion
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """Two days of the same 2000 keys."""
    tiny = TinyProject(tmp_path_factory.mktemp("project"))
    for day in (DAY, NEXT_DAY):
        scored(tiny, day)
    return tiny


def scored(tiny: TinyProject, day: str = DAY, rows: pa.Table | None = None) -> None:
    tiny.land(day, tiny.rows(2000) if rows is None else rows)
    tiny.run(day)


def taken(tiny: TinyProject, rows: int, day: str = DAY) -> Sample:
    return samples.take(
        tiny.pipeline, tiny.published_day("validated_features", day), tiny.published_day("predictions", day), rows
    )


def keys_of(sample: Sample) -> list[str]:
    return sample.rows["id"].to_pylist()


# the rows


def test_a_sample_is_the_same_whatever_the_shards_and_the_files(tiny: TinyProject) -> None:
    scored(tiny)
    whole = taken(tiny, 100)
    tiny.spec["scoring"].update(rows_per_shard=143, batch_rows=64)
    tiny.write_spec()
    tiny.run()
    assert len(tiny.published_day("predictions").shards) == 14
    assert taken(tiny, 100).rows.equals(whole.rows)
    tiny.land(DAY, tiny.rows(900), "a.parquet")
    tiny.land(DAY, tiny.rows(1100, start=900), "b.parquet")
    tiny.run()
    assert taken(tiny, 100).rows.equals(whole.rows)


def test_a_sample_is_bounded_and_its_beginning_is_the_smaller_sample(large: TinyProject) -> None:
    many, few = taken(large, 500), taken(large, 100)
    assert (many.rows.num_rows, few.rows.num_rows, many.of) == (500, 100, 2000)
    assert many.rows.slice(0, 100).equals(few.rows)


def test_all_rows_of_a_small_day_are_its_sample(tiny: TinyProject) -> None:
    scored(tiny, rows=tiny.rows(40))
    sample = taken(tiny, 100)
    assert sorted(keys_of(sample)) == tiny.rows(40)["id"].to_pylist()
    assert sample.rows.column_names == [
        "id",
        "x",
        "y",
        "n",
        "c",
        "prediction_proba",
        "prob_class_0",
        "prob_class_1",
    ]


def test_a_sample_is_spread_evenly_over_the_day(large: TinyProject) -> None:
    places = np.sort([int(key[1:]) for key in keys_of(taken(large, 500))])
    share = np.searchsorted(places, np.arange(2000)) / 500
    assert np.abs(share - np.arange(2000) / 2000).max() < 1.63 / np.sqrt(500), "Kolmogorov and Smirnov at 1 %"
    assert np.bincount(places // 200).min() > 25, "50 are expected of each tenth"


def test_keys_that_are_there_every_day_are_others_in_the_next_days_sample(large: TinyProject) -> None:
    both = set(keys_of(taken(large, 200))) & set(keys_of(taken(large, 200, NEXT_DAY)))
    assert len(both) < 50, "200 of 2000, twice: 20 by chance"


def test_a_samples_rows_are_those_of_the_tables(large: TinyProject) -> None:
    sample = taken(large, 100).rows
    for table in ("validated_features", "predictions"):
        there = large.read(DAY, table)
        there = there.filter(pc.is_in(there["id"], sample["id"].combine_chunks()))
        mine = sample.sort_by("id").select([name for name in sample.column_names if name in there.column_names])
        assert mine.to_pylist() == there.select(mine.column_names).to_pylist()


def test_a_row_that_the_model_could_not_score_is_in_the_sample_without_scores(tiny: TinyProject) -> None:
    rows = tiny.rows(400)
    odd = pc.is_in(rows["id"], pa.array([f"k{number:07d}" for number in range(0, 400, 4)]))
    scored(tiny, rows=rows.set_column(1, "x", pc.if_else(odd, 555.0, rows["x"])))
    assert tiny.published_day("predictions").rows_quarantined == 100
    sample = taken(tiny, 200)
    assert sample.rows.num_rows == 200
    unscored = pc.equal(sample.rows["x"], 555.0)
    assert pc.is_null(sample.rows["prob_class_1"]).equals(unscored) and 20 < pc.sum(unscored).as_py() < 80


def test_a_day_without_scores_has_a_sample_of_its_features(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(40))
    tiny.run(steps=["raw_input", "validated_features"])
    sample = samples.take(tiny.pipeline, tiny.published_day("validated_features"), None, 100)
    assert sample.rows.column_names == ["id", "x", "y", "n", "c"] and sample.model_sha256 == ""


def test_whole_numbers_may_be_keys(tiny: TinyProject) -> None:
    tiny.write_code(Path(tiny.folder, "schema.py").read_text().replace("id: str", "id: int"))
    scored(tiny, rows=tiny.rows(400).set_column(0, "id", pa.array(range(400))))
    assert len(set(keys_of(taken(tiny, 100)))) == 100


def test_a_sample_holds_the_beginning_of_a_long_word(tiny: TinyProject) -> None:
    words = pa.array(["x" * 5_000, None, "red"] * 5)
    scored(tiny, rows=tiny.rows(15).set_column(4, "c", words))
    assert set(taken(tiny, 100).rows["c"].to_pylist()) == {"x" * 1_000, None, "red"}


# what is kept


def test_a_sample_that_is_kept_comes_back(large: TinyProject) -> None:
    sample = taken(large, 100)
    samples.put(large.pipeline.output, sample)
    kept = samples.get(large.pipeline.output, DAY)
    assert kept is not None and kept.rows.replace_schema_metadata(None).equals(sample.rows)
    assert (kept.day, kept.of, kept.model_sha256) == (DAY, 2000, large.state.model().sha256)


@pytest.mark.parametrize("damage", [b"", b"PAR1 no longer PAR1", None])
def test_a_sample_that_is_damaged_is_none(tiny: TinyProject, damage: bytes | None) -> None:
    scored(tiny, rows=tiny.rows(40))
    samples.put(tiny.pipeline.output, taken(tiny, 100))
    content = Path(features_table(tiny.pipeline).folder.uri, tiny.published_day("validated_features").table.files[0])
    tiny.pipeline.output.put(f"state/dt={DAY}/sample.parquet", content.read_bytes() if damage is None else damage)
    assert samples.get(tiny.pipeline.output, DAY) is None
    assert samples.before(tiny.pipeline.output, [DAY, NEXT_DAY]) == []


# several days


def of_day(number: int, rows: int, of: int) -> Sample:
    table = pa.table({"x": pa.array([number] * rows, pa.int64())})
    return Sample(f"2024-03-0{number}", table, of, "")


@pytest.mark.parametrize(
    ("days", "most", "expected"),
    [
        ([(100, 100), (50, 50)], 1000, [100, 50]),  # all there is
        ([(100, 100), (50, 50)], 75, [50, 25]),  # bounded
        ([(100, 1000), (100, 100)], 1000, [100, 10]),  # of the first day no more than a tenth is known
        ([(100, 100_000), (100, 100)], 1000, [100, 1]),  # a small day keeps a row
        ([(100, 100), (0, 0)], 1000, [100]),
    ],
)
def test_days_are_there_in_proportion_to_their_rows(
    days: list[tuple[int, int]], most: int, expected: list[int]
) -> None:
    rows = in_proportion([of_day(number, *day) for number, day in enumerate(days, 1)], ["x"], most)
    assert np.bincount(rows["x"].to_numpy())[1:].tolist() == expected


def test_no_days_are_no_rows() -> None:
    assert in_proportion([], ["x", "y"], 100).num_rows == 0
    assert in_proportion([], ["x", "y"], 100).column_names == ["x", "y"]


def test_a_column_whose_type_was_widened_is_one_column() -> None:
    other = Sample("2024-03-02", pa.table({"x": [0.5]}), 1, "")
    assert in_proportion([of_day(1, 2, 2), other], ["x"], 100)["x"].to_pylist() == [1.0, 1.0, 0.5]


def test_a_day_with_ten_times_the_rows_counts_for_two() -> None:
    days = [Sample(str(day), pa.table({"x": [float(day)] * 100}), 100, "") for day in range(27)]
    days.append(Sample("27", pa.table({"x": [27.0] * 1000}), 1000, ""))
    drawn = samples.in_proportion(days, ["x"], 20_000)["x"].to_numpy()
    assert (drawn == 27.0).sum() == 200 and len(drawn) == 27 * 100 + 200
