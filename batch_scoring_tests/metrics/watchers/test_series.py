"""Tests of how series are written for promtool."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.metrics.watchers.series import notation


@pytest.mark.parametrize(
    ("samples", "written"),
    [
        ([7, 9, 11, 13], "7+2x3"),
        ([5], "5+0x0"),
        ([5, 5, 4, 3], "5+0x1 4-1x1"),
        ([None, None, 1], "_x2 1+0x0"),
        ([1, None, 1, None, None], "1+0x0 stale 1+0x0 stale _x1"),
        ([-60, 0, 60], "-60+60x2"),
        ([], ""),
    ],
)
def test_samples_are_written_in_runs(samples: list[int | None], written: str) -> None:
    assert notation(samples) == written


@given(st.lists(st.none() | st.integers(-3, 3)))
def test_what_is_written_stands_for_the_same_samples(samples: list[int | None]) -> None:
    assert read(notation(samples)) == samples


def read(written: str) -> list[int | None]:
    """Series as promtool reads them; a mark of staleness is an interval without a sample."""
    samples: list[int | None] = []
    for part in written.split():
        if run := re.fullmatch(r"(-?\d+)([+-]\d+)x(\d+)", part):
            first, step, more = map(int, run.groups())
            samples += [first + step * index for index in range(more + 1)]
        else:
            samples += [None] * int(part.removeprefix("_x") if part != "stale" else 1)
    return samples
