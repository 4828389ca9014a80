import dagster as dg
import pytest

from batch_scoring.defs.metadata import asset_key, asset_options, days, ui_table
from batch_scoring_tests.tiny import TinyProject


def test_a_day_begins_in_the_zone_of_the_spec_and_today_is_one(tiny: TinyProject) -> None:
    tiny.spec["partitions"] = {"start": "2024-03-01", "timezone": "America/New_York"}
    tiny.write_spec()
    partitions = days(tiny.pipeline)
    assert (partitions.get_first_partition_key(), partitions.timezone) == ("2024-03-01", "America/New_York")
    assert partitions.end_offset == 1


def test_an_asset_belongs_to_its_pipeline_and_its_owners(tiny: TinyProject) -> None:
    assert asset_key(tiny.pipeline, "model").to_user_string() == f"{tiny.name}/model"
    assert asset_options(tiny.pipeline, "model", {"pytorch"})["owners"] is None
    tiny.spec["owners"] = ["team:risk"]
    tiny.write_spec()
    options = asset_options(tiny.pipeline, "model", {"pytorch"})
    assert (options["group_name"], options["owners"], options["kinds"]) == (tiny.name, ["team:risk"], {"pytorch"})


@pytest.mark.parametrize(("cell", "shown"), [("a\x1b[31mb\n", "a\\u001b[31mb\\u000a"), (1.5, 1.5), (None, None)])
def test_texts_of_files_are_shown_escaped(cell: str | float | None, shown: object) -> None:
    assert ui_table([{"value": cell}]).records == [dg.TableRecord({"value": shown})]  # type: ignore[dict-item]
