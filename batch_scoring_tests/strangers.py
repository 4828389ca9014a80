"""A checkout without pipelines, and a person who types commands in it."""

import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
from deltalake import DeltaTable

from batch_scoring.config.loader import PROJECT


class Stranger:
    """Somebody with a table and the documentation."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        others = shutil.ignore_patterns("__pycache__", "flight_delay", "customer_churn", "support_tickets")
        shutil.copytree(PROJECT / "batch_scoring", folder / "batch_scoring", ignore=others)
        for name in ("pyproject.toml", "dagster.yaml", "workspace.yaml"):
            shutil.copy(PROJECT / name, folder)
        (folder / ".venv").symlink_to(sys.prefix)

    def types(self, command: str) -> str:
        """What a command prints: one of `batch-scoring`, or a module of Python with its arguments."""
        is_module = command.startswith(("mypy ", "batch_scoring."))
        program = [] if is_module else ["batch_scoring"]
        return self._run([sys.executable, "-m", *program, *shlex.split(command)])

    def follows(self, language: str, text: str) -> str:
        """What a block of a document prints, in bash or Python."""
        return self._run(["bash", "-euc", text] if language == "bash" else [sys.executable, "-c", text])

    def _run(self, program: list[str]) -> str:
        settings = os.environ | {"PYTHONPATH": str(self.folder), "OMP_NUM_THREADS": "1"}
        settings.pop("BATCH_SCORING_DATA", None)
        done = subprocess.run(program, cwd=self.folder, env=settings, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{program}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def scores(self, day: str) -> dict[str, float]:
        """The published probabilities of a day of telco, by the table's own log."""
        uris = DeltaTable(str(self.folder / "data/telco/tables/predictions")).file_uris()
        rows = [row for uri in uris if f"/dt={day}/" in uri for row in pq.ParquetFile(uri).read().to_pylist()]
        return {row["customerID"]: row["prob_class_1"] for row in rows}


def as_shown(output: str) -> re.Pattern[str]:
    """What a document shows: … stands for anything, alone on its line for any lines."""
    lines = ["(?:.*\n)*" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in output.splitlines()]
    return re.compile("".join(lines))
