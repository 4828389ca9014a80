"""The command that calibrates a model's bundle.

    python -m batch_scoring.monitoring.drift.distances calibrate flight_delay

It learns the thresholds, says how often they would have been wrong, and writes them into the bundle.
"""

import argparse
import sys
from collections.abc import Sequence

from batch_scoring.config.loader import find_pipeline
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import BatchScoringError, BundleError
from batch_scoring.inference.bundle import MANIFEST, PROFILE, Bundle, read_bundle, read_manifest
from batch_scoring.inference.reference_profile import Profile
from batch_scoring.inference.registry import ensure_new_version
from batch_scoring.monitoring.drift import distances
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.runtime.printable import guarded
from batch_scoring.storage.folders import Folder, open_folder


def describe(profile: Profile) -> str:
    """What was learned and how often it would have been wrong, for a person to decide on."""
    lines = [
        f"reference: {profile.days} days, {profile.first} to {profile.last}, {profile.rows} rows a day; "
        + ("weekdays and weekends are compared apart" if profile.weekends_apart else "all days are compared alike"),
        f"a day alarms beyond {profile.factor:.2f} times a column's threshold",
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
        lines += ["reference days beyond a threshold themselves; if one is a fault, leave it out of the reference:"]
        lines += [f"  {day}  {why}" for day, why in profile.exceeding.items()]
    trailing = (
        f"no test of the trailing 28 days: it takes {distances.TRAILING_REFERENCE_DAYS} reference days"
        if profile.days < distances.TRAILING_REFERENCE_DAYS
        else "of the trailing 28 days about 0.3 (measured on another table: one reference has too few windows)"
    )
    lines.append(f"expect {profile.alarms_a_month:.1f} false alarms of single days a month; {trailing}")
    return "\n".join(lines) + "\n"


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `python -m batch_scoring.monitoring.drift.distances calibrate`; its exit code."""
    parser = argparse.ArgumentParser(prog="python -m batch_scoring.monitoring.drift.distances")
    command = parser.add_subparsers(required=True).add_parser(
        "calibrate",
        help="learn a model's drift thresholds",
        description="Learn the thresholds of drift from the reference of a model's bundle, try them on days held out, "
        "say how many alarms to expect, and write them into the bundle as profile.json.",
    )
    command.add_argument("pipeline", help="name of the pipeline; its spec names the bundle")
    command.add_argument("--bundle", help="another bundle's folder or s3:// address")
    command.add_argument("--version", help="write a copy under this version's name, beside the bundle")
    command.add_argument("--dry-run", action="store_true", help="write nothing")
    options = parser.parse_args(arguments)
    try:
        pipeline = find_pipeline(options.pipeline)
        bundle = read_bundle(open_folder(options.bundle) if options.bundle else pipeline.bundle)
        profile = calibrate(bundle, pipeline.spec.features.day_grain)
        guarded(sys.stdout).write(describe(profile))
        if not options.dry_run:
            guarded(sys.stdout).write(f"\n{store(pipeline, bundle, profile, options.version)}\n")
    except BatchScoringError as error:
        guarded(sys.stderr).write(f"calibrate: {error}\n")
        return 2 if isinstance(error, BundleError) else error.exit_code  # the bundle is what the command names
    return 0


def store(pipeline: Pipeline, bundle: Bundle, profile: Profile, version: str | None = None) -> str:
    """Write the profile into the bundle, or a copy of it under another version's name; says what to do next.

    Raises:
        BundleError: the version was in force without this profile (its name stands in rows already), or the folder of
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
    _refuse_another_model(complete, open_folder(uri))
    complete.write(open_folder(uri))
    return f"written: {uri} (version {complete.manifest.version}, sha256 {complete.sha256[:12]}…)" + (
        "; name it in model.bundle" if version else ""
    )


def _refuse_another_model(bundle: Bundle, folder: Folder) -> None:
    """A profile may be replaced; the files that it is written beside, never."""
    if not folder.list(MANIFEST):
        return
    _, there = read_manifest(folder)
    if {**there.files, PROFILE: ""} != {**bundle.manifest.files, PROFILE: ""}:
        raise BundleError(f"{folder.uri} holds another model, version {there.version}; choose another --version")


def _shown(value: float | None, width: int = 7) -> str:
    return f"{value:{width}.3f}" if value else f"{'-':>{width}}"
