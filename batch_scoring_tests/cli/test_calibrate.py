"""The subcommand `calibrate` on a pipeline whose reference has thirty days."""

from pathlib import Path

import pytest

from batch_scoring.cli.main import main
from batch_scoring.config import loader as pipelines
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import Bundle, read_bundle, read_description
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.tiny import DAY, TinyProject, reference_rows


def delivered(project: TinyProject, version: str) -> Bundle:
    return read_bundle(open_folder(f"{project.data_root}/{project.name}/models/{version}"))


@pytest.fixture
def deployed(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """A pipeline where the command looks for it, with a reference of thirty days and no profile yet."""
    monkeypatch.setattr(pipelines, "PIPELINES", tiny.packages)
    monkeypatch.setattr(pipelines.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    tiny.deliver("v1", reference=reference_rows(days=30), calibrated=False)
    return tiny


def test_the_command_writes_the_profile_and_says_what_to_expect(
    deployed: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["calibrate", deployed.name]) == 0
    said = capsys.readouterr().out
    assert "reference: 30 days, 2023-11-27 to 2023-12-26, 60 rows a day; all days are compared together" in said
    assert "false alarms of single days a month; no test of the trailing 28 days: it takes 84 reference days" in said
    assert f"written: {deployed.pipeline.bundle.uri} (version v1, sha256 " in said
    bundle = read_bundle(deployed.pipeline.bundle)
    assert bundle.profile == calibrate(bundle, ())
    deployed.land(DAY, deployed.rows(64))
    assert deployed.run().success
    assert main(["calibrate", deployed.name]) == 0, "in force with this very profile"
    assert "has this profile already" in capsys.readouterr().out


def test_a_dry_run_writes_nothing(deployed: TinyProject, capsys: pytest.CaptureFixture[str]) -> None:
    before = read_bundle(deployed.pipeline.bundle)
    assert main(["calibrate", deployed.name, "--dry-run"]) == 0
    assert "written" not in capsys.readouterr().out
    assert read_bundle(deployed.pipeline.bundle).sha256 == before.sha256


def test_a_version_that_was_in_force_without_the_profile_gets_another_name(
    deployed: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.run(steps=["model"])
    before = read_bundle(deployed.pipeline.bundle)
    assert main(["calibrate", deployed.name]) == 2
    assert "version v1 was active before with other content" in (said := capsys.readouterr().err)
    assert "for example with --version v1-calibrated" in said
    assert read_bundle(deployed.pipeline.bundle).sha256 == before.sha256
    assert main(["calibrate", deployed.name, "--version", "v1-calibrated"]) == 0
    assert "name it in model.bundle" in capsys.readouterr().out
    copy = delivered(deployed, "v1-calibrated")
    assert copy.profile and copy.manifest.version == "v1-calibrated"
    assert read_bundle(deployed.pipeline.bundle).sha256 == before.sha256
    deployed.spec["model"]["bundle"] = f"{deployed.name}/models/v1-calibrated"
    deployed.write_spec()
    assert deployed.run(steps=["model"]).success


def test_another_models_folder_is_not_written_over(deployed: TinyProject, capsys: pytest.CaptureFixture[str]) -> None:
    other = deployed.deliver("v2", seed=1, promote=False)
    assert main(["calibrate", deployed.name, "--version", "v2"]) == 2
    assert "holds another model, version v2; choose another --version" in capsys.readouterr().err
    assert delivered(deployed, "v2").sha256 == other


def test_a_profile_may_be_learned_anew_before_it_is_in_force(deployed: TinyProject) -> None:
    for grain in ([], ["y"]):
        deployed.spec["features"]["day_grain"] = grain
        deployed.write_spec()
        assert main(["calibrate", deployed.name, "--version", "v1-calibrated"]) == 0
    profile = delivered(deployed, "v1-calibrated").profile
    assert profile and profile.columns["y"].grain == "day"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["elsewhere"], "batch-scoring: no pipeline 'elsewhere'; known pipelines: tiny_"),
        (["NAME", "--bundle", "/nowhere"], "there is no bundle.json; expected a bundle folder"),
    ],
)
def test_what_is_not_there_is_said_in_one_line(
    deployed: TinyProject, arguments: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [deployed.name if word == "NAME" else word for word in arguments]
    assert main(["calibrate", *named]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_a_profile_that_the_manifest_names_and_that_is_not_there_is_said_so(deployed: TinyProject) -> None:
    assert main(["calibrate", deployed.name]) == 0
    Path(deployed.pipeline.bundle.uri, "profile.json").unlink()
    with pytest.raises(BundleError, match=r"profile\.json is missing; bundle\.json says that it belongs to the bundle"):
        read_description(deployed.pipeline.bundle)


def test_a_bundle_that_nothing_can_be_learned_from_is_left_as_it_is(
    deployed: TinyProject, capsys: pytest.CaptureFixture[str]
) -> None:
    deployed.deliver("v1")
    assert main(["calibrate", deployed.name]) == 2
    assert "its reference has no column dt" in capsys.readouterr().err
    assert read_bundle(deployed.pipeline.bundle).profile is None
