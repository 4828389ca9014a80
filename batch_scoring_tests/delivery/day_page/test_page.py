"""The page as a reader sees it: escaped, without keys unless the spec shows them, without network."""

import re
from dataclasses import replace
from pathlib import Path

from batch_scoring.delivery.day_page.facts import gather
from batch_scoring.delivery.day_page.page import draw
from batch_scoring_tests.browser import look, needs_browser
from batch_scoring_tests.delivery.day_page.conftest import DAYS
from batch_scoring_tests.tiny import TinyProject


def page(tiny: TinyProject, day: str = DAYS[1]) -> str:
    return draw(gather(tiny.pipeline, day)).decode()


def test_cells_and_texts_are_escaped(decided: TinyProject) -> None:
    decided.spec["description"] = "for <script>alert(1)</script> & co"
    decided.write_spec()
    drawn = page(decided)
    assert "&lt;b&gt;red&lt;/b&gt;" in drawn and "<b>red" not in drawn
    assert "for &lt;script&gt;alert(1)&lt;/script&gt; &amp; co" in drawn and "<script" not in drawn


def test_keys_and_columns_are_shown_only_if_the_spec_says_so(decided: TinyProject) -> None:
    assert not re.search(r"k0000\d\d\d", page(decided))
    decided.spec["page"] = {"columns": ["n"], "key": True}
    decided.write_spec()
    assert len(set(re.findall(r"k0000\d\d\d", page(decided)))) == len(gather(decided.pipeline, DAYS[1]).first)


def test_reasons_are_in_words_and_as_they_stand_in_the_table(decided: TinyProject) -> None:
    words = {
        "call:taken": "call: gets it",
        "call:holdout": "call: held out, as the control group",
        "call:recent": "call: had it in the days before",
        "call:over_cap_c": "call: over the cap per c",
        "call:over_cap": "call: over the cap",
        "call:not_met:unknown": "call: its own rule cannot be decided, a value is missing",
        "mail:below": "mail: score below the threshold",
        "ineligible:small": "not eligible: small",
        "ineligible:small:unknown": "not eligible: small is not known, a value is missing",
        "vip": "vip",  # of a function
        "call:odd": "call:odd",
    }
    drawn = draw(replace(gather(decided.pipeline, DAYS[1]), reasons=dict.fromkeys(words, 3))).decode()
    for reason, text in words.items():
        assert f"<td>{text}</td><td><code>{reason}</code></td>" in drawn


def test_it_says_what_changed_the_caps_and_where_the_lists_are(decided: TinyProject) -> None:
    drawn = page(decided)
    assert re.search(r"\d+ new, \d+ gone", drawn)
    assert "call: at most 12 per c" in drawn
    assert f"calls: {decided.name}/exports/calls_{DAYS[1]}.csv" in drawn
    assert "yesterday has no decisions" in page(decided, DAYS[0])


@needs_browser
def test_a_browser_shows_it_and_reports_nothing(decided: TinyProject, tmp_path: Path) -> None:
    file = tmp_path / "day.html"
    file.write_text(page(decided))
    seen = look(file.as_uri(), tmp_path / "profile")
    assert (seen.title, seen.console) == (f"{decided.name} {DAYS[1]}", ())
    assert "What became of everybody" in seen.dom
