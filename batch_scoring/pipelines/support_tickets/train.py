"""Training of the ticket model, from three months of generated tickets to a calibrated bundle.

    python -m batch_scoring.pipelines.support_tickets.train     (a minute on two cores)

The tokenizer is trained first, on the same texts. Every 8th day of the window is held out for validation (every 7th
would always be the same weekday). The window ends before the recall, a topic that this model therefore does not know.
Scoring does not need this module.
"""

import argparse
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tokenizers
import torch
from tokenizers import models, normalizers, pre_tokenizers, trainers
from torch import nn

from batch_scoring.config.loader import declared_pipeline
from batch_scoring.inference.bundle import GOLDEN_ROWS, read_bundle, write_bundle
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.manifest import Text
from batch_scoring.ingest.schema.contract import Contract
from batch_scoring.monitoring.drift.calibration import calibrate
from batch_scoring.pipelines.support_tickets.data import TOPICS, tickets
from batch_scoring.pipelines.support_tickets.network import TicketNet
from batch_scoring.storage.folders.addresses import open_folder

PIPELINE = declared_pipeline("support_tickets")
FEATURES = PIPELINE.spec.features
MODELS = Path("data/support_tickets/models")
VERSION = "v1"
CLASSES = TOPICS[:-1]

FIRST_DAY = date(2024, 12, 1)
DAYS = 90
HELD_OUT_EVERY = 8

SEED = 0
TOKENS = 2_000
LONGEST = 128
PADDING, UNKNOWN = 0, 1
"""Tokens, in this order: [PAD] and [UNK]."""
WIDTH, HIDDEN = 48, 48
EPOCHS = 8
BATCH_ROWS = 128
LEARNING_RATE = 2e-3
DROPPED = 0.1
"""Share of tokens made unknown in training, so that an unknown word is an input that the network has seen."""
REFERENCE_ROWS = 12_000


@dataclass(frozen=True)
class Inputs:
    """The network's inputs for some rows."""

    tokens: torch.Tensor
    numeric: torch.Tensor
    categorical: torch.Tensor

    def take(self, rows: torch.Tensor) -> "Inputs":
        """Some of the rows, no wider than their longest text."""
        tokens = self.tokens[rows]
        width = int((tokens != PADDING).sum(dim=1).max())
        return Inputs(tokens[:, :width], self.numeric[rows], self.categorical[rows])

    def with_unknown_tokens(self) -> "Inputs":
        """The same with some tokens unknown."""
        dropped = (torch.rand(self.tokens.shape) < DROPPED) & (self.tokens != PADDING)
        return Inputs(self.tokens.masked_fill(dropped, UNKNOWN), self.numeric, self.categorical)

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.tokens)


@dataclass(frozen=True)
class Trained:
    """A network with what turns rows into its inputs."""

    network: TicketNet
    arguments: dict[str, Any]
    tokenizer: tokenizers.Tokenizer
    vocabularies: dict[str, list[str]]

    def scores(self, rows: pa.Table) -> np.ndarray:
        """Return the probability of each topic, float32[rows, topics]."""
        inputs = encoded(rows, self.tokenizer, self.vocabularies)
        with torch.inference_mode():
            logits = self.network(inputs.tokens, inputs.numeric, inputs.categorical)
            return logits.softmax(dim=1).numpy()

    def accuracy(self, rows: pa.Table) -> float:
        """Return the share of rows whose likeliest topic is the agent's."""
        return float((self.scores(rows).argmax(axis=1) == labels(rows).numpy()).mean())


def accepted(day: date) -> pa.Table:
    """Return the day's tickets that the schema accepts, with their topic and `dt`."""
    rows = tickets(day)
    verdict = Contract(PIPELINE).validate(rows.combine_chunks().to_batches()[0], is_text=False)
    rows = rows.take(pa.array(verdict.positions))
    return rows.append_column("dt", pa.array([day] * len(rows), pa.date32()))


def train_tokenizer(rows: pa.Table) -> tokenizers.Tokenizer:
    """Return a tokenizer of lower-case word pieces; every number is the same token, as it says nothing which it is."""
    words, found = list(texts(rows)), _tokenizer({})
    letters = sorted({letter for text in words for letter in found.normalizer.normalize_str(text)})
    # left to itself, the library numbers the inner letters in another order each time, and breaks ties by it
    first = ["[PAD]", "[UNK]", *letters, *(f"##{letter}" for letter in letters)]
    trainer = trainers.WordPieceTrainer(vocab_size=TOKENS, special_tokens=first, show_progress=False)
    found.train_from_iterator(words, trainer)
    return _tokenizer(found.get_vocab())


def _tokenizer(vocabulary: dict[str, int]) -> tokenizers.Tokenizer:
    found = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    numbers = normalizers.Replace(tokenizers.Regex(r"\d+"), "0")
    found.normalizer = normalizers.Sequence([normalizers.NFC(), normalizers.Lowercase(), numbers])
    found.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    return found


def texts(rows: pa.Table) -> Iterator[str]:
    """Yield what the network reads of each row: its text columns, a line break between them."""
    for row in rows.select(FEATURES.text).to_pylist():
        yield "\n".join(text or "" for text in row.values())


def encoded(rows: pa.Table, tokenizer: tokenizers.Tokenizer, vocabularies: dict[str, list[str]]) -> Inputs:
    """Return the network's inputs for some rows."""
    found = [torch.tensor(text.ids[:LONGEST]) for text in tokenizer.encode_batch(list(texts(rows)))]
    numeric = [rows[name].to_numpy().astype(np.float32) for name in FEATURES.numeric]
    codes = [[1 + words.index(word) for word in rows[name].to_pylist()] for name, words in vocabularies.items()]
    return Inputs(
        nn.utils.rnn.pad_sequence(found, batch_first=True),
        torch.from_numpy(np.stack(numeric, axis=1)),
        torch.tensor(codes).T,
    )


def labels(rows: pa.Table) -> torch.Tensor:
    """Return the class of each row, int64[rows]."""
    return torch.tensor([CLASSES.index(topic) for topic in rows["topic"].to_pylist()])


def fit(rows: pa.Table, epochs: int = EPOCHS) -> Trained:
    """Train tokenizer and network."""
    torch.manual_seed(SEED)
    tokenizer = train_tokenizer(rows)
    vocabularies = {name: sorted(rows[name].unique().to_pylist()) for name in FEATURES.categorical}
    arguments: dict[str, Any] = {
        "tokens": tokenizer.get_vocab_size(),
        "numeric": len(FEATURES.numeric),
        "categories": [len(words) for words in vocabularies.values()],
        "topics": len(CLASSES),
        "width": WIDTH,
        "hidden": HIDDEN,
    }
    network = TicketNet(**arguments)
    inputs, targets = encoded(rows, tokenizer, vocabularies), labels(rows)
    usual = inputs.numeric.log1p()
    network.mean.copy_(usual.nanmean(dim=0))
    network.scale.copy_((usual - network.mean).square().nanmean(dim=0).sqrt())
    optimiser = torch.optim.AdamW(network.parameters(), lr=LEARNING_RATE)
    for _ in range(epochs):
        for batch in torch.randperm(len(inputs)).split(BATCH_ROWS):
            some = inputs.take(batch).with_unknown_tokens()
            loss = nn.functional.cross_entropy(network(some.tokens, some.numeric, some.categorical), targets[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
    return Trained(network.eval(), arguments, tokenizer, vocabularies)


def sample(rows: pa.Table, size: int) -> pa.Table:
    """Return some rows of all days, in their order."""
    chosen = np.random.default_rng(SEED).choice(len(rows), size, replace=False)
    return rows.take(np.sort(chosen))


def write(trained: Trained, rows: pa.Table, folder: Path, training: dict[str, Any], metrics: dict[str, float]) -> str:
    """Write the calibrated bundle, and return its sha256. `rows`: of all days of the window."""
    reference = sample(rows.drop_columns("topic"), REFERENCE_ROWS)
    own = {f"prob_class_{place}": column for place, column in enumerate(trained.scores(reference).T)}
    write_bundle(
        folder,
        network=trained.network,
        arguments=trained.arguments,
        name=PIPELINE.name,
        version=VERSION,
        task=Classification(classes=CLASSES),
        numeric=list(FEATURES.numeric),
        categorical=trained.vocabularies,
        text=Text(columns=FEATURES.text, longest=LONGEST, padding=PADDING, unknown=UNKNOWN),
        tokenizer=trained.tokenizer.to_str().encode(),
        training=training,
        metrics=metrics,
        golden=sample(reference, GOLDEN_ROWS).drop_columns("dt"),
        reference=reference,
        expected=pa.table({"ticket_id": reference["ticket_id"], **own}),
    )
    bundle = read_bundle(open_folder(str(folder)))
    complete = bundle.with_profile(calibrate(bundle, FEATURES.day_grain), VERSION)
    complete.write(open_folder(str(folder)))
    return complete.sha256


def main() -> None:
    """Train the model and write its bundle."""
    parser = argparse.ArgumentParser(description="Train the ticket model: tokenizer, network, calibrated bundle.")
    parser.add_argument("--out", type=Path, default=MODELS, help="folder of the bundle (%(default)s)")
    folder: Path = parser.parse_args().out / VERSION
    torch.set_num_threads(1)  # sums in another order give other weights
    days = [accepted(FIRST_DAY + timedelta(number)) for number in range(DAYS)]
    known = pa.concat_tables(rows for number, rows in enumerate(days, 1) if number % HELD_OUT_EVERY)
    held_out = pa.concat_tables(rows for number, rows in enumerate(days, 1) if number % HELD_OUT_EVERY == 0)
    trained = fit(known)
    metrics = {"accuracy_held_out_days": round(trained.accuracy(held_out), 4)}
    training = {
        "from": str(FIRST_DAY),
        "to": str(FIRST_DAY + timedelta(DAYS - 1)),
        "rows": len(known),
        "label": "the topic that the agent chose",
        "validation": f"every {HELD_OUT_EVERY}th day held out",
        "seed": SEED,
    }
    sha256 = write(trained, pa.concat_tables(days), folder, training=training, metrics=metrics)
    print(f"{folder}: sha256 {sha256}, {metrics}")


if __name__ == "__main__":
    main()
