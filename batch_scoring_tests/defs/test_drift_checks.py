"""The drift step: it runs the selected checks, and no error in it fails a run."""

from pathlib import Path

import dagster as dg
import pytest

from batch_scoring_tests.drift_days import FEATURES, PREDICTIONS, calibrated, said
from batch_scoring_tests.tiny import DAY, TinyProject, checks, ordinary


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    return calibrated(tmp_path_factory.mktemp("project"))


def test_a_damaged_reference_is_a_failed_result_and_the_night_goes_on(tiny: TinyProject) -> None:
    tiny.run(steps=["model"])
    Path(tiny.state.models.uri, tiny.state.model().sha256, "reference.parquet").write_bytes(b"PAR1")
    tiny.land(DAY, tiny.rows(64))
    result = tiny.run(steps=["raw_input", "validated_features"])
    assert result.success
    assert not said(result).passed and said(result).severity == dg.AssetCheckSeverity.WARN
    assert said(result).description.startswith("the comparison failed: BundleError: ")
    assert "reference.parquet has sha256" in said(result).description
    assert said(result).description.endswith("; the scores are not affected")


def test_whatever_is_raised_fails_both_results_and_not_the_run(project: TinyProject) -> None:
    day = "2024-08-07"
    Path(project.pipeline.output.uri, f"state/dt={day}/sample.parquet").mkdir(parents=True)
    project.land(day, ordinary(day))
    result = project.run(day)
    assert result.success and project.read(day).num_rows == 60
    for check in (FEATURES, PREDICTIONS):
        assert not said(result, check).passed and said(result, check).severity == dg.AssetCheckSeverity.WARN
        assert said(result, check).description.startswith("the comparison failed: ")


def test_validated_features_alone_runs_its_own_check_only(project: TinyProject) -> None:
    day = "2024-08-05"
    project.land(day, ordinary(day))
    project.run(day, ["raw_input"])
    ran = checks(project.run(day, ["validated_features"]))
    assert ran[f"validated_features/{FEATURES}"] and f"predictions/{PREDICTIONS}" not in ran
    ran = checks(project.run(day, ["predictions"]))
    assert ran[f"predictions/{PREDICTIONS}"] and f"validated_features/{FEATURES}" not in ran
    kept = project.state.drift(day)
    assert kept is not None and len(kept.features) == 11, "what the first run has said stands"
