from datetime import date

import pytest

from batch_scoring.config.days import of_month, ranges


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


def test_a_month_has_all_of_its_days() -> None:
    days = of_month("2024-02")
    assert (days[0], days[-1], len(days)) == (date(2024, 2, 1), date(2024, 2, 29), 29)
