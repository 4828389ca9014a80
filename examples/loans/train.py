"""Train the loan model: a stand-in for your own training code, which needs nothing of batch_scoring.

    python examples/loans/train.py data/loans/training

It leaves three files: the checkpoint, a sample of the training rows, and the probabilities that the network gives for
some of them.
"""

import sys
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from make_data import loans
from network import LoanNet

FEATURES = ["amount", "term_months", "rate"]
FIRST_DAY, DAYS, LOANS_PER_DAY = date(2023, 10, 1), 92, 150
HIDDEN, EPOCHS = 32, 120


def training_rows() -> pa.Table:
    """Three months of loans, each row with its day."""
    days = [FIRST_DAY + timedelta(number) for number in range(DAYS)]
    return pa.concat_tables(
        [loans(day, LOANS_PER_DAY).append_column("dt", pa.array([day] * LOANS_PER_DAY)) for day in days]
    )


def has_defaulted(rows: pa.Table) -> torch.Tensor:
    """What became of each loan, drawn from the probability that the model has to find."""
    amount, term, rate = (rows[name].to_numpy() for name in FEATURES)
    logit = 0.9 * np.log(amount / 10_000) + 0.6 * (np.nan_to_num(rate, nan=5.0) - 5) + term / 40 - 3
    return torch.from_numpy(np.random.default_rng(0).random(len(rows)) < 1 / (1 + np.exp(-logit))).long()


def matrix(rows: pa.Table) -> torch.Tensor:
    """The features as the network takes them: float32[rows, features], NaN where a value is missing."""
    return torch.from_numpy(np.column_stack([rows[name].to_numpy() for name in FEATURES]).astype(np.float32))


def train(numeric: torch.Tensor, labels: torch.Tensor) -> LoanNet:
    """Fit the network, its scaling included."""
    torch.manual_seed(0)
    network = LoanNet(len(FEATURES), HIDDEN, 2)
    network.mean.copy_(numeric.nanmean(dim=0))
    network.std.copy_((numeric - network.mean).square().nanmean(dim=0).sqrt())
    optimiser = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(EPOCHS):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(network(numeric, no_categories(numeric)), labels).backward()
        optimiser.step()
    return network.eval()


def no_categories(numeric: torch.Tensor) -> torch.Tensor:
    """The categorical features of as many rows: none."""
    return torch.empty(len(numeric), 0, dtype=torch.int64)


def main() -> None:
    """Train, and write the three files into the folder that the command line names."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rows = training_rows()
    network = train(matrix(rows), has_defaulted(rows))

    dimensions = {"input_dim": len(FEATURES), "hidden_dim": HIDDEN, "output_dim": 2}
    torch.save({"model_state_dict": network.state_dict(), **dimensions, "version": "v1"}, folder / "loans.pt")
    pq.write_table(rows, folder / "sample.parquet")

    some = rows.slice(0, 1_000)
    with torch.inference_mode():
        defaults = network(matrix(some), no_categories(matrix(some))).softmax(dim=1)[:, 1].numpy()
    expected = some.select(["loan_id", "dt"]).append_column("prob_class_1", pa.array(defaults))
    pq.write_table(expected, folder / "expected.parquet")
    print(f"{folder}: loans.pt, sample.parquet ({len(rows):,} rows), expected.parquet ({len(some):,} rows)")


if __name__ == "__main__":
    main()
