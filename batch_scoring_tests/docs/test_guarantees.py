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
def homes() -> dict[str, set[str]]:
    """The names of the files that have a test function of each name, whatever folders they are in."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in TESTS.rglob("test_*.py"):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            if isinstance(node, ast.FunctionDef):
                found[node.name].add(file.name)
    return found


@pytest.mark.parametrize("page", sorted(DOCS.rglob("*.md")), ids=lambda page: str(page.relative_to(DOCS)))
def test_every_named_test_is_there(page: Path) -> None:
    named = NAMED.findall(page.read_text("utf-8"))
    wrong = {
        f"{file}::{name}": f"it is in {', '.join(sorted(homes()[name]))}" if name in homes() else "there is none"
        for file, name in named
        if file not in homes().get(name, ())
    }
    assert not wrong


def test_every_guarantee_names_the_tests_that_prove_it() -> None:
    text = (DOCS / "concepts" / "guarantees.md").read_text("utf-8")
    _, *guarantees = re.split(r"^## (?=\d)", text, flags=re.MULTILINE)
    assert [guarantee.split(".")[0] for guarantee in guarantees] == [str(number) for number in range(1, 10)]
    assert all(len(NAMED.findall(guarantee)) > 2 for guarantee in guarantees)
