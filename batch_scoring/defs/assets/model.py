"""The asset model: the model version in force.

The bundle that the spec names is read once, verified, proven by its golden rows, copied to `state/models/<sha256>/`
and named in `state/model.json`. Everything downstream scores with that copy, so a bundle folder that is overwritten
while a run is on changes nothing. The daily job resolves the model first; nothing happens when it is unchanged.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta

import dagster as dg

from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.publish import Run
from batch_scoring.defs.asset_checks import Finding, report, specs
from batch_scoring.defs.metadata import asset_key, asset_options, ui_table
from batch_scoring.errors import BundleError, CodeError, StateError
from batch_scoring.inference.bundle import (
    MANIFEST,
    Bundle,
    build_network,
    check_contents,
    check_rows,
    golden_deviation,
    read_bundle,
    read_version,
)
from batch_scoring.ingest import landing_files
from batch_scoring.operations.failures import step_run
from batch_scoring.storage.state import ModelInForce, State

CHECKS = {
    "bundle_is_intact": "Every file of the bundle has its sha256; weights, vocabularies and reference fit the network.",
    "golden_rows_agree": "The golden rows give the outputs here that they gave when the bundle was written.",
    "metrics_meet_threshold": "The bundle's metrics are at least, or at most, what the spec asks for.",
    "days_are_current": "Every scored day is of the active model, the current code and its current landing files.",
}


@dataclass(frozen=True)
class Delivered:
    """What the spec's bundle folder holds, and whether it can be trusted."""

    bundle: Bundle | None
    findings: list[Finding]


@dataclass
class StaleDays:
    """Scored days that would come out differently if they were run now."""

    by_reason: dict[str, list[str]] = field(default_factory=dict)
    archived: set[str] = field(default_factory=set)
    """Those whose landing files are gone: their features can be scored again, not validated."""

    @property
    def days(self) -> list[str]:
        """All of them, in order."""
        return sorted({day for days in self.by_reason.values() for day in days})


def model(pipeline: Pipeline) -> dg.AssetsDefinition:
    """The asset of a pipeline."""
    key = asset_key(pipeline, "model")

    @dg.asset(
        key=key,
        description=f"{__doc__}\n\nDelivered in `{pipeline.bundle.uri}`.",
        # no days, as the asset has none: `dagster definitions validate` refuses checks that have them. The price is a
        # planned row a day in Dagster's own table, beside the result (pinned in test_dagster_behaviour.py)
        check_specs=specs(pipeline, key, CHECKS),
        **asset_options(pipeline, "model", kinds={"pytorch"}),
    )
    def _model(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
        with step_run(context) as run:
            delivered = examine(pipeline)
            own_day = {context.partition_key} if context.has_partition_key else set()
            findings = [*delivered.findings, metrics(pipeline, delivered), currency(pipeline, delivered, own_day)]
            yield from report(pipeline, key, findings, run.id)
            assert delivered.bundle is not None, "report has failed the step"
            in_force = put_in_force(pipeline, delivered.bundle, run)
            metadata = describe(delivered.bundle, in_force)
            yield dg.MaterializeResult(metadata=metadata, data_version=dg.DataVersion(in_force.sha256))

    return _model


def examine(pipeline: Pipeline) -> Delivered:
    """Read and prove the bundle that the spec names."""
    intact = golden = None
    bundle = None
    try:
        bundle = read_bundle(pipeline.bundle)
        refuse_other_features(pipeline, bundle)
        refuse_reused_version(pipeline, bundle)
        loaded = build_network(bundle, pipeline.load(pipeline.spec.model.network))
        check_contents(bundle, loaded)
        intact = Finding("bundle_is_intact", True, f"{bundle.uri} is version {bundle.manifest.version}")
        deviation = golden_deviation(bundle, loaded)
        check_rows(bundle, loaded)
        size, bound, agree = deviation.size, deviation.bound, deviation.is_accepted
        message = f"{bundle.uri}: the golden rows differ by {size:.2g}, at most {bound:.2g} is accepted"
        if not agree:
            message += "; other weights, network class or build of torch than the bundle was written with"
        golden = Finding("golden_rows_agree", agree, message, {"deviation": size, "bound": bound})
    except (BundleError, CodeError) as error:
        if intact is None:
            intact = Finding("bundle_is_intact", False, str(error))
        golden = Finding(
            "golden_rows_agree", False, str(error) if intact.passed else "not tried: the bundle is not intact"
        )
    assert golden is not None
    return Delivered(bundle if intact.passed and golden.passed else None, [intact, golden])


def metrics(pipeline: Pipeline, delivered: Delivered) -> Finding:
    """The finding metrics_meet_threshold."""
    check, asked = "metrics_meet_threshold", pipeline.spec.checks.metrics_meet_threshold
    if delivered.bundle is None:
        return Finding(check, True, "not tried: there is no model to look at")
    found = delivered.bundle.manifest.metrics
    missed = [
        f"{name} is {found.get(name, 'not recorded')}, expected at {word} {limit:g}"
        for word, limits in (("least", asked.least), ("most", asked.most))
        for name, limit in limits.items()
        if name not in found or not (found[name] >= limit if word == "least" else found[name] <= limit)
    ]
    asked_for = len(asked.least) + len(asked.most)
    message = f"{asked_for - len(missed)} of {asked_for} metrics meet their threshold"
    if not asked_for:
        message = "no threshold is declared; checks.metrics_meet_threshold.least in the spec names metrics"
    return Finding(check, not missed, "; ".join([message, *missed]), dict(found))


def refuse_reused_version(pipeline: Pipeline, bundle: Bundle) -> None:
    """One version is one model: its name stands in every scored row.

    Raises:
        BundleError: another bundle was in force under the same version.
    """
    for file in State(pipeline.output).models.list():
        sha256, _, name = file.path.partition("/")
        if name == MANIFEST and sha256 != bundle.sha256:
            version = read_version(State(pipeline.output).models.subfolder(sha256))
            if version == bundle.manifest.version:
                raise BundleError(
                    f"{bundle.uri}: version {version} was in force before with other content (sha256 "
                    f"{sha256[:12]}…, this one has {bundle.sha256[:12]}…); give the new model a new version"
                )


def refuse_other_features(pipeline: Pipeline, bundle: Bundle) -> None:
    """A bundle is of one set of features.

    Raises:
        BundleError: the bundle needs a feature that the spec does not name, or as the other kind.
    """
    spec, manifest = pipeline.spec.features, bundle.manifest
    for kind, needed, named in (
        ("numeric", manifest.numeric, spec.numeric),
        ("categorical", tuple(manifest.categorical), spec.categorical),
    ):
        if absent := [name for name in needed if name not in named]:
            raise BundleError(
                f"{bundle.uri} needs the {kind} features {', '.join(absent)}, "
                f"which features.{kind} of the spec does not name"
            )


def put_in_force(pipeline: Pipeline, bundle: Bundle, run: Run) -> ModelInForce:
    """Copy the bundle into the state and name it the model in force; nothing to do if it is that already."""
    state = State(pipeline.output)
    before = state.model_or_none()
    place = state.models.subfolder(bundle.sha256)
    there = {file.path for file in place.list()}
    for name in sorted(bundle.content, key=lambda name: name == MANIFEST):  # the manifest last: it vouches for the rest
        if name not in there or place.read(name) != bundle.content[name]:  # a damaged copy is healed
            place.put(name, bundle.content[name])
    if before and before.sha256 == bundle.sha256:
        return before
    in_force = ModelInForce(
        name=bundle.manifest.name,
        version=bundle.manifest.version,
        sha256=bundle.sha256,
        source=bundle.uri,
        run_id=run.id,
        resolved_at=run.started,
    )
    state.put_model(in_force)
    run.log(f"model {in_force.version} is in force, before: {before.version if before else 'none'}")
    return in_force


def stale_days(pipeline: Pipeline, model_sha256: str) -> StaleDays:
    """Compare every day's account of predictions with the model, the code and the landing files as they are now."""
    listed = landing_files.list_days(pipeline.landing)
    stale = StaleDays()
    for account in State(pipeline.output).accounts("predictions"):
        files = listed.get(account.day, [])
        reasons = {
            "model": account.model_sha256 != model_sha256,
            "code": (account.code, account.features_code) != (pipeline.scoring_code, pipeline.features_code),
            "input": bool(files) and not landing_files.is_of(account.fingerprint, files),
        }
        if not files:
            stale.archived.add(account.day)
        for reason in (name for name, holds in reasons.items() if holds):
            stale.by_reason.setdefault(reason, []).append(account.day)
    return stale


def currency(pipeline: Pipeline, delivered: Delivered, own_day: Iterable[str]) -> Finding:
    """The finding days_are_current; the day that this very run scores does not count."""
    if delivered.bundle is None:
        return Finding("days_are_current", True, "not tried: there is no model to compare with")
    try:
        stale = stale_days(pipeline, delivered.bundle.sha256)
    except (StateError, OSError) as error:  # one day's damaged account must not stop the others' runs
        return Finding("days_are_current", False, str(error))
    for listed in stale.by_reason.values():
        listed[:] = sorted(set(listed) - set(own_day))
    if not stale.days:
        return Finding(
            "days_are_current", True, "every scored day is of the present model, code and input", {"stale": 0}
        )
    why = "; ".join(f"{reason}: {', '.join(ranges(listed))}" for reason, listed in stale.by_reason.items() if listed)
    landed, archived = set(stale.days) - stale.archived, sorted(stale.archived.intersection(stale.days))
    commands = [f"batch-scoring backfill {pipeline.name} {first} {last}" for first, last in spans(landed)]
    alone = f"dagster asset materialize -m batch_scoring.definitions --select {pipeline.name}/predictions --partition"
    commands += [f"{alone} {day}" for day in archived]
    shown = commands[0] if len(commands) == 1 else f"batch-scoring backfill {pipeline.name} --stale"
    return Finding(
        "days_are_current",
        False,
        f"stale days: {len(stale.days)} ({why}); run: {shown}",
        {
            "stale": len(stale.days),
            "days": ", ".join(ranges(stale.days)),
            "run": "\n".join(commands),
            "state": "\n".join(_told_once(stale, delivered.bundle.sha256)),
        },
    )


def _told_once(stale: StaleDays, model_sha256: str) -> Iterator[str]:
    """What there is to tell of stale days, each thing once: another model or code, and each day with other input."""
    for reason, days in stale.by_reason.items():
        if reason == "input":
            yield from (f"input of {day}" for day in days)
        elif days:
            yield f"model {model_sha256[:12]}" if reason == "model" else reason


def spans(days: Iterable[str]) -> list[tuple[date, date]]:
    """First and last of each run of consecutive days."""
    found: list[tuple[date, date]] = []
    for day in sorted(map(date.fromisoformat, days)):
        if found and day - found[-1][1] == timedelta(days=1):
            found[-1] = (found[-1][0], day)
        else:
            found.append((day, day))
    return found


def ranges(days: Iterable[str]) -> list[str]:
    """Consecutive days joined: `2013-07-01 … 2013-07-14`; a day alone as it is."""
    return [f"{first} … {last}" if last > first else str(first) for first, last in spans(days)]


def describe(bundle: Bundle, in_force: ModelInForce) -> dict[str, dg.MetadataValue]:
    """What an operator asks of the model."""
    manifest = bundle.manifest
    metrics = [{"metric": name, "value": value} for name, value in manifest.metrics.items()]
    return {
        "version": dg.MetadataValue.text(manifest.version),
        "sha256": dg.MetadataValue.text(bundle.sha256),
        "in_force_since": dg.MetadataValue.timestamp(in_force.resolved_at),
        "source": dg.MetadataValue.text(bundle.uri),
        "dagster/size_bytes": dg.MetadataValue.int(sum(map(len, bundle.content.values()))),
        "features": dg.MetadataValue.int(len(manifest.numeric) + len(manifest.categorical)),
        "training": dg.MetadataValue.json(manifest.training),
        **({"metrics": ui_table(metrics)} if metrics else {}),
    }
