"""A sample's rows by their days, in files that read as the sample does."""

from datetime import date, datetime
from pathlib import Path
from typing import Any

import pytest

from batch_scoring.cli.new import landing
from batch_scoring.cli.new.sample import read
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.errors import SampleError
from batch_scoring.ingest import landing_files
from batch_scoring_tests.cli.new.conftest import Read, Write
from batch_scoring_tests.tiny import TinyProject

YESTERDAY = "2026-11-29"
ROWS: list[dict[str, Any]] = [
    {"id": f"k{n}", "x": "NA" if n == 3 else n, "text": 'a "b", c' if n % 2 else "", "day": f"2024-01-0{n % 3 + 1}"}
    for n in range(9)
]


def landed(pipeline: Pipeline) -> dict[str, list[str]]:
    return {day: [file.path for file in files] for day, files in landing_files.list_days(pipeline.landing).items()}


def test_a_sample_without_a_column_of_days_lands_as_it_is(tiny: TinyProject, write: Write) -> None:
    file = write(ROWS, "table.csv", delimiter=";")
    sample = read(file)
    landing.land(tiny.pipeline, sample, landing.days_of(sample, None, YESTERDAY))
    assert landed(tiny.pipeline) == {YESTERDAY: [f"dt={YESTERDAY}/table.csv"]}
    assert tiny.pipeline.landing.read(f"dt={YESTERDAY}/table.csv") == file.read_bytes()


def test_rows_land_on_the_days_of_a_column_with_their_cells_as_they_are(tiny: TinyProject, sampled: Read) -> None:
    sample = sampled(ROWS, delimiter=";")
    landing.land(tiny.pipeline, sample, landing.days_of(sample, "day", YESTERDAY))
    assert list(landed(tiny.pipeline)) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    first = tiny.pipeline.landing.read("dt=2024-01-01/rows.csv").decode()
    assert first == 'id;x;text;day\nk0;0;;2024-01-01\nk3;NA;"a ""b"", c";2024-01-01\nk6;6;;2024-01-01\n'


@pytest.mark.parametrize("cell", ['"two\nlines"', '"a" or "b"'])
def test_rows_of_a_day_are_in_the_dialect_of_the_sample(tiny: TinyProject, tmp_path: Path, cell: str) -> None:
    file = tmp_path / "a.csv"
    file.write_text("id,day,text\n" + "".join(f"k{n},2024-01-0{n % 2 + 1},{cell}\n" for n in range(9)))
    sample = read(file)
    landing.land(tiny.pipeline, sample, landing.days_of(sample, "day", YESTERDAY))
    [version] = landing_files.list_day(tiny.pipeline.landing, "2024-01-01")
    with landing_files.open_rows(tiny.pipeline.landing, version, sample.csv) as rows:
        [part] = rows.read(0, 100)
    assert part.batch["text"].cast("string").to_pylist() == [cell.strip('"') if "\n" in cell else cell] * 5
    assert not part.broken


@pytest.mark.parametrize(
    "made",
    [
        lambda n: f"2024-01-0{n % 3 + 1}",
        lambda n: f"2024-01-0{n % 3 + 1}T23:59:00Z",
        lambda n: date(2024, 1, n % 3 + 1),
        lambda n: datetime(2024, 1, n % 3 + 1, 23, 59),  # noqa: DTZ001  (as pandas writes them)
    ],
    ids=["text", "times as text", "dates", "times"],
)
def test_days_are_dates_times_or_text(sampled: Read, made: Any) -> None:  # noqa: ANN401  (a function)
    sample = sampled([{"id": n, "day": made(n)} for n in range(9)], "a.parquet")
    days = landing.days_of(sample, "day", YESTERDAY)
    assert list(days) == ["2024-01-01", "2024-01-02", "2024-01-03"]
    assert all(mask is not None and mask.true_count == 3 for mask in days.values())


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["2024-01-01", ""], "--day day: 1 of 2 rows have no day"),
        (["2024-01-01", "soon"], "--day day: its values are not days such as 2024-03-04"),
        ([1.5, 2.5], "--day day: its values are not days such as 2024-03-04"),
    ],
)
def test_a_column_that_holds_no_days_is_refused(sampled: Read, values: list[object], reason: str) -> None:
    sample = sampled([{"id": n, "day": value} for n, value in enumerate(values)])
    with pytest.raises(SampleError, match=reason):
        landing.days_of(sample, "day", YESTERDAY)
