"""Bundles of models that read texts: written, read again, and refused."""

import datetime as dt
import os
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from batch_scoring.errors import BundleError
from batch_scoring.inference.bundle import load_bundle, read_bundle, write_bundle
from batch_scoring.inference.manifest import TEXT_DESCRIPTORS
from batch_scoring.inference.scorer import Scorer
from batch_scoring.storage.folders.addresses import open_folder
from batch_scoring_tests.text_models import (
    LONGEST,
    READERS,
    Attention,
    Bag,
    MeanOfAll,
    Reader,
    Recurrent,
    letters,
    text,
    tokenizer,
)


def sample(count: int = 300) -> pa.Table:
    rows = pa.Table.from_batches([letters(count)])
    return rows.append_column("dt", pa.array([dt.date(2024, 1, 1 + row % 20) for row in range(count)]))


def write(folder: Path, kind: type[Reader], **changes: Any) -> str:  # noqa: ANN401
    options: dict[str, Any] = {
        "network": kind(),
        "arguments": {},
        "name": "letters",
        "version": "v1",
        "task": "classification",
        "numeric": ["x"],
        "categorical": {},
        "classes": ["no", "yes"],
        "training": {},
        "metrics": {},
        "golden": pa.Table.from_batches([letters(64, seed=99)]),
        "reference": sample(),
        "text": text(),
        "tokenizer": tokenizer(),
    }
    return write_bundle(folder, **(options | changes))


@pytest.mark.parametrize("kind", READERS)
def test_a_bundle_of_texts_loads_again_and_scores_alike(kind: type[Reader], tmp_path: Path) -> None:
    write(tmp_path, kind)
    loaded = load_bundle(open_folder(str(tmp_path)), kind)
    assert loaded.manifest.text == text(exact=issubclass(kind, Recurrent))
    batch = letters(500, seed=7)
    found = Scorer(loaded, device="cpu").score_batch(batch)
    assert not found.failed
    assert found.scores.slice(100, 50).equals(Scorer(loaded, device="cpu").score_batch(batch.slice(100, 50)).scores)


def test_a_reference_holds_no_text(tmp_path: Path) -> None:
    write(tmp_path, Bag)
    reference = read_bundle(open_folder(str(tmp_path))).reference
    assert {"title", "body"}.isdisjoint(reference.column_names)
    assert {*TEXT_DESCRIPTORS} <= {*reference.column_names}
    assert b"zebra" not in (tmp_path / "reference.parquet").read_bytes().lower()


def test_a_network_that_reads_padding_is_no_bundle(tmp_path: Path) -> None:
    with pytest.raises(BundleError, match="the network reads padding: golden row"):
        write(tmp_path, MeanOfAll)
    assert not [*tmp_path.iterdir()]


def test_positions_end_at_the_longest_text(tmp_path: Path) -> None:
    write(tmp_path, Attention)
    with pytest.raises(BundleError, match="the network raises IndexError"):
        write(tmp_path, Attention, text=text(longest=2 * LONGEST))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"tokenizer": None}, "expected both text and tokenizer"),
        ({"text": None}, "expected both text and tokenizer"),
        ({"tokenizer": b"{"}, r"tokenizer\.json is no tokenizer"),
        ({"golden": pa.Table.from_batches([letters(64)]).drop_columns("body")}, "it has no column body, a text"),
        ({"reference": sample().drop_columns("body")}, "it has no column"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(BundleError, match=message):
        write(tmp_path, Bag, **changes)


def test_a_bundle_without_its_tokenizer_is_not_loaded(tmp_path: Path) -> None:
    write(tmp_path, Bag)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(BundleError, match=r"tokenizer\.json is missing"):
        load_bundle(open_folder(str(tmp_path)), Bag)


def test_a_tokenizer_of_two_gigabytes_is_not_read(tmp_path: Path) -> None:
    write(tmp_path, Bag)
    os.truncate(tmp_path / "tokenizer.json", 2 * 2**30)  # sparse: it takes no room
    with pytest.raises(BundleError, match=r"tokenizer\.json has 2,147,483,648 bytes; expected at most 67,108,864"):
        load_bundle(open_folder(str(tmp_path)), Bag)
