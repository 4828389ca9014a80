"""Runs in the process of a command; how one is canceled is tested with the history of runs."""

import dagster as dg

from batch_scoring.cli import day_runs
from batch_scoring_tests.tiny import DAY, TinyProject


def test_a_run_is_recorded_and_its_first_error_is_one_line(tiny: TinyProject) -> None:
    tiny.land(DAY, tiny.rows(64))
    job = tiny.definitions.resolve_job_def(f"score_{tiny.name}")
    with dg.DagsterInstance.ephemeral() as instance:
        only = [dg.AssetKey([tiny.name, "predictions"])]
        failed = day_runs.run_here(job, DAY, instance, "batch-scoring backfill", only)
        assert not failed.success
        error = day_runs.first_error(failed)
        assert error.startswith(f"{tiny.name}/predictions: ") and f"{DAY} has no pinned input" in error
        assert "\n" not in error
        assert day_runs.run_here(job, DAY, instance, "batch-scoring backfill").success
        assert [run.status.value for run in instance.get_runs()] == ["SUCCESS", "FAILURE"]
