"""Nothing that a pickle says is run, and no pickle takes more memory or time than its length allows."""

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from batch_scoring.errors import CheckpointError
from batch_scoring_tests.weight_files import ZIPPED, hand_made, peak, read_all, refusal, same_bits, saved

PAYLOADS: list[Callable[[str], tuple[Any, ...]]] = [
    lambda proof: (os.system, (f"mkdir {proof}",)),
    lambda proof: (os.mkdir, (proof,)),
    lambda proof: (eval, (f"__import__('os').mkdir({proof!r})",)),
    lambda proof: (exec, (f"import os; os.mkdir({proof!r})",)),
    lambda proof: (__import__("subprocess").check_call, (["mkdir", proof],)),
    lambda proof: (
        __import__("timeit").timeit,
        (f"__import__('os').makedirs({proof!r}, exist_ok=True)", "pass", time.time, 1),
    ),
    lambda proof: (__import__("shutil").copytree, (".", proof)),
]


class Payload:
    def __init__(self, reduced: tuple[Any, ...]) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@ZIPPED
@pytest.mark.parametrize("payload", PAYLOADS)
def test_what_a_pickle_would_run_does_not_run(
    tmp_path: Path, zipped: bool, payload: Callable[[str], tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")  # what copytree would copy
    proof = tmp_path / "it_ran"
    weights = {"w": torch.ones(2)}
    file = saved(tmp_path, {"state_dict": weights, "extra": Payload(payload(str(proof)))}, zipped=zipped)
    try:
        found = read_all(file)
    except CheckpointError as error:
        assert "wants to import" in str(error) and "could run code" in str(error)
    else:
        assert same_bits(found, {"state_dict.w": weights["w"]})
    assert not proof.exists()
    torch.load(file, weights_only=False)
    assert proof.exists(), "this is what was prevented"


@pytest.mark.parametrize(
    "instructions",
    [
        b"(S'mkdir PROOF'\nios\nsystem\n.",  # INST
        b"(cos\nsystem\nS'mkdir PROOF'\no.",  # OBJ
        b"cos\nsystem\n(S'mkdir PROOF'\ntR.",
        b"\x8c\x02os\x8c\x06system\x93(S'mkdir PROOF'\ntR.",  # STACK_GLOBAL
        b"cos\nsystem\nS'mkdir PROOF'\n\x85\x81.",  # NEWOBJ
        b"cos\nsystem\nS'mkdir PROOF'\n\x85}\x92.",  # NEWOBJ_EX
        b"\x82\x01.",  # EXT1
        b"Pos.system\n.",  # PERSID
        b"\x97.",  # NEXT_BUFFER
    ],
)
def test_hand_made_pickles_do_not_run(tmp_path: Path, instructions: bytes) -> None:
    proof = tmp_path / "it_ran"
    refusal(hand_made(tmp_path, instructions.replace(b"PROOF", str(proof).encode())))
    assert not proof.exists()


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(instructions=st.binary(max_size=60))
def test_any_pickle_is_an_error_or_a_value(tmp_path: Path, instructions: bytes) -> None:
    try:
        read_all(hand_made(tmp_path, instructions + b"."))
    except CheckpointError as error:
        assert "\n" not in str(error)


DEEP = b"(" * 200_000 + b"t" * 200_000 + b"."


BOMBS = {
    "memo": b"Nr\xff\xff\xff\x7f.",
    "bytes": b"\x8e\x00\x00\x00\x00\x10\x00\x00\x00x.",
    "bytearray": b"\x96\x00\x00\x00\x00\x10\x00\x00\x00x.",
    "text": b"\x8d\x00\x00\x00\x00\x10\x00\x00\x00x.",
    "number": b"I" + b"9" * 1_000_000 + b"\n.",
    "nested": DEEP,
    # a tuple of tuples of …: its hash takes 2 ** 60 steps
    "hash": b"}" + b")" + b"2\x86" * 60 + b"Ns.",
    # one list of 100,000 pairs, made into 10,000 dicts
    "copies": b"]("
    + b"K\x01K\x01\x86" * 100_000
    + b"eq\x00ccollections\nOrderedDict\nq\x01"
    + b"h\x01h\x00\x85R" * 10_000
    + b".",
    "instructions": b"}" * 6_000_000 + b".",
    "name": b"c" + b"x" * 5_000_000 + b"\ny\n" + b"q\x00" + b"h\x00)R" * 10_000 + b".",
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.timeout(60)
def test_a_pickle_takes_neither_the_memory_nor_the_time(tmp_path: Path, kind: str) -> None:
    file = hand_made(tmp_path, BOMBS[kind])
    before = peak()
    try:
        assert read_all(file) == {}
    except CheckpointError as error:
        assert "\n" not in str(error)
    assert peak() - before < 1_200_000_000


@pytest.mark.parametrize("end", [b"c", b"\x8e\x00\x00\x00\x00\x01\x00\x00\x00", b"X\xff\xff\xff\x7f", b"I"])
@pytest.mark.timeout(60)
def test_a_file_larger_than_memory_is_refused_at_once(tmp_path: Path, end: bytes) -> None:
    torch.save({}, tmp_path / "w.pt", _use_new_zipfile_serialization=False)
    before = peak()
    data = (tmp_path / "w.pt").read_bytes()
    with (tmp_path / "w.pt").open("wb") as file:
        file.write(data[: data.index(b"}", 130)] + end)
        file.truncate(2**41)  # two terabytes that take no space
    assert "a pickle is longer than" in refusal(tmp_path / "w.pt")
    assert peak() - before < 700_000_000
