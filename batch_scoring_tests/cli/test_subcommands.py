"""The overview of subcommands, their pages of help, and how errors end the process."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from batch_scoring.cli.main import main
from batch_scoring.cli.subcommands import SUBCOMMANDS
from batch_scoring.config.loader import PROJECT

BIN = Path(sys.executable).parent
ENVIRONMENT = os.environ | {"PYTHONPATH": str(PROJECT)}
HEAVY = {"dagster", "pyarrow", "torch", "pydantic", "numpy"}
LIGHT = ("backfill", "score", "submit", "status", "wait", "doctor")
"""Subcommands whose arguments are read before anything that takes time is imported."""


def imported(*arguments: str) -> set[str]:
    """Those of the heavy libraries that a command has imported when it is done."""
    program = f"import sys; from batch_scoring.cli.main import main; main({list(arguments)}); "
    program += f"print(*{sorted(HEAVY)} & sys.modules.keys())".replace(f"{sorted(HEAVY)}", f"{HEAVY}")
    done = subprocess.run([sys.executable, "-c", program], env=ENVIRONMENT, capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("name", ["", *SUBCOMMANDS])
def test_a_page_of_help_fits_into_80_columns_and_names_every_option(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*name.split(), "--help"]) == 0
    page = capsys.readouterr()
    assert max(map(len, page.out.splitlines())) <= 80 and page.err == ""
    assert page.out.startswith(f"Usage: batch-scoring {name}".rstrip())
    assert main([*name.split(), "-h"]) == 0 and capsys.readouterr() == page


def test_the_overview_and_the_arguments_of_the_large_commands_import_nothing_heavy() -> None:
    assert imported("--help") == set()
    assert [name for name in LIGHT if imported(name, "--help")] == []


def test_no_command_at_all_shows_the_overview_and_exits_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    said = capsys.readouterr()
    assert said.out == "" and all(name in said.err for name in SUBCOMMANDS)


def test_a_reader_that_goes_away_ends_the_command_without_a_traceback(tmp_path: Path) -> None:
    for part in ("landing", "models"):
        shutil.copytree(PROJECT / "data/customer_churn" / part, tmp_path / "data/customer_churn" / part)
    for name in ("flight_delay", "support_tickets"):
        shutil.copytree(PROJECT / "data" / name / "models", tmp_path / "data" / name / "models")
    started = subprocess.Popen(
        [BIN / "batch-scoring", "backfill", "customer_churn", "--stale", "--failed", "--dry-run"],
        env=ENVIRONMENT | {"BATCH_SCORING_DATA": str(tmp_path / "data")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None and started.stderr is not None
    started.stdout.close()
    assert (started.stderr.read(), started.wait(30)) == ("", 1)
