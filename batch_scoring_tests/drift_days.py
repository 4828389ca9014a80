"""Shared helpers for tests of drift: a calibrated project, its days, and faulty data."""

from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from batch_scoring_tests.tiny import TinyProject, reference_rows

FEATURES, PREDICTIONS = "features_match_reference", "predictions_match_reference"


def calibrated(folder: Path) -> TinyProject:
    """Return a project whose bundle has a reference of 91 days and its profile."""
    tiny = TinyProject(folder)
    tiny.deliver("v1", reference=reference_rows())
    return tiny


def said(result: dg.ExecuteInProcessResult, check: str = FEATURES) -> dg.AssetCheckEvaluation:
    (found,) = [found for found in result.get_asset_check_evaluations() if found.check_name == check]
    return found


def run(tiny: TinyProject, day: str, rows: pa.Table) -> dg.AssetCheckEvaluation:
    tiny.land(day, rows)
    result = tiny.run(day)
    assert result.success
    return said(result)


def kept_pages(tiny: TinyProject) -> list[str]:
    reports = Path(tiny.pipeline.output.uri, "reports")
    return sorted(str(file.relative_to(reports)) for file in reports.rglob("*.html"))


def added(rows: pa.Table, name: str, number: float) -> pa.Table:
    return rows.set_column(rows.column_names.index(name), name, pc.add(rows[name], number))


def emptied(rows: pa.Table, name: str, share: float) -> pa.Table:
    lost = pa.array(np.arange(len(rows)) < share * len(rows))
    empty = pc.if_else(lost, pa.scalar(None, rows[name].type), rows[name])
    return rows.set_column(rows.column_names.index(name), name, empty)
