"""A row's tokens are those of the tokenizer's own library, whatever the rows beside it."""

import threading

import pyarrow as pa
import pytest
import tokenizers
from hypothesis import given, settings
from hypothesis import strategies as st

from batch_scoring.errors import UnsoundError
from batch_scoring.inference.inputs.texts import Texts, read_tokenizer
from batch_scoring_tests.text_models import LONGEST, letters, text, tokenizer


def ids(texts: Texts, batch: pa.RecordBatch) -> list[list[int]]:
    found = texts.encode(batch)
    return [found.values[start:stop].tolist() for start, stop in zip(found.offsets, found.offsets[1:], strict=False)]


def own(title: str | None, body: str | None) -> list[int]:
    found = tokenizers.Tokenizer.from_str(tokenizer().decode()).encode(f"{title or ''}\n{body or ''}").ids
    return found[:LONGEST] or [1]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.none() | st.text(max_size=200), st.none() | st.text(max_size=200)), max_size=8))
def test_tokens_are_those_of_the_library_for_each_text_alone(cells: list[tuple[str | None, str | None]]) -> None:
    titles, bodies = zip(*cells, strict=True) if cells else ((), ())
    batch = pa.RecordBatch.from_pydict({"title": pa.array(titles, pa.string()), "body": pa.array(bodies, pa.string())})
    assert ids(Texts(text(), tokenizer()), batch) == [own(*pair) for pair in cells]


def test_many_texts_and_dictionaries_and_slices_give_the_same_tokens() -> None:
    batch = letters(2_000)
    expected = [own(row["title"], row["body"]) for row in batch.to_pylist()]
    texts = Texts(text(), tokenizer())
    assert ids(texts, batch) == expected
    assert ids(texts, batch.slice(700, 900)) == expected[700:1600]
    coded = batch.set_column(1, "title", batch["title"].dictionary_encode())
    assert ids(texts, coded) == expected


def test_a_long_text_is_cut_with_its_special_tokens_kept() -> None:
    library = tokenizers.Tokenizer.from_str(tokenizer().decode())
    library.add_special_tokens(["[CLS]", "[SEP]"])
    first, last = library.token_to_id("[CLS]"), library.token_to_id("[SEP]")
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", first), ("[SEP]", last)]
    )
    batch = pa.RecordBatch.from_pydict({"title": ["cat " * 1_000_000, None], "body": ["", None]})
    long, empty = ids(Texts(text(), library.to_str().encode()), batch)
    assert (len(long), long[0], long[-1]) == (LONGEST, first, last)
    assert empty == [first, last]


def test_texts_are_tokenized_few_at_a_time_if_they_are_long() -> None:
    """A text's tokens take 60 times its memory until they are cut."""
    long = "cat " * 100_000
    cells = ["mat " * 2_000_000, *[long] * 6, "", *["dog"] * 600]
    batch = pa.RecordBatch.from_pydict({"title": cells, "body": [""] * len(cells)})
    texts = Texts(text(), tokenizer())
    sizes = [sum(map(len, piece)) for piece in texts._texts(batch)]
    assert max(sizes) <= 2**20 and sum(sizes) == 1_000_000 + 6 * 400_001 + 1 + 600 * 4
    assert ids(texts, batch) == [own("mat " * 100, ""), *[own("cat " * 100, "")] * 6, [1], *[own("dog", "")] * 600]


def test_a_tokenizer_that_cuts_at_random_in_training_does_not_in_scoring() -> None:
    library = tokenizers.Tokenizer(
        tokenizers.models.BPE({"[PAD]": 0, "[UNK]": 1, "c": 2, "a": 3, "ca": 4}, [("c", "a")])
    )
    library.model.dropout = 0.5
    batch = pa.RecordBatch.from_pydict({"title": ["cacaca"] * 50, "body": [""] * 50})
    assert ids(Texts(text(columns=("title",)), library.to_str().encode()), batch) == [[4, 4, 4]] * 50


def test_special_tokens_have_to_leave_room_for_a_text() -> None:
    library = tokenizers.Tokenizer.from_str(tokenizer().decode())
    library.post_processor = tokenizers.processors.TemplateProcessing(
        single="[UNK] $A [UNK]", special_tokens=[("[UNK]", 1)]
    )
    with pytest.raises(UnsoundError, match="longest is 2, and the tokenizer adds 2 special tokens to every text"):
        Texts(text(longest=2), library.to_str().encode())


def test_what_the_file_says_about_padding_and_cutting_is_ignored() -> None:
    library = tokenizers.Tokenizer.from_str(tokenizer().decode())
    library.enable_padding(length=100)
    library.enable_truncation(2)
    batch = letters(50)
    assert ids(Texts(text(), library.to_str().encode()), batch) == ids(Texts(text(), tokenizer()), batch)


def test_threads_do_not_share_a_tokenizer() -> None:
    texts, batch = Texts(text(), tokenizer()), letters(500)
    expected, found = ids(texts, batch), []
    threads = [threading.Thread(target=lambda: found.append(ids(texts, batch))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [expected] * 8


@pytest.mark.parametrize("content", [b"", b"{}", b"\x80\x04", b"[1, 2", b'{"model": {"type": "Cat"}}', b"\xff\xfe"])
def test_what_is_no_tokenizer_is_an_error_in_one_line(content: bytes) -> None:
    with pytest.raises(UnsoundError, match=r"tokenizer\.json is no tokenizer: .+") as caught:
        read_tokenizer(content, 8)
    assert "\n" not in str(caught.value)
