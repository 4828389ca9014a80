"""The HTML page of a month: one file with plotly.js inside, which needs no network and may not use one.

It shows a `Month` of `Day`s, which `month.py` reads from the state. All their texts are escaped here: a message may
quote a customer's file.
"""

import calendar
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from batch_scoring.config.days import of_month, ranges
from batch_scoring.monitoring import html
from batch_scoring.monitoring.charts import FAILED, NOW, PLAIN
from batch_scoring.monitoring.cost import MonthCost, StepCost, in_words
from batch_scoring.monitoring.html import escaped
from batch_scoring.operations.failure_history import FailureStatistics
from batch_scoring.storage.state import CheckRecord, ColumnDrift, Moments, StepName

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Status = Literal["scored", "failed", "unfinished", "missing"]

STATUSES: Mapping[Status, str] = {
    "scored": "the newest pinned input is scored and published",
    "failed": "a check stopped the day",
    "unfinished": "started but not scored: an error, a check of the model, or a run in progress",
    "missing": "nothing has run",
}
"""What each status of a day means."""

Checked = tuple[str, str]
"""An asset and one of its checks."""


@dataclass(frozen=True)
class Day:
    """A day on the page. Rows and scores are those in the tables, also of an earlier publication."""

    day: str
    status: Status
    checks: Mapping[Checked, CheckRecord] = field(default_factory=dict)
    scored: int = 0
    """Rows."""
    waiting: int = 0
    """Accepted rows of a day without predictions."""
    quarantined: int = 0
    """Rows, of every stage."""
    model_version: str = ""
    score: Moments | None = None
    score_column: str = ""
    drift: Mapping[str, ColumnDrift] = field(default_factory=dict)
    """For each comparison, the column furthest above, or nearest below, its threshold."""
    rows_per_second: Mapping[str, float] = field(default_factory=dict)
    """By step."""
    costs: Mapping[StepName, StepCost | None] = field(default_factory=dict)
    """By step; None if it was not recorded."""
    damage: tuple[str, ...] = ()
    """Documents of the state that could not be read."""


@dataclass(frozen=True)
class Month:
    """The content of the page."""

    pipeline: str
    month: str
    """YYYY-MM."""
    days: tuple[Day, ...]
    """Days of the pipeline that have begun, without today as long as nothing has run."""
    checks: tuple[Checked, ...]
    """All checks of the pipeline, in the order of the flow."""
    drawn_at: datetime
    run_id: str
    currency: str | None = None
    """Of the spec's prices; None without any."""
    failed: FailureStatistics = field(default_factory=FailureStatistics)
    """Runs of the 30 days before the page was drawn, whatever its month."""

    def of_status(self, status: Status) -> list[str]:
        """The days with a status."""
        return [day.day for day in self.days if day.status == status]

    @property
    def scored(self) -> int:
        """Rows."""
        return sum(day.scored for day in self.days)

    @property
    def quarantined(self) -> int:
        """Rows."""
        return sum(day.quarantined for day in self.days)

    @property
    def cost(self) -> MonthCost:
        """What the days took."""
        costs = {(day.day, step): cost for day in self.days for step, cost in day.costs.items()}
        return MonthCost(costs, self.currency)

    @property
    def models(self) -> list[str]:
        """Versions that scored the month's days, by first use."""
        return list(dict.fromkeys(day.model_version for day in self.days if day.model_version))


class CellLook(NamedTuple):
    """The look of a cell of the heat map."""

    word: str
    colour: str
    sign: str = ""
    ink: str = "#fff"


LOOKS = (
    CellLook("not run", "#f0f0f3"),
    CellLook("passed, nothing to test", "#e2e0fa"),
    CellLook("passed", PLAIN),
    CellLook("failed", FAILED, "!"),
    CellLook("failed and stopped the day", "#7a1a11", "×"),
)
NOT_RUN, UNTESTED, PASSED, FELL, STOPPED = range(len(LOOKS))

OF_STATUS: Mapping[Status, int] = {"scored": PASSED, "failed": STOPPED, "unfinished": FELL, "missing": NOT_RUN}

LEFT, INK, GREY, LIGHT = 250, "#231f36", "#6b6b76", "#c9c9d1"
COLOURS = (NOW, "#e0a03c", "#3b8f8a", PLAIN, LIGHT)
"""Of the lines of a chart, in order."""

MESSAGE_WIDTH = 90
"""Characters of a line of a hover text."""


def draw(month: Month) -> bytes:
    """Draw the page, as UTF-8."""
    from plotly.offline import get_plotlyjs

    begun = any(day.status != "missing" for day in month.days)
    body = [_head(month), *(_sections(month) if begun else [_empty(month)]), _failed_runs(month), _foot(month)]
    title = escaped(f"{month.pipeline} {month.month}")
    plotly = get_plotlyjs() if begun else ""
    return _PAGE.format(
        title=title,
        style=_STYLE,
        policy=html.policy_element([plotly, _SCRIPT]),
        library=f"<script>{plotly}</script>" if plotly else "",
        body="\n".join(body),
        script=_SCRIPT,
    ).encode()


# the words


def _head(month: Month) -> str:
    models = ", ".join(month.models) or "none"
    lines = [f"<h1>{escaped(month.pipeline)}<span>{_name(month)}</span></h1>", f"<p>{escaped(summary(month))}</p>"]
    for status in ("failed", "unfinished", "missing"):
        if found := month.of_status(status):
            said = f"{', '.join(ranges(found))}: {STATUSES[status]}"
            lines.append(f'<p class="note"><b>{status}</b> {escaped(said)}</p>')
    lines.append(f'<p class="note"><b>model</b> {escaped(models)}</p>')
    if month.cost.costs:
        lines.append(f'<p class="note"><b>cost</b> {escaped(in_words(month.cost))}</p>')
    for day in month.days:
        lines += [f'<p class="bad">{escaped(day.day)} is incomplete here: {escaped(text)}</p>' for text in day.damage]
    return f"<header>{''.join(lines)}</header>"


def summary(month: Month) -> str:
    """The month in one line."""
    days = ", ".join(f"{len(found)} {status}" for status in STATUSES if (found := month.of_status(status)))
    rows = month.scored + month.quarantined
    share = f" ({month.quarantined / rows:.2%})" if rows else ""
    count = f"{len(month.days)} day{'' if len(month.days) == 1 else 's'}"
    return f"{count}: {days or 'none yet'}. {month.scored:,} rows scored, {month.quarantined:,} quarantined{share}."


def _empty(month: Month) -> str:
    return f'<p class="empty">No day of {_name(month)} has been run: there is nothing to show.</p>'


def _foot(month: Month) -> str:
    drawn = f"{month.drawn_at:%Y-%m-%d %H:%M} UTC"
    return f"<footer>drawn {drawn} by run {escaped(month.run_id)}, from the pipeline's state at that moment</footer>"


def _name(month: Month) -> str:
    year, number = month.month.split("-")
    return f"{calendar.month_name[int(number)]} {year}"


def _failures(month: Month) -> str:
    """The table of failed checks, each with its message."""
    rows = [
        f"<tr><td>{day.day}</td><td>{escaped(asset)}</td><td>{escaped(check)}</td>"
        f"<td>{'<b>stopped the day</b> ' if record.stopped else ''}{escaped(record.message)}</td></tr>"
        for day in month.days
        for (asset, check), record in day.checks.items()
        if not record.passed
    ]
    head = "<tr><th>day</th><th>asset</th><th>check</th><th>message</th></tr>"
    table = f'<table id="failures">{head}{"".join(rows)}</table>' if rows else '<p class="empty">None.</p>'
    return f"<section><h2>Failed checks</h2>{table}</section>"


def _failed_runs(month: Month) -> str:
    """Failed runs by class; `retry_policy.py` explains the classes."""
    rows = [
        f"<tr><td>{one.failure}</td><td>{one.runs}</td><td>{one.last:%Y-%m-%d %H:%M}</td><td>{one.recovered}</td>"
        f"<td>{escaped(', '.join(ranges(one.days)))}</td></tr>"
        for one in month.failed.by_class
    ]
    head = "<tr><th>class</th><th>runs</th><th>last, UTC</th><th>recovered</th><th>days</th></tr>"
    table = f'<table id="failed-runs">{head}{"".join(rows)}</table>' if rows else ""
    text = f"<p>{escaped(failed_runs(month.failed))}</p>"
    return f"<section><h2>Failed runs of the last 30 days</h2>{text}{table}</section>"


def failed_runs(failed: FailureStatistics) -> str:
    """The failed runs in one line."""
    runs, found = len(failed.failures), []
    if runs:
        found.append(f"{runs} failed run{'' if runs == 1 else 's'}, {len(failed.recovered)} recovered.")
    if failed.superseded:
        found.append(f"{failed.superseded} superseded by newer files or another model, which is no failure.")
    return " ".join(found) or "None."


# the charts


def _sections(month: Month) -> list[str]:
    legend = "".join(f'<i style="background:{v.colour};color:{v.ink}">{v.sign}</i>{v.word}' for v in LOOKS)
    return [
        f'<section><h2>Checks</h2><p class="legend">{legend}</p>{_chart("checks", _heat_map(month))}</section>',
        _section("rows", "Rows", "Rows in the tables.", _rows(month)),
        _section("quarantine", "Quarantine", "Share of the day's rows.", _quarantine(month), "No row is quarantined."),
        _section("score", "Mean score", "Bars: one standard deviation of the day's rows.", _score(month)),
        _section(
            "drift",
            "Drift",
            "The column that lies furthest from the model's reference, in units of its own threshold: 1 is an alarm.",
            _drift(month),
            "No day was compared with a reference.",
        ),
        _section(
            "throughput",
            "Throughput",
            "Rows per second of a whole step, counting those that it did not reuse.",
            _throughput(month),
        ),
        _failures(month),
    ]


def _section(name: str, title: str, text: str, figure: "Figure", none: str = "No day has figures.") -> str:
    shown = _chart(name, figure) if figure.data else f'<p class="empty">{none}</p>'
    return f'<section class="beside"><div><h2>{title}</h2><p>{escaped(text)}</p></div>{shown}</section>'


def _chart(name: str, figure: "Figure") -> str:
    drawing = html.script_json(figure.to_json())
    return f'<div id="{name}"></div><script type="application/json" data-chart="{name}">{drawing}</script>'


def _heat_map(month: Month) -> "Figure":
    """Days by checks, with the day as a whole on top."""
    from plotly.graph_objects import Heatmap

    rows = list(dict.fromkeys([*month.checks, *(checked for day in month.days for checked in day.checks)]))
    cells = [[_of_day(day) for day in month.days]]
    cells += [[_of_check(day, checked) for day in month.days] for checked in rows]
    names = ["day", *(f"{asset}/{check}" for asset, check in rows)]
    labels = ["<b>the day</b>", *(_label(*checked) for checked in rows)]
    bands = [(edge / len(LOOKS), v.colour) for n, v in enumerate(LOOKS) for edge in (n, n + 1)]
    trace = Heatmap(
        x=[day.day for day in month.days],
        y=names,
        z=[[look for look, _ in row] for row in cells],
        zmin=-0.5,
        zmax=len(LOOKS) - 0.5,
        text=[[LOOKS[look].sign for look, _ in row] for row in cells],
        texttemplate="%{text}",
        hovertext=[[text for _, text in row] for row in cells],
        hoverinfo="text",
        colorscale=bands,
        showscale=False,
        xgap=2,
        ygap=2,
        textfont={"color": "#fff", "size": 12},
    )
    figure = _plot(month, [trace], height=50 + 22 * len(names), left=LEFT + 60, top=10)
    figure.update_yaxes(
        autorange="reversed", tickvals=names, ticktext=labels, tickfont_color=INK, showgrid=False, ticks=""
    )
    figure.update_layout(hovermode="closest")
    return figure


def _label(asset: str, check: str) -> str:
    return f'<span style="color:{GREY}">{escaped(asset)}</span> {escaped(check)}'


def _of_day(day: Day) -> tuple[int, str]:
    older = "; the rows of an earlier run remain published" if day.scored and day.status != "scored" else ""
    return OF_STATUS[day.status], _hover(day.day, "the day", day.status, STATUSES[day.status] + older)


def _of_check(day: Day, checked: Checked) -> tuple[int, str]:
    record, name = day.checks.get(checked), " ".join(checked)
    if record is None:
        return NOT_RUN, _hover(day.day, name, LOOKS[NOT_RUN].word)
    passed, failed = UNTESTED if record.observed is None else PASSED, STOPPED if record.stopped else FELL
    look = passed if record.passed else failed
    return look, _hover(day.day, name, LOOKS[look].word, record.message)


def _hover(day: str, name: str, look: str, message: str = "") -> str:
    lines = [f"<b>{escaped(day)} {escaped(name)}</b>", escaped(look)]
    return "<br>".join(lines + [escaped(line) for line in textwrap.wrap(message, MESSAGE_WIDTH)])


def _rows(month: Month) -> "Figure":
    from plotly.graph_objects import Bar

    stacks = (("scored", PLAIN), ("accepted, not scored", LIGHT), ("quarantined", FAILED))
    counts = [(day.scored, day.waiting, day.quarantined) for day in month.days]
    traces = [
        Bar(name=name, x=[day.day for day in month.days], y=values, marker_color=colour, hovertemplate="%{y:,}")
        for (name, colour), values in zip(stacks, zip(*counts, strict=True), strict=True)
        if any(values)
    ]
    return _plot(month, traces, barmode="stack")


def _quarantine(month: Month) -> "Figure":
    from plotly.graph_objects import Bar

    shares = [
        (day.day, day.quarantined / rows) for day in month.days if (rows := day.scored + day.waiting + day.quarantined)
    ]
    trace = Bar(name="quarantined", **_points(shares), marker_color=FAILED, hovertemplate="%{y:.2%}")
    return _plot(month, [trace] if month.quarantined else [], tickformat="~%")


def _score(month: Month) -> "Figure":
    from plotly.graph_objects import Scatter

    traces = []
    for version, colour in zip(month.models, _colours(len(month.models)), strict=True):
        days = [day for day in month.days if day.model_version == version and day.score]
        scores = [day.score for day in days if day.score]
        traces.append(
            Scatter(
                name=escaped(f"{version}: {', '.join(dict.fromkeys(day.score_column for day in days))}"),
                mode="markers",
                x=[day.day for day in days],
                y=[score.mean for score in scores],
                error_y={"array": [score.deviation for score in scores], "color": colour, "thickness": 1, "width": 2},
                marker={"color": colour, "size": 8},
                customdata=[score.deviation for score in scores],
                hovertemplate="%{y:.4f} ± %{customdata:.4f}",
            )
        )
    return _plot(month, [trace for trace in traces if trace.x])


def _drift(month: Month) -> "Figure":
    from plotly.graph_objects import Scatter

    compared = list(dict.fromkeys(name for day in month.days for name in day.drift))
    traces = []
    for name, colour in zip(compared, _colours(len(compared)), strict=True):
        found = [(day.day, day.drift[name]) for day in month.days if name in day.drift]
        traces.append(
            Scatter(
                name=name,
                mode="lines+markers",
                line={"color": colour},
                marker={"size": 7},
                **_points([(day, worst.observed / worst.threshold) for day, worst in found]),
                customdata=[[escaped(worst.column), worst.observed, worst.threshold] for _, worst in found],
                hovertemplate="%{y:.2f}: %{customdata[0]}, %{customdata[1]:.4f}, threshold %{customdata[2]:.4f}",
            )
        )
    figure = _plot(month, traces)
    figure.add_hline(y=1, line={"color": FAILED, "dash": "dash", "width": 1.5})
    return figure


def _throughput(month: Month) -> "Figure":
    from plotly.graph_objects import Bar

    steps = list(dict.fromkeys(step for day in month.days for step in day.rows_per_second))
    traces = [
        Bar(
            name=step,
            marker_color=colour,
            hovertemplate="%{y:,.0f} rows/s",
            **_points([(d.day, d.rows_per_second[step]) for d in month.days if step in d.rows_per_second]),
        )
        for step, colour in zip(steps, (PLAIN, NOW), strict=False)
    ]
    return _plot(month, traces)


def _points(points: Sequence[tuple[str, float]]) -> dict[str, list[Any]]:
    return {"x": [day for day, _ in points], "y": [value for _, value in points]}


def _colours(count: int) -> list[str]:
    return [COLOURS[min(index, len(COLOURS) - 1)] for index in range(count)]


def _plot(
    month: Month,
    traces: Iterable[Any],
    *,
    height: int = 230,
    left: int = 60,
    top: int = 30,
    barmode: str = "group",
    tickformat: str = "",
) -> "Figure":
    """A chart over all days of the calendar month, so that a day has the same place in every chart.

    Args:
        month: whose days are the horizontal axis.
        traces: of the chart.
        height: pixels, as `left` and `top`.
        left: margin.
        top: margin.
        barmode: `group` or `stack`.
        tickformat: d3's format of the values.
    """
    from plotly.graph_objects import Figure

    days = of_month(month.month)
    layout = {
        "template": "none",
        "height": height,
        "margin": {"l": left, "r": 16, "t": top, "b": 40},
        "barmode": barmode,
        "bargap": 0.25,
        "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
        "hovermode": "x unified",
        "hoverlabel": {"align": "left", "bgcolor": "#fff"},
        "showlegend": True,
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0, "traceorder": "normal"},
        "xaxis": {
            "type": "category",
            "categoryorder": "array",
            "categoryarray": [str(day) for day in days],
            "range": [-0.5, len(days) - 0.5],
            "tickvals": [str(day) for day in days],
            "tickangle": 0,
            "ticktext": [f"{day.day}<br>{calendar.day_abbr[day.weekday()][:2]}" for day in days],
            "tickfont": {"size": 11, "color": GREY},
            "fixedrange": True,
            "showgrid": False,
        },
        "yaxis": {
            "rangemode": "tozero",
            "gridcolor": "#ececf0",
            "zerolinecolor": LIGHT,
            "fixedrange": True,
            "tickformat": tickformat,
            "tickfont": {"size": 11, "color": GREY},
        },
    }
    return Figure(list(traces), layout)


# the file

_STYLE = f"""
body {{ margin: 0 auto; padding: 24px 32px; max-width: 1400px; background: #fff; color: {INK};
  font: 14px/1.45 system-ui, sans-serif; }}
h1 {{ font-size: 22px; margin: 0 0 4px; }} h1 span {{ color: {GREY}; font-weight: 400; margin-left: 12px; }}
h2 {{ font-size: 15px; margin: 0 0 4px; }} p {{ margin: 0 0 4px; }}
header p {{ font-size: 15px; }} header .note {{ font-size: 13px; color: {GREY}; }}
.note b {{ display: inline-block; width: 84px; color: {INK}; font-weight: 600; }} .bad {{ color: {FAILED}; }}
section {{ border-top: 1px solid #ececf0; margin-top: 16px; padding-top: 14px; }}
.beside {{ display: grid; grid-template-columns: {LEFT}px minmax(0, 1fr); }}
.beside p {{ color: {GREY}; font-size: 13px; padding-right: 24px; }} .beside > p {{ margin-left: 60px; }}
.legend {{ color: {GREY}; font-size: 12px; }}
.legend i {{ display: inline-block; width: 16px; height: 16px; margin: 0 6px 0 14px; vertical-align: middle;
  text-align: center; font: 700 12px/16px system-ui, sans-serif; }} .legend i:first-child {{ margin-left: 0; }}
table {{ border-collapse: collapse; font-size: 13px; }}
td, th {{ text-align: left; vertical-align: top; padding: 4px 16px 4px 0; border-bottom: 1px solid #ececf0; }}
td:nth-child(-n+3) {{ white-space: nowrap; }} td b {{ color: {FAILED}; }} td:last-child {{ overflow-wrap: anywhere; }}
.empty, footer {{ color: {GREY}; }} footer {{ margin-top: 24px; font-size: 12px; }}
"""

_SCRIPT = """
for (const drawn of document.querySelectorAll("script[data-chart]")) {
  const figure = JSON.parse(drawn.textContent);
  Plotly.newPlot(drawn.dataset.chart, figure.data, figure.layout, {displayModeBar: false, responsive: true});
}
"""

# the data are in elements that a browser does not run; the policy names the two scripts that it does
_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
{policy}
<title>{title}</title>
<style>{style}</style>
{library}
</head>
<body>
{body}
<script>{script}</script>
</body>
</html>
"""
