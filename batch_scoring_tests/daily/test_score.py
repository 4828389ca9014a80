"""What a day is scored from: features and a model that belong together, and still do when the day is published."""

import shutil
from collections.abc import Callable
from pathlib import Path

import dagster as dg
import pytest
from deltalake import DeltaTable

from batch_scoring.daily.publish import DayStep
from batch_scoring.daily.score import check_current, read_source
from batch_scoring.daily.tables import features_table
from batch_scoring.errors import SupersededError
from batch_scoring_tests.tiny import DAY, SCHEMA, TinyProject, error_of

# what must have run before


@pytest.mark.parametrize(
    ("ran", "step", "says"),
    [
        ([], "validated_features", "has no pinned input in"),
        ([], "predictions", "has no pinned input in"),
        (["model"], "predictions", "run raw_input for this day first"),
        (["raw_input"], "predictions", "no model is active in"),
        (["raw_input"], "predictions", "run the asset model first"),
        (["model", "raw_input"], "predictions", f"has no validated features of {DAY}; run "),
        (["model", "raw_input"], "predictions", f"/validated_features for {DAY} first"),
    ],
)
def test_a_missing_prerequisite_names_the_asset_to_run_first(
    tiny: TinyProject, ran: list[str], step: str, says: str
) -> None:
    tiny.land(DAY, tiny.rows(64))
    for done in ran:
        tiny.run(steps=[done])
    result = tiny.run(steps=[step], raise_on_error=False)
    assert says in error_of(result)
    assert "\n" not in error_of(result).strip()


def test_each_asset_alone_works_from_storage_with_an_empty_instance(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    for step in ("raw_input", "model", "validated_features", "predictions"):
        with dg.DagsterInstance.ephemeral() as instance:
            assert tiny.run(steps=[step], instance=instance).success
    assert tiny.read().num_rows == 64


def test_features_of_older_input_are_not_scored_under_the_new_label(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.land(DAY, tiny.rows(65))
    tiny.run(steps=["raw_input"])
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert "come from other files than raw_input has pinned" in error_of(result)
    assert f"run {tiny.name}/validated_features for {DAY} first" in error_of(result)


def delete_a_file_of_the_features(tiny: TinyProject) -> None:
    DayStep(tiny.pipeline, DAY, "validated_features").table.table.load().delete(f"dt = '{DAY}'")


def compact_the_features(tiny: TinyProject) -> None:
    DayStep(tiny.pipeline, DAY, "validated_features").table.table.load().optimize.compact()


def restore_the_features(tiny: TinyProject) -> None:
    DayStep(tiny.pipeline, DAY, "validated_features").table.table.load().restore(1)


@pytest.mark.parametrize("meddle", [delete_a_file_of_the_features, compact_the_features, restore_the_features])
def test_a_features_table_that_somebody_changed_is_to_be_validated_again(
    tiny: TinyProject, meddle: Callable[[TinyProject], None]
) -> None:
    tiny.land(DAY, tiny.rows(64), "a.parquet")
    tiny.run(steps=["model", "raw_input", "validated_features"])
    tiny.land(DAY, tiny.rows(64, start=64), "b.parquet")
    tiny.run(steps=["raw_input", "validated_features"])
    meddle(tiny)
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert f"the features table of {tiny.name} no longer holds {DAY} as it was validated" in error_of(result)
    assert f"run {tiny.name}/validated_features for {DAY} first" in error_of(result)
    assert tiny.state.published_day("predictions", DAY) is None
    tiny.run(steps=["validated_features"])
    tiny.run(steps=["predictions"])
    assert tiny.read()["id"].to_pylist() == tiny.rows(128)["id"].to_pylist()


def test_a_damaged_feature_shard_is_no_score(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    stats = tiny.published_day("validated_features")
    folder = DayStep(tiny.pipeline, DAY, "validated_features").table.table.folder
    Path(folder.uri, stats.table.files[0]).write_bytes(b"PAR1 no longer PAR1")
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert not result.success and tiny.state.published_day("predictions", DAY) is None


def test_landing_files_may_be_archived_before_the_day_is_scored(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAY}"))
    assert tiny.run(steps=["predictions"]).success
    assert tiny.read().num_rows == 64


def test_a_file_that_came_after_validation_ends_the_run_as_superseded(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    tiny.land(DAY, tiny.rows(64, start=64), "late.parquet")
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert f"superseded: the files of {tiny.name} {DAY} have changed" in error_of(result)
    assert "run the day again" in error_of(result)
    assert tiny.state.published_day("predictions", DAY) is None


# what others do meanwhile


def test_scores_of_features_that_were_validated_anew_meanwhile_are_not_published(tiny: TinyProject) -> None:
    """A run scores; a stricter schema is deployed and another run publishes; the first one must not come on top."""
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    step = DayStep(tiny.pipeline, DAY, "predictions")
    source = read_source(step)
    tiny.write_code(SCHEMA.replace("x: float = pa.Field(ge=-1000", "x: float = pa.Field(ge=0"))
    tiny.run()
    newest = tiny.read()
    assert 0 < newest.num_rows < 100
    with pytest.raises(SupersededError, match="the features were validated again, with another result"):
        check_current(step, source)
    assert tiny.read().equals(newest)


def test_features_that_were_validated_again_with_the_same_result_supersede_nothing(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    step = DayStep(tiny.pipeline, DAY, "predictions")
    source = read_source(step)
    DeltaTable(features_table(tiny.pipeline).folder.uri).delete()
    tiny.run(steps=["validated_features"])
    assert tiny.published_day("validated_features").table != source.features.table
    check_current(step, source)


def test_features_of_an_old_schema_are_not_scored(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    tiny.write_code(SCHEMA + "# stricter\n")
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert "come from another schema or other settings; run" in error_of(result)
