"""Networks that read texts, a tokenizer, and texts of all lengths."""

import functools
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import tokenizers
import torch
from torch import nn

from batch_scoring.inference.manifest import LoadedModel, Manifest, Text

WORDS = ("the", "cat", "sat", "on", "a", "mat", "and", "saw", "dog", "run", "home", "über", "straße", "late", "train")
LONGEST = 48
WIDTH = 24


@functools.cache
def tokenizer() -> bytes:
    """A tokenizer of whole words; id 0 is padding, 1 an unknown word."""
    vocabulary = {word: index for index, word in enumerate(("[PAD]", "[UNK]", *WORDS))}
    found = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    found.normalizer = tokenizers.normalizers.Lowercase()
    found.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    return found.to_str().encode()


def text(**changes: object) -> Text:
    return Text(**({"columns": ("title", "body"), "longest": LONGEST, "unknown": 1} | changes))  # type: ignore[arg-type]


class Reader(nn.Module):
    """Tokens of known words, and a number; subclasses read the sequence."""

    def __init__(self, outputs: int = 2) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.words = nn.Embedding(len(WORDS) + 2, WIDTH, padding_idx=0)
        self.build()
        self.last = nn.Linear(WIDTH + 1, outputs)

    def build(self) -> None: ...

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """float32[rows, WIDTH]."""
        raise NotImplementedError

    def forward(self, tokens: torch.Tensor, numeric: torch.Tensor) -> torch.Tensor:
        found = self.read(tokens, tokens != 0)
        return self.last(torch.cat([found, numeric.nan_to_num(0.0)], dim=1))


class Bag(Reader):
    """The mean of the words."""

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.words(tokens).sum(dim=1) / mask.sum(dim=1, keepdim=True)


class SigmoidBag(Bag):
    """Ends in a sigmoid, which torch computes in pieces of 32."""

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(super().read(tokens, mask))


class Attention(Reader):
    """A transformer's encoder."""

    def build(self) -> None:
        layer = nn.TransformerEncoderLayer(WIDTH, 4, 2 * WIDTH, batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.place = nn.Embedding(LONGEST, WIDTH)

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        values = self.words(tokens) + self.place(torch.arange(tokens.shape[1], device=tokens.device))
        found = self.encoder(values, src_key_padding_mask=~mask) * mask[:, :, None]
        return found.sum(dim=1) / mask.sum(dim=1, keepdim=True)


class Recurrent(Reader):
    """A recurrent network in both directions, over the real tokens alone."""

    def build(self) -> None:
        self.layer = nn.GRU(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(tokens), mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        _, state = self.layer(packed)
        return state.transpose(0, 1).reshape(len(tokens), WIDTH)


class LongMemory(Recurrent):
    """The same with an LSTM."""

    def build(self) -> None:
        self.layer = nn.LSTM(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)  # type: ignore[assignment]

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        packed = nn.utils.rnn.pack_padded_sequence(
            self.words(tokens), mask.sum(dim=1).cpu(), batch_first=True, enforce_sorted=False
        )
        _, (state, _) = self.layer(packed)
        return state.transpose(0, 1).reshape(len(tokens), WIDTH)


class Convolution(Reader):
    """The largest answer of a convolution at a real token."""

    def build(self) -> None:
        self.layer = nn.Conv1d(WIDTH, WIDTH, 3, padding=1)

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        found = nn.functional.silu(self.layer(self.words(tokens).transpose(1, 2)))
        return found.masked_fill(~mask[:, None], -100.0).amax(dim=2)


class ReadingBackwards(Reader):
    """A recurrent network that begins with the padding."""

    def build(self) -> None:
        self.layer = nn.GRU(WIDTH, WIDTH // 2, batch_first=True, bidirectional=True)

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        _, state = self.layer(self.words(tokens))
        return state.transpose(0, 1).reshape(len(tokens), WIDTH)


class MeanOfAll(Reader):
    """A mean over the padding too."""

    def read(self, tokens: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.words(tokens).mean(dim=1)


READERS: tuple[type[Reader], ...] = (Bag, SigmoidBag, Attention, Recurrent, LongMemory, Convolution)


def letters(count: int, seed: int = 0) -> pa.RecordBatch:
    """Rows with a title and a body of 0 to 60 words, some of them unknown, some missing, and a number."""
    random = np.random.default_rng(seed)

    def words(most: int) -> Iterator[str | None]:
        for _ in range(count):
            length = int(random.integers(0, most + 1))
            yield None if random.random() < 0.05 else " ".join(random.choice([*WORDS, "Zebra"], length))

    return pa.RecordBatch.from_pydict(
        {
            "id": pa.array([f"k{seed}-{row}" for row in range(count)]),
            "title": pa.array(words(8), pa.string()),
            "body": pa.array(words(60), pa.string()),
            "x": pa.array(random.normal(size=count)),
        }
    )


def manifest(**changes: object) -> Manifest:
    options = {
        "name": "letters",
        "version": "v1",
        "task": "classification",
        "arguments": {},
        "numeric": ("x",),
        "categorical": {},
        "text": text(),
        "classes": ("no", "yes"),
        "training": {},
        "metrics": {},
        "files": {},
    }
    return Manifest(**(options | changes))  # type: ignore[arg-type]


def model_of(kind: type[Reader]) -> LoadedModel:
    golden = pa.Table.from_batches([letters(64, seed=99)])
    described = manifest(text=text(exact=issubclass(kind, Recurrent)))
    return LoadedModel(described, "", kind().eval(), golden, tokenizer())
