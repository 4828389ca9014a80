"""Fixtures that several test modules share."""

import signal
from pathlib import Path

import pytest
import torch

from batch_scoring_tests.tiny import TinyProject

torch.set_num_threads(1)  # torch's own threads would spin against those of the tests beside


if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as a shell's `&` leaves it, for these and their children
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's deployment, instance or cloud."""
    for name in (
        "BATCH_SCORING_DATA", "DAGSTER_HOME", "ALERT_URLS", "DAGSTER_UI_URL", "AWS_PROFILE", "AWS_ENDPOINT_URL",
        "BATCH_SCORING_EXECUTOR", "BATCH_SCORING_DATA_SHARED", "DAGSTER_CURRENT_IMAGE",
    ):  # fmt: skip
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def tiny(tmp_path: Path) -> TinyProject:
    """A tiny pipeline on a local folder."""
    return TinyProject(tmp_path)
