"""Training of the ticket model, from three months of generated tickets to a calibrated bundle.

    python -m batch_scoring.pipelines.support_tickets.train     (a minute on two cores)

The window ends before the recall, a topic that this model therefore does not know. Every 8th day is held out for
validation (every 7th would always be the same weekday). Scoring does not need this module.
"""

import argparse
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import torch
from torch.nn.functional import cross_entropy

from batch_scoring.pipelines.support_tickets.data import TOPICS, tickets
from batch_scoring.pipelines.support_tickets.network import TicketNet
from batch_scoring.training import Training

BUNDLE = Path("data/support_tickets/models/v1")
CLASSES = TOPICS[:-1]

FIRST_DAY = date(2024, 12, 1)
DAYS = 90
ROWS_A_DAY = 180
"""Tickets of each day that agents have labelled."""

TOKENS = 2_000
WIDTH, HIDDEN = 48, 48
EPOCHS = 12
BATCH_ROWS = 128
LEARNING_RATE = 2e-3
UNKNOWN = 1
DROPPED = 0.1
"""Share of tokens made unknown in training, so that an unknown word is an input that the network has seen."""


def main() -> None:
    """Train the model and write its bundle."""
    parser = argparse.ArgumentParser(description="Train the ticket model: tokenizer, network, calibrated bundle.")
    parser.add_argument("--out", type=Path, default=BUNDLE, help="folder of the bundle (%(default)s)")
    folder: Path = parser.parse_args().out
    torch.set_num_threads(1)  # sums in another order give other weights

    data = Training("support_tickets", labelled_tickets(), held_out=8)
    data.train_tokenizer(TOKENS)
    network = fit(data)
    right = data.held_out.outputs(network).argmax(dim=1) == data.held_out.labels("topic", CLASSES)
    metrics = {"accuracy_held_out_days": round(right.float().mean().item(), 4)}
    sha256 = data.write(folder, network, classes=CLASSES, metrics=metrics)
    print(f"{folder}: sha256 {sha256}, {metrics}")


def labelled_tickets() -> pa.Table:
    """Return tickets of all days of the window, with their topic and `dt`."""
    days = [FIRST_DAY + timedelta(number) for number in range(DAYS)]
    rows = [tickets(day, ROWS_A_DAY) for day in days]
    return pa.concat_tables(
        table.append_column("dt", pa.array([day] * len(table), pa.date32()))
        for day, table in zip(days, rows, strict=True)
    )


def fit(data: Training) -> TicketNet:
    """Train the network on all rows that are not held out."""
    torch.manual_seed(0)
    numeric = data.tensors["numeric"]
    network = data.network(
        tokens=data.vocabulary_size,
        numeric=numeric.shape[1],
        categories=[len(words) for words in data.vocabularies.values()],
        topics=len(CLASSES),
        width=WIDTH,
        hidden=HIDDEN,
    )
    assert isinstance(network, TicketNet)
    network.normalise(numeric)
    labels = data.labels("topic", CLASSES)
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    for epoch in range(EPOCHS):
        for tensors, rows in data.batches(BATCH_ROWS, seed=epoch):
            tokens = tensors["tokens"]
            dropped = (torch.rand(tokens.shape) < DROPPED) & (tokens != 0)
            logits = network(**tensors | {"tokens": tokens.masked_fill(dropped, UNKNOWN)})
            optimiser.zero_grad()
            cross_entropy(logits, labels[rows]).backward()
            optimiser.step()
    return network.eval()


if __name__ == "__main__":
    main()
