"""A deployment for commands that are told to end."""

import os
import shutil
from pathlib import Path

import pytest

from batch_scoring.config.loader import PROJECT


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """A data root with what the repository embeds of customer_churn, and a DAGSTER_HOME."""
    for part in ("customer_churn/landing", "customer_churn/models", "flight_delay/models", "support_tickets/models"):
        shutil.copytree(PROJECT / "data" / part, tmp_path / "data" / part)
    (tmp_path / "home").mkdir()
    shutil.copy(PROJECT / "dagster.yaml", tmp_path / "home")
    own = {"BATCH_SCORING_DATA": str(tmp_path / "data"), "DAGSTER_HOME": str(tmp_path / "home")}
    return {**os.environ, **own, "TMPDIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
