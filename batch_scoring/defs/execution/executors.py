"""The executor of every run: in one process, in several, or a pod for each step.

`config/compute.py` says which one the environment chooses; what a step's pod asks for is in `step_pods.py`.
"""

import os
from collections.abc import Callable, Sequence
from typing import Any

import dagster as dg

from batch_scoring.config.compute import check_shared_folders, executor_name
from batch_scoring.config.pipeline import Pipeline

PROCESSES = 2
"""Concurrent steps of a run under `multiprocess`, unless the launchpad says otherwise: each uses all cores."""


def executor(pipelines: Sequence[Pipeline]) -> dg.ExecutorDefinition:
    """The executor of every run. What the launchpad says under `execution` takes precedence over our settings.

    Raises:
        ComputeError: the environment names an unknown executor.
    """
    name = executor_name()
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return _processes()
    return _pods(pipelines)


def _processes() -> dg.ExecutorDefinition:
    """One process per step."""

    def config_of(context: dg.InitExecutorContext) -> dict[str, Any]:
        config = dict(context.executor_config)
        return config | {"max_concurrent": config.get("max_concurrent") or PROCESSES}

    return _with_config(dg.multiprocess_executor, config_of)


def _pods(pipelines: Sequence[Pipeline]) -> dg.ExecutorDefinition:
    """One pod per step."""
    from dagster_k8s import k8s_job_executor  # takes half a second, so imported only where there are pods

    from batch_scoring.defs.execution.k8s_executor import PodExecutor

    def config_of(context: dg.InitExecutorContext) -> dict[str, Any]:
        layer = context.job.get_definition().asset_layer
        keys = [*layer.executable_asset_keys, *(check.asset_key for check in layer.asset_graph.asset_check_keys)]
        names = {key.path[0] for key in keys}
        check_shared_folders([pipeline for pipeline in pipelines if pipeline.name in names])
        image = os.environ.get("DAGSTER_CURRENT_IMAGE")  # for commands that are run in a code location's pod
        return ({"job_image": image} if image else {}) | dict(context.executor_config)

    return _with_config(k8s_job_executor, config_of, PodExecutor)


def _with_config(
    made: dg.ExecutorDefinition,
    config_of: Callable[[dg.InitExecutorContext], dict[str, Any]],
    finish: Callable[[Any], dg.Executor] = lambda executor: executor,
) -> dg.ExecutorDefinition:
    """Wrap one of Dagster's executors so that its config passes through `config_of` first.

    `configured` would do the same, and ignore the launchpad.
    """

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        assert made.executor_creation_fn is not None  # Dagster's own have one
        return finish(made.executor_creation_fn(context._replace(executor_config=config_of(context))))

    schema: Any = made.config_schema
    return dg.ExecutorDefinition(
        made.name, schema, dg.multiple_process_executor_requirements(), executor_creation_fn=create
    )
