"""A promotion during a run never mixes models; golden rows are scored in every run."""

import hashlib
from collections.abc import Callable

import pyarrow.compute as pc
import pytest
import torch

from batch_scoring.daily import score
from batch_scoring.daily.publish import DayStep
from batch_scoring.errors import BundleError, SpecError, SupersededError
from batch_scoring.storage.state import ActiveModel
from batch_scoring_tests.tiny import DAY, TinyProject, error_of, run_of_test

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


def test_the_models_data_version_is_its_sha256(tiny: TinyProject) -> None:
    result = tiny.run(steps=["model"])
    tags = result.asset_materializations_for_node(f"{tiny.name}__model")[0].tags or {}
    assert tags["dagster/data_version"] == tiny.state.model().sha256


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
    assert tiny.published_day("predictions").model_version == "v1"
    assert tiny.read().equals(first), "the shard of v1 is still there and taken over"


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


def test_golden_rows_are_scored_in_every_days_run(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run(steps=["model", "raw_input", "validated_features"])
    network = (tiny.folder / "network.py").read_text()
    tiny.write_code(network=network.replace("nan_to_num(0.0)", "nan_to_num(1.0)"))  # a deploy that computes otherwise
    result = tiny.run(steps=["predictions"], raise_on_error=False)
    assert "the golden rows differ by" in error_of(result) and "code has changed since" in error_of(result)
    assert tiny.state.published_day("predictions", DAY) is None


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
    assert other.published_day("predictions").model_sha256 == other.state.model().sha256 != delivered


def _overwrite(tiny: TinyProject) -> bool:
    tiny.deliver("v1", seed=5)
    return True


def test_a_promotion_in_the_middle_ends_the_run_before_it_publishes(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.land(DAY, tiny.rows(100))
    tiny.run()
    before, version = tiny.read(), tiny.published_day("predictions").table.version
    land_with_a_call(tiny)
    tiny.deliver("v2", seed=1, promote=False)

    def promote() -> bool:
        tiny.spec["model"]["bundle"] = f"{tiny.name}/models/v2"
        tiny.write_spec()
        return tiny.run(steps=["model"]).success

    answers = calling(tiny, monkeypatch, promote)
    result = tiny.run(raise_on_error=False)
    assert answers == [True]
    assert f"superseded: while {tiny.name} {DAY} was scored with model v1, model v2 became active" in error_of(result)
    assert "run the day again" in error_of(result)
    assert tiny.read().equals(before) and tiny.published_day("predictions").table.version == version
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
    with pytest.raises(SupersededError, match="model v2 became active"):
        step.publish(
            prepared,
            run,
            fingerprint=source.features.fingerprint,
            code="",
            model=source.model,
            check_current=lambda: score.check_current(step, source),
        )
    assert tiny.state.published_day("predictions", DAY) is None
    assert step.table.snapshot().version == -1


def test_a_model_whose_copy_is_gone_cannot_score(tiny: TinyProject) -> None:
    step = DayStep(tiny.pipeline, DAY, "predictions")
    run = run_of_test()
    nowhere = ActiveModel(name="tiny", version="v1", sha256="0" * 64, source="", run_id=run.id, resolved_at=run.started)
    with pytest.raises(BundleError, match=r"state/models/0{64}: there is no bundle\.json"):
        score.load_model(step, nowhere)
