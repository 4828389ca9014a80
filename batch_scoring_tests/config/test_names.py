import dagster as dg
import pytest

from batch_scoring.config.names import broken_name, daily_assets, rescored
from batch_scoring_tests.decided import with_decisions
from batch_scoring_tests.tiny import TinyProject


def test_a_broken_pipeline_is_named_after_its_folder() -> None:
    assert broken_name("customer_churn") == "customer_churn_is_broken"


@pytest.mark.parametrize("folder", ["Customer Churn", "churn-2", "größe", "\udcff"])
def test_whatever_its_folder_is_called_dagster_accepts_the_name_and_folders_do_not_share_one(folder: str) -> None:
    name = broken_name(folder)
    assert dg.GraphDefinition(name=name, node_defs=[]).name == name
    assert name != broken_name(f"{folder}-")


def test_decisions_are_made_on_the_days_of_pipelines_that_have_them(tiny: TinyProject) -> None:
    without = tiny.pipeline
    assert daily_assets(without) == ("model", "raw_input", "validated_features", "predictions")
    assert rescored(without) == ("model", "predictions")
    decided = with_decisions(tiny).pipeline
    assert daily_assets(decided) == (*daily_assets(without), "decisions")
    assert rescored(decided) == ("model", "predictions", "decisions")
