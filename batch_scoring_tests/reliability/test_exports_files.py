"""A sample of `python -m batch_scoring_tests.reliability.exports_files`."""

from pathlib import Path

import pytest

from batch_scoring_tests.reliability.export_trials import Size, Trial, run
from batch_scoring_tests.reliability.exports_files import ON_S3, FilesPlace, on_disk
from batch_scoring_tests.reliability.store import Store


@pytest.mark.slow
@pytest.mark.parametrize("trial", on_disk(), ids=lambda trial: trial.__name__)
def test_on_a_disk_no_row_is_missing_doubled_or_mixed(tmp_path: Path, trial: Trial) -> None:
    (report,) = run(FilesPlace(f"{tmp_path}/lists"), Size(repeats=1, rows=500), [trial])
    assert report.trials > 0
    assert report.violations == []


@pytest.mark.slow
@pytest.mark.s3
@pytest.mark.parametrize("trial", ON_S3, ids=lambda trial: trial.__name__)
def test_on_s3_no_row_is_missing_doubled_or_mixed(store: Store, trial: Trial) -> None:
    (report,) = run(
        FilesPlace(f"s3://{store.new_bucket()}/lists", store.environment), Size(repeats=1, rows=500), [trial]
    )
    assert report.trials > 0
    assert report.violations == []
