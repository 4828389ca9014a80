"""The command as a process, by each of its names."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_scoring.config.loader import PROJECT

BIN = Path(sys.executable).parent


def command(*arguments: str, data: Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    program, environment = [str(BIN / arguments[0]), *arguments[1:]], os.environ | {"BATCH_SCORING_DATA": str(data)}
    return subprocess.run(program, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def test_a_wrong_command_exits_with_2_from_a_shell(tmp_path: Path) -> None:
    wrong = ("batch-scoring", "backfill", "flights", "2013-07-01", "2013-07-01")
    done = command(*wrong, data=tmp_path, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("batch-scoring: no pipeline 'flights'; known pipelines: ")


@pytest.mark.parametrize("module", ["batch_scoring", "batch_scoring.cli.main"])
def test_the_module_is_the_command(module: str, tmp_path: Path) -> None:
    ran = command("python", "-m", module, "backfill", "nobodys", "2024-01-01", data=tmp_path, cwd=PROJECT)
    assert ran.returncode == 2 and ran.stdout == ""
    assert ran.stderr.endswith(
        "Error: the following arguments are required: last (or --stale, --failed); "
        "for one day: batch-scoring backfill nobodys 2024-01-01 2024-01-01\n"
    )
