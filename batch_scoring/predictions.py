"""The asset predictions: one scored row a key, published for the whole day at once.

plan (one shard a feature shard) -> score those that no earlier run has finished -> verify -> publish. A row that the
model cannot score goes to the quarantine, stage score, with the reason.
"""

from collections.abc import Iterator

import dagster as dg
import numpy as np
import pyarrow as pa

from batch_scoring import prediction_checks, scored_rows, shards
from batch_scoring.assets import (
    asset_key,
    asset_options,
    column_schema,
    data_version,
    days,
    figures,
    first_rows,
    preview,
    run_of,
)
from batch_scoring.bundle import load_bundle
from batch_scoring.failures import noted
from batch_scoring.invariants import report, specs
from batch_scoring.manifest import LoadedModel, Manifest
from batch_scoring.pictures import histogram
from batch_scoring.pipeline import Pipeline
from batch_scoring.progress import Progress
from batch_scoring.runs import halvings
from batch_scoring.scored_rows import BINS, Tally
from batch_scoring.scoring import Scorer
from batch_scoring.state import Account, DayInput, ModelInForce, ShardAccount, StateError
from batch_scoring.steps import DayStep, Finished, Prepared, Run, SupersededError, check_input
from batch_scoring.tables import features_table, predictions_table


def predictions(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key, code = asset_key(pipeline, "predictions"), pipeline.scoring_code

    @dg.asset(
        key=key,
        description=f"{pipeline.spec.description}\n\n{__doc__}",
        # raw_input too: what it pinned is compared with the features, and `--select "+<pipeline>/predictions"` is
        # parsed as one layer of ancestors for a key with a slash
        deps=[asset_key(pipeline, name) for name in ("raw_input", "validated_features", "model")],
        partitions_def=days(pipeline),
        check_specs=specs(pipeline, key, prediction_checks.CHECKS, days(pipeline)),
        code_version=code,
        metadata={
            "dagster/column_schema": _columns(pipeline),
            "dagster/uri": predictions_table(pipeline).folder.uri,
            "dagster/table_name": f"{pipeline.name}.predictions",
        },
        **asset_options(pipeline, kinds={"pytorch", "deltalake"}),
    )
    def _predictions(
        context: dg.AssetExecutionContext,
    ) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        with noted(run_of(context)) as run:
            step = DayStep(pipeline, context.partition_key, "predictions")
            source = read_source(step)
            prepared = prepare(step, source, run, halvings(context.instance, pipeline, context.partition_key))
            findings = prediction_checks.findings(step, prepared, source.features, source.model)
            yield from report(pipeline, key, findings, run.id, context.partition_key)
            account, committed = step.publish(
                prepared, run, fingerprint=source.features.fingerprint, code=code, model=source.model,
                features_code=source.features.code, check_current=lambda: check_current(step, source),
            )  # fmt: skip
            metadata = describe(step, prepared, account, committed) | figures(run, account.rows_in)
            yield dg.MaterializeResult(metadata=metadata, data_version=data_version(account))

    return _predictions


class Source:
    """What a day is scored from: one state of its features, one model."""

    def __init__(self, pinned: DayInput, features: Account, model: ModelInForce) -> None:
        self.pinned, self.features, self.model = pinned, features, model

    def feature_shards(self) -> Iterator[tuple[ShardAccount, str]]:
        """Each feature shard with its file, relative to the features table."""
        files = {shards.identity_of(path): path for path in self.features.table.files}
        for shard in self.features.shards:
            yield shard, files[f"dt={self.features.day}/{shard.digest}"]


def read_source(step: DayStep) -> Source:
    """Find the day's features and the model in the state, and make sure that they belong together.

    Raises:
        StateError: a step before this one has not run, ran for other input, or its table was changed by somebody.
    """
    name, day = step.pipeline.name, step.day
    pinned, model = step.state.day_input(day), step.state.model()
    features = step.state.account("validated_features", day)
    first = f"run {name}/validated_features for {day} first"
    if features is None:
        raise StateError(f"{name} has no validated features of {day}; {first}")
    if features.fingerprint != pinned.fingerprint:
        raise StateError(
            f"the validated features of {name} {day} are of other files than raw_input has pinned; {first}"
        )
    if features.code != step.pipeline.features_code:
        raise StateError(f"the validated features of {name} {day} are of another schema or other settings; {first}")
    if not DayStep(step.pipeline, day, "validated_features").table.snapshot().holds(features.table):
        raise StateError(f"the features table of {name} no longer holds {day} as it was validated; {first}")
    return Source(pinned, features, model)


def check_current(step: DayStep, source: Source) -> None:
    """Raise if newer input, other features or another model have come.

    Raises:
        SupersededError: what has been scored is not to be published.
    """
    check_input(step.pipeline, source.pinned, may_be_archived=True)
    pinned = step.state.day_input(step.day)
    features = step.state.account("validated_features", step.day)
    in_force = step.state.model()
    if pinned.fingerprint != source.pinned.fingerprint:
        newer = "raw_input pinned other files"
    elif features is None or _digests(features) != _digests(source.features):
        newer = "the features were validated anew, with another result"
    elif in_force.sha256 != source.model.sha256:
        newer = f"model {in_force.version} came in force"
    else:
        return
    raise SupersededError(
        f"superseded: while {step.pipeline.name} {step.day} was scored with model {source.model.version}, {newer}; "
        "nothing was published: run the day again"
    )


def _digests(features: Account) -> set[str]:
    """What the features' rows depend on, whichever run has written them."""
    return {shard.digest for shard in features.shards}


def load_model(step: DayStep, model: ModelInForce) -> LoadedModel:
    """The model in force, from its copy in the state, proven by its golden rows on the device that scores.

    Raises:
        BundleError: the copy is damaged, or this machine computes other scores than the one that wrote it.
        ScoringError: the device is not there.
    """
    spec = step.pipeline.spec
    network = step.pipeline.load(spec.model.network)
    return load_bundle(step.state.models.subfolder(model.sha256), network, spec.scoring.device)


def prepare(step: DayStep, source: Source, run: Run, halvings: int = 0) -> Prepared:
    """Score a day's features into shards, in batches that are halved so often; nothing is published yet."""
    pipeline, model = step.pipeline, source.model
    account = step.published(source.features.fingerprint, pipeline.scoring_code, model.sha256)
    if account and {shard.source for shard in account.shards} == _digests(source.features):
        run.log(f"{step.day} is scored already: {account.rows} rows of the same features, model and code")
        return Prepared((), pa.schema([]), published=account)
    with run.timed("load_model"):
        spec = pipeline.spec.scoring
        scorer = Scorer(load_model(step, model), device=spec.device, batch_rows=spec.batch_rows)
        scorer.halve(halvings)
    run.log(f"model {model.version} on {scorer.device}, {scorer.batch_rows} rows a forward pass")
    schema = output_schema(pipeline.spec.input.key, step, source, scorer.manifest)
    before = step.finished()
    progress = Progress(source.features.rows, run.log, "scored")
    done = []
    for features, path in source.feature_shards():
        digest = shards.digest("predictions", features.digest, model.sha256, pipeline.scoring_code, scorer.device)
        shard = before.find(digest) or score_shard(
            step, run, scorer, model.version, features, path, digest, schema, shards.READ_ROWS >> halvings
        )
        progress.advance(shard.account.rows_in)
        done.append(shard)
    return Prepared(tuple(done), schema, settings={"device": scorer.device, "batch_rows": scorer.batch_rows})


def score_shard(
    step: DayStep, run: Run, scorer: Scorer, version: str,
    features: ShardAccount, path: str, digest: str, schema: pa.Schema, read_rows: int = shards.READ_ROWS,
) -> Finished:  # fmt: skip
    """Score one feature shard into one shard of predictions."""
    manifest = scorer.manifest
    key = step.pipeline.spec.input.key
    folder = features_table(step.pipeline).folder
    columns = [key, *manifest.numeric, *manifest.categorical, "source_file", "row_number"]
    batches = shards.read(folder, path, columns, [*manifest.categorical, "source_file"], read_rows)
    tally = Tally(manifest)
    lost = features.keys
    with step.draft(schema, constant=scored_rows.CONSTANT) as draft:
        for scored in run.timed_each("score", scorer.score(run.timed_each("read", batches))):
            with run.timed("write"):
                draft.accept(scored_rows.rows(scored, version, _timestamp(run), schema))
                draft.reject(scored_rows.failed(scored, key))
                lost -= scored_rows.failed_keys(scored, key)
                tally.add(scored)
        account = ShardAccount(
            digest=digest, source=features.digest, run_id=run.id, rows_in=features.rows, rows=draft.rows,
            quarantined=draft.quarantined, missing_identity=(lost - draft.keys) % 2**64, keys=draft.keys,
            **tally.figures(),
        )  # fmt: skip
        return draft.finish(account)


def output_schema(key: str, step: DayStep, source: Source, manifest: Manifest) -> pa.Schema:
    """The rows of predictions, without the partition column."""
    path = next(path for _, path in source.feature_shards())
    return scored_rows.schema(shards.schema(features_table(step.pipeline).folder, path).field(key), manifest)


def describe(step: DayStep, prepared: Prepared, account: Account, committed: bool) -> dict[str, dg.MetadataValue]:
    """What an operator asks of the day's predictions."""
    histograms = [shard.histogram for shard in account.shards if shard.histogram] or [(0,) * BINS]
    bins = np.sum(histograms, axis=0).tolist()
    means = {
        f"mean_{column}": dg.MetadataValue.float(account.moments(column).mean)
        for column in sorted({column for shard in account.shards for column in shard.sums})
        if account.rows
    }
    unknown = [
        dg.TableRecord({"column": column, "value": value, "rows": rows})
        for shard in account.shards
        for column, values in shard.unknown.items()
        for value, rows in values.items()
    ]
    return {
        "dagster/partition_row_count": dg.MetadataValue.int(account.rows),
        "dagster/size_bytes": dg.MetadataValue.int(account.table.bytes),
        "rows_in": dg.MetadataValue.int(account.rows_in),
        "rows_scored": dg.MetadataValue.int(account.rows),
        "rows_quarantined": dg.MetadataValue.int(account.rows_quarantined),
        **means,
        "model_version": dg.MetadataValue.text(account.model_version or ""),
        "model_sha256": dg.MetadataValue.text(account.model_sha256 or ""),
        **prepared.settings,
        "files": dg.MetadataValue.int(len(account.table.files)),
        "shards_reused": dg.MetadataValue.int(prepared.reused),
        "committed": dg.MetadataValue.bool(committed),
        "table_version": dg.MetadataValue.int(account.table.version),
        "fingerprint": dg.MetadataValue.text(account.fingerprint),
        **({"unknown_categories": dg.MetadataValue.table(unknown)} if unknown else {}),
        **({"scores": histogram(bins, "scores")} if any(bins) else {}),
        "preview": preview(first_rows(step, account)),
    }


def _timestamp(run: Run) -> pa.Scalar:
    return pa.scalar(run.started, pa.timestamp("us", "UTC"))


def _columns(pipeline: Pipeline) -> dg.TableSchema:
    return column_schema(
        [
            (pipeline.spec.input.key, "key", "names the row; unique in a day"),
            (
                "prediction",
                "int64",
                "the likeliest class, as its position in the bundle (a regression: the value, float64)",
            ),
            ("prediction_proba", "float32", "probability of that class"),
            ("prob_class_0 …", "float32", "probability of each class"),
            ("model_version", "string", "version of the model that scored the row"),
            ("scored_at", "timestamp", "start of the run that scored the row, UTC"),
            ("dt", "date", "the day"),
        ]
    )
