"""A day's predictions in several steps: plan -> score, a step a share of the day -> publish. Each may have its own pod.

The steps exchange references: which shards of the features make a share, which files hold its scores. Everything else
a step finds in the state and the tables. A share whose pod is lost is scored again alone; the day is published once,
when all shares are there. In one step or in many, the rows, the checks and the commit are the same.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from time import perf_counter
from typing import Any

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep, Prepared, Run
from batch_scoring.daily.score import Source, divide, output_schema, published, read_source, score, shard_digest
from batch_scoring.defs.execution.executors import known_device, op_options
from batch_scoring.defs.execution.json_io_manager import references
from batch_scoring.defs.metadata import SCORED_FROM, asset_key
from batch_scoring.errors import StateError, SupersededError
from batch_scoring.inference.bundle import read_description
from batch_scoring.operations.failures import step_run
from batch_scoring.operations.run_history import halvings
from batch_scoring.storage.state import Document

Results = Iterator[dg.AssetCheckResult | dg.MaterializeResult]


class Share(Document):
    """A part of a day: what one step scores."""

    features: tuple[str, ...]
    """Digests of the shards of validated features."""
    model_sha256: str
    rows: int


class ScoredShard(Document):
    """A finished shard."""

    features: str
    """Digest of the shard of features that it was scored from."""
    digest: str
    uri: str


class ScoredShare(Document):
    """What a step has scored."""

    device: str
    """cpu or cuda."""
    batch_rows: int
    shards: tuple[ScoredShard, ...]


def in_steps(
    pipeline: Pipeline,
    publish: Callable[[DayStep, Source, Prepared, Run], Results],
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

    def day_of(context: dg.OpExecutionContext) -> DayStep:
        return DayStep(pipeline, context.partition_key, "predictions")

    @dg.op(
        name=f"{pipeline.name}_plan",
        ins=nothing,
        out={"began": dg.Out(io_manager_key=manager), "shares": dg.DynamicOut(io_manager_key=manager)},
        description="Divide the day's shards of features into shares of about equally many rows.",
        **op_options(pipeline, "default"),
    )
    def _plan(context: dg.OpExecutionContext) -> Iterator[dg.Output | dg.DynamicOutput]:
        with step_run(context) as run:
            yield dg.Output({"run_id": run.id, "at": datetime.now(UTC).isoformat()}, "began")
            for number, share in enumerate(plan(day_of(context), run), start=1):
                yield dg.DynamicOutput(share.model_dump(mode="json"), f"share_{number}", "shares")

    @dg.op(
        name=f"{pipeline.name}_score_share",
        out=dg.Out(io_manager_key=manager),
        description="Score one share of the day; what an earlier run has finished stays.",
        **op_options(pipeline, "predictions"),
    )
    def _score(context: dg.OpExecutionContext, share: dict[str, Any]) -> dict[str, Any]:
        with step_run(context) as run:
            halved = halvings(context.instance, pipeline, context.partition_key, context.retry_number)
            return score_share(day_of(context), Share.model_validate(share), run, halved).model_dump(mode="json")

    @dg.op(
        name=f"{pipeline.name}_publish",
        out={
            "result": dg.Out(dg.Nothing, is_required=False),
            **{check.get_python_identifier(): dg.Out(dg.Nothing, is_required=False) for check in checks},
        },
        description="Check the whole day, and commit it at once.",
        **op_options(pipeline, "default"),
    )
    def _publish(
        context: dg.OpExecutionContext, began: dict[str, str], shares: list[dict[str, Any]]
    ) -> Iterator[dg.AssetCheckResult | dg.Output]:
        with step_run(context) as run:
            if began["run_id"] == run.id:  # not of one that failed hours ago, and whose shares are taken over
                since = (datetime.now(UTC) - datetime.fromisoformat(began["at"])).total_seconds()
                run = replace(run, began=perf_counter() - max(0.0, since))  # the other machine's clock may be ahead
            step = day_of(context)
            source = read_source(step)
            prepared = collect(step, source, [ScoredShare.model_validate(share) for share in shares], run)
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


def plan(step: DayStep, run: Run) -> list[Share]:
    """The shares of a day: of the shards that no earlier run has finished; none if there are none."""
    source, spec = read_source(step), step.pipeline.spec.scoring
    if published(step, source):
        run.log(f"{step.day} is scored already: {source.features.rows} rows of the same features, model and code")
        return []
    left = list(source.shards)
    if device := known_device(step.pipeline):
        finished = step.finished()
        left = [shard for shard in left if finished.find(shard_digest(step, source, shard, device)) is None]
    shares = [
        Share(
            features=tuple(shard.digest for shard in part),
            model_sha256=source.model.sha256,
            rows=sum(shard.account.rows for shard in part),
        )
        for part in divide(left, spec.max_shards, spec.rows_per_shard)
    ]
    done = f"{len(source.shards) - len(left)} of {len(source.shards)} shards are finished"
    run.log(f"{step.day}: {source.features.rows} rows, {done}; shares of {[share.rows for share in shares]} rows")
    return shares


def score_share(step: DayStep, share: Share, run: Run, halvings: int) -> ScoredShare:
    """Score the shards of a share.

    Raises:
        SupersededError: the features are others by now, or the model.
    """
    source = read_source(step)
    there = {shard.digest: shard for shard in source.shards}
    if source.model.sha256 != share.model_sha256 or not there.keys() >= set(share.features):
        raise _superseded(step)
    scored = score(step, source, [there[digest] for digest in share.features], run, halvings)
    return ScoredShare(
        device=scored.device,
        batch_rows=scored.batch_rows,
        shards=tuple(
            ScoredShard(
                features=shard.account.source,
                digest=shard.account.digest,
                uri=f"{step.table.table.folder.uri}/{shard.file.path}",
            )
            for shard in scored.shards
        ),
    )


def collect(step: DayStep, source: Source, shares: Sequence[ScoredShare], run: Run) -> Prepared:
    """All shards of a day, ready to be published.

    Raises:
        SupersededError: the shares are of other features, another model or other code than those in force.
        StateError: a finished shard is gone, or the shares come of different kinds of device.
    """
    if stands := published(step, source):
        return stands
    devices = sorted({share.device for share in shares})
    if len(devices) > 1:
        raise StateError(
            f"the shares of {step.pipeline.name} {step.day} were scored on {' and '.join(devices)}, whose scores "
            "differ in the last bits; set scoring.device in the spec, and run the day again"
        )
    device = devices[0] if devices else known_device(step.pipeline) or ""
    scored = {shard.features: shard for share in shares for shard in share.shards}
    finished, done = step.finished(), []
    for features in source.shards:
        digest, reference = shard_digest(step, source, features, device), scored.get(features.digest)
        if reference and reference.digest != digest:
            raise _superseded(step)
        found = finished.find(digest)
        if found is None and reference:
            raise StateError(f"{reference.uri} is gone; run {step.pipeline.name}/predictions for {step.day} again")
        if found is None:  # nor was it when the shares were planned
            raise _superseded(step)
        done.append(replace(found, reused=found.account.run_id != run.id))
    settings: dict[str, int | str] = {"device": device, "shares": len(shares)}
    if shares:
        settings["batch_rows"] = shares[0].batch_rows
    manifest, _ = read_description(step.state.models.subfolder(source.model.sha256))
    return Prepared(tuple(done), output_schema(step, source, manifest), settings=settings)


def _superseded(step: DayStep) -> SupersededError:
    return SupersededError(
        f"superseded: while {step.pipeline.name} {step.day} was scored in shares, its features or the model became "
        "others; nothing was published: run the day again"
    )
