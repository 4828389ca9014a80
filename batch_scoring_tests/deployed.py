"""The deployment of a tiny project, as other processes load it: by this module's name and the environment."""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

import batch_scoring.pipelines
from batch_scoring.config.loader import PROJECT, survey_pipelines
from batch_scoring.definitions import deploy_valid

if TYPE_CHECKING:  # otherwise every step process would import torch and pytest
    import pytest

    from batch_scoring_tests.tiny import TinyProject

PACKAGES = "BATCH_SCORING_TEST_PACKAGES"
"""The folder of the tiny project's pipelines."""
ROOT = "BATCH_SCORING_TEST_DATA"
"""Its data root, if not the deployment's own, where the project's own pipelines have no bundle."""


def deployment() -> dg.Definitions:
    """Return the definitions, built as in `batch_scoring.definitions` for the project's own pipelines."""
    packages = os.environ[PACKAGES]
    if packages not in batch_scoring.pipelines.__path__:
        batch_scoring.pipelines.__path__.append(packages)
    return deploy_valid(survey_pipelines(Path(packages), os.environ.get(ROOT)))


def job_of(tiny: "TinyProject", monkeypatch: "pytest.MonkeyPatch", name: str = "") -> ReconstructableJob:
    """Return the job that scores a day, or another job, for `dg.execute_job`, whose step processes load it again."""
    monkeypatch.setenv(PACKAGES, str(tiny.packages))
    monkeypatch.setenv(ROOT, tiny.data_root)
    repository = ReconstructableRepository.for_module(__name__, "deployment", str(PROJECT))
    return repository.get_reconstructable_job(name or f"score_{tiny.name}")
