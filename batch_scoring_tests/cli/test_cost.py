"""The subcommand `cost`: what is printed is what the state has recorded, and nothing is made up."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from batch_scoring.cli.main import main
from batch_scoring.config import loader
from batch_scoring_tests.backfills import tree
from batch_scoring_tests.decided import customers, with_decisions
from batch_scoring_tests.tiny import DAY, NEXT_DAY, TinyProject

STEPS = ("validated_features", "predictions", "decisions")
HOUR = {"currency": "EUR", "cpu_hour": 3600.0, "gb_hour": 0.0, "gpu_hour": 0.0}
"""A CPU second costs an euro, so that money is seconds."""


@pytest.fixture
def alone(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> TinyProject:
    """The only pipeline that the command sees."""
    monkeypatch.setattr(loader, "PIPELINES", tiny.packages)
    monkeypatch.setattr(loader.survey_pipelines, "__defaults__", (tiny.packages, None))
    monkeypatch.setenv("BATCH_SCORING_DATA", tiny.data_root)
    return tiny


@pytest.fixture
def published(alone: TinyProject) -> TinyProject:
    """A decided day, and after it one of an older version: without usage."""
    with_decisions(alone)
    alone.spec["prices"] = HOUR
    alone.write_spec()
    alone.land(DAY, customers(alone, 120))
    alone.run()
    old = alone.published_day("predictions").model_copy(update={"day": NEXT_DAY, "overhead": None})
    alone.state.put_published_day(old)
    return alone


@pytest.fixture
def shown(capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def show(*arguments: str, code: int = 0) -> str:
        assert main(["cost", *arguments]) == code
        return capsys.readouterr().out

    return show


def test_the_figures_are_those_of_the_state(published: TinyProject, shown: Callable[..., str]) -> None:
    before = tree(Path(published.data_root))
    (said,) = json.loads(shown(published.name, "2024-03", "--json"))["pipelines"]
    assert tree(Path(published.data_root)) == before
    assert (said["pipeline"], said["month"], said["currency"], said["damaged"]) == (
        published.name,
        "2024-03",
        "EUR",
        [],
    )
    keys = [(entry["day"], entry["step"], entry["recorded"]) for entry in said["steps"]]
    assert keys == [*((DAY, step, True) for step in STEPS), (NEXT_DAY, "predictions", False)]
    total = 0.0
    for entry in said["steps"][:3]:
        of_state = published.published_day(entry["step"])
        assert of_state.usage and of_state.overhead
        assert entry["rows"] == of_state.rows_in == 120
        assert entry["cost"] == pytest.approx(of_state.usage.cpu_seconds) == entry["cpu_seconds"]
        assert entry["overhead"]["cost"] == pytest.approx(of_state.overhead.cpu_seconds)
        assert 0 < entry["overhead"]["cost"] < entry["cost"]
        assert entry["cost_per_million_rows"] == pytest.approx(entry["cost"] / 120 * 1e6)
        total += entry["cost"]
    assert said["total"]["rows"] == 120 and said["total"]["cost"] == pytest.approx(total)
    assert said["total"]["cost_per_million_rows"] == pytest.approx(total / 120 * 1e6)


def test_what_is_printed_has_the_overhead_on_its_own(published: TinyProject, shown: Callable[..., str]) -> None:
    said = shown(published.name).splitlines()
    assert re.match(rf"{published.name} 2024-03: [\d.,]+ EUR for 1 day \([\d.,]+ EUR per million rows\)$", said[0])
    assert said[2].startswith("of which overhead ")
    assert said[3] == f"not recorded, or not for every step: {NEXT_DAY}"
    head, *rows = (re.split(r" {2,}", line) for line in said[5:])
    assert head == ["day", "step", "rows", "CPU s", "GPU s", "GB s", "overhead CPU s", "overhead", "cost", "per M rows"]
    assert [row[:3] for row in rows[:3]] == [[DAY, step, "120"] for step in STEPS]
    for row, step in zip(rows, STEPS, strict=False):
        overhead = published.published_day(step).overhead
        assert overhead and row[6] == f"{overhead.cpu_seconds:.2f}"
    assert rows[3] == [NEXT_DAY, "predictions", "not recorded"]
    assert rows[4][:2] == ["total", "120"] and len(rows) == 5


def test_without_prices_there_are_seconds_and_no_money(published: TinyProject, shown: Callable[..., str]) -> None:
    del published.spec["prices"]
    published.write_spec()
    said = shown()
    assert "EUR" not in said and "per M rows" not in said and " CPU s, " in said
    assert said.endswith("no prices in the spec: add the section prices to see money\n")
    (found,) = json.loads(shown("--json"))["pipelines"]
    costs: list[Any] = [found["currency"], found["total"]["cost"], found["total"]["overhead"]["cost"]]
    assert costs == [None, None, None] and found["total"]["cpu_seconds"] > 0


def test_a_damaged_document_is_named_and_makes_the_exit_code_1(
    published: TinyProject, shown: Callable[..., str]
) -> None:
    published.pipeline.output.put(f"state/dt={DAY}/decisions.json", b"{")
    said = shown(published.name, "2024-03", code=1)
    assert re.search(rf"damaged: .*dt={DAY}/decisions.json is damaged", said) and "validated_features" in said


@pytest.mark.parametrize("month", [(), ("2024-03",)])
def test_a_state_that_cannot_be_read_is_not_one_without_days(
    alone: TinyProject, shown: Callable[..., str], month: tuple[str, ...]
) -> None:
    alone.pipeline.output.put("state", b"a file where a folder belongs")
    said = shown(alone.name, *month, code=1)
    assert said.startswith(f"{alone.name}: unknown") and "damaged: the state cannot be read: " in said
    assert "Not a directory" in said


def test_a_month_without_days_says_so(alone: TinyProject, shown: Callable[..., str]) -> None:
    assert shown() == f"{alone.name}: nothing was published\n"
    assert shown(alone.name, "2023-01") == f"{alone.name}: nothing was published in 2023-01\n"
    assert main(["cost", "nobody"]) == 2 and main(["cost", alone.name, "March"]) == 2
