"""A model comes in force verified or not at all; what is scored while that happens is never a mix."""

import hashlib
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pyarrow.compute as pc
import pytest
import torch

from batch_scoring.daily import score
from batch_scoring.daily.publish import DayStep
from batch_scoring.defs.assets.model import Delivered, metrics, ranges
from batch_scoring.errors import BundleError, SpecError, SupersededError
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.operations.failures import TAG
from batch_scoring.storage.state import ModelInForce
from batch_scoring_tests.broken_bundles import FAULTS, PROOF, change_manifest
from batch_scoring_tests.tiny import DAY, NEXT_DAY, SCHEMA, TinyProject, checks, error_of, run_of_test

CALL = 777.0
"""The value of x at which a network of `calling` makes its call; it stands in no golden row."""


def calling(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, call: Callable[[], object]) -> list[object]:
    """Let the network do something once, in the middle of scoring a day; what it returned is appended to the list."""
    network = tiny.pipeline.load("network:Net")
    forward, answers = network.forward, []

    def hooked(self: torch.nn.Module, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        if not answers and (numeric[:, 0] == CALL).any():
            answers.append(None)
            answers[0] = call()
        return forward(self, numeric, categorical)

    monkeypatch.setattr(network, "forward", hooked)
    return answers


def land_with_a_call(tiny: TinyProject, day: str = DAY) -> None:
    rows = tiny.rows(100)
    tiny.land(day, rows.set_column(1, "x", pc.if_else(pc.equal(rows["id"], "k0000050"), CALL, rows["x"])))


def versions(tiny: TinyProject, day: str = DAY) -> set[str]:
    return set(tiny.read(day)["model_version"].to_pylist())


def findings(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    return next(e for e in result.get_asset_check_evaluations() if e.check_name == name)


# coming in force


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


def test_the_models_data_version_is_its_sha256(tiny: TinyProject) -> None:
    result = tiny.run(steps=["model"])
    tags = result.asset_materializations_for_node(f"{tiny.name}__model")[0].tags or {}
    assert tags["dagster/data_version"] == tiny.state.model().sha256


def test_a_damaged_copy_is_replaced_from_the_delivery(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    file = Path(tiny.state.models.uri, tiny.state.model().sha256, "model.safetensors")
    file.write_bytes(b"x" * file.stat().st_size)
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert str(file) in error_of(result) and "has sha256" in error_of(result)
    tiny.run()
    assert tiny.read().num_rows == 100


def test_promotion_and_back_scores_with_each_model_as_if_for_the_first_time(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(200))
    tiny.run()
    first = tiny.read()
    tiny.deliver("v2", seed=1)
    tiny.run()
    assert versions(tiny) == {"v2"}
    assert not tiny.read()["prob_class_1"].equals(first["prob_class_1"])
    tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v1"
    tiny.write_spec()
    tiny.run()
    assert tiny.state.model().version == "v1"
    assert tiny.account("predictions").model_version == "v1"
    assert tiny.read().equals(first), "the shard of v1 is still there and taken over"


# what is refused


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> TinyProject:
    """A project whose model v1 has scored a day."""
    tiny = TinyProject(tmp_path_factory.mktemp("scored"))
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    return tiny


@pytest.mark.parametrize("name", FAULTS)
def test_a_broken_bundle_changes_nothing_and_its_check_is_recorded(scored: TinyProject, name: str) -> None:
    fault = FAULTS[name]
    scored.deliver("v2", seed=1)
    folder, definitions = Path(scored.pipeline.bundle.uri), scored.definitions
    fault.spoil(folder)
    before = scored.state.model(), scored.account("predictions"), scored.state.models.list()
    instance = dg.DagsterInstance.ephemeral()
    steps = ["model", "predictions"]
    result = scored.run(steps=steps, raise_on_error=False, definitions=definitions, instance=instance)
    recorded = checks(result)
    assert not recorded[f"model/{fault.check}"]
    assert recorded["model/bundle_is_intact"] == (fault.check != "bundle_is_intact")
    for words in (*fault.says, str(folder)):
        assert words in (findings(result, fault.check).description or "")
        assert words in error_of(result)
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey([scored.name, "model"]), fault.check), limit=10
    )
    assert ("FAILED", None) in {(record.status.value, record.partition) for record in records}
    run = instance.get_run_by_id(result.run_id)
    assert run is not None and run.tags[TAG] == "bad_model", "it is not tried again with the same files"
    assert not result.asset_materializations_for_node(f"{scored.name}__model")
    assert not result.asset_materializations_for_node(f"{scored.name}__predictions")
    assert (scored.state.model(), scored.account("predictions"), scored.state.models.list()) == before
    assert not (folder.parent / PROOF).exists(), "code of the bundle has run"


def test_a_bundle_folder_that_vanishes_after_loading_fails_the_check(tiny: TinyProject) -> None:
    definitions, state = tiny.definitions, tiny.state
    shutil.rmtree(tiny.pipeline.bundle.uri)
    result = tiny.run(steps=["model"], raise_on_error=False, definitions=definitions)
    assert not checks(result)["model/bundle_is_intact"]
    assert "there is no bundle.json; expected a bundle folder" in error_of(result)
    assert state.model_or_none() is None


def test_a_bundle_folder_that_is_not_there_is_a_fault_of_the_spec(tiny: TinyProject) -> None:
    tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v9"
    tiny.write_spec()
    with pytest.raises(
        SpecError, match=r"pipeline\.yaml line \d+: model\.bundle: '.*/models/v9': there is no bundle\.json in"
    ):
        tiny.run(steps=["model"])


def test_an_unknown_network_class_is_a_fault_of_the_spec(tiny: TinyProject) -> None:
    tiny.spec["model"]["network"] = "network:DeepNet"
    tiny.write_spec()
    with pytest.raises(
        SpecError, match=r"model\.network: 'network:DeepNet': network\.py defines no class DeepNet; .*Net"
    ):
        tiny.run(steps=["model"])


def test_a_version_is_one_model_for_ever(tiny: TinyProject) -> None:
    first = tiny.deliver("v1")
    tiny.run(steps=["model"])
    second = tiny.deliver("v1", seed=1)
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert not checks(result)["model/bundle_is_intact"]
    assert "version v1 was in force before with other content" in error_of(result)
    assert first[:12] in error_of(result) and second[:12] in error_of(result)
    assert "give the new model a new version" in error_of(result)
    assert tiny.state.model().sha256 == first


def test_a_version_of_long_ago_is_not_given_to_another_model(tiny: TinyProject) -> None:
    tiny.run(steps=["model"])
    second = tiny.deliver("v2", seed=1)
    tiny.run(steps=["model"])
    tiny.deliver("v1", seed=2)
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert "version v1 was in force before with other content" in error_of(result)
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


@pytest.mark.parametrize(
    ("code", "raised"),
    [
        ("from math import tensorflux", "ImportError: cannot import name 'tensorflux' from 'math'"),
        ("raise RuntimeError('no licence\\nfound')", "RuntimeError: no licence found"),
    ],
)
def test_a_network_that_does_not_import_fails_a_recorded_check(tiny: TinyProject, code: str, raised: str) -> None:
    tiny.write_code(network=f"{code}\n{(tiny.folder / 'network.py').read_text()}")
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert f"{tiny.name}: network:Net cannot be loaded from {tiny.folder}: {raised}" in error_of(result)
    assert "(network.py line 1)" in error_of(result)
    assert not findings(result, "bundle_is_intact").passed
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
        assert "version v1 was in force before with other content (sha256 000000000000…" in error_of(result)


def test_a_metric_that_is_no_number_meets_no_threshold(tiny: TinyProject) -> None:
    tiny.spec["checks"] |= {"metrics_meet_threshold": {"least": {"auc": -1e9}, "most": {"loss": 1e9}}}
    tiny.write_spec()
    bundle = read_bundle(tiny.pipeline.bundle)
    manifest = bundle.manifest.model_copy(update={"metrics": {"auc": math.nan, "loss": math.nan}})
    found = metrics(tiny.pipeline, Delivered(replace(bundle, manifest=manifest), []))
    assert not found.passed
    assert found.message == (
        "0 of 2 metrics meet their threshold; auc is nan, expected at least -1e+09; loss is nan, expected at most 1e+09"
    )


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("result - result.mean(0)", "depends on more than that row"),
        ("torch.nn.functional.dropout(result, 0.2)", "depends on more than that row: golden rows a second time"),
    ],
)
def test_a_network_that_looks_beside_a_row_comes_not_in_force(tiny: TinyProject, code: str, says: str) -> None:
    network = (tiny.folder / "network.py").read_text()
    tiny.write_code(network=network.replace("torch.nan, result)", f"torch.nan, {code})"))
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert not checks(result)["model/golden_rows_agree"] and says in error_of(result)
    assert tiny.state.model_or_none() is None


def test_golden_rows_are_scored_in_every_days_run(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    network = (tiny.folder / "network.py").read_text()
    tiny.write_code(network=network.replace("nan_to_num(0.0)", "nan_to_num(1.0)"))  # a deploy that computes otherwise
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert "the golden rows differ by" in error_of(result) and "another network class" in error_of(result)
    assert tiny.state.account("predictions", DAY) is None


# while a run is on


def test_a_bundle_folder_overwritten_while_a_day_is_scored_changes_nothing(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    land_with_a_call(tiny)
    tiny.run(DAY)
    expected = tiny.read()
    other = TinyProject(tiny.folder / "other")
    land_with_a_call(other)
    answers = calling(other, monkeypatch, lambda: _overwrite(other))
    other.run()
    assert answers == [True]
    scored = other.read()
    assert scored.drop_columns("scored_at").equals(expected.drop_columns("scored_at"))
    delivered = hashlib.sha256(other.pipeline.bundle.read("bundle.json")).hexdigest()
    assert other.account("predictions").model_sha256 == other.state.model().sha256 != delivered


def _overwrite(tiny: TinyProject) -> bool:
    tiny.deliver("v1", seed=5)
    return True


def test_a_promotion_in_the_middle_ends_the_run_before_it_publishes(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    before, version = tiny.read(), tiny.account("predictions").table.version
    land_with_a_call(tiny)
    tiny.deliver("v2", seed=1, promote=False)

    def promote() -> bool:
        tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v2"
        tiny.write_spec()
        return tiny.run(steps=["model"]).success

    answers = calling(tiny, monkeypatch, promote)
    result = tiny.run(raise_on_error=False)
    assert answers == [True]
    assert f"superseded: while {tiny.name} {DAY} was scored with model v1, model v2 came in force" in error_of(result)
    assert "run the day again" in error_of(result)
    assert tiny.read().equals(before) and tiny.account("predictions").table.version == version
    assert not result.asset_materializations_for_node(f"{tiny.name}__predictions")
    tiny.run()
    assert versions(tiny) == {"v2"}


def test_a_promotion_before_the_commit_ends_the_run(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    step, run = DayStep(tiny.pipeline, DAY, "predictions"), run_of_test()
    source = score.read_source(step)
    prepared = score.prepare(step, source, run)
    tiny.deliver("v2", seed=1)
    tiny.run(steps=["model"])
    with pytest.raises(SupersededError, match="model v2 came in force"):
        step.publish(
            prepared,
            run,
            fingerprint=source.features.fingerprint,
            code="",
            model=source.model,
            check_current=lambda: score.check_current(step, source),
        )
    assert tiny.state.account("predictions", DAY) is None
    assert step.table.snapshot().version == -1


def test_a_model_whose_copy_is_gone_cannot_score(tiny: TinyProject) -> None:
    step = DayStep(tiny.pipeline, DAY, "predictions")
    run = run_of_test()
    nowhere = ModelInForce(
        name="tiny", version="v1", sha256="0" * 64, source="", run_id=run.id, resolved_at=run.started
    )
    with pytest.raises(BundleError, match=r"state/models/0{64}: there is no bundle\.json"):
        score.load_model(step, nowhere)


# days_are_current


def test_days_that_a_promotion_or_a_correction_made_stale_are_listed_with_the_command(tiny: TinyProject) -> None:
    days = ["2024-03-01", "2024-03-02", "2024-03-05"]
    for number, day in enumerate([*days, "2024-03-07"]):
        tiny.land(day, tiny.rows(64, start=100 * number))
        tiny.run(day)
    tiny.land("2024-03-02", tiny.rows(65))
    result = tiny.run("2024-03-09", steps=["model"])
    found = findings(result, "days_are_current")
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN and result.success
    assert found.description == (
        f"stale days: 1 (input: 2024-03-02); run: batch-scoring backfill {tiny.name} 2024-03-02 2024-03-02"
    )
    tiny.deliver("v2", seed=1)
    found = findings(tiny.run("2024-03-07", steps=["model"]), "days_are_current")
    assert found.metadata["days"].value == "2024-03-01 … 2024-03-02, 2024-03-05", "its own day is run now"
    assert found.metadata["run"].value == (
        f"batch-scoring backfill {tiny.name} 2024-03-01 2024-03-02\n"
        f"batch-scoring backfill {tiny.name} 2024-03-05 2024-03-05"
    )
    assert "model: 2024-03-01 … 2024-03-02, 2024-03-05" in (found.description or "")
    assert (found.description or "").endswith(f"; run: batch-scoring backfill {tiny.name} --stale")
    assert "input: 2024-03-02" in (found.description or "")
    for day in [*days, "2024-03-07"]:
        tiny.run(day)
    assert findings(tiny.run("2024-03-09", steps=["model"]), "days_are_current").passed


def test_days_of_other_code_are_stale(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.write_code(network=(tiny.folder / "network.py").read_text() + "\n# a deploy\n")
    found = findings(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current")
    assert f"(code: {DAY})" in (found.description or "")


def test_days_of_another_schema_are_stale(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.write_code(schema=(tiny.folder / "schema.py").read_text() + "\n# a deploy\n")
    assert f"(code: {DAY})" in (findings(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current").description or "")


def test_days_whose_landing_files_are_archived_are_current(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAY}"))
    assert findings(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current").passed
    tiny.deliver("v2", seed=1)
    found = findings(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current")
    assert found.metadata["run"].value == (
        f"dagster asset materialize -m batch_scoring.definitions --select {tiny.name}/predictions --partition {DAY}"
    )
    tiny.run(DAY, steps=["predictions"])  # what the command does
    assert versions(tiny) == {"v2"}
    assert findings(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current").passed


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([], []),
        (["2024-02-28", "2024-03-01", "2024-02-29"], ["2024-02-28 … 2024-03-01"]),
        (["2024-01-01", "2023-12-30"], ["2023-12-30", "2024-01-01"]),
    ],
)
def test_consecutive_days_are_named_by_their_ends(days: list[str], expected: list[str]) -> None:
    assert ranges(days) == expected


def test_a_damaged_account_of_another_day_is_said_and_stops_no_run(tiny: TinyProject) -> None:
    for day in (DAY, NEXT_DAY):
        tiny.land(day, tiny.rows(20))
    tiny.run(DAY)
    tiny.pipeline.output.put(f"state/dt={DAY}/predictions.json", b"{")
    result = tiny.run(NEXT_DAY)
    found = {e.check_name: e for e in result.get_asset_check_evaluations() if e.asset_key.path[-1] == "model"}
    assert not found["days_are_current"].passed
    assert f"dt={DAY}/predictions.json is damaged" in str(found["days_are_current"].description)
    assert tiny.read(NEXT_DAY).num_rows == 20
