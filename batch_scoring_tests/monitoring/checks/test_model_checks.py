"""The model's checks: a broken bundle, metrics, and stale days."""

import math
import shutil
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from batch_scoring.inference.bundle import read_bundle
from batch_scoring.monitoring.checks.model_checks import Delivered, metrics
from batch_scoring.operations.failed_runs import TAG
from batch_scoring_tests.broken_bundles import FAULTS, PROOF
from batch_scoring_tests.checked import finding, settings
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject, checks, error_of


def versions(tiny: TinyProject, day: str = DAY) -> set[str]:
    return set(tiny.read(day)["model_version"].to_pylist())


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
    before = scored.state.model(), scored.published_day("predictions"), scored.state.models.list()
    instance = dg.DagsterInstance.ephemeral()
    steps = ["model", "predictions"]
    result = scored.run(steps=steps, raise_on_error=False, definitions=definitions, instance=instance)
    recorded = checks(result)
    assert not recorded[f"model/{fault.check}"]
    assert recorded["model/bundle_is_intact"] == (fault.check != "bundle_is_intact")
    for words in (*fault.says, str(folder)):
        assert words in (finding(result, fault.check).description or "")
        assert words in error_of(result)
    records = instance.event_log_storage.get_asset_check_execution_history(
        dg.AssetCheckKey(dg.AssetKey([scored.name, "model"]), fault.check), limit=10
    )
    assert ("FAILED", None) in {(record.status.value, record.partition) for record in records}
    run = instance.get_run_by_id(result.run_id)
    assert run is not None and run.tags[TAG] == "bad_model", "it is not tried again with the same files"
    assert not result.asset_materializations_for_node(f"{scored.name}__model")
    assert not result.asset_materializations_for_node(f"{scored.name}__predictions")
    assert (scored.state.model(), scored.published_day("predictions"), scored.state.models.list()) == before
    assert not (folder.parent / PROOF).exists(), "code of the bundle has run"


def test_a_bundle_folder_that_vanishes_after_loading_fails_the_check(tiny: TinyProject) -> None:
    definitions, state = tiny.definitions, tiny.state
    shutil.rmtree(tiny.pipeline.bundle.uri)
    result = tiny.run(steps=["model"], raise_on_error=False, definitions=definitions)
    assert not checks(result)["model/bundle_is_intact"]
    assert "there is no bundle.json; expected a bundle folder" in error_of(result)
    assert state.model_or_none() is None


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
    assert not finding(result, "bundle_is_intact").passed
    assert tiny.state.model_or_none() is None


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


def test_a_metric_below_what_the_spec_asks_for_warns_or_keeps_the_model_out(tiny: TinyProject) -> None:
    settings(tiny, metrics_meet_threshold={"least": {"auc": 0.7}})
    result = tiny.run(steps=["model"])
    assert finding(result, "metrics_meet_threshold").description == (
        "0 of 1 metrics meet their threshold; auc is not recorded, expected at least 0.7"
    )
    settings(tiny, metrics_meet_threshold={"least": {"auc": 0.7}, "blocking": True})
    result = tiny.run(steps=["model"], raise_on_error=False)
    assert error_of(result).startswith("metrics_meet_threshold: ") and not result.success


def test_days_that_a_promotion_or_a_correction_made_stale_are_listed_with_the_command(tiny: TinyProject) -> None:
    days = ["2024-03-01", "2024-03-02", "2024-03-05"]
    for number, day in enumerate([*days, "2024-03-07"]):
        tiny.land(day, tiny.rows(64, start=100 * number))
        tiny.run(day)
    tiny.land("2024-03-02", tiny.rows(65))
    result = tiny.run("2024-03-09", steps=["model"])
    found = finding(result, "days_are_current")
    assert not found.passed and found.severity == dg.AssetCheckSeverity.WARN and result.success
    assert found.description == (
        f"stale days: 1 (input: 2024-03-02); run: batch-scoring backfill {tiny.name} 2024-03-02 2024-03-02"
    )
    tiny.deliver("v2", seed=1)
    found = finding(tiny.run("2024-03-07", steps=["model"]), "days_are_current")
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
    assert finding(tiny.run("2024-03-09", steps=["model"]), "days_are_current").passed


def test_days_of_other_code_are_stale(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.write_code(network=(tiny.folder / "network.py").read_text() + "\n# a deploy\n")
    found = finding(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current")
    assert f"(code: {DAY})" in (found.description or "")


def test_days_of_another_schema_are_stale(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    tiny.write_code(schema=(tiny.folder / "schema.py").read_text() + "\n# a deploy\n")
    assert f"(code: {DAY})" in (finding(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current").description or "")


def test_days_whose_landing_files_are_archived_are_current(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    tiny.run()
    shutil.rmtree(Path(tiny.pipeline.landing.uri, f"dt={DAY}"))
    assert finding(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current").passed
    tiny.deliver("v2", seed=1)
    found = finding(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current")
    assert found.metadata["run"].value == (
        f"dagster asset materialize -m batch_scoring.definitions --select {tiny.name}/predictions --partition {DAY}"
    )
    tiny.run(DAY, steps=["predictions"])  # what the command does
    assert versions(tiny) == {"v2"}
    assert finding(tiny.run(NEXT_DAY, steps=["model"]), "days_are_current").passed


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
