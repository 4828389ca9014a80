"""The findings of the model's checks: the delivered bundle, its metrics, and the days that are stale."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from batch_scoring.config.days import ranges, spans
from batch_scoring.config.names import rescored
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.daily.freshness import StaleDays, stale_days
from batch_scoring.daily.model_code import model_code
from batch_scoring.errors import BundleError, CodeError, ContractError, StateError
from batch_scoring.inference import registry
from batch_scoring.inference.bundle import (
    OTHER_OUTPUTS,
    Bundle,
    build_network,
    check_contents,
    check_rows,
    golden_deviation,
    read_bundle,
)
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring.monitoring.finding import Finding

CHECKS = {
    "bundle_is_intact": "Every file of the bundle has its sha256; weights, vocabularies and reference fit the network.",
    "golden_rows_agree": "The golden rows give the outputs here that they gave when the bundle was written.",
    "metrics_meet_threshold": "The bundle's metrics are at least `least` and at most `most` of the spec.",
    "days_are_current": "Every scored day is up to date with the active model, the code and its landing files.",
}


@dataclass(frozen=True)
class Delivered:
    """What the spec's bundle folder holds, and whether it can be trusted."""

    bundle: Bundle | None
    """None unless it is intact and its golden rows agree."""
    findings: list[Finding]


def examine(pipeline: Pipeline) -> Delivered:
    """Read and verify the bundle that the spec names."""
    try:
        bundle, loaded = _read(pipeline)
    except (BundleError, CodeError, ContractError) as error:
        intact = Finding("bundle_is_intact", False, str(error))
        golden = Finding("golden_rows_agree", False, "not tested: the bundle is not intact")
        return Delivered(None, [intact, golden])
    intact = Finding("bundle_is_intact", True, f"{bundle.uri} is version {bundle.manifest.version}")
    golden = _golden_rows(bundle, loaded)
    return Delivered(bundle if golden.passed else None, [intact, golden])


def _read(pipeline: Pipeline) -> tuple[Bundle, LoadedModel]:
    """The bundle with its network.

    Raises:
        BundleError: it is not intact, or not one for this pipeline.
        CodeError: the pipeline's code cannot be loaded.
        ContractError: features.engineered is no schema.
    """
    bundle = read_bundle(pipeline.bundle)
    registry.ensure_declared_features(pipeline, bundle)
    registry.ensure_new_version(pipeline, bundle)
    loaded = build_network(bundle, model_code(pipeline))
    check_contents(bundle, loaded)
    return bundle, loaded


def _golden_rows(bundle: Bundle, loaded: LoadedModel) -> Finding:
    """The finding golden_rows_agree."""
    check = "golden_rows_agree"
    try:
        deviation = golden_deviation(bundle, loaded)
        check_rows(bundle, loaded)
    except BundleError as error:
        return Finding(check, False, str(error))
    size, bound = deviation.size, deviation.bound
    message = f"{bundle.uri}: the golden rows differ by {size:.2g}, at most {bound:.2g} is accepted"
    if not deviation.is_accepted:
        message += f"; {OTHER_OUTPUTS}"
    return Finding(check, deviation.is_accepted, message, {"deviation": size, "bound": bound})


def metrics(pipeline: Pipeline, delivered: Delivered) -> Finding:
    """The finding metrics_meet_threshold."""
    check, thresholds = "metrics_meet_threshold", pipeline.spec.checks.metrics_meet_threshold
    if delivered.bundle is None:
        return Finding(check, True, "not tested: there is no model to check")
    found = delivered.bundle.manifest.metrics
    missed = [
        f"{name} is {found.get(name, 'not recorded')}, expected at {word} {limit:g}"
        for word, limits in (("least", thresholds.least), ("most", thresholds.most))
        for name, limit in limits.items()
        if name not in found or not (found[name] >= limit if word == "least" else found[name] <= limit)
    ]
    count = len(thresholds.least) + len(thresholds.most)
    message = f"{count - len(missed)} of {count} metrics meet their threshold"
    if not count:
        message = "no threshold is declared; checks.metrics_meet_threshold.least in the spec names metrics"
    return Finding(check, not missed, "; ".join([message, *missed]), dict(found))


def currency(pipeline: Pipeline, delivered: Delivered, own_day: Iterable[str]) -> Finding:
    """The finding days_are_current; it leaves out the day that this run scores."""
    check = "days_are_current"
    if delivered.bundle is None:
        return Finding(check, True, "not tested: there is no model to compare with")
    try:
        stale = stale_days(pipeline, delivered.bundle.sha256)
    except (StateError, OSError) as error:  # a day's damaged document must not stop the other days' runs
        return Finding(check, False, str(error))
    for days in stale.by_reason.values():
        days[:] = sorted(set(days) - set(own_day))
    if not stale.days:
        return Finding(check, True, "every scored day comes from the current model, code and input", {"stale": 0})
    why = "; ".join(f"{reason}: {', '.join(ranges(days))}" for reason, days in stale.by_reason.items() if days)
    commands = _commands(pipeline, stale)
    shown = commands[0] if len(commands) == 1 else f"batch-scoring backfill {pipeline.name} --stale"
    figures = {
        "stale": len(stale.days),
        "days": ", ".join(ranges(stale.days)),
        "run": "\n".join(commands),
        "state": "\n".join(_causes(stale, delivered.bundle.sha256)),
    }
    return Finding(check, False, f"stale days: {len(stale.days)} ({why}); run: {shown}", figures)


def _commands(pipeline: Pipeline, stale: StaleDays) -> list[str]:
    """Commands that score the stale days again; days without landing files from their features alone."""
    landed, archived = set(stale.days) - stale.archived, sorted(stale.archived.intersection(stale.days))
    assets = ",".join(f"{pipeline.name}/{asset}" for asset in rescored(pipeline) if asset != "model")
    alone = f"dagster asset materialize -m batch_scoring.definitions --select {assets} --partition"
    return [
        *(f"batch-scoring backfill {pipeline.name} {first} {last}" for first, last in spans(landed)),
        *(f"{alone} {day}" for day in archived),
    ]


def _causes(stale: StaleDays, model_sha256: str) -> Iterator[str]:
    """Causes of stale days, one line each, to alert about once: another model, other code, a day's other input."""
    for reason, days in stale.by_reason.items():
        if reason == "input":
            yield from (f"input of {day}" for day in days)
        elif days:
            yield f"model {model_sha256[:12]}" if reason == "model" else reason
