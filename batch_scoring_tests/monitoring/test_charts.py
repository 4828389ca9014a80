"""Charts for the UI: bars in proportion, failed days red, limits as lines where they do not flatten the bars."""

import base64
import re

import dagster as dg

from batch_scoring.monitoring.charts import FAILED, NOW, PLAIN, histogram, trend


def drawing(chart: dg.MetadataValue) -> str:
    (data,) = re.findall(r"base64,([A-Za-z0-9+/=]+)\)$", str(chart.value))
    return base64.b64decode(data).decode()


def bars(svg: str) -> list[tuple[float, str, str]]:
    """Height, colour and title of each bar."""
    found = re.findall(r'height="([\d.]+)" fill="(#\w+)"><title>(.*?)</title></rect>', svg)
    return [(float(height), colour, title) for height, colour, title in found]


def test_a_histogram_has_a_bar_a_bin_in_proportion() -> None:
    svg = drawing(histogram([10, 40, 0], "scores of <b>"))
    assert [(height, title) for height, _, title in bars(svg)] == [(37.5, "10"), (150.0, "40"), (0.0, "0")]
    assert "scores of &lt;b&gt;, at most 40 rows per bin" in svg


def test_a_trend_marks_failed_days_and_the_day_itself() -> None:
    svg = drawing(
        trend([("2024-03-01", 5.0, True), ("2024-03-02", 10.0, False), ("2024-03-03", 2.5, True)], [8.0], "x")
    )
    assert bars(svg) == [
        (45.0, PLAIN, "2024-03-01: 5"),
        (90.0, FAILED, "2024-03-02: 10"),
        (22.5, NOW, "2024-03-03: 2.5"),
    ]
    assert "limit 8" in svg and ">2024-03-01</text>" in svg and ">2024-03-03</text>" in svg


def test_a_limit_far_beyond_the_values_is_not_drawn() -> None:
    svg = drawing(trend([("2024-03-01", 5.0, True)], [1000.0], "x"))
    assert "limit" not in svg and bars(svg)[0][0] == 90.0
