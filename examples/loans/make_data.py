"""Synthetic loans: the table that arrives every day, with a few bad rows in it.

    python examples/loans/make_data.py data/loans/landing 2024-01-01 2024-01-31

A day is always the same, whenever and wherever it is made.
"""

import argparse
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv

LOANS_PER_DAY = 2_000
TERMS = [12, 24, 36, 60]

UNQUOTED = pyarrow.csv.WriteOptions(quoting_style="none", quoting_header="none")

BAD_ROWS = """\
L900001,-250.00,24,4.10
L900002,5000.00,13,3.90
L900003,a lot,36,5.20
L900004,8000.00,,6.00
,7500.00,60,5.00
"""
"""At the end of each day's file: an amount below 0, a term that is not offered, text, a missing term, a missing key."""


def loans(day: date, count: int) -> pa.Table:
    """The loans of a day; one rate in twenty is missing."""
    random = np.random.default_rng(day.toordinal())
    amount = np.round(np.minimum(random.lognormal(9.2, 0.8, count), 1_000_000), 2)
    term = random.choice(TERMS, count, p=[0.15, 0.3, 0.35, 0.2])
    rate = np.round(np.maximum(random.normal(3.5 + term / 24, 1.2, count), 0.0), 2)
    return pa.table(
        {
            "loan_id": [f"L{number:06d}" for number in range(count)],
            "amount": amount,
            "term_months": term,
            "rate": pa.array(rate, mask=random.random(count) < 0.05),
        }
    )


def write_day(landing: Path, day: date) -> Path:
    """Write the day's file where the pipeline looks for it, bad rows at its end."""
    file = landing / f"dt={day}" / "loans.csv"
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("wb") as sink:
        pyarrow.csv.write_csv(loans(day, LOANS_PER_DAY), sink, UNQUOTED)
        sink.write(BAD_ROWS.encode())
    return file


def main() -> None:
    """Write every day of the range that the command line names."""
    parser = argparse.ArgumentParser(description="Write days of synthetic loans.")
    parser.add_argument("landing", type=Path, help="the folder above dt=YYYY-MM-DD")
    parser.add_argument("first", type=date.fromisoformat, help="first day, YYYY-MM-DD")
    parser.add_argument(
        "last", type=date.fromisoformat, nargs="?", help="last day, included; the first one if left out"
    )
    arguments = parser.parse_args()
    for number in range(((arguments.last or arguments.first) - arguments.first).days + 1):
        print(write_day(arguments.landing, arguments.first + timedelta(number)))


if __name__ == "__main__":
    main()
