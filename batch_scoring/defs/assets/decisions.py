"""The asset decisions: what is done about each scored row of the day, and why.

At most one action per row, decided from the day's scores, features and attributes by the section `decisions` of the
spec: who is eligible, thresholds, caps, hold-outs. Each row has a reason from a finite list. Of an action with a
hold-out, arm says whether the row gets it (treated) or would have got it (control). Other rules change no day that is
decided already: the check `days_are_current` lists such days.
"""

from collections.abc import Iterator

import dagster as dg

from batch_scoring.config import compute
from batch_scoring.config.names import DECISIONS
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import DayStep, Prepared
from batch_scoring.daily.tables import decisions_table
from batch_scoring.defs.asset_checks import report, specs
from batch_scoring.defs.metadata import (
    asset_key,
    asset_options,
    column_schema,
    cost_figures,
    data_version,
    days,
    figures,
    ui_table,
)
from batch_scoring.defs.step_run import step_run
from batch_scoring.delivery.day_page.publish import publish
from batch_scoring.delivery.decisions.prepare import check_current, prepare, read_source
from batch_scoring.monitoring.checks import decision_checks
from batch_scoring.monitoring.checks.decision_checks import arms, counted
from batch_scoring.monitoring.links import day_page, link
from batch_scoring.runtime.step_context import StepContext
from batch_scoring.storage.state import PublishedDay


def decisions(pipeline: Pipeline) -> list[dg.AssetsDefinition]:
    """The asset of a pipeline; none if its spec has no decisions."""
    rules = pipeline.spec.decisions
    if rules is None:
        return []
    key, reserved = asset_key(pipeline, DECISIONS), compute.reservation(pipeline, DECISIONS)

    @dg.asset(
        key=key,
        description=f"{__doc__}\n\nOne row per `{pipeline.spec.input.key}` and day, as in predictions.",
        deps=[asset_key(pipeline, "predictions")],
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, decision_checks.CHECKS, days(pipeline)),
        code_version=pipeline.decisions_code,
        metadata={
            "dagster/column_schema": _columns(pipeline),
            "dagster/uri": decisions_table(pipeline).folder.uri,
            "dagster/table_name": f"{pipeline.name}.decisions",
        },
        **asset_options(pipeline, DECISIONS, kinds={"deltalake"}),
    )
    def _decisions(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult[None]]:
        with step_run(context, pipeline, reserved) as run:
            step = DayStep(pipeline, context.partition_key, "decisions")
            source = read_source(step, rules)
            prepared = prepare(step, rules, source, run)
            findings = decision_checks.findings(step, prepared, source.predictions)
            yield from report(pipeline, key, findings, run.id, step.day)
            published_day, committed = step.publish(
                prepared,
                run,
                fingerprint=source.predictions.fingerprint,
                code=pipeline.decisions_code,
                model=source.model,
                check_current=lambda: check_current(step, rules, source),
            )
            page = _page(pipeline, step.day, run, committed=committed)
            metadata = decisions_metadata(prepared, published_day, committed) | page
            metadata |= figures(run, published_day.rows_in)
            metadata |= cost_figures(pipeline, published_day)
            yield dg.MaterializeResult(metadata=metadata, data_version=data_version(published_day))

    return [_decisions]


def decisions_metadata(prepared: Prepared, published_day: PublishedDay, committed: bool) -> dict[str, dg.MetadataValue]:
    """Metadata of the day's decisions for an operator; the caps in use stand with the check `caps_hold`."""
    by_arm = [
        {"action": action, "arm": arm, "rows": rows}
        for action, counts in arms(published_day.shards).items()
        for arm, rows in counts.items()
    ]
    tables = {
        name: ui_table({name.rstrip("s"): value, "rows": rows} for value, rows in counts.most_common() if rows)
        for name in ("actions", "reasons")
        if (counts := counted(published_day.shards, name))
    }
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(published_day.rows),
        "dagster/size_bytes": dg.MetadataValue.int(published_day.table.bytes),
        "rows": dg.MetadataValue.int(published_day.rows),
        **tables,
        **({"arms": ui_table(by_arm)} if by_arm else {}),
        "model_version": dg.MetadataValue.text(published_day.model_version or ""),
        "committed": dg.MetadataValue.bool(committed),
        "shards_reused": dg.MetadataValue.int(prepared.reused),
        "table_version": dg.MetadataValue.int(published_day.table.version),
        "fingerprint": dg.MetadataValue.text(published_day.fingerprint),
        **{name: dg.MetadataValue.int(value) for name, value in prepared.settings.items() if isinstance(value, int)},
    }


def _page(pipeline: Pipeline, day: str, run: StepContext, *, committed: bool) -> dict[str, dg.MetadataValue]:
    """The link to the day's page, which is drawn anew if the decisions are; an error there fails nothing."""
    try:
        path = day_page(day)
        if committed or not pipeline.output.list(path):
            with run.timed("page"):
                publish(pipeline, day)
        return {"page": link(pipeline, path)}
    except Exception as error:  # any error at all: the decisions are published, and the run must not fail
        run.log(
            f"the page of {day} could not be drawn: {type(error).__name__}: {error}; the decisions are not affected"
        )
        return {}


def _columns(pipeline: Pipeline) -> dg.TableSchema:
    return column_schema(
        [
            (pipeline.spec.input.key, "key", "identifies the row; unique within a day"),
            ("action", "string", "the action that the row gets, or none"),
            ("reason", "string", "why: `ACTION:taken`, or what refused it"),
            ("arm", "string", "treated or control, for an action with a hold-out"),
            ("rank", "int32", "place among the rows of the action and its control group, from 1"),
            ("score", "float64", "the score that ranks the rows"),
            ("why", "string", "the features that lift the score of a row with an action; with explain only"),
            ("model_version", "string", "version of the model that scored the row"),
            ("decided_at", "timestamp", "start of the run that decided the row, UTC"),
            ("dt", "date", "the day"),
        ]
    )
