"""The arguments of `submit`, `status` and `wait`, from a folder without anything."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring_tests.remote_deployment import There, command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("submit tiny", "expected --day, or --from and --to"),
        ("submit tiny --day 2024-03-04 --from 2024-03-04 --to 2024-03-05", "expected --day, or --from and --to"),
        ("submit tiny --from 2024-03-04", "expected --day, or --from and --to"),
        ("submit tiny --day 2024-02-30", "'2024-02-30' is not a day"),
        ("submit tiny --day 2024-03-04 --timeout 5", "--timeout is for --wait"),
        ("wait", "expected the id of a run or a backfill, or else --pipeline and --day"),
        ("status --pipeline tiny", "expected the id of a run or a backfill, or else --pipeline and --day"),
        ("status abcdefgh --day 2024-03-04", "expected the id of a run or a backfill, or else --pipeline and --day"),
        ("wait abcdefgh --timeout 0", "'0' is not a number of seconds above 0"),
    ],
)
def test_wrong_arguments_exit_with_2(arguments: str, says: str) -> None:
    said = command(arguments, "http://127.0.0.1:1")
    assert said.code == 2 and says in said.err and said.out == ""


def test_from_a_process_with_nothing_around_it(there: There, tmp_path: Path) -> None:
    program = "import sys; from batch_scoring.cli.main import main; sys.exit(main())"
    done = subprocess.run(
        [sys.executable, "-c", program, "status", there.range_id, "--url", there.url],
        cwd=tmp_path,
        env={"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == "" and f"  {there.url}/runs/b/{there.range_id}\n" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_other_commands_do_not_pay_for_the_client(tmp_path: Path) -> None:
    program = (
        "import sys; from batch_scoring.cli.main import main\n"
        "main(['submit', '--help'])\n"
        "print(sorted({'gql', 'requests', 'dagster_graphql', 'graphql', 'dagster', 'torch'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.splitlines()[-1] == "[]"
