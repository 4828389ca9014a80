"""Compute settings from the environment: the executor, the scoring device, storage shared by pods.

`BATCH_SCORING_EXECUTOR` chooses how the steps of a run are executed: `in_process` (default, one process per run),
`multiprocess` (one process per step) or `k8s` (one pod per step). The executors themselves are in `defs/execution`.
"""

import contextlib
import os
from collections.abc import Iterator, Sequence

from batch_scoring.config.compute_spec import ScoringPod
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import ComputeError
from batch_scoring.runtime.usage import NOTHING, Reservation

VARIABLE = "BATCH_SCORING_EXECUTOR"
EXECUTORS = ("in_process", "multiprocess", "k8s")
SHARED = "BATCH_SCORING_DATA_SHARED"
"""1: every pod mounts the local folders at the same path."""
GPUS = "BATCH_SCORING_GPUS"
"""Set in a pod that has GPUs, to their number."""


def executor_name() -> str:
    """The executor that the environment selects.

    Raises:
        ComputeError: the variable has another value.
    """
    name = os.environ.get(VARIABLE) or EXECUTORS[0]
    if name not in EXECUTORS:
        raise ComputeError(f"{VARIABLE} is {name!r}; expected {', '.join(EXECUTORS[:-1])} or {EXECUTORS[-1]}")
    return name


@contextlib.contextmanager
def in_this_process() -> Iterator[None]:
    """Define assets for a command that executes them in its own process, however the deployment executes its runs."""
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = "in_process"
    try:
        yield
    finally:
        os.environ.pop(VARIABLE)
        if before is not None:
            os.environ[VARIABLE] = before


def reservation(pipeline: Pipeline, asset: str) -> Reservation:
    """What the pod of an asset's step requests; nothing where steps have no pods.

    Asked for when assets are defined: `in_this_process` is over when they run.
    """
    if executor_name() != "k8s":
        return NOTHING
    pod = pipeline.spec.compute.of(asset)
    return Reservation(pod.cpu, pod.memory_bytes, pod.gpu if isinstance(pod, ScoringPod) else 0)


def check_shared_folders(pipelines: Sequence[Pipeline]) -> None:
    """Ensure that all pods see the same folders.

    Raises:
        ComputeError: naming the pipelines' local folders.
    """
    if os.environ.get(SHARED) == "1":
        return
    local = [
        f"{pipeline.name}: {folder.uri}"
        for pipeline in pipelines
        for folder in (pipeline.landing, pipeline.output)
        if folder.is_local
    ]
    if local:
        raise ComputeError(
            f"{VARIABLE} is k8s, and no pod would see what another has written to a local folder ({'; '.join(local)}); "
            f"set BATCH_SCORING_DATA to s3://bucket/prefix, or {SHARED}=1 if every pod mounts that folder"
        )


def device(pipeline: Pipeline) -> str:
    """The device that scores: cpu, cuda or auto. In a pod with a GPU, auto is cuda: no silent fallback to the CPU."""
    setting = pipeline.spec.scoring.device
    return "cuda" if setting == "auto" and os.environ.get(GPUS) else setting


def known_device(pipeline: Pipeline) -> str | None:
    """The scoring device, if another machine can determine it; None for `auto` outside of a pod."""
    setting, pod = device(pipeline), pipeline.spec.compute.of("predictions")
    if setting == "auto":
        return None if executor_name() != "k8s" else "cuda" if isinstance(pod, ScoringPod) and pod.gpu else "cpu"
    return setting
