"""Probes of exports: their sinks, and the sensor that starts them."""

import contextlib
from collections.abc import Iterator

import pyarrow as pa

from batch_scoring.cli.doctor.instance import switch_on
from batch_scoring.cli.doctor.probe import ProbeFinding, Site, probe
from batch_scoring.config.delivery_spec import FileExport
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.delivery.exports import published
from batch_scoring.delivery.exports.selection import select
from batch_scoring.delivery.exports.sinks import sink_of
from batch_scoring.errors import BatchScoringError
from batch_scoring.operations.automation import sensor_status
from batch_scoring.storage.state import State


@probe("sinks", "output")
def sinks(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The sink of every export answers, and would take the rows of a day."""
    for name in pipeline.spec.exports:
        for problem in _problems(pipeline, name):
            found, _, remedy = problem.rpartition("; ")
            where, remedy = f"{pipeline.name}: exports.{name}", remedy if found else _remedy(pipeline, name)
            yield ProbeFinding("error", where, found or problem, "a sink that takes the rows of a day", remedy)
        yield from _forgotten(pipeline, name)


def _remedy(pipeline: Pipeline, name: str) -> str:
    """Where to look for the reason of a problem that names none."""
    export = pipeline.spec.exports[name]
    place = f"exports.{name} in pipeline.yaml"
    return f"see {place}" if isinstance(export, FileExport) else f"see {place}, and the address in {export.url_from}"


def _problems(pipeline: Pipeline, name: str) -> Iterator[str]:
    """What would keep the newest published day from being exported; without one, whether the sink answers."""
    try:
        sink, state, export = sink_of(pipeline, name), State(pipeline.output), pipeline.spec.exports[name]
        newest = state.newest_published_days(export.of, 1, lambda day: published.is_day_of(export, day))
        if newest:
            found = published.of_day(state, export, newest[0].day)
            yield from sink.problems(select(pipeline, name, found).schema)
        elif isinstance(export, FileExport):
            yield from sink.problems(pa.schema([]))
        else:
            sink.marker(str(pipeline.spec.partitions.start))
    except BatchScoringError as error:
        yield str(error)


def _forgotten(pipeline: Pipeline, name: str) -> Iterator[ProbeFinding]:
    """A server that shows less of the newest day than its receipt says: it was emptied, or set back to a backup.

    Left out are files, as people take their lists away, and exports whose first version stays, whatever is published.
    """
    export, state = pipeline.spec.exports[name], State(pipeline.output)
    if isinstance(export, FileExport) or export.corrections == "keep":
        return
    newest = state.newest_published_days(export.of, 1, lambda day: published.is_day_of(export, day))
    receipt = published.receipt_of(state, name, newest[0].day) if newest else None
    if receipt is None or not published.is_there(receipt, export):
        return
    with contextlib.suppress(BatchScoringError):  # told as a problem of the sink
        shown = sink_of(pipeline, name).marker(receipt.day)
        if shown is None or (shown.of == receipt.of and shown.version < (receipt.created, receipt.transaction)):
            yield ProbeFinding(
                "warning",
                f"{pipeline.name}: exports.{name}",
                f"the sink shows {'an older version' if shown else 'nothing'} of {receipt.day}, which was exported",
                "the version that its receipt names",
                f"run: batch-scoring export {pipeline.name} {name} {receipt.day} {receipt.day} --again",
            )


@probe("exports sensor", "instance")
def sensors(site: Site) -> Iterator[ProbeFinding]:
    """The sensors that start exports run as the specs say."""
    known = sensor_status.states(site.instance) if site.instance else {}
    for pipeline in site.pipelines:
        for name, default in sensor_status.exports_sensor_of(pipeline).items():
            if default == "running" and not sensor_status.is_on(known.get(name), default):
                yield ProbeFinding(
                    "warning",
                    f"sensor {name}",
                    "it is switched off by hand: days are exported by command only",
                    "on, as the spec says",
                    f"{switch_on(site, name)}; or say stopped in the spec",
                )


def has_exports(site: Site) -> bool:
    """Whether a pipeline exports anything."""
    return any(pipeline.spec.exports for pipeline in site.pipelines)
