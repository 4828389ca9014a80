"""What the guide on a new pipeline shows is typed in a checkout of its own, and prints what it says."""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import torch
from torch import nn

from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.strangers import Stranger, as_shown
from batch_scoring_tests.telco import as_csv, customers

GUIDE = (PROJECT / "docs/guides/new-pipeline.md").read_text("utf-8")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
SHOWN = [f"2026-11-{number}" for number in range(26, 30)]
"""Days of the guide; the last is its yesterday."""


def on(days: list[str], text: str) -> str:
    """A block with other days."""
    for shown, day in zip(SHOWN, days, strict=True):
        text = text.replace(shown, day)
    return text


def steps() -> Iterator[tuple[str, str, str]]:
    """Language, text and the output that is shown, of every block that is typed after the installation."""
    found = BLOCK.findall(GUIDE)
    for (language, text), (following, output) in zip(found, [*found[1:], ("", "")], strict=True):
        if language != "text" and text != "make install\n":
            yield language, text, output if following == "text" else "…\n"


@pytest.mark.slow
def test_the_guide_is_typed_and_prints_what_it_shows(on_disk: Path) -> None:
    stranger = Stranger(on_disk / "guide")
    yesterday = datetime.now(UTC).date() - timedelta(days=1)
    days = [str(yesterday - timedelta(days=number)) for number in (3, 2, 1, 0)]
    (stranger.folder / "telco.csv").write_text(as_csv(customers()))
    (stranger.folder / "exports").mkdir()
    for number, day in enumerate(days[:3], 1):
        rows = [{name: value for name, value in row.items() if name != "Churn"} for row in customers(500, seed=number)]
        (stranger.folder / f"exports/telco-{day}.csv").write_text(as_csv(rows))
    torch.save(nn.Linear(4, 1).state_dict(), stranger.folder / "churn.pt")
    for language, text, shown in steps():
        output = stranger.follows(language, on(days, text))
        assert as_shown(on(days, shown)).fullmatch(output), f"{text}\nprints\n{output}\nbut the guide shows\n{shown}"
    assert [len(stranger.scores(day)) for day in days] == [500, 500, 500, 7_043]


def test_a_clone_is_installed_as_the_guide_says() -> None:
    assert GUIDE.count("make install") == 1
    assert re.search(r"^install: \$\(VENV\)/\.installed$", (PROJECT / "Makefile").read_text(), re.MULTILINE)
