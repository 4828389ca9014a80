"""A network that reads the padding of a text is refused."""

import pyarrow as pa
import pytest

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.acceptance.padding import check_padding_is_not_read, rounds_by_lengths
from batch_scoring.inference.manifest import LoadedModel
from batch_scoring_tests.text_models import (
    READERS,
    MeanOfAll,
    Reader,
    ReadingBackwards,
    Recurrent,
    letters,
    manifest,
    model_of,
    text,
    tokenizer,
)

GOLDEN = pa.Table.from_batches([letters(64, seed=99)])


@pytest.mark.parametrize("kind", READERS)
def test_networks_that_mask_their_padding_pass(kind: type[Reader]) -> None:
    check_padding_is_not_read(model_of(kind), GOLDEN)


@pytest.mark.parametrize("kind", [ReadingBackwards, MeanOfAll])
def test_networks_that_read_it_are_refused_with_what_to_do(kind: type[Reader]) -> None:
    told = r"the network reads padding: golden row \d+, a text of \d+ tokens, gives .+ padded to \d+ and .+ to \d+"
    with pytest.raises(UnsoundError, match=told) as caught:
        check_padding_is_not_read(model_of(kind), GOLDEN)
    assert "a mask of tokens != 0" in str(caught.value)


def test_where_all_texts_have_one_width_there_is_nothing_to_read() -> None:
    short = LoadedModel(manifest(text=text(longest=8)), "", MeanOfAll().eval(), GOLDEN, tokenizer())
    check_padding_is_not_read(short, GOLDEN)


def test_a_model_without_texts_is_not_asked() -> None:
    plain = LoadedModel(manifest(text=None), "", MeanOfAll().eval(), GOLDEN)
    check_padding_is_not_read(plain, GOLDEN)


@pytest.mark.parametrize("kind", READERS)
def test_networks_that_pack_their_sequences_round_by_the_lengths_beside_a_text(kind: type[Reader]) -> None:
    model = LoadedModel(manifest(), "", kind().eval(), GOLDEN, tokenizer())
    rows = pa.Table.from_batches([letters(300)])
    assert rounds_by_lengths(model, rows) == issubclass(kind, Recurrent)
    assert not rounds_by_lengths(model_of(kind), rows), "not where each length is a width of its own"


@pytest.mark.parametrize("kind", READERS)
def test_a_network_that_packs_is_found_where_all_texts_have_one_length(kind: type[Reader]) -> None:
    same = pa.table(
        {"id": range(1_024), "title": ["the cat sat"] * 1_024, "body": ["on a mat"] * 1_024, "x": [0.5] * 1_024}
    )
    model = LoadedModel(manifest(), "", kind().eval(), GOLDEN, tokenizer())
    assert rounds_by_lengths(model, same) == issubclass(kind, Recurrent)
