import os

import pytest

from batch_scoring.config.compute import (
    GPUS,
    SHARED,
    VARIABLE,
    check_shared_folders,
    device,
    executor_name,
    in_this_process,
    known_device,
    reservation,
)
from batch_scoring.errors import ComputeError
from batch_scoring.runtime.usage import NOTHING, Reservation
from batch_scoring_tests.specs import put
from batch_scoring_tests.tiny import TinyProject


def test_a_command_executes_in_its_own_process_and_leaves_the_environment_as_it_was(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    with in_this_process():
        assert executor_name() == "in_process"
    assert VARIABLE not in os.environ
    monkeypatch.setenv(VARIABLE, "k8s")
    with pytest.raises(ZeroDivisionError), in_this_process():
        assert executor_name() == "in_process"
        raise ZeroDivisionError
    assert executor_name() == "k8s"


@pytest.mark.parametrize(
    ("setting", "executor", "gpus_of_the_pod", "known"),
    [
        ("cpu", "k8s", 1, "cpu"),
        ("cuda", "in_process", 0, "cuda"),
        ("auto", "k8s", 0, "cpu"),
        ("auto", "k8s", 2, "cuda"),
        ("auto", "multiprocess", 2, None),
    ],
)
def test_another_machine_knows_the_device_of_a_pod(
    tiny: TinyProject,
    monkeypatch: pytest.MonkeyPatch,
    setting: str,
    executor: str,
    gpus_of_the_pod: int,
    known: str | None,
) -> None:
    monkeypatch.setenv(VARIABLE, executor)
    put("scoring", "device", value=setting)(tiny.spec)
    put("compute", "predictions", "gpu", value=gpus_of_the_pod)(tiny.spec)
    tiny.write_spec()
    assert known_device(tiny.pipeline) == known


@pytest.mark.parametrize(("setting", "used"), [("auto", "cuda"), ("cpu", "cpu"), ("cuda", "cuda")])
def test_in_a_pod_with_a_gpu_auto_is_cuda(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, setting: str, used: str
) -> None:
    put("scoring", "device", value=setting)(tiny.spec)
    tiny.write_spec()
    assert device(tiny.pipeline) == setting
    monkeypatch.setenv(GPUS, "1")
    assert device(tiny.pipeline) == used


def test_local_folders_are_refused_unless_every_pod_mounts_them(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ComputeError, match=f"{tiny.name}: {tiny.data_root}.*set BATCH_SCORING_DATA to s3://"):
        check_shared_folders([tiny.pipeline])
    monkeypatch.setenv(SHARED, "1")
    check_shared_folders([tiny.pipeline])


def test_what_a_pod_requests_is_reserved_and_nothing_without_pods(
    tiny: TinyProject, monkeypatch: pytest.MonkeyPatch
) -> None:
    tiny.spec["compute"] = {
        "default": {"cpu": 0.5, "memory": "512Mi"},
        "predictions": {"cpu": 4, "memory": "16Gi", "gpu": 2},
    }
    tiny.write_spec()
    for executor in ("in_process", "multiprocess"):
        monkeypatch.setenv(VARIABLE, executor)
        assert reservation(tiny.pipeline, "predictions") == NOTHING
    monkeypatch.setenv(VARIABLE, "k8s")
    assert reservation(tiny.pipeline, "predictions") == Reservation(4, 16 * 2**30, 2)
    assert reservation(tiny.pipeline, "validated_features") == Reservation(0.5, 2**29, 0)
    with in_this_process():
        assert reservation(tiny.pipeline, "predictions") == NOTHING, "a backfill in a pod is not one of its steps"
