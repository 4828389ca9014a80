"""Shared helpers for tests of checks: days before the tested one, check settings, a reference profile."""

from collections.abc import Callable, Sequence

import dagster as dg
import pyarrow as pa

from batch_scoring.config.names import DAILY_ASSETS
from batch_scoring.daily.trailing_days import days_before
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.reference_profile import ReferenceProfile, Scores
from batch_scoring_tests.tiny import TinyProject

LATE = "2024-03-20"


def finding(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    return next(e for e in result.get_asset_check_evaluations() if e.check_name == name)


def settings(tiny: TinyProject, **checks: dict[str, object]) -> None:
    tiny.spec["checks"] = checks
    tiny.write_spec()


def days(
    tiny: TinyProject, rows: Callable[[int], pa.Table], count: int = 8, steps: Sequence[str] = DAILY_ASSETS
) -> None:
    """Run days before the tested day."""
    definitions = tiny.definitions
    for number, before in enumerate(days_before(LATE, count)):
        tiny.land(before, rows(number))
        tiny.run(before, steps, definitions=definitions)


def profile(**changes: object) -> ReferenceProfile:
    """Return a reference profile like one that a calibration learns."""
    values: dict[str, object] = {
        "first": "2023-12-01",
        "last": "2024-02-28",
        "days": 90,
        "rows": 100,
        "weekends_apart": False,
        "factor": 1.1,
        "columns": {},
        "scores": {},
        "left_out": {},
        "everyday": {},
        "held_out": (),
        "share_alarms": 0.0,
        "exceeding": {},
        "score_days": Scores(confidence=0.02, confidence_sd=0.0, spread=0.001, largest_class=0.5),
    }
    return ReferenceProfile.model_validate(values | changes)


def profiled(tiny: TinyProject, **changes: object) -> None:
    """Add a reference profile to the bundle."""
    bundle = read_bundle(tiny.pipeline.bundle)
    bundle.with_profile(profile(**changes), "v1").write(tiny.pipeline.bundle)
