"""The drift step: after the publication, a day is compared with the reference of its model.

It never stops or fails a run: an error here becomes a failed check result with its message. The figures of every
day are kept in the state; Evidently's pages of the days that alarm, and of the newest ones.
"""

import contextlib
from collections.abc import Iterator

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.execution import step_pods
from batch_scoring.defs.metadata import asset_key, days
from batch_scoring.monitoring.drift.comparison import Side
from batch_scoring.monitoring.drift.findings import CHECKS, findings
from batch_scoring.monitoring.finding import Finding
from batch_scoring.runtime.printable import clean


def drift_checks(pipeline: Pipeline) -> dg.AssetChecksDefinition:
    """The checks of a pipeline, in one step."""
    keys = {side: asset_key(pipeline, check.asset) for side, check in CHECKS.items()}

    @dg.multi_asset_check(
        name=f"{pipeline.name}_drift",
        description=__doc__,
        specs=[
            spec
            for side, check in CHECKS.items()
            for spec in specs(pipeline, keys[side], {check.name: check.statement}, days(pipeline))
        ],
        can_subset=True,
        **step_pods.step_options(pipeline, "drift"),
    )
    def _drift(context: dg.AssetCheckExecutionContext) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        sides = [side for side, check in CHECKS.items() if check.name in selected]
        day, run_id = context.op_execution_context.partition_key, context.run.run_id
        try:
            found = findings(pipeline, day, sides, run_id)
            results = [
                result
                for side, finding in found.items()
                for result in report(pipeline, keys[side], [finding], run_id, day, kept_as=f"{side}_drift")
            ]
        except Exception as error:  # any error at all: the scores are published, and the run must not fail
            clean(error)
            context.log.exception("the comparison with the reference failed")
            results = [_failed(pipeline, keys[side], side, error, run_id, day) for side in sides]
        yield from results

    return _drift


def _failed(
    pipeline: Pipeline, key: dg.AssetKey, side: Side, error: Exception, run_id: str, day: str
) -> dg.AssetCheckResult:
    """The result of a comparison that raised, recorded like any other if the state can be written at all."""
    message = (
        f"the comparison failed: {type(error).__name__}: {' '.join(str(error).split())}; the scores are not affected"
    )
    finding = Finding(CHECKS[side].name, False, message)
    with contextlib.suppress(Exception):
        return next(report(pipeline, key, [finding], run_id, day, kept_as=f"{side}_drift"))
    warning = dg.AssetCheckSeverity.WARN
    return dg.AssetCheckResult(
        passed=False, asset_key=key, check_name=finding.check, severity=warning, description=message
    )
