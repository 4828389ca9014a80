"""Progress of a long step: lines in a log, a bar on a terminal."""

import io

import pytest

from batch_scoring.runtime import progress
from batch_scoring.runtime.printable import guarded
from batch_scoring.runtime.progress import Bar, Progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_line_says_how_much_is_done_and_comes_at_intervals(monkeypatch: pytest.MonkeyPatch) -> None:
    lines: list[str] = []
    counted = Progress(2_000, lines.append, "scored")
    counted.advance(500)
    assert lines == [], "it has just begun"
    monkeypatch.setattr(progress, "EVERY", 0.0)
    counted.advance(1_000)
    [line] = lines
    assert line.startswith("scored 1,500 of 2,000 rows (75 %), ") and line.endswith(" s left") and " rows/s, " in line


def test_nothing_to_do_is_no_division_by_zero(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    lines: list[str] = []
    Progress(0, lines.append, "scored").advance(0)
    assert lines[0].startswith("scored 0 of 0 rows (0 %)")


def test_a_bar_is_drawn_on_a_terminal_alone_and_erased_before_other_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "_REDRAWN", 0.0)
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        bar = Bar(stream)
        bar.show(0.5, 1_000)
        bar.clear()
    drawn, erased = terminal.getvalue().removeprefix("\r").removesuffix("\r").split("\r")
    assert drawn.startswith("█" * 15 + "░" * 15 + "  50%  1,000 rows, ")
    assert len(erased) == len(drawn) and not erased.strip()
    assert file.getvalue() == ""


def test_a_bar_is_drawn_through_a_guarded_stream() -> None:
    terminal = Terminal()
    bar = Bar(guarded(terminal))
    bar._last = -1.0
    bar.show(0.5, 10)
    assert terminal.getvalue().startswith("\r█")
