"""A deployment on the Kubernetes stand-in: its instance, its runs, and single steps of a run."""

import contextlib
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path

import dagster as dg
import yaml
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository
from dagster._core.events import JobFailureData, RunFailureReason
from dagster._core.execution.api import create_execution_plan
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.context_creation_job import orchestration_context_event_generator
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import ExecutionStep, UnresolvedMappedExecutionStep
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepDelegatingExecutor, StepHandlerContext
from dagster._core.storage.dagster_run import IN_PROGRESS_RUN_STATUSES
from dagster._daemon.monitoring.run_monitoring import monitor_started_run
from dagster._grpc.types import ExecuteStepArgs
from dagster._utils.error import SerializableErrorInfo

from batch_scoring.config.loader import PROJECT
from batch_scoring.defs.execution.k8s_step_handler import WatchedSteps
from batch_scoring_tests import deployed
from batch_scoring_tests.pods.cluster import NAMESPACE, Cluster, Job
from batch_scoring_tests.reliability.deployment import wait_until

IMAGE = "registry.example/batch-scoring:0123abc"
_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def instance_of(folder: Path, cluster: Cluster, environment: Mapping[str, str]) -> Iterator[dg.DagsterInstance]:
    """An instance whose runs are pods.

    Args:
        folder: where its databases are; their place travels with each pod's command.
        cluster: where the pods are.
        environment: of every pod.
    """
    launcher = {
        "load_incluster_config": False,
        "kubeconfig_file": str(cluster.kubeconfig),
        "job_image": IMAGE,
        "job_namespace": NAMESPACE,
        "service_account_name": "dagster",
        "instance_config_map": "dagster-instance",
        "env_vars": [f"{name}={value}" for name, value in environment.items()],
    }
    settings = {
        "telemetry": {"enabled": False},
        "run_launcher": {"module": "dagster_k8s", "class": "K8sRunLauncher", "config": launcher},
        "run_monitoring": {"enabled": True, "max_resume_run_attempts": 3},
        "compute_logs": {
            "module": "dagster._core.storage.noop_compute_log_manager",
            "class": "NoOpComputeLogManager",
        },
    }
    home = folder / "instance"
    home.mkdir()
    (home / "dagster.yaml").write_text(yaml.safe_dump(settings))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield instance


def job_named(name: str) -> ReconstructableJob:
    """A job of `batch_scoring_tests.deployed`, in the code location's image."""
    repository = ReconstructableRepository.for_module(
        deployed.__name__, "deployment", str(PROJECT), container_image=IMAGE
    )
    return repository.get_reconstructable_job(name)


def create_run(instance: dg.DagsterInstance, job: ReconstructableJob, day: str) -> tuple[dg.DagsterRun, ExecutionPlan]:
    """A run of a day that nobody has launched yet."""
    tags = {"dagster/partition": day}
    plan = create_execution_plan(job, {}, tags=tags)
    run = instance.create_run_for_job(
        job.get_definition(),
        plan,
        tags=tags,
        job_code_origin=job.get_python_origin(),
        asset_selection=set(job.get_definition().asset_layer.executable_asset_keys),
    )
    return run, plan


def launch(instance: dg.DagsterInstance, job_name: str, day: str) -> str:
    """Launch a run of a day in a pod; its id."""
    run, _ = create_run(instance, job_named(job_name), day)
    instance.launch_run(run.run_id, None)  # type: ignore[arg-type]  # the launcher asks no workspace
    return run.run_id


def ended(instance: dg.DagsterInstance, run_id: str, cluster: Cluster, seconds: float = 240.0) -> dg.DagsterRun:
    """The run when it is over; the daemon's monitoring looks after it meanwhile."""

    def is_over() -> bool:
        record = instance.get_run_record_by_id(run_id)
        assert record
        if record.dagster_run.status == dg.DagsterRunStatus.STARTED:
            monitor_started_run(instance, None, record, _LOG)  # type: ignore[arg-type]
        return record.dagster_run.status not in IN_PROGRESS_RUN_STATUSES

    assert wait_until(is_over, seconds), "\n".join(f"{job.step}: {job.pod and job.pod.log}" for job in cluster.jobs)
    run = instance.get_run_by_id(run_id)
    assert run
    return run


class Steps:
    """The steps of a run, launched and asked about one at a time by the handler of the run's own executor."""

    def __init__(self, instance: dg.DagsterInstance, job: ReconstructableJob, day: str, cluster: Cluster) -> None:
        self.run, self.plan = create_run(instance, job, day)
        self.instance, self._job, self._cluster = instance, job, cluster
        for found in orchestration_context_event_generator(job, self.plan, {}, self.run, instance, True, None, None):
            if isinstance(found, PlanOrchestrationContext):
                self._context = found
        mapped = (step for step in self.plan.steps if isinstance(step, UnresolvedMappedExecutionStep))
        self.plan.resolve(
            {step.resolved_by_step_key: {step.resolved_by_output_name: ["share_1", "share_2"]} for step in mapped}
        )
        executor = self._context.executor
        assert isinstance(executor, StepDelegatingExecutor) and isinstance(executor._step_handler, WatchedSteps)
        self.handler = executor._step_handler

    @property
    def all(self) -> dict[str, ExecutionStep]:
        """By key; of a day in shares as if it had two."""
        return {step.key: step for step in self.plan.step_dict.values() if isinstance(step, ExecutionStep)}

    def launch(self, key: str, attempt: int = 0) -> Job:
        """Launch a step; the Job as it came over the wire."""
        list(self.handler.launch_step(self._of(key, attempt)))
        return self._cluster.jobs[-1]

    def health(self, key: str, attempt: int = 0) -> CheckStepHealthResult:
        """What the executor is told of a step."""
        return self.handler.check_step_health(self._of(key, attempt))

    def fail(self, key: str, result: CheckStepHealthResult) -> None:
        """Fail a step as the executor does when it is found dead and is not to be tried again."""
        said = SerializableErrorInfo(f"Step {key} failed health check: {result.unhealthy_reason}", [], None)
        step = self._context.for_step(self.all[key])
        self._context.executor.log_failure_or_retry_event_after_error(step, said, KnownExecutionState())
        self.end()

    def end(self) -> None:
        """End the run as the executor does when a step has failed."""
        end = JobFailureData(error=None, failure_reason=RunFailureReason.STEP_FAILURE, first_step_failure_event=None)
        self.instance.report_run_failed(self.run, job_failure_data=end)

    def _of(self, key: str, attempt: int) -> StepHandlerContext:
        state = KnownExecutionState(previous_retry_attempts={key: attempt} if attempt else {})
        arguments = ExecuteStepArgs(
            job_origin=self._job.get_python_origin(),
            run_id=self.run.run_id,
            step_keys_to_execute=[key],
            instance_ref=self.instance.get_ref(),
            known_state=state,
            should_verify_step=True,
            print_serialized_events=False,
        )
        return StepHandlerContext(self.instance, self._context, [self.all[key]], arguments, self.run)
