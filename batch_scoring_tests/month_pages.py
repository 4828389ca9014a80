"""Shared helpers for tests of a month's page: its days, and functions that read the page."""

import json
import re
from typing import Any

import dagster as dg
import pyarrow as pa
from plotly.offline import get_plotlyjs

from batch_scoring_tests.tiny import TinyProject

MONTH, PAGE = "2024-03-01", "reports/month=2024-03.html"

FINE, QUARANTINED, STOPPED, MISSING, PROMOTED, BROKEN, OVERTAKEN = (
    f"2024-03-{day:02}" for day in (4, 5, 6, 7, 8, 9, 11)
)


def draw(tiny: TinyProject, month: str = MONTH) -> dict[str, Any]:
    """Materialise a month in an empty instance; return the metadata."""
    job = tiny.definitions.resolve_job_def(f"report_{tiny.name}")
    result = job.execute_in_process(
        partition_key=month, run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
    )
    (event,) = result.get_asset_materialization_events()
    assert event.asset_key == dg.AssetKey([tiny.name, "report"]) and event.partition == month
    return {name: value.value for name, value in event.materialization.metadata.items()}


def page(tiny: TinyProject, path: str = PAGE) -> str:
    """Return the page without plotly's own code."""
    return tiny.pipeline.output.read(path).decode().replace(get_plotlyjs(), "")


def chart(tiny: TinyProject, name: str, path: str = PAGE) -> list[dict[str, Any]]:
    """Return the traces of a chart on the page."""
    (found,) = re.findall(rf'<script type="application/json" data-chart="{name}">(.*?)</script>', page(tiny, path))
    return json.loads(found)["data"]


def series(tiny: TinyProject, name: str) -> dict[str, dict[str, float]]:
    """Return the values of a chart, by trace and day."""
    return {trace["name"]: dict(zip(trace["x"], trace["y"], strict=True)) for trace in chart(tiny, name)}


def cell(tiny: TinyProject, day: str, row: str) -> tuple[str, str]:
    """Return the result and the hover text of a cell of the heat map."""
    (heat,) = chart(tiny, "checks")
    column, line = heat["x"].index(day), heat["y"].index(row)
    assert "failed and stopped the day" in page(tiny)
    results = ["not run", "untested", "passed", "failed", "stopped"]
    return results[heat["z"][line][column]], heat["hovertext"][line][column]


def bad(rows: pa.Table, count: int) -> pa.Table:
    """Return the rows, of which the first ones violate the contract."""
    return rows.set_column(3, "n", pa.array([-1] * count + [1] * (len(rows) - count)))
