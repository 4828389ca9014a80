"""The HTML page of a day, for those who act on its decisions: no script, no network, every text escaped."""

from collections.abc import Iterable, Iterator, Mapping

from batch_scoring.config.delivery_spec import INELIGIBLE
from batch_scoring.delivery.day_page.facts import ActionFacts, DayFacts, Segment
from batch_scoring.monitoring import html
from batch_scoring.monitoring.html import escaped
from batch_scoring.monitoring.links import month_page

_WORDS: Mapping[str, str] = {
    "taken": "gets it",
    "holdout": "held out, as the control group",
    "below": "score below the threshold",
    "recent": "had it in the days before",
    "over_cap": "over the cap",
    "not_met": "its own rule is not met",
    "not_met:unknown": "its own rule cannot be decided, a value is missing",
}
"""What the reasons of an action mean."""


def draw(facts: DayFacts) -> bytes:
    """Draw the page, as UTF-8."""
    body = [
        _head(facts),
        _actions(facts),
        _reasons(facts),
        _segments(facts),
        _first(facts),
        _foot(facts),
    ]
    return _PAGE.format(
        title=escaped(f"{facts.pipeline} {facts.day}"),
        policy=html.policy_element([]),
        style=_STYLE,
        body="\n".join(filter(None, body)),
    ).encode()


def _head(facts: DayFacts) -> str:
    share = f"{facts.acting / facts.scored:.1%} of {facts.scored:,} scored rows" if facts.scored else "no row is scored"
    held = sum(action.control or 0 for action in facts.actions)
    lines = [
        f"<h1>{escaped(facts.pipeline)}<span>{escaped(facts.day)}</span></h1>",
        f"<p>{escaped(facts.description)}</p>",
        '<dl class="figures">',
        _figure(f"{facts.acting:,}", "rows with an action", share),
        _figure(f"{held:,}", "held out as control groups", "leave them alone") if held else "",
        _figure(f"{facts.scored:,}", "rows scored", f"model {facts.model_version}"),
        _figure(f"{facts.unscored:,}", "rows without a score", "in the quarantine, with the reason"),
        "</dl>",
        f'<p class="note">published {facts.published_at:%Y-%m-%d %H:%M} UTC</p>',
    ]
    return f"<header>{''.join(lines)}</header>"


def _figure(number: str, what: str, more: str) -> str:
    return f"<div><dt>{escaped(what)}</dt><dd>{escaped(number)}</dd><dd>{escaped(more)}</dd></div>"


def _actions(facts: DayFacts) -> str:
    rows = [_of_action(action) for action in facts.actions]
    head = ("action", "rows", "usual", "cap", "control", "since yesterday")
    caps = [
        f"<li>{escaped(f'{action}: at most {most:,} per {column}; {value} has the most, {count:,}')}</li>"
        for action, column, value, count, most in facts.groups
    ]
    more = f"<ul>{''.join(caps)}</ul>" if caps else ""
    targets = [f"<li>{escaped(f'{name}: {target}')}</li>" for name, target in facts.exports.items()]
    lists = f"<p>Exported to</p><ul>{''.join(targets)}</ul>" if targets else ""
    return f"<section><h2>Actions</h2>{_table(head, rows, numbers={1, 2, 3, 4})}{more}{lists}</section>"


def _of_action(action: ActionFacts) -> list[str]:
    usual = "no history yet"
    if action.usual is not None:
        low, high = action.usual
        unusual = "" if low <= action.rows <= high else ' <b class="mark">unusual</b>'
        usual = f"{low:,.0f} to {high:,.0f}{unusual}"
    cap = "none" if action.most is None else f"{action.most:,}"
    if action.most is not None and action.rows >= action.most:
        cap += ' <b class="mark">reached</b>'
    control = "" if action.control is None else f"{action.control:,}"
    return [escaped(action.name), f"{action.rows:,}", usual, cap, control, escaped(_since(action))]


def _since(action: ActionFacts) -> str:
    if action.entered is None:
        return "yesterday has no decisions"
    if action.rows and action.entered == action.rows and action.left:
        return f"all of them are new, {action.left:,} gone"
    moved = f", {action.moved:,} with a score that moved by more than 0.2" if action.moved else ""
    return f"{action.entered:,} new, {action.left:,} gone{moved}"


def _reasons(facts: DayFacts) -> str:
    total = sum(facts.reasons.values())
    rows = [
        [escaped(_in_words(reason)), f"<code>{escaped(reason)}</code>", f"{count:,}", _bar(count, total)]
        for reason, count in facts.reasons.items()
    ]
    head = ("what became of the rows", "reason", "rows", "share")
    return f"<section><h2>What became of everybody</h2>{_table(head, rows, numbers={2})}</section>"


def _in_words(reason: str) -> str:
    """A reason of the spec's rules for people; one of a function as it is."""
    subject, _, rest = reason.partition(":")
    if subject == INELIGIBLE:
        rule, _, unknown = rest.partition(":")
        return f"not eligible: {rule}{' is not known, a value is missing' if unknown else ''}"
    if rest.startswith("over_cap_"):
        return f"{subject}: over the cap per {rest.removeprefix('over_cap_')}"
    return f"{subject}: {_WORDS[rest]}" if rest in _WORDS else reason


def _bar(count: int, total: int) -> str:
    share = count / total if total else 0.0
    return f'<span class="bar"><i style="width:{share:.1%}"></i></span> {share:.1%}'


def _segments(facts: DayFacts) -> str:
    by_column: dict[str, list[Segment]] = {}
    for segment in facts.segments:
        by_column.setdefault(segment.column, []).append(segment)
    if not by_column:
        return ""
    names = [action.name for action in facts.actions]
    tables = [
        _table((column, "rows", *names), [_of_segment(one, names) for one in of_column], numbers={*range(1, 9)})
        for column, of_column in by_column.items()
    ]
    text = "Share of each segment's rows that get the action. Marked: more than the segment's size and chance explain."
    return (
        f'<section><h2>By segment</h2><p class="note">{text}</p><div class="beside">{"".join(tables)}</div></section>'
    )


def _of_segment(segment: Segment, actions: Iterable[str]) -> list[str]:
    cells = [escaped(segment.value), f"{segment.rows:,}"]
    for name in actions:
        share = f"{segment.actions.get(name, 0) / segment.rows:.1%}"
        cells.append(f'<b class="mark">{share}</b>' if name in segment.over else share)
    return cells


def _first(facts: DayFacts) -> str:
    if not facts.first:
        return '<section><h2>First rows</h2><p class="note">No row has an action.</p></section>'
    shown = [name for name in facts.columns if name != "why" or any(row["why"] for row in facts.first)]
    rows = [[_cell(row[name]) for name in shown] for row in facts.first]
    numbers = {at for at, name in enumerate(shown) if all(isinstance(row[name], int | float) for row in facts.first)}
    return f"<section><h2>First rows, by rank</h2>{_table(shown, rows, numbers=numbers)}</section>"


def _cell(value: object) -> str:
    if value is None:
        return '<span class="note">missing</span>'
    return escaped(f"{value:.4g}" if isinstance(value, float) else str(value))


def _table(head: Iterable[str], rows: Iterable[Iterable[str]], numbers: Iterable[int] = ()) -> str:
    """A table; the head is escaped here, cells are HTML already. `numbers`: columns that are aligned on the right."""
    right = set(numbers)

    def cells(of_row: Iterable[str], tag: str) -> Iterator[str]:
        for at, cell in enumerate(of_row):
            yield f'<{tag} class="n">{cell}</{tag}>' if at in right else f"<{tag}>{cell}</{tag}>"

    lines = [f"<tr>{''.join(cells(map(escaped, head), 'th'))}</tr>"]
    lines += [f"<tr>{''.join(cells(row, 'td'))}</tr>" for row in rows]
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


def _foot(facts: DayFacts) -> str:
    month = month_page(facts.day[:7]).removeprefix("reports/")
    return f'<footer><a href="../{month}">the month</a> · decided by run {escaped(facts.run_id)}</footer>'


_STYLE = """
:root { color-scheme: light dark; --ink: #231f36; --grey: #6b6b76; --line: #e6e6ec; --paper: #fff; --mark: #4f43dd;
  --bar: #b9b5f0; }
@media (prefers-color-scheme: dark) { :root { --ink: #ecebf4; --grey: #a3a2b0; --line: #35333f; --paper: #17161d;
  --mark: #a79ffb; --bar: #5a52a8; } }
body { margin: 0 auto; padding: 24px 32px; max-width: 1100px; background: var(--paper); color: var(--ink);
  font: 14px/1.45 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 4px; } h1 span { color: var(--grey); font-weight: 400; margin-left: 12px; }
h2 { font-size: 15px; margin: 0 0 8px; } p { margin: 0 0 8px; } ul { margin: 4px 0 8px; padding-left: 18px; }
section { border-top: 1px solid var(--line); margin-top: 18px; padding-top: 14px; }
.note, footer, dt { color: var(--grey); font-size: 13px; } footer { margin-top: 24px; } a { color: var(--mark); }
.figures { display: flex; flex-wrap: wrap; gap: 12px 40px; margin: 16px 0 12px; }
.figures dd { margin: 0; color: var(--grey); font-size: 13px; }
.figures dt + dd { font-size: 26px; line-height: 1.2; color: var(--ink); font-variant-numeric: tabular-nums; }
.wide { overflow-x: auto; } .beside { display: flex; flex-wrap: wrap; gap: 16px 48px; align-items: flex-start; }
table { border-collapse: collapse; font-size: 13px; }
td, th { text-align: left; vertical-align: top; padding: 4px 20px 4px 0; border-bottom: 1px solid var(--line); }
th { color: var(--grey); font-weight: 400; white-space: nowrap; } td:first-child { white-space: nowrap; }
.n { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
.mark { color: var(--mark); } code { font-size: 12px; color: var(--grey); }
.bar { display: inline-block; width: 120px; height: 8px; background: var(--line); vertical-align: middle;
  margin-right: 6px; } .bar i { display: block; height: 8px; background: var(--bar); }
@media (max-width: 600px) { body { padding: 16px; } td, th { padding-right: 12px; } .bar { width: 60px; } }
"""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
{policy}
<title>{title}</title>
<style>{style}</style>
</head>
<body>
{body}
</body>
</html>
"""
