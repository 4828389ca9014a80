"""No text of a file, a bundle or a spec runs as code in a page, by the bytes and in a real browser."""

import base64
import hashlib
import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.monitoring import html
from batch_scoring.monitoring.drift import distances, pages
from batch_scoring.monitoring.report import page as report_page
from batch_scoring.monitoring.report.page import Day, Month
from batch_scoring.runtime.printable import one_line
from batch_scoring.storage.state import CheckRecord, ColumnDrift, Moments
from batch_scoring_tests.browser import look, needs_browser

OWN = "document.title=`owned`"
VILLAINS = (
    f"</script><script>{OWN}</script>",
    f"</SCRIPT\n><script>{OWN}</script>",
    f"<!--<script>{OWN}</script>",
    f'"><img src=x onerror="{OWN}">',
    f"<svg onload={OWN}>",
    f'<a href="javascript:{OWN}">x</a>',
    '<a href="https://evil.example">x</a>',
    "\u2028\u2029 & &lt;/script&gt;",
    "{style} {body}",
)


def evidently() -> bytes:
    """Evidently's page of categories and a column whose names are markup."""
    words = pa.array([*VILLAINS] * 10)
    rows = pa.table({"x": pa.array([float(n) for n in range(len(words))]), "c": words, VILLAINS[0]: words})
    kinds = {"x": "numeric", "c": "categorical", VILLAINS[0]: "categorical"}
    tested = [
        distances.Tested("x", "numeric", len(words), 0.0, 0.1),
        distances.Tested(VILLAINS[0], "categorical", len(words), 0.0, 0.1),
    ]
    return pages.evidently_page(rows, rows, kinds, tested).html  # type: ignore[arg-type]


def report() -> bytes:
    """The page of a month of which every text is markup."""
    days = []
    for n, villain in enumerate(VILLAINS, start=1):
        record = CheckRecord(passed=False, observed=1.0, message=f"{villain} in file {villain}", stopped=n == 1)
        worst = ColumnDrift(column=villain, horizon="day", rows=10, observed=0.2, threshold=0.1, drifted=True)
        days.append(
            Day(
                f"2024-03-{n:02}",
                "scored",
                {("validated_features", villain): record},
                scored=10,
                quarantined=1,
                model_version=villain,
                score=Moments(10, 0.5, 0.1),
                score_column=villain,
                drift={"the day": worst},
                rows_per_second={"predictions": 5.0},
                damage=(villain,),
            )
        )
    return report_page.draw(Month(VILLAINS[0], "2024-03", tuple(days), (), datetime.now(UTC), VILLAINS[0]))


PAGES = pytest.mark.parametrize(("draw", "scripts"), [(evidently, 4), (report, 2)])


class Scripts(HTMLParser):
    """The scripts that a page has and the policy that it names, read by Python's own parser."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.run: list[str] = []
        self.links: list[str | None] = []
        self.policy = ""
        self._is_code = False
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        self._is_code = tag == "script" and named.get("type") != "application/json"
        if self._is_code:
            self.run.append("")
        if named.get("http-equiv") == "Content-Security-Policy":
            assert not self.run, "what stands before the policy is not bound by it"
            self.policy = named["content"] or ""
        assert not [name for name in named if name.startswith("on")]
        self.links += [
            value for name, value in attrs if name.endswith("href") and re.search("script:|evil", value or "")
        ]

    def handle_endtag(self, tag: str) -> None:
        self._is_code = False

    def handle_data(self, data: str) -> None:
        if self._is_code:
            self.run[-1] += data


@PAGES
def test_a_page_has_its_own_scripts_and_a_policy_that_runs_these_alone(draw: Callable[[], bytes], scripts: int) -> None:
    found = Scripts(draw().decode())
    assert len(found.run) == scripts
    directives = dict(part.strip().split(" ", 1) for part in found.policy.split(";"))
    hashes = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in found.run}
    assert set(directives["script-src"].split()) == hashes
    assert directives["default-src"] == directives["base-uri"] == directives["form-action"] == "'none'"


def test_what_evidently_shows_is_what_the_cells_say() -> None:
    (data,) = re.findall(r"(?m)^    var metric_\w+ = (.*);$", evidently().decode())
    shown = json.dumps(json.loads(data))
    words = [one_line(villain).replace("<", "‹") for villain in VILLAINS]
    assert all(json.dumps(word)[1:-1] in shown for word in words) and "<" not in data
    assert json.dumps(VILLAINS[0])[1:-1] in shown, "the column's name"


@PAGES
@needs_browser
def test_a_browser_draws_the_charts_and_runs_no_text(draw: Callable[[], bytes], scripts: int, tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(draw())
    seen = look(page.as_uri(), tmp_path / "profile")
    assert seen.title != "owned" and not Scripts(seen.dom).links
    assert "main-svg" in seen.dom, "the charts are drawn"
    trouble = [line for line in seen.console if "Content Security Policy" in line or "Error" in line]
    assert not trouble, "nothing of the page is refused"


@needs_browser
def test_a_script_that_the_policy_does_not_name_is_refused_by_a_browser(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    head = html.policy_element(["document.title=`mine`"])
    page.write_text(f"{head}<title>x</title><script>document.title=`mine`</script><script>{OWN}</script>")
    seen = look(page.as_uri(), tmp_path / "profile")
    assert seen.title == "mine" and any("Content Security Policy" in line for line in seen.console)


@given(st.recursive(st.text() | st.sampled_from(VILLAINS), lambda inner: st.dictionaries(st.text(), inner)))
def test_a_document_in_a_script_is_the_same_document(value: object) -> None:
    for document in (json.dumps(value), json.dumps(value, ensure_ascii=False)):
        escaped = html.script_json(document)
        assert json.loads(escaped) == value and not set(escaped) & set("<>&\u2028\u2029")
