"""A day's landing files are pinned by version, or a check says why not."""

import os
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.monitoring.checks.input_checks import CHECKS
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, checks, error_of

RAW = ["raw_input"]


def pinned_paths(tiny: TinyProject, day: str = DAY) -> list[str]:
    return [file.path for file in tiny.state.day_input(day).files]


def test_the_days_files_are_pinned_by_version_with_what_they_hold(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.land(DAY, b"id,x,y,n,c\nk,1,1,1,red\nragged\n", "sub/b.csv")
    tiny.land(DAY, b"", "_SUCCESS")
    tiny.land(NEXT_DAY, tiny.rows(3))
    result = tiny.run(steps=RAW)
    assert checks(result) == dict.fromkeys((f"raw_input/{check}" for check in CHECKS), True)
    pinned = tiny.state.day_input(DAY)
    assert [(file.path, file.rows, list(file.columns)) for file in pinned.files] == [
        (f"dt={DAY}/a.parquet", 10, ["id", "x", "y", "n", "c"]),
        (f"dt={DAY}/sub/b.csv", 2, ["id", "x", "y", "n", "c"]),
    ]
    assert pinned.rows == 12
    listed = {file.path: file for file in tiny.pipeline.landing.list()}
    assert all(
        (f.token, f.size, f.modified) == (listed[f.path].token, listed[f.path].size, listed[f.path].modified)
        for f in pinned.files
    )
    assert pinned.run_id == result.run_id


def test_the_fingerprint_is_the_data_version_and_follows_the_files(tiny: TinyProject) -> None:
    def version(instance: dg.DagsterInstance) -> str | None:
        tiny.run(steps=RAW, instance=instance)
        event = instance.get_latest_materialization_event(dg.AssetKey([tiny.name, "raw_input"]))
        assert event and event.asset_materialization and event.asset_materialization.tags
        return event.asset_materialization.tags["dagster/data_version"]

    with dg.DagsterInstance.ephemeral() as instance:
        tiny.land(DAY, tiny.rows(10))
        first = version(instance)
        assert first == tiny.state.day_input(DAY).fingerprint
        assert version(instance) == first
        tiny.land(DAY, tiny.rows(10), "b.parquet")
        assert version(instance) not in (None, first)


def test_an_operator_sees_files_rows_bytes_and_place(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    [event] = tiny.run(steps=RAW).get_asset_materialization_events()
    metadata = event.materialization.metadata
    assert metadata["rows"].value == metadata["dagster/partition_row_count"].value == 10
    assert metadata["dagster/uri"].value == f"{tiny.pipeline.landing.uri}/dt={DAY}/"
    assert metadata["dagster/size_bytes"].value == tiny.state.day_input(DAY).files[0].size
    assert event.partition == DAY


def test_no_files_and_no_rows_fail_input_is_present_and_pin_nothing(tiny: TinyProject) -> None:
    place = f"{tiny.pipeline.landing.uri}/dt={DAY}/; upload the day's files there, or set input.landing in the spec"
    result = tiny.run(steps=RAW, raise_on_error=False)
    assert error_of(result) == f"input_is_present: no files in {place}"
    tiny.land(DAY, tiny.rows(0))
    tiny.land(DAY, b"id,x\n", "b.csv")
    result = tiny.run(steps=RAW, raise_on_error=False)
    assert error_of(result) == f"input_is_present: 2 files with 0 rows in {place}"
    assert {check for check, passed in checks(result).items() if not passed} == {"raw_input/input_is_present"}
    assert not tiny.pipeline.output.list(f"state/dt={DAY}/input.json")


def test_a_folder_that_means_the_day_is_named(tiny: TinyProject) -> None:
    landing = Path(tiny.pipeline.landing.uri)
    for name in ("dt=2024-3-4", DAY, "dt=2024-02-01", "notes"):
        (landing / name).mkdir(parents=True)
    there = f"there is {DAY}/, dt=2024-3-4/: rename it to dt={DAY}/"
    message = error_of(tiny.run(steps=RAW, raise_on_error=False))
    assert message == f"input_is_present: no files in {landing}/dt={DAY}/; {there}"


def test_a_file_without_rows_beside_others_is_input(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(0))
    tiny.land(DAY, tiny.rows(5), "b.parquet")
    assert all(checks(tiny.run()).values())
    assert tiny.read().num_rows == 5


def test_every_unreadable_file_is_named_in_one_failed_check_and_nothing_is_pinned(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.run(steps=RAW)
    before = tiny.state.day_input(DAY)
    tiny.land(DAY, b"PAR1", "b.parquet")
    tiny.land(DAY, b"hello", "c.txt")
    with dg.DagsterInstance.ephemeral() as instance:
        result = tiny.run(raise_on_error=False, instance=instance)
        key = dg.AssetCheckKey(dg.AssetKey([tiny.name, "raw_input"]), "input_is_complete")
        [record] = instance.event_log_storage.get_asset_check_execution_history(key, limit=5)
        assert (record.status.value, record.partition) == ("FAILED", DAY)
    message = error_of(result)
    assert message.startswith("input_is_complete: ")
    assert all(f"dt={DAY}/{name}" in message for name in ("b.parquet", "c.txt"))
    assert "a.parquet" not in message
    assert tiny.state.day_input(DAY) == before
    assert not result.get_asset_materialization_events()[1:], "only the model: downstream is skipped"


def test_a_day_that_the_pipeline_does_not_have_is_refused(tiny: TinyProject) -> None:
    for day in ("1999-12-31", "2024-02-30", "../../etc"):
        with pytest.raises(dg.DagsterUnknownPartitionError, match=day):
            tiny.run(day)
    assert not Path(tiny.data_root, tiny.name, "tables").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize("what", ["a.parquet", "sub"])
def test_what_may_not_be_read_is_a_failed_check_and_never_left_out(tiny: TinyProject, what: str) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.land(DAY, tiny.rows(10, start=10), "sub/b.parquet")
    place = Path(tiny.pipeline.landing.uri, f"dt={DAY}", what)
    place.chmod(0)
    try:
        result = tiny.run(steps=RAW, raise_on_error=False)
        assert checks(result)["raw_input/input_is_complete"] is False
        assert what in error_of(result) and "grant this process read access" in error_of(result)
    finally:
        place.chmod(0o755)


def test_a_file_whose_name_would_separate_folders_elsewhere_is_a_failed_check(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(10))
    tiny.land(DAY, tiny.rows(10, start=10))
    Path(tiny.pipeline.landing.uri, f"dt={DAY}", "b\\c.parquet").write_bytes(b"PAR1")
    result = tiny.run(steps=RAW, raise_on_error=False)
    assert checks(result)["raw_input/input_is_complete"] is False
    assert f"dt={DAY}/b\\c.parquet: its name has a backslash" in error_of(result)
