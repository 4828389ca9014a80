"""A transform that hashes by process or reads the clock is refused when its bundle is written."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.inference.acceptance.functions import other_process
from batch_scoring.inference.inputs.transform import Transform, whole
from batch_scoring_tests.transformed_bundles import refusal, rows, write
from batch_scoring_tests.transforms import (
    dies_later,
    hashed,
    month,
    set_order,
    sound,
    timestamp,
    today,
    when_loaded,
    whole_days,
    year,
)


@pytest.mark.parametrize("transform", [hashed, set_order])
def test_what_follows_the_hash_of_a_text_is_refused(tmp_path: Path, transform: Callable[..., object]) -> None:
    said = refusal(tmp_path, transform)
    assert said.startswith("features.transform gives other values in another process: made is ")
    assert "it takes Python's hash() of a text" in said


@pytest.mark.parametrize("transform", [today, year, whole_days, month, timestamp, when_loaded])
def test_what_reads_the_clock_is_refused(tmp_path: Path, transform: Callable[..., object]) -> None:
    said = refusal(tmp_path, transform)
    assert said.startswith("features.transform gives other values with the clock 400 days ahead: made is ")
    assert "it reads the clock" in said


def test_dates_and_digests_of_the_row_itself_are_the_same_there(tmp_path: Path) -> None:
    table = rows(64)
    transform = Transform.learn(sound, {"mean": 0.5}, table)
    found = other_process.run(transform, whole(table))
    assert found.seeded and found.ahead, "the function ran there"
    made = pa.Table.from_batches([transform.run(whole(table))[0]])
    assert found.seeded.equals(made) and found.ahead.equals(made)
    write(tmp_path, sound, fitted={"mean": 0.5})


def test_a_function_that_cannot_be_imported_there_is_left_to_the_next_load(tmp_path: Path) -> None:
    def within(rows: pa.RecordBatch, fitted: dict[str, Any]) -> dict[str, Any]:
        return hashed(rows, fitted)

    assert other_process.run(Transform.learn(within, {}, rows(64)), whole(rows(64))) == other_process.Found()
    write(tmp_path, within)


def test_a_process_that_dies_with_another_clock_has_told_about_hashes(tmp_path: Path) -> None:
    table = rows(64)
    found = other_process.run(Transform.learn(dies_later, {}, table), whole(table))
    assert found.seeded and found.ahead is None
    write(tmp_path, dies_later)
