"""A day's predictions in several steps: plan -> score, one step a chunk -> publish. Each may have its own pod.

`daily/fan_out.py` does the work of each step. The ops and their outputs call chunks shares: step keys and the files
that the steps leave in `state/` keep their names. In one step or in many, the rows, the checks and the commit are the
same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import dagster as dg

from batch_scoring.config import compute
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.fan_out import Began, Chunk, ScoredChunk, collect, plan, score_chunk
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.daily.score import Source, read_source
from batch_scoring.defs.execution.json_io_manager import references
from batch_scoring.defs.execution.step_pods import op_options
from batch_scoring.defs.metadata import SCORED_FROM, asset_key
from batch_scoring.defs.step_run import step_run
from batch_scoring.operations.batch_backoff import batch_backoff
from batch_scoring.runtime.step_context import StepContext

Results = Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]


def in_steps(
    pipeline: Pipeline,
    publish: Callable[[DayStep, Source, Prepared, StepContext], Results],
    **definition: Any,  # noqa: ANN401  (arguments of dg.graph_asset)
) -> dg.AssetsDefinition:
    """The asset predictions, made of several steps.

    Args:
        pipeline: whose.
        publish: checks and commits a day, as in one step.
        definition: what the catalog shows, and the checks.
    """
    manager = f"{pipeline.name}_references"
    checks: Sequence[dg.AssetCheckSpec] = definition["check_specs"]
    nothing = {name: dg.In(dg.Nothing) for name in SCORED_FROM}
    light, scoring = compute.reservation(pipeline, "default"), compute.reservation(pipeline, "predictions")

    def day_of(context: dg.OpExecutionContext) -> DayStep:
        return DayStep(pipeline, context.partition_key, "predictions")

    @dg.op(
        name=f"{pipeline.name}_plan",
        ins=nothing,
        out={"began": dg.Out(io_manager_key=manager), "shares": dg.DynamicOut(io_manager_key=manager)},
        description="Divide the day's shards of features into chunks of about equally many rows.",
        **op_options(pipeline, "default"),
    )
    def _plan(context: dg.OpExecutionContext) -> Iterator[dg.Output[object] | dg.DynamicOutput[object]]:
        with step_run(context, pipeline, light) as run:
            at, chunks = datetime.now(UTC), plan(day_of(context), run)
            run.meter.end_overhead()
            began = Began(run_id=run.id, at=at, overhead=run.meter.overhead)
            yield dg.Output(began.model_dump(mode="json"), "began")
            for number, chunk in enumerate(chunks, start=1):
                yield dg.DynamicOutput(chunk.model_dump(mode="json"), f"share_{number}", "shares")

    @dg.op(
        name=f"{pipeline.name}_score_share",
        out=dg.Out(io_manager_key=manager),
        description="Score one chunk of the day; shards that an earlier run has finished are kept.",
        **op_options(pipeline, "predictions"),
    )
    def _score(context: dg.OpExecutionContext, share: dict[str, Any]) -> dict[str, Any]:
        with step_run(context, pipeline, scoring) as run:
            halved = batch_backoff(context.instance, pipeline, context.partition_key, context.retry_number)
            return score_chunk(day_of(context), Chunk.model_validate(share), run, halved).model_dump(mode="json")

    @dg.op(
        name=f"{pipeline.name}_publish",
        out={
            "result": dg.Out(dg.Nothing, is_required=False),
            **{check.get_python_identifier(): dg.Out(dg.Nothing, is_required=False) for check in checks},
        },
        description="Check the whole day, and commit it in one transaction.",
        **op_options(pipeline, "default"),
    )
    def _publish(
        context: dg.OpExecutionContext, began: dict[str, Any], shares: list[dict[str, Any]]
    ) -> Iterator[dg.AssetCheckResult | dg.Output[None]]:
        with step_run(context, pipeline, light) as run:
            planned = Began.model_validate(began)
            run.meter.overhead += planned.overhead
            if planned.run_id == run.id:  # not of a run that failed hours ago and whose chunks are reused
                since = (datetime.now(UTC) - planned.at).total_seconds()
                run = replace(run, began=perf_counter() - max(0.0, since))  # the other machine's clock may be ahead
            step = day_of(context)
            source = read_source(step)
            prepared = collect(step, source, [ScoredChunk.model_validate(chunk) for chunk in shares], run)
            for result in publish(step, source, prepared, run):
                if isinstance(result, dg.MaterializeResult):
                    yield dg.Output(None, "result", result.metadata, data_version=result.data_version)
                else:
                    yield result

    @dg.graph_asset(
        ins={name: dg.AssetIn(asset_key(pipeline, name), dagster_type=dg.Nothing) for name in SCORED_FROM},
        resource_defs={manager: dg.IOManagerDefinition.hardcoded_io_manager(references(pipeline))},
        **definition,
    )
    def _predictions(**upstream: Any) -> dict[str, Any]:  # noqa: ANN401  (what Dagster composes a graph of)
        planned = _plan(**upstream)
        done = _publish(planned.began, planned.shares.map(_score).collect())
        return {name: getattr(done, name) for name in ("result", *(check.get_python_identifier() for check in checks))}

    return _predictions
