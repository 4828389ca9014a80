"""The active model is a verified copy; a version is one model, and of the features that the spec names."""

from pathlib import Path

import pytest

from batch_scoring.inference.heads.vector import Vector
from batch_scoring_tests.broken_bundles import change_manifest
from batch_scoring_tests.tiny import DAY, SCHEMA, TinyProject, checks, error_of


def test_the_bundle_of_the_spec_comes_in_force_as_a_copy(tiny: TinyProject) -> None:
    result = tiny.run(steps=["model"])
    assert checks(result) == dict.fromkeys(
        ["model/bundle_is_intact", "model/golden_rows_agree", "model/metrics_meet_threshold", "model/days_are_current"],
        True,
    )
    in_force = tiny.state.model()
    assert (in_force.version, in_force.source) == ("v1", tiny.pipeline.bundle.uri)
    copy = tiny.state.models.subfolder(in_force.sha256)
    for file in tiny.pipeline.bundle.list():
        assert copy.read(file.path) == tiny.pipeline.bundle.read(file.path)


def test_a_model_that_is_in_force_already_stays_as_it_is(tiny: TinyProject) -> None:
    tiny.run(steps=["model"])
    before = tiny.state.model(), [file for file in tiny.state.models.list()]
    tiny.run(steps=["model"])
    assert (tiny.state.model(), tiny.state.models.list()) == before


def test_a_damaged_copy_is_replaced_from_the_delivery(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    file = Path(tiny.state.models.uri, tiny.state.model().sha256, "model.safetensors")
    file.write_bytes(b"x" * file.stat().st_size)
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert str(file) in error_of(result) and "has sha256" in error_of(result)
    tiny.run()
    assert tiny.read().num_rows == 100


def test_a_version_is_one_model_for_ever(tiny: TinyProject) -> None:
    first = tiny.deliver("v1")
    tiny.run(steps=["model"])
    second = tiny.deliver("v1", seed=1)
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert not checks(result)["model/bundle_is_intact"]
    assert "version v1 was active before with other content" in error_of(result)
    assert first[:12] in error_of(result) and second[:12] in error_of(result)
    assert "give the new model a new version" in error_of(result)
    assert tiny.state.model().sha256 == first


def test_a_version_of_long_ago_is_not_given_to_another_model(tiny: TinyProject) -> None:
    tiny.run(steps=["model"])
    second = tiny.deliver("v2", seed=1)
    tiny.run(steps=["model"])
    tiny.deliver("v1", seed=2)
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert "version v1 was active before with other content" in error_of(result)
    assert tiny.state.model().sha256 == second


def test_a_bundle_that_needs_a_feature_the_spec_lacks_is_refused(tiny: TinyProject) -> None:
    tiny.run(steps=["model"])
    tiny.write_code(SCHEMA.replace("    c: str", "    z: float\n    c: str"))
    tiny.spec["features"]["numeric"] = ["x", "y", "n", "z"]
    tiny.deliver("v2")
    tiny.spec["features"]["numeric"] = ["x", "y", "n"]
    tiny.write_spec()
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert not checks(result)["model/bundle_is_intact"]
    assert "v2 needs the numeric features z, which features.numeric of the spec does not name" in error_of(result)
    assert tiny.state.model().version == "v1"


def test_a_bundle_that_needs_a_category_the_spec_lacks_is_refused(tiny: TinyProject) -> None:
    tiny.spec["features"]["categorical"] = []
    tiny.write_spec()
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert "needs the categorical features c, which features.categorical of the spec does not name" in error_of(result)
    assert tiny.state.model_or_none() is None


@pytest.mark.parametrize("version", ["v0", "v1"])
def test_a_model_of_before_that_would_be_refused_today_keeps_no_other_one_out(tiny: TinyProject, version: str) -> None:
    """Its copy in the state is read for its version alone, which still counts."""
    folder = Path(tiny.state.models.uri, "0" * 64)
    folder.mkdir(parents=True)
    (folder / "bundle.json").write_bytes(tiny.pipeline.bundle.read("bundle.json"))
    change_manifest(folder, lambda m: {**m, "version": version, "classes": ["one"], "metrics": {"auc": float("nan")}})
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert result.success == (version == "v0")
    if version == "v1":
        assert "version v1 was active before with other content (sha256 000000000000…" in error_of(result)


def test_a_model_whose_columns_the_spec_uses_itself_is_refused(tiny: TinyProject) -> None:
    tiny.write_code(schema=SCHEMA + "    norm: float\n", network=None)
    tiny.spec["input"]["attributes"] = ["norm"]
    tiny.deliver("v1", task=Vector(size=3))
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert not checks(result)["model/bundle_is_intact"]
    assert "adds the column norm to the predictions, which the spec uses itself" in error_of(result)
