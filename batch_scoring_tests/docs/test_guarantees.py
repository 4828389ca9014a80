"""The tests that the documentation names as its evidence are there."""

import ast
import functools
import re
from collections import defaultdict
from pathlib import Path

import pytest

TESTS = Path(__file__).parent.parent
DOCS = TESTS.parent / "docs"
NAMED = re.compile(r"`(test_\w+\.py)::(test_\w+)`")


@functools.cache
def functions() -> dict[str, set[str]]:
    """The test functions of each name of a file, wherever such files are."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in TESTS.rglob("test_*.py"):
        tree = ast.parse(file.read_text())
        found[file.name] |= {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    return found


def named_in(page: Path) -> list[tuple[str, str]]:
    return NAMED.findall(page.read_text())


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_named_test_is_there(page: Path) -> None:
    there = functions()
    everywhere = set().union(*there.values())
    absent = [
        f"{file}::{name}"
        for file, name in named_in(page)
        if name not in everywhere or (file in there and name not in there[file])
    ]
    assert not absent


def test_every_guarantee_names_the_tests_that_prove_it() -> None:
    _, *guarantees = re.split(r"^## (?=\d)", (DOCS / "concepts" / "guarantees.md").read_text(), flags=re.MULTILINE)
    assert [text.split(".")[0] for text in guarantees] == [str(number) for number in range(1, 9)]
    assert all(len(NAMED.findall(text)) > 2 for text in guarantees)
