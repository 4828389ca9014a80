"""Archives are no larger than their files, and a damaged record is found."""

import copy
import zipfile
from pathlib import Path

import torch

from batch_scoring_tests.weight_files import (
    peak,
    refusal,
    rewritten,
    saved,
)


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data/0", bytes(100_000_000))
    before = peak()
    assert "its records are compressed or overlap" in refusal(tmp_path / "w.pt")
    assert peak() - before < 20_000_000


def test_overlapping_records_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "w.pt", "w") as archive:
        archive.writestr("w/data.pkl", b"\x80\x02}.")
        archive.writestr("w/data/0", bytes(10_000))
        for number in range(1, 100):
            again = copy.copy(archive.NameToInfo["w/data/0"])
            again.filename = f"w/data/{number}"
            archive.filelist.append(again)
    assert "its records are compressed or overlap" in refusal(tmp_path / "w.pt")


def test_a_flipped_bit_in_a_weight_is_found(tmp_path: Path) -> None:
    file = saved(tmp_path, {"w": torch.zeros(1000)})
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert torch.load(file, weights_only=True)["w"].count_nonzero() == 1, "torch does not compare checksums"
    assert "the record data/0 is damaged" in refusal(file)


def test_big_endian_files_are_refused(tmp_path: Path) -> None:
    rewritten(saved(tmp_path, {"w": torch.ones(3)}), tmp_path / "big.pt", {"byteorder": b"big"})
    assert "its numbers are big-endian" in refusal(tmp_path / "big.pt")
