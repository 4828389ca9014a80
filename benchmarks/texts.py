"""Scoring of texts: the engine, and the usual ways to put texts of different lengths through a network.

    python -m benchmarks.texts --rows 4096 --rounds 5

Support tickets in two languages, tokenized by the tokenizer of the embedded bundle, through a small transformer (128
wide, two layers, at most 128 tokens). One thread, texts in memory; rows per CPU second from text to probabilities, the
contenders taking turns:

engine      groups of one width, which depends on each text alone: `inputs/ragged.py`.
one by one  a text at a time, without padding: what is needed elsewhere for scores that no neighbour changes.
to longest  batches of 32 in the order of arrival, each padded to its longest text: the default of most tutorials.
to maximum  the same, padded to the longest text that the network takes.

One by one is closest to the engine where texts are long enough to fill a matrix product alone.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import tokenizers
import torch
from torch import nn

from batch_scoring.inference.bundle import load_bundle, write_bundle
from batch_scoring.inference.heads.classification import Classification
from batch_scoring.inference.inputs.texts import joined
from batch_scoring.inference.manifest import LoadedModel, Text
from batch_scoring.inference.scorer import Scorer, keep_freed_memory
from batch_scoring.pipelines.support_tickets.data import TOPICS, tickets
from batch_scoring.storage.folders.addresses import open_folder
from benchmarks import side_by_side

TEXT = Text(columns=("subject", "body"), longest=128, unknown=1)
TOKENIZER = side_by_side.PROJECT / "data/support_tickets/models/v1/tokenizer.json"
BATCH_ROWS = 32

Contender = Callable[[pa.RecordBatch], np.ndarray]
"""From texts to probabilities, float32[rows, topics]."""


class Transformer(nn.Module):
    """Two layers of attention over a text's tokens; the mean of the last one gives the topic."""

    def __init__(self, tokens: int, width: int = 128) -> None:
        super().__init__()
        self.words = nn.Embedding(tokens, width, padding_idx=0)
        self.places = nn.Embedding(TEXT.longest, width)
        layer = nn.TransformerEncoderLayer(width, 4, 2 * width, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.last = nn.Linear(width, len(TOPICS))

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """float32[rows, topics]."""
        is_real = tokens != TEXT.padding
        values = self.words(tokens) + self.places(torch.arange(tokens.shape[1], device=tokens.device))
        values = self.encoder(values, src_key_padding_mask=~is_real) * is_real[:, :, None]
        return self.last(values.sum(dim=1) / is_real.sum(dim=1, keepdim=True))


def main() -> None:
    """Run the command: measure and print a Markdown table."""
    parser = argparse.ArgumentParser(description="Time the scoring of texts of different lengths.")
    parser.add_argument("--rows", type=int, default=4_096)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    rows = texts(arguments.rows)
    with tempfile.TemporaryDirectory(prefix="batch_scoring_bench_") as folder:
        model = bundle(Path(folder))
    ways = contenders(model)
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(arguments.rounds):
        for name, score in ways.items():
            begin = time.process_time()
            score(rows)
            seconds[name].append(time.process_time() - begin)
    header = ["", "rows per CPU second", "engine / this", "max difference"]
    lengths = [len(text.ids) for text in tokenizer().encode_batch(joined(rows, TEXT.columns).to_pylist())]
    print(f"\n{len(lengths):,} texts of {min(lengths)} to {max(lengths)} tokens, {np.mean(lengths):.0f} on average\n")
    print(side_by_side.table(header, [_line(name, ways, seconds, rows) for name in ways]))
    print(f"\n{side_by_side.machine()}")


def texts(rows: int) -> pa.RecordBatch:
    """Return some tickets of one day."""
    [batch] = tickets(date(2025, 3, 3), rows).combine_chunks().to_batches()
    return batch


def bundle(folder: Path) -> LoadedModel:
    """Write an untrained transformer as a bundle, and load it: what it computes takes as long."""
    torch.manual_seed(0)
    arguments = {"tokens": tokenizer().get_vocab_size()}
    rows = pa.Table.from_batches([texts(1_024)]).select(["ticket_id", *TEXT.columns])
    write_bundle(
        folder,
        network=Transformer(**arguments),
        arguments=arguments,
        name="support_tickets",
        version="untrained",
        task=Classification(classes=TOPICS),
        numeric=[],
        categorical={},
        text=TEXT,
        tokenizer=TOKENIZER.read_bytes(),
        training={},
        metrics={},
        golden=rows.slice(0, 64),
        reference=rows.append_column("dt", pa.array([date(2025, 3, 3)] * len(rows))),
    )
    return load_bundle(open_folder(str(folder)), Transformer)


def tokenizer() -> tokenizers.Tokenizer:
    """Return the tokenizer, which cuts texts where the network ends."""
    found = tokenizers.Tokenizer.from_file(str(TOKENIZER))
    found.enable_truncation(TEXT.longest)
    return found


def contenders(model: LoadedModel) -> dict[str, Contender]:
    """Return the ways to score texts with one network, by name."""
    scorer = Scorer(model, device="cpu")
    columns = model.manifest.task.expected_columns

    def engine(rows: pa.RecordBatch) -> np.ndarray:
        scores = scorer.score_batch(rows).scores
        return np.column_stack([scores.column(name).to_numpy() for name in columns])

    return {
        "engine": engine,
        "one by one": lambda rows: _in_batches(model.network, rows, 1),
        "to longest": lambda rows: _in_batches(model.network, rows, BATCH_ROWS),
        "to maximum": lambda rows: _in_batches(model.network, rows, BATCH_ROWS, TEXT.longest),
    }


def _in_batches(network: nn.Module, rows: pa.RecordBatch, size: int, width: int = 0) -> np.ndarray:
    """Score batches of a fixed number of rows, padded to the longest of each, and to `width` at least."""
    encode, contents = tokenizer(), joined(rows, TEXT.columns).to_pylist()

    def scores() -> Iterator[np.ndarray]:
        for start in range(0, len(contents), size):
            ids = [found.ids or [TEXT.unknown] for found in encode.encode_batch_fast(contents[start : start + size])]
            tokens = np.full((len(ids), max(width, *map(len, ids), 1)), TEXT.padding)
            for row, found in enumerate(ids):
                tokens[row, : len(found)] = found
            yield network(torch.from_numpy(tokens)).softmax(dim=1).numpy()

    with torch.inference_mode():
        return np.concatenate(list(scores()))


def _line(name: str, ways: dict[str, Contender], seconds: dict[str, list[float]], rows: pa.RecordBatch) -> list[str]:
    ratios = [mine / ours for mine, ours in zip(seconds[name], seconds["engine"], strict=True)]
    return [
        name,
        f"{rows.num_rows / statistics.median(seconds[name]):,.0f}",
        f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})",
        f"{np.abs(ways[name](rows) - ways['engine'](rows)).max():.1e}",
    ]


if __name__ == "__main__":
    main()
