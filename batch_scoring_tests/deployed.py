"""A tiny project's deployment as other processes find it: by this module's name and one variable."""

import os
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableJob, ReconstructableRepository

import batch_scoring.pipelines
from batch_scoring.definitions import deploy
from batch_scoring.pipeline import PROJECT, load_pipelines
from batch_scoring_tests.tiny import TinyProject

PACKAGES = "BATCH_SCORING_TEST_PACKAGES"
"""The folder of the tiny project's pipelines."""


def deployment() -> dg.Definitions:
    """What the deployment has, as `batch_scoring.definitions` says it of the project's own pipelines."""
    packages = os.environ[PACKAGES]
    if packages not in batch_scoring.pipelines.__path__:
        batch_scoring.pipelines.__path__.append(packages)
    return deploy(load_pipelines(Path(packages)))


def environment(tiny: TinyProject) -> dict[str, str]:
    """With which a process finds the project and its data."""
    return {PACKAGES: str(tiny.packages), "BATCH_SCORING_DATA": tiny.data_root}


def job_of(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch, name: str = "") -> ReconstructableJob:
    """The job that scores a day, or another one, for `dg.execute_job`: its steps' processes load it anew."""
    for variable, value in environment(tiny).items():
        monkeypatch.setenv(variable, value)
    repository = ReconstructableRepository.for_module(__name__, "deployment", str(PROJECT))
    return repository.get_reconstructable_job(name or f"score_{tiny.name}")
