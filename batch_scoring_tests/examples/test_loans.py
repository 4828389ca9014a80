"""The tutorial of examples/loans, run as its README types it; the scores held against the trained network itself."""

import csv
import os
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from deltalake import DeltaTable

from batch_scoring.config.loader import PROJECT

LOANS = PROJECT / "examples/loans"
README = (LOANS / "README.md").read_text()
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
DAYS = ("2024-01-01", "2024-01-02")


class Tutorial:
    """A checkout with the README's commands, and what they have printed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        others = shutil.ignore_patterns("__pycache__", "flight_delay", "customer_churn", "support_tickets")
        for name in ("batch_scoring", "examples"):
            shutil.copytree(PROJECT / name, folder / name, ignore=others)
        for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
            shutil.copy(PROJECT / name, folder)
        (folder / ".venv").symlink_to(sys.prefix)

    def run(self, language: str, text: str) -> str:
        """Type a block; what it prints."""
        shell = ["bash", "-euc", text] if language == "bash" else [".venv/bin/python", "-c", text]
        settings = os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        done = subprocess.run(shell, cwd=self.folder, env=settings, capture_output=True, text=True)
        assert done.returncode == 0, f"{text}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def files(self) -> set[Path]:
        """The files that a user would see in `git status`."""
        return {file for name in ("batch_scoring", "examples", "data") for file in (self.folder / name).rglob("*.*")}

    def rows(self, table: str, day: str) -> list[dict[str, Any]]:
        """A day of a table, by the table's own log and without this project's code."""
        uris = DeltaTable(str(self.folder / "data/loans/tables" / table)).file_uris()
        return [row for uri in uris if f"/dt={day}/" in uri for row in pq.ParquetFile(uri).read().to_pylist()]


def blocks() -> Iterator[tuple[str, str, str]]:
    """Language, text and the output that the README shows, of every block that is to be typed."""
    found = BLOCK.findall(README)
    for (language, text), (following, output) in zip(found, [*found[1:], ("", "")], strict=True):
        if language == "bash" or (language == "python" and text not in (LOANS / "schema.py").read_text()):
            yield language, text, output if following == "text" else ""


def as_shown(output: str) -> re.Pattern[str]:
    """What the README shows: … stands for anything, alone on its line for any lines."""
    lines = ["(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in output.splitlines()]
    return re.compile("".join(lines))


def truth(folder: Path, day: str) -> tuple[dict[str, float], list[int]]:
    """The probability of default by loan, from the checkpoint and the day's file alone; numbers of the bad rows."""
    saved = torch.load(folder / "data/loans/training/loans.pt", weights_only=True)
    dimensions = {name: saved[name] for name in ("input_dim", "hidden_dim", "output_dim")}
    network = runpy.run_path(str(LOANS / "network.py"))["LoanNet"](**dimensions).eval()
    network.load_state_dict(saved["model_state_dict"])
    good, bad = {}, []
    with (folder / f"data/loans/landing/dt={day}/loans.csv").open() as file:
        for number, row in enumerate(csv.DictReader(file), 1):
            try:
                features = [float(row["amount"]), float(row["term_months"]), float(row["rate"] or "nan")]
            except ValueError:
                features = [0.0, 0.0, 0.0]
            if row["loan_id"] and 0 < features[0] <= 1_000_000 and features[1] in (12, 24, 36, 60):
                good[row["loan_id"]] = features
            else:
                bad.append(number)
    with torch.inference_mode():
        logits = network(torch.tensor(list(good.values())), torch.empty(len(good), 0, dtype=torch.int64))
    return dict(zip(good, logits.softmax(dim=1)[:, 1].tolist(), strict=True)), bad


@pytest.mark.slow
def test_the_tutorial_runs_as_it_is_typed_and_its_scores_are_those_of_the_network(on_disk: Path) -> None:
    tutorial = Tutorial(on_disk / "tutorial")
    before = tutorial.files()
    *steps, (language, removal, _) = blocks()
    for step, text, shown in steps:
        output = tutorial.run(step, text)
        assert as_shown(shown).fullmatch(output), f"{text}\nprints\n{output}\nbut the README shows\n{shown}"

    for day in DAYS:
        expected, bad = truth(tutorial.folder, day)
        scored = {row["loan_id"]: row["prob_class_1"] for row in tutorial.rows("predictions", day)}
        assert scored.keys() == expected.keys()
        np.testing.assert_allclose([scored[key] for key in expected], list(expected.values()), rtol=1e-4, atol=1e-6)
        assert sorted(row["row_number"] for row in tutorial.rows("quarantine", day)) == bad
        lines = (tutorial.folder / f"data/loans/landing/dt={day}/loans.csv").read_text().count("\n")
        assert (len(scored), len(bad)) == (lines - 1 - 5, 5)
        assert len({round(score, 2) for score in scored.values()}) > 20, "a network that has learned nothing"

    assert tutorial.files() > before
    tutorial.run(language, removal)
    assert not [file for file in tutorial.files() - before if "__pycache__" not in file.parts]


def test_the_readme_shows_the_files_as_they_are() -> None:
    shown = [text for language, text in BLOCK.findall(README) if language in ("python", "yaml")]
    assert shown[1] == (LOANS / "pipeline.yaml").read_text()
    assert shown[0] in (LOANS / "schema.py").read_text()
    assert all((LOANS / name).is_file() for name in re.findall(r"\]\(([^):#]+)\)", README))
