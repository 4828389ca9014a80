"""The private Dagster APIs that the package uses; no other module imports them.

Private means everything that `dagster` and its libraries do not export at the top level, and every attribute with a
leading underscore. Any upgrade may change it, so each entry gives the reason for its use and the tests that fail if it
changes. To use another name, add it to both blocks below. A name is imported on first use: importing this module
imports nothing of Dagster.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from dagster._check import CheckError as CheckError
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition as UnresolvedAssetJobDefinition,
    )
    from dagster._core.events import EngineEventData as EngineEventData
    from dagster._core.execution.plan.active import ActiveExecution as ActiveExecution
    from dagster._core.execution.plan.objects import StepFailureData as StepFailureData
    from dagster._core.execution.plan.step import ExecutionStep as ExecutionStep
    from dagster._core.executor.step_delegating import CheckStepHealthResult as CheckStepHealthResult
    from dagster._core.executor.step_delegating import StepDelegatingExecutor as StepDelegatingExecutor
    from dagster._core.executor.step_delegating import StepHandler as StepHandler
    from dagster._core.executor.step_delegating import StepHandlerContext as StepHandlerContext
    from dagster._core.instance.ref import InstanceRef as InstanceRef
    from dagster._core.scheduler.instigation import InstigatorState as InstigatorState
    from dagster._core.scheduler.instigation import InstigatorStatus as InstigatorStatus
    from dagster._core.scheduler.instigation import InstigatorTick as InstigatorTick
    from dagster._core.scheduler.instigation import TickStatus as TickStatus
    from dagster._core.storage.daemon_cursor import DaemonCursorStorage as DaemonCursorStorage
    from dagster._core.storage.dagster_run import FINISHED_STATUSES as FINISHED_STATUSES
    from dagster._core.storage.event_log import SqliteEventLogStorage as SqliteEventLogStorage
    from dagster._core.storage.runs.sqlite import SqliteRunStorage as SqliteRunStorage
    from dagster._core.storage.schedules.sqlite.sqlite_schedule_storage import (
        SqliteScheduleStorage as SqliteScheduleStorage,
    )
    from dagster._core.storage.sql import get_alembic_config as get_alembic_config
    from dagster._core.storage.sqlite import SQLITE_BUSY_TIMEOUT_SECONDS as SQLITE_BUSY_TIMEOUT_SECONDS
    from dagster._core.storage.sqlite import create_db_conn_string as create_db_conn_string
    from dagster._core.storage.tags import RUN_FAILURE_REASON_TAG as RUN_FAILURE_REASON_TAG
    from dagster._core.utils import is_valid_email as is_valid_email
    from dagster._serdes import ConfigurableClassData as ConfigurableClassData
    from dagster._utils.schedules import cron_string_iterator as cron_string_iterator
    from dagster._utils.schedules import is_valid_cron_schedule as is_valid_cron_schedule
    from dagster._vendored.croniter.croniter import CroniterBadDateError as CroniterBadDateError
    from dagster_k8s.client import DagsterKubernetesClient as DagsterKubernetesClient
    from dagster_k8s.executor import K8sStepHandler as K8sStepHandler
    from dagster_shared.error import SerializableErrorInfo as SerializableErrorInfo


class Internal(NamedTuple):
    """A private name of Dagster: where it is defined, why we need it, which test fails if it changes."""

    where: str
    reason: str
    test: str


_DEFINITIONS = "test_definitions.py"
_SPEC = "config/test_spec.py"
_TICKS = "operations/automation/test_schedule_days.py"
_STATUS = "operations/automation/test_sensor_status.py"
_EXECUTORS = "defs/execution/test_executors.py"
_DATABASES = "defs/execution/test_sqlite_databases.py"
_EVENT_LOG = "defs/execution/test_sqlite_event_log.py"
_EXECUTOR = "defs/execution/test_k8s_executor.py"
_STEPS = "defs/execution/test_k8s_step_handler.py"

NAMES = {
    # a cron and an owner are valid if Dagster says so
    "is_valid_cron_schedule": Internal("dagster._utils.schedules", "refuse a cron before Dagster does", _SPEC),
    "CroniterBadDateError": Internal(
        "dagster._vendored.croniter.croniter", "refuse a cron for which Dagster finds no date", _SPEC
    ),
    "is_valid_email": Internal("dagster._core.utils", "refuse an owner before Dagster does", _SPEC),
    # schedules and sensors
    "cron_string_iterator": Internal("dagster._utils.schedules", "the ticks that the daemon evaluates", _TICKS),
    "CheckError": Internal("dagster._check", "the iterator raises it in an hour that the clocks repeat", _TICKS),
    "InstigatorState": Internal("dagster._core.scheduler.instigation", "type of a sensor's stored state", _STATUS),
    "InstigatorStatus": Internal("dagster._core.scheduler.instigation", "whether a sensor is switched on", _STATUS),
    "InstigatorTick": Internal("dagster._core.scheduler.instigation", "type of a sensor's tick", _STATUS),
    "TickStatus": Internal("dagster._core.scheduler.instigation", "which ticks of a sensor have failed", _STATUS),
    # runs and their failures
    "FINISHED_STATUSES": Internal(
        "dagster._core.storage.dagster_run", "which runs have ended", "operations/test_run_history.py"
    ),
    "RUN_FAILURE_REASON_TAG": Internal(
        "dagster._core.storage.tags", "Dagster's own reason for a run's failure", "operations/test_failed_runs.py"
    ),
    "SerializableErrorInfo": Internal("dagster_shared.error", "type of a stored error", _STEPS),
    "DaemonCursorStorage": Internal(
        "dagster._core.storage.daemon_cursor", "type of the store for alerts", "operations/alerting/test_outbox.py"
    ),
    # definitions
    "UnresolvedAssetJobDefinition": Internal(
        "dagster._core.definitions.unresolved_asset_job_definition", "type of `define_asset_job`", _DEFINITIONS
    ),
    # the executor k8s and its step pods
    "StepDelegatingExecutor": Internal(
        "dagster._core.executor.step_delegating", "base of the executor k8s, which resumes a run correctly", _EXECUTOR
    ),
    "ActiveExecution": Internal(
        "dagster._core.execution.plan.active", "base of the state that is rebuilt from a run's events", _EXECUTOR
    ),
    "ExecutionStep": Internal("dagster._core.execution.plan.step", "type of a step", _EXECUTOR),
    "StepHandler": Internal("dagster._core.executor.step_delegating", "base of the step handler", _STEPS),
    "StepHandlerContext": Internal("dagster._core.executor.step_delegating", "what a step handler receives", _STEPS),
    "CheckStepHealthResult": Internal("dagster._core.executor.step_delegating", "what a step handler returns", _STEPS),
    "EngineEventData": Internal("dagster._core.events", "log what a pod waits for", _STEPS),
    "StepFailureData": Internal("dagster._core.execution.plan.objects", "fail a step whose pod never starts", _STEPS),
    "K8sStepHandler": Internal("dagster_k8s.executor", "type of the step handler that launches the pods", _STEPS),
    "DagsterKubernetesClient": Internal("dagster_k8s.client", "type of its Kubernetes client", _STEPS),
    # SQLite storages of a laptop's instance
    "SqliteEventLogStorage": Internal("dagster._core.storage.event_log", "base of the event log", _EVENT_LOG),
    "SqliteRunStorage": Internal("dagster._core.storage.runs.sqlite", "base of the run storage", _DATABASES),
    "SqliteScheduleStorage": Internal(
        "dagster._core.storage.schedules.sqlite.sqlite_schedule_storage", "base of the schedule storage", _DATABASES
    ),
    "ConfigurableClassData": Internal("dagster._serdes", "what `dagster.yaml` says of a storage", _DATABASES),
    "InstanceRef": Internal("dagster._core.instance.ref", "the settings of an instance, unopened", _DATABASES),
    "create_db_conn_string": Internal("dagster._core.storage.sqlite", "address of a database", _DATABASES),
    "get_alembic_config": Internal("dagster._core.storage.sql", "order of the schema revisions", _DATABASES),
    "SQLITE_BUSY_TIMEOUT_SECONDS": Internal("dagster._core.storage.sqlite", "how long Dagster waits", _EVENT_LOG),
}
"""By name: modules and their members."""

_EXECUTING = "dagster._core.executor.step_delegating.StepDelegatingExecutor"
_ACTIVE = "dagster._core.execution.plan.active.ActiveExecution"
_LAUNCHING = "dagster_k8s.executor.K8sStepHandler"
_LOGGING = "dagster._core.storage.event_log.SqliteEventLogStorage"

ATTRIBUTES = {
    "_step_handler": Internal(_EXECUTING, "wrap the handler that dagster-k8s has made", _EXECUTORS),
    "_max_concurrent": Internal(_EXECUTING, "keep the launchpad's setting", _EXECUTORS),
    "_tag_concurrency_limits": Internal(_EXECUTING, "keep the launchpad's setting", _EXECUTORS),
    "_should_verify_step": Internal(_EXECUTING, "keep the launchpad's setting", _EXECUTORS),
    "_pop_events_limit": Internal(_EXECUTING, "read all events of a resumed run, not a thousand", _EXECUTOR),
    "_executable": Internal(_ACTIVE, "steps that may start", _EXECUTOR),
    "_waiting_to_retry": Internal(_ACTIVE, "steps that pause before a retry", _EXECUTOR),
    "_in_flight": Internal(_ACTIVE, "steps that have started", _EXECUTOR),
    "_update": Internal(_ACTIVE, "steps that become executable when others have ended", _EXECUTOR),
    "_prep_for_dynamic_outputs": Internal(_ACTIVE, "a started step may yield dynamic outputs", _EXECUTOR),
    "_instance_concurrency_context": Internal(_ACTIVE, "claim the pool slot that a step holds", _EXECUTOR),
    "_api_client": Internal(_LAUNCHING, "ask Kubernetes for a step's Job and pods", _STEPS),
    "_get_k8s_step_job_name": Internal(_LAUNCHING, "name of a step's Job", _STEPS),
    "_get_container_context": Internal(_LAUNCHING, "namespace of a step's Job", _STEPS),
    "_get_step_key": Internal(_LAUNCHING, "key of the step that a context is of", _STEPS),
    "_connect": Internal(_LOGGING, "keep connections open", _EVENT_LOG),
    "_db_lock": Internal(_LOGGING, "one connection of a database at a time", _EVENT_LOG),
    "_initialized_dbs": Internal(_LOGGING, "databases that have their tables", _EVENT_LOG),
    "_initdb": Internal(_LOGGING, "create the tables of a database", _EVENT_LOG),
    "_inst_data": Internal(_LOGGING, "what `dagster.yaml` says of the storage", _EVENT_LOG),
    "_execute": Internal(
        "dagster_graphql.DagsterGraphQLClient", "send a query of our own", "cli/remote/test_actions.py"
    ),
}
"""By name: classes and their attributes with a leading underscore."""


def __getattr__(name: str) -> Any:  # noqa: ANN401  (whatever it is; type checkers read the imports above)
    if name not in NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(NAMES[name].where), name)
