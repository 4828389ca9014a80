"""A vocabulary is that of its column and fits its embedding, or the bundle is not written."""

from pathlib import Path

import pyarrow as pa
import pytest
import tokenizers
import torch
from torch import nn

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.vocabularies import check_tokens
from batch_scoring.inference.bundle import read_bundle
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests import text_models
from batch_scoring_tests.networks import WORDS, Base, made, refusal, table, write
from batch_scoring_tests.text_models import READERS, Bag, Reader, letters, manifest, tokenizer


def with_words(column: pa.Array | pa.ChunkedArray) -> dict[str, pa.Table]:
    """Golden and reference rows with another categorical column."""
    rows = table()
    rows = rows.set_column(rows.column_names.index("c"), "c", column)
    return {"reference": rows, "golden": rows.slice(0, 64).drop_columns("dt")}


FLAGS = pa.array([number % 3 == 0 for number in range(96)])


@pytest.mark.parametrize(
    ("vocabulary", "column", "says"),
    [
        (["True", "False"], FLAGS, "'True' in place of 'true'"),
        (["0.0", "1.0"], FLAGS.cast(pa.int64()), "'0.0' in place of '0'"),
        (["0", "1"], FLAGS.cast(pa.int64()).cast(pa.float64()).cast(pa.string()), None),
        ([" Private", " Self"], pa.array(["Private", "Self"] * 48), "' Private' in place of 'Private'"),
        (["Private", "Self"], pa.array([" Private", "Self "] * 48), "'Private' in place of ' Private'"),
        # most rows are known, and the largest group is not
        ([" Private", "Self"], pa.array(["Private", "Self", "Self", "Self"] * 24), "' Private' in place of 'Private'"),
        # as an editor on a Mac writes it, as a web page has it, as pandas reads a postcode, as pandas writes nothing
        (["Köln", "Bonn"], pa.array(["Ko\u0308ln", "Bonn"] * 48), r"'Köln' in place of 'Ko\u0308ln'"),
        (["New York", "Bonn"], pa.array(["New\u00a0York", "Bonn"] * 48), r"'New York' in place of 'New\xa0York'"),
        (["1067", "10115"], pa.array(["01067", "10115"] * 48), "'1067' in place of '01067'"),
        (["nan", "Bonn"], pa.array([None, "Bonn"] * 48), "'nan', which no row has: 48 of 96 rows have no value there"),
        (["a", "b"], pa.array(["x", "y"] * 48), "is not that of the rows: 0 of 96 have a known word"),
    ],
)
def test_a_vocabulary_that_cannot_match_is_refused(
    tmp_path: Path, vocabulary: list[str], column: pa.Array, says: str | None
) -> None:
    changes = {"categorical": {"c": vocabulary}, **with_words(column)}
    if says is None:
        write(tmp_path, made(Base), **changes)
        return
    message = refusal(tmp_path, made(Base), **changes)
    assert "reference: the vocabulary of c " in message and says in message


@pytest.mark.parametrize(
    ("vocabulary", "column"),
    [
        (["a"], pa.array(["a", "b", "c", "d"] * 24)),  # the frequent ones alone
        (["a", "A"], pa.array(["a", "A", "B"] * 32)),  # two spellings that are two words
        (["a", "b", "c"], pa.array(["a"] * 95 + ["B"])),  # one row, misspelt
        (["a"], pa.array([None] * 96, pa.string())),  # nothing to compare with
        (["a", "b"], pa.array(["a", None] * 48).dictionary_encode()),
        (["None", "a"], pa.array(["a", "None", None] * 32)),  # a word that means something, and rows without one
        (["0", "00"], pa.array(["0", "00"] * 48)),
    ],
)
def test_a_vocabulary_that_knows_some_of_the_rows_is_taken(
    tmp_path: Path, vocabulary: list[str], column: pa.Array
) -> None:
    write(tmp_path, made(Base), categorical={"c": vocabulary}, **with_words(column))


def test_a_long_word_is_shown_by_its_beginning(tmp_path: Path) -> None:
    message = refusal(tmp_path, made(Base), categorical={"c": ["a"]}, **with_words(pa.array(["x" * 10_000] * 96)))
    assert f"They have '{'x' * 40}…'" in message


class Two(nn.Module):
    """Two categories, each with an embedding of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Embedding(3, 2), nn.Embedding(40, 2)

    def forward(self, numeric: torch.Tensor, categorical: torch.Tensor) -> torch.Tensor:
        return self.one(categorical[:, 0]) - self.two(categorical[:, 1]) + numeric.nan_to_num(0.0).mean(1, keepdim=True)


@pytest.mark.parametrize(
    ("one", "two", "says"),
    [
        (2, 40, "the vocabulary of d has 40 words, so its codes are 0 (unknown) to 40"),
        (2, 4000, "the vocabulary of d has 4000 words, so its codes are 0 (unknown) to 4000"),
        (3, 39, "the vocabulary of c has 3 words, so its codes are 0 (unknown) to 3"),
    ],
)
def test_a_vocabulary_longer_than_its_embedding_is_refused(tmp_path: Path, one: int, two: int, says: str) -> None:
    """Its last words stand in no golden and no reference row."""
    rows = with_words(pa.array(["w0"] * 96))
    rows = {name: part.append_column("d", part["c"]) for name, part in rows.items()}
    words = {"c": [f"w{number}" for number in range(one)], "d": [f"w{number}" for number in range(two)]}
    message = refusal(tmp_path, made(Two), categorical=words, **rows)
    takes = 2 if "of c" in says else 39
    assert f"{says}; the network accepts codes to {takes} (" in message and "IndexError: index out of range" in message
    assert f"needs {(one if 'of c' in says else two) + 1} rows" in message


def test_every_word_may_have_its_code(tmp_path: Path) -> None:
    rows = with_words(pa.array(["w0"] * 96))
    rows = {name: part.append_column("d", part["c"]) for name, part in rows.items()}
    words = {"c": ["w0", "w1"], "d": [f"w{number}" for number in range(39)]}
    write(tmp_path, made(Two), categorical=words, **rows)


def test_the_words_of_the_bundle_are_those_given(tmp_path: Path) -> None:
    write(tmp_path, made(Base))
    assert read_bundle(open_folder(str(tmp_path))).manifest.categorical == {"c": WORDS}


@pytest.mark.parametrize("kind", READERS)
def test_a_network_takes_all_ids_of_its_tokenizer(kind: type[Reader]) -> None:
    check_tokens(text_models.model_of(kind), pa.Table.from_batches([letters(64, seed=99)]))


def test_a_tokenizer_of_another_network_is_refused() -> None:
    golden, count = pa.Table.from_batches([letters(64, seed=99)]), len(text_models.WORDS)
    larger = tokenizers.Tokenizer.from_str(tokenizer().decode())
    larger.add_tokens(["one", "more"])
    model = LoadedModel(manifest(), "", Bag().eval(), golden, larger.to_str().encode())
    with pytest.raises(
        UnsoundError,
        match=rf"the tokenizer has {count + 4} tokens, and the network does not accept token {count + 3} "
        rf"\(its largest id\): the network raises IndexError.+an embedding of at least {count + 4} rows",
    ):
        check_tokens(model, golden)
