"""Retries and pools of steps; what their pods ask for is in `pods/test_rendered_pods.py`."""

import pytest

from batch_scoring.config.compute import VARIABLE
from batch_scoring_tests.tiny import TinyProject


def policies(tiny: TinyProject) -> dict[str, tuple[int, str | None]]:
    """How often each step is tried again within its run, and its pool."""
    job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
    return {
        op.name.removeprefix(f"{tiny.name}_").strip("_"): (
            op.retry_policy.max_retries if op.retry_policy else 0,
            op.pool,
        )
        for op in job.graph.iterate_op_defs()
    }


def test_a_step_in_its_run_s_own_process_has_no_second_try_and_no_pool(tiny: TinyProject) -> None:
    tiny.spec["compute"] = {"predictions": {"gpu": 1, "pool": "mine"}, "default": {"retries": 5}}
    tiny.write_spec()
    assert set(policies(tiny).values()) == {(0, None)}


@pytest.mark.parametrize("shards", ["one_step", "fan_out"])
@pytest.mark.parametrize("executor", ["multiprocess", "k8s"])
def test_a_step_that_is_lost_is_tried_again_as_its_spec_says(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, executor: str, shards: str
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    tiny.spec["scoring"]["shards"] = shards
    tiny.spec["compute"] = {"default": {"retries": 1}, "predictions": {"gpu": 1, "retries": 4}, "model": {"retries": 0}}
    tiny.write_spec()
    found, gpu = policies(tiny), "gpu" if executor == "k8s" else None
    scoring = "predictions" if shards == "one_step" else "score_share"
    assert found.pop(scoring) == (4, gpu)
    assert found.pop("model") == (0, None)
    assert set(found.values()) == {(1, None)} and len(found) == (3 if shards == "one_step" else 5)


def test_a_pool_of_the_spec_takes_the_place_of_the_one_for_gpus(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "k8s")
    tiny.spec["compute"] = {"predictions": {"gpu": 1, "pool": "a100"}, "raw_input": {"pool": "readers"}}
    tiny.write_spec()
    assert {name: pool for name, (_, pool) in policies(tiny).items() if pool} == {
        "predictions": "a100",
        "raw_input": "readers",
    }
