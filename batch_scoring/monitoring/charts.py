"""Small charts for the UI: SVG inside Markdown, which Dagster renders."""

import base64
from collections.abc import Sequence
from html import escape

import dagster as dg

PLAIN, FAILED, NOW = "#b9b5f0", "#d9483b", "#4f43dd"


def histogram(counts: Sequence[int], title: str) -> dg.MetadataValue:
    """A histogram of counts in equal bins from 0 to 1."""
    width, height, most = 480, 150, max([*counts, 1])
    step = width / max(len(counts), 1)
    bars = "".join(
        _bar(index * step, step, height * count / most, height, NOW, str(count)) for index, count in enumerate(counts)
    )
    ticks = "".join(
        f'<text x="{width * tick / 4:.0f}" y="{height + 14}" text-anchor="middle">{tick / 4:g}</text>'
        for tick in range(5)
    )
    heading = f'<text y="-6">{escape(title)}, at most {most} rows per bin</text>'
    return _picture(title, heading + bars + ticks, width, height)


def trend(days: Sequence[tuple[str, float, bool]], limits: Sequence[float], title: str) -> dg.MetadataValue:
    """A bar chart with one bar per day, the last one the day itself; failed days are red, limits are lines.

    Args:
        days: day, value and whether the check passed.
        limits: drawn across, in the values' unit.
        title: of the chart.
    """
    width, height = 480, 90
    shown = [value for _, value, _ in days]
    drawn = [limit for limit in limits if limit <= 4 * max([*shown, 1e-12])]  # a far limit would flatten the bars
    most = max([*shown, *drawn, 1e-12])
    step = width / max(len(days), 1)
    bars = "".join(
        _bar(
            index * step,
            step,
            height * max(value, 0) / most,
            height,
            FAILED if not passed else NOW if index == len(days) - 1 else PLAIN,
            f"{day}: {value:.4g}",
        )
        for index, (day, value, passed) in enumerate(days)
    )
    lines = "".join(
        f'<line x1="0" x2="{width}" y1="{height - height * limit / most:.1f}" y2="{height - height * limit / most:.1f}"'
        f' stroke="#555" stroke-dasharray="4"><title>limit {limit:.4g}</title></line>'
        for limit in drawn
    )
    ends = f'<text y="{height + 14}">{days[0][0]}</text>' if days else ""
    ends += f'<text x="{width}" y="{height + 14}" text-anchor="end">{days[-1][0]}</text>' if len(days) > 1 else ""
    heading = f'<text y="-6">{escape(title)}, up to {most:.4g}</text>'
    return _picture(title, heading + bars + lines + ends, width, height)


def _bar(left: float, step: float, tall: float, height: int, colour: str, title: str) -> str:
    return (
        f'<rect x="{left + 1:.1f}" y="{height - tall:.1f}" width="{step - 2:.1f}" height="{tall:.1f}" '
        f'fill="{colour}"><title>{title}</title></rect>'
    )


def _picture(title: str, content: str, width: int, height: int) -> dg.MetadataValue:
    drawing = (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="-12 -18 {width + 24} {height + 40}" width="{width}" '
        f'font-family="sans-serif" font-size="11" fill="#555">{content}</svg>'
    )
    return dg.MetadataValue.md(f"![{title}](data:image/svg+xml;base64,{base64.b64encode(drawing.encode()).decode()})")
