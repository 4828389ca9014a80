"""A trial of a Dagster instance that is emptied: storage and the sink know what was exported, not Dagster."""

import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from batch_scoring_tests.reliability.export_trials import Place, Report, Size

if TYPE_CHECKING:
    from batch_scoring.delivery.exports.sink import Marker
    from batch_scoring_tests.tiny import TinyProject

MOST_TICKS = 3
"""One more than there are days: a sensor that asks for too much is found out, and may not go on for ever."""


class ExportedPlace(Place, Protocol):
    """A place that a spec can name."""

    def section(self, unique: str) -> dict[str, Any]:
        """The export's section; `unique`: a name for what is in the sink."""

    def environment(self) -> Mapping[str, str]:
        """The variables that the section names, or with which the sink is reached."""


def emptied(place: ExportedPlace, days: Iterator[str], size: Size, report: Report) -> None:
    """Export days as the sensor asks, empty the instance, correct a day, empty it again."""
    from batch_scoring_tests.exports import scored, with_export  # imports all that a deployment has; children need not
    from batch_scoring_tests.tiny import TinyProject

    os.environ |= place.environment()
    with tempfile.TemporaryDirectory() as folder:
        tiny = TinyProject(Path(folder))
        tiny.spec["partitions"]["start"] = "2024-01-01"
        with_export(tiny, **{"path": None, **place.section(tiny.name)})
        first, second = next(days), next(days)
        scored(tiny, first, second)
        report.expect("days exported at first", _exported_anew(tiny), [second, first])
        before = _markers(tiny, first, second)
        report.expect("days exported from an empty instance", _exported_anew(tiny), [])
        scored(tiny, first, rows=13)
        report.expect("days exported from an empty one after a correction", _exported_anew(tiny), [first])
        corrected, beside = _markers(tiny, first, second)
        report.expect("rows of the corrected day", corrected and corrected.rows, 13)
        report.expect("the day beside it", beside, before[1])


def _exported_anew(tiny: "TinyProject") -> list[str]:
    """The days that runs export for which the sensor asks, in a new instance, which is deleted then."""
    import dagster as dg

    from batch_scoring.config.loader import PROJECT
    from batch_scoring_tests.exports import tick_and_run

    days: list[str] = []
    with tempfile.TemporaryDirectory() as home:
        Path(home, "dagster.yaml").write_bytes((PROJECT / "dagster.yaml").read_bytes())
        with dg.DagsterInstance.from_config(home) as instance:
            for _ in range(MOST_TICKS):
                days += [one.split()[1] if one.endswith("succeeded") else one for one in tick_and_run(tiny, instance)]
    return days


def _markers(tiny: "TinyProject", *days: str) -> "list[Marker | None]":
    from batch_scoring.delivery.exports.sinks import sink_of
    from batch_scoring_tests.exports import NAME

    sink = sink_of(tiny.pipeline, NAME)
    return [sink.marker(day) for day in days]
