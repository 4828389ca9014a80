"""Commands that are told to end while they still import."""

import re
import signal
import sys

import pytest

from batch_scoring_tests import terminals

EARLY = {
    "backfill": ("batch_scoring.cli.main", "backfill customer_churn 2024-01-01 2024-01-02"),
    "score": ("batch_scoring.cli.main", "score --pipeline customer_churn --input a --output b"),
    "doctor": ("batch_scoring.cli.main", "doctor"),
    "calibrate": ("batch_scoring.cli.main", "calibrate customer_churn"),
    "checkpoint": (
        "batch_scoring.cli.main",
        "checkpoint --pipeline customer_churn --checkpoint a --sample b --classes c d --out e",
    ),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("name", EARLY)
def test_a_command_that_is_still_importing_ends_with_one_line(
    environment: dict[str, str], name: str, number: signal.Signals
) -> None:
    module, arguments = EARLY[name]
    terminal = terminals.Terminal([sys.executable, "-v", "-m", module, *arguments.split()], environment)
    terminal.read_until(lambda text: re.search(r"import 'pyarrow\.lib'|import 'dagster", text))
    terminal.text = ""
    terminal.tell(number)
    code, lines = terminal.end()
    said = [line for line in lines if not line.startswith(("#", "import "))][-1:]  # Python's own, of -v
    assert code == 128 + number and sum("interrupted" in line for line in lines) == 1, lines[-5:]
    assert "interrupted" in said[0]
    assert not any("Traceback" in line for line in lines)
    if name == "backfill":
        assert said[0].endswith(f"interrupted; continue with: batch-scoring {arguments}")
