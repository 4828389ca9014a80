"""A tiny project's deployment as other processes find it: by this module's name and the environment."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

import batch_scoring.pipelines
from batch_scoring.config.loader import PROJECT, survey_pipelines
from batch_scoring.definitions import deploy_valid

if TYPE_CHECKING:  # each process of each step would import torch and pytest otherwise
    import pytest

    from batch_scoring_tests.tiny import TinyProject

PACKAGES = "BATCH_SCORING_TEST_PACKAGES"
"""The folder of the tiny project's pipelines."""
ROOT = "BATCH_SCORING_TEST_DATA"
"""Its data root, if that is not the deployment's: in a local one the project's own pipelines have no bundle."""


def deployment() -> dg.Definitions:
    """What the deployment has, as `batch_scoring.definitions` says it of the project's own pipelines."""
    packages = os.environ[PACKAGES]
    if packages not in batch_scoring.pipelines.__path__:
        batch_scoring.pipelines.__path__.append(packages)
    return deploy_valid(survey_pipelines(Path(packages), os.environ.get(ROOT)))


def job_of(tiny: "TinyProject", monkeypatch: "pytest.MonkeyPatch", name: str = "") -> ReconstructableJob:
    """The job that scores a day, or another one, for `dg.execute_job`: its steps' processes load it anew."""
    monkeypatch.setenv(PACKAGES, str(tiny.packages))
    monkeypatch.setenv(ROOT, tiny.data_root)
    repository = ReconstructableRepository.for_module(__name__, "deployment", str(PROJECT))
    return repository.get_reconstructable_job(name or f"score_{tiny.name}")
