import pytest

from batch_scoring.config.names import DAILY_ASSETS
from batch_scoring_tests.tiny import TinyProject


@pytest.mark.parametrize(
    ("job", "assets"),
    [("score", set(DAILY_ASSETS)), ("report", {"report"}), ("retain", {"retention"})],
)
def test_a_job_materialises_these_assets(tiny: TinyProject, job: str, assets: set[str]) -> None:
    found = tiny.definitions.resolve_job_def(f"{job}_{tiny.name}")
    assert {key.path[-1] for key in found.asset_layer.executable_asset_keys} == assets


def test_the_daily_job_has_the_limits_of_the_spec(tiny: TinyProject) -> None:
    tiny.spec["runs"] = {"max_hours": 1.5, "retries": 4}
    tiny.write_spec()
    tags = tiny.definitions.resolve_job_def(f"score_{tiny.name}").tags
    assert (tags["dagster/max_runtime"], tags["dagster/max_retries"]) == ("5400", "4")
