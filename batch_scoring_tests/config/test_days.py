"""Days as ISO dates."""

import pytest

from batch_scoring.config.days import ranges


@pytest.mark.parametrize(
    ("days", "expected"),
    [
        ([], []),
        (["2024-02-28", "2024-03-01", "2024-02-29"], ["2024-02-28 … 2024-03-01"]),
        (["2024-01-01", "2023-12-30"], ["2023-12-30", "2024-01-01"]),
    ],
)
def test_consecutive_days_are_named_by_their_ends(days: list[str], expected: list[str]) -> None:
    assert ranges(days) == expected
