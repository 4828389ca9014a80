"""All probes of `batch-scoring doctor`, and the exit code that follows from their findings."""

import os
import sys
import threading
import time
from collections.abc import Sequence
from typing import Literal, TextIO

from batch_scoring.cli.doctor import cloud, delta_tables, exports, inputs, instance, machine, probe_files, stores
from batch_scoring.cli.doctor.probe import Probe, Site, examine
from batch_scoring.cli.doctor.report import DoctorReport
from batch_scoring.cli.instance import home
from batch_scoring.config.loader import survey_pipelines
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import SpecError, UnknownPipelineError
from batch_scoring.runtime import signals
from batch_scoring.runtime.printable import unguarded

OF_DEPLOYMENT: tuple[Probe, ...] = (
    inputs.specs,
    machine.code,
    machine.alert_channels,
    cloud.identity,
    instance.home,
    machine.lasting_instance,
    instance.settings,
    instance.executor,
    instance.daemon,
    instance.starters,
    instance.guards,
    exports.sensors,
    instance.ticks,
    instance.dead_runs,
    instance.waiting_alerts,
)
"""Probes of the whole deployment; each takes a `Site`."""

OF_PIPELINE: tuple[Probe, ...] = (
    stores.landing_is_reachable,
    stores.output_is_reachable,
    stores.bundle_is_reachable,
    stores.writable,
    stores.hard_links,
    stores.conditional_writes,
    stores.clock,
    machine.disk,
    machine.lasting,
    delta_tables.logs,
    delta_tables.rows,
    inputs.landing_names,
    inputs.newest_landing_file,
    inputs.bundle,
    cloud.queue,
    exports.sinks,
)
"""Probes of a pipeline; each takes a `Pipeline`."""


def doctor(
    names: Sequence[str],
    out: TextIO,
    *,
    as_json: bool = False,
    send_test: bool = False,
    fail_on: Literal["warning", "error"] = "warning",
) -> int:
    """Run all probes and print their findings.

    Args:
        names: of the pipelines to examine; all if empty.
        out: receives the report.
        as_json: one JSON object instead of text.
        send_test: send a test message to every alert channel.
        fail_on: least severity that makes the exit code 1.

    Returns:
        0 if nothing was found, 1 if something was.

    Raises:
        UnknownPipelineError: no pipeline has one of the names.
    """
    began = time.monotonic()
    with signals.at_end(_clear_up):
        pipelines, faults = chosen(names)
        report = look(pipelines, faults, send_test=send_test, began=began)
    out.write(report.json() if as_json else report.text())
    code = 1 if report.fails(fail_on) else 0
    return _left(code, out) if any(outcome.hangs for outcome in report.outcomes) else code


def look(
    pipelines: Sequence[Pipeline], faults: Sequence[str] = (), *, send_test: bool = False, began: float | None = None
) -> DoctorReport:
    """Run all probes.

    Args:
        pipelines: to examine; their specs are valid.
        faults: of all specs.
        send_test: send a test message to every alert channel.
        began: when the command did, on the monotonic clock; now if None.
    """
    began = time.monotonic() if began is None else began
    site = Site(tuple(pipelines), send_test, home(), None, tuple(faults))
    if cloud.uses_aws(site):
        import boto3  # noqa: F401  (imported once, before threads do so concurrently)
    wanted: list[tuple[Probe, str, object]] = [(probe, "", site) for probe in OF_DEPLOYMENT]
    wanted += [(probe, pipeline.name, pipeline) for pipeline in pipelines for probe in OF_PIPELINE]
    try:
        outcomes = examine(wanted)
    finally:
        probe_files.remove_all()
        if site.instance is not None:
            site.instance.dispose()
    return DoctorReport([outcome for outcome in outcomes if _matters(outcome.probe, site)], time.monotonic() - began)


def chosen(names: Sequence[str]) -> tuple[list[Pipeline], list[str]]:
    """The valid pipelines with these names, and the validation errors of the others; of all without names.

    Raises:
        UnknownPipelineError: no pipeline has one of the names.
    """
    try:
        survey = survey_pipelines()
    except SpecError as error:  # of the data root, or there is no pipeline
        return [], error.errors
    if unknown := [name for name in names if name not in survey.names]:
        raise UnknownPipelineError(
            f"no pipeline {', '.join(map(repr, unknown))}; known pipelines: {', '.join(sorted(survey.names))}"
        )
    wanted = set(names) or survey.names
    faults = [fault for broken in survey.broken if broken.name in wanted for fault in broken.errors]
    return [pipeline for pipeline in survey.valid if pipeline.name in wanted], faults


def _left(code: int, out: TextIO) -> int:
    """End the process if it is a command: Python would wait for threads that hang in libraries."""
    if unguarded(out) is sys.stdout and threading.current_thread() is threading.main_thread():
        out.flush()
        os._exit(code)
    return code


def _clear_up() -> str:
    """Remove what probes have written."""
    left = probe_files.remove_all()
    return f"these may be left: {', '.join(left)}" if left else "no probe file is left"


def _matters(probe: Probe, site: Site) -> bool:
    """Whether a probe is reported: those of AWS only where AWS is used, those of exports where there are any."""
    if probe in (exports.sinks, exports.sensors):
        return exports.has_exports(site)
    return probe not in (cloud.identity, cloud.queue, stores.conditional_writes) or cloud.uses_aws(site)
