"""The subcommand `calibrate`: learn a model's drift thresholds and write them into its bundle."""

import sys

import click

from batch_scoring.cli.parameters import Subcommand
from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import MANIFEST, PROFILE, Bundle, read_bundle, read_manifest
from batch_scoring.inference.reference_profile import ReferenceProfile
from batch_scoring.inference.registry import ensure_new_version
from batch_scoring.monitoring.drift import calibration, distances
from batch_scoring.runtime.printable import guarded
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring.storage.folders.folder import Folder


@click.command(cls=Subcommand)
@click.argument("pipeline", help="Name of the pipeline; its spec names the bundle.")
@click.option("--bundle", metavar="URI", help="Another bundle's folder or s3:// address.")
@click.option("--version", metavar="NAME", help="Write a copy under this version's name, beside the bundle.")
@click.option("--dry-run", is_flag=True, help="Write nothing.")
def calibrate(pipeline: str, *, bundle: str | None, version: str | None, dry_run: bool) -> int:
    """Learn the thresholds of drift from the reference of a model's bundle.

    They are tested on held-out days; the command prints how many alarms to expect, and writes the thresholds into the
    bundle as profile.json. The exit code is 2 if it cannot calibrate.
    """
    out = guarded(sys.stdout)
    try:
        found = find_pipeline(pipeline)
        delivered = read_bundle(open_folder(bundle) if bundle else found.bundle)
        profile = calibration.calibrate(delivered, found.spec.features.day_grain)
        out.write(summary(profile))
        if not dry_run:
            out.write(f"\n{store(found, delivered, profile, version)}\n")
    except BundleError as error:  # the command names the bundle
        guarded(sys.stderr).write(f"batch-scoring: {error}\n")
        return 2
    return 0


def summary(profile: ReferenceProfile) -> str:
    """The learned thresholds and their false alarms on held-out days, as text."""
    lines = [
        f"reference: {profile.days} days, {profile.first} to {profile.last}, {profile.rows} rows a day; "
        + (
            "weekdays and weekends are compared separately"
            if profile.weekends_apart
            else "all days are compared together"
        ),
        f"a day alarms above {profile.factor:.2f} times a column's threshold",
        "",
        f"{'column':28} {'tested':>14} {'T0':>7} {'s':>6} {'T(n)':>7} {'28 days':>8} {'missing':>8} {'repeated':>8}",
    ]
    for name, column in {**profile.columns, **profile.scores}.items():
        repeated = f"{column.repeated:.1%}" if column.repeated < 1 else "-"
        tested = [word for word, holds in (("day", column.day is not None), ("28 days", column.trailing)) if holds]
        limit = distances.threshold(column, profile.rows, profile.rows) if column.day is not None else None
        missing = f"{column.missing:.1%}" if column.missing < 1 else "-"
        lines.append(
            f"{name:28} {' + '.join(tested) or '-':>14} {_shown(column.day)} {column.sampling:6.2f} {_shown(limit)} "
            f"{_shown(column.trailing and 2 * column.trailing, 8)} {missing:>8} {repeated:>8}"
        )
    lines += [f"left out: {name}: {reason}" for name, reason in profile.left_out.items()]
    lines += ["", "days held out (8 folds), in %      days  a column  any column  alarms"]
    for held in profile.held_out:
        what = "whole days" if held.rows == "whole" else f"{held.rows} rows of each"
        lines.append(
            f"{what:30} {held.days:8} {held.columns:9.2%} {held.any_column:11.1%} {held.alarms:7.1%}".replace("%", " ")
        )
    lines += [f"too many missing or repeated values: {profile.share_alarms:.1%} of the days", ""]
    if profile.exceeding:
        lines += ["reference days that exceed a threshold themselves; if one is faulty, leave it out of the reference:"]
        lines += [f"  {day}  {why}" for day, why in profile.exceeding.items()]
    trailing = (
        f"no test of the trailing 28 days: it takes {distances.TRAILING_REFERENCE_DAYS} reference days"
        if profile.days < distances.TRAILING_REFERENCE_DAYS
        else "of the trailing 28 days about 0.3 (measured on another table: one reference has too few windows)"
    )
    lines.append(f"expect {profile.alarms_a_month:.1f} false alarms of single days a month; {trailing}")
    return "\n".join(lines) + "\n"


def store(pipeline: Pipeline, bundle: Bundle, profile: ReferenceProfile, version: str | None = None) -> str:
    """Write the profile into the bundle, or into a copy under another version's name; return what to do next.

    Raises:
        BundleError: the version was active without this profile (rows carry its name already), or the folder of
            that version holds another model.
    """
    complete = bundle.with_profile(profile, version or bundle.manifest.version)
    if complete.sha256 == bundle.sha256:
        return f"{bundle.uri} has this profile already"
    try:
        ensure_new_version(pipeline, complete)
    except BundleError as error:
        raise BundleError(f"{error}, for example with --version {complete.manifest.version}-calibrated") from error
    uri = f"{bundle.uri.rpartition('/')[0]}/{version}" if version else bundle.uri
    _ensure_same_model(complete, open_folder(uri))
    complete.write(open_folder(uri))
    return f"written: {uri} (version {complete.manifest.version}, sha256 {complete.sha256[:12]}…)" + (
        "; name it in model.bundle" if version else ""
    )


def _ensure_same_model(bundle: Bundle, folder: Folder) -> None:
    """Ensure that only the profile of a bundle is replaced, never its other files."""
    if not folder.list(MANIFEST):
        return
    _, there = read_manifest(folder)
    if {**there.files, PROFILE: ""} != {**bundle.manifest.files, PROFILE: ""}:
        raise BundleError(f"{folder.uri} holds another model, version {there.version}; choose another --version")


def _shown(value: float | None, width: int = 7) -> str:
    return f"{value:{width}.3f}" if value else f"{'-':>{width}}"
