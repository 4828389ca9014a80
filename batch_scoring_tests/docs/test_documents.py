"""What the documents show exists: the files and headings that links lead to, commands, options, modules, targets."""

import importlib
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from batch_scoring.cli.subcommands import SUBCOMMANDS
from batch_scoring.config.loader import PROJECT
from docs.reference import generate

DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/**/*.md", "examples/**/*.md", "deploy/*.md", "benchmarks/*.md")
    for path in PROJECT.glob(pattern)
)
MEASUREMENTS = PROJECT / "benchmarks/README.md"
"""Its tables, as the benchmarks print them, are wider than a line."""
CHANGELOG = PROJECT / "CHANGELOG.md"
LONGEST_README = 150
LONGEST_LINE = 119

every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))


@every_document
def test_every_link_leads_somewhere(document: Path) -> None:
    broken = [link for link in links(document) if not leads_somewhere(document, link)]
    assert not broken


@every_document
def test_every_command_exists_with_its_options(document: Path) -> None:
    if document == CHANGELOG:
        pytest.skip("names what there was before")
    wrong = [line for line in command_lines(document) if not is_known(line)]
    assert not wrong


@every_document
def test_every_import_works(document: Path) -> None:
    code = document.read_text("utf-8")
    for module, names in re.findall(r"^ *(?:>>> )?from (batch_scoring[\w.]*) import ([\w, ]+)$", code, re.MULTILINE):
        found = importlib.import_module(module)
        assert all(hasattr(found, name.strip()) for name in names.split(",")), module


def test_the_readme_names_every_package() -> None:
    table = (PROJECT / "README.md").read_text("utf-8").partition("## Packages")[2].partition("## ")[0]
    named = {name for row in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)}
    folders = {path.parent.name for path in (PROJECT / "batch_scoring").glob("*/__init__.py")}
    assert named == folders


@every_document
def test_lines_end_before_column_120(document: Path) -> None:
    lines = enumerate(document.read_text("utf-8").splitlines(), 1)
    long = [(number, line) for number, line in lines if len(line) > LONGEST_LINE]
    assert not [number for number, line in long if document != MEASUREMENTS or not line.startswith("|")]


def test_the_readme_is_short() -> None:
    assert len((PROJECT / "README.md").read_text("utf-8").splitlines()) <= LONGEST_README


@pytest.mark.parametrize(
    "line",
    [
        "batch-scoring bakfill flight_delay",
        "batch-scoring backfill flight_delay --stail",
        "make demonstration",
        "python -m batch_scoring.nowhere",
    ],
)
def test_a_command_that_is_misspelt_is_found(line: str) -> None:
    assert not is_known(line)


def test_a_link_to_nothing_is_found() -> None:
    document = PROJECT / "README.md"
    assert not leads_somewhere(document, "docs/nowhere.md")
    assert not leads_somewhere(document, "docs/guides/alerts.md#nothing")
    assert leads_somewhere(document, "docs/guides/alerts.md#what-is-sent")


def links(document: Path) -> list[str]:
    """The relative links and pictures of a document."""
    text = "\n".join(line for line in document.read_text("utf-8").splitlines() if not line.startswith("    "))
    targets = re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text))
    return [target for target in targets if not re.match(r"[a-z]+:", target)]


def leads_somewhere(document: Path, link: str) -> bool:
    path, _, anchor = link.partition("#")
    target = (document.parent / path).resolve() if path else document
    return target.exists() and (not anchor or anchor in headings(target))


def headings(document: Path) -> set[str]:
    """The anchors of a document's headings, as GitHub and mkdocs make them."""
    titles = re.findall(r"^#+ (.*)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"\s", "-", re.sub(r"[^\w\s-]", "", title).strip().lower()) for title in titles}


def command_lines(document: Path) -> Iterator[str]:
    """What a reader would type: lines of code, continued ones joined, and code within a sentence."""
    text = document.read_text("utf-8").replace("\\\n", " ")
    code = re.findall(r"^(?: {4,}|\$ )(.*)$", text, re.MULTILINE) + re.findall(r"`([^`\n]+)`", text)
    for block in re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL):
        code += block.splitlines()
    for line in code:
        command = re.sub(r"^(\$ |.*-- (?=batch-scoring)|\.venv/bin/|[A-Z_]+=\S+ )+", "", line.strip())
        if re.match(r"(batch-scoring|make|python -m) \S", command):
            yield re.split(r"\s#\s|\s\|\|?\s|;|,? then ", command)[0]


def is_known(line: str) -> bool:
    """Whether the command of a line exists, and takes its options."""
    program, *words = shlex.split(line.replace("…", "x"), posix=True)
    if program == "make":
        return words[0] in targets()
    if program == "python":
        return is_module(words[1])
    help_page = help_of(words[0])
    options = [word.partition("=")[0] for word in words[1:] if re.match(r"--?[a-z]", word)]
    return bool(help_page) and all(re.search(rf"{option}\b", help_page) for option in options)


def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


@cache
def help_of(command: str) -> str:
    """What a subcommand prints with `--help`; nothing if there is none of that name."""
    return generate.help_of([command]) if command in SUBCOMMANDS else ""


@cache
def targets() -> set[str]:
    """The targets of the Makefile."""
    return set(re.findall(r"^([a-z][\w-]*):", (PROJECT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_the_layers_of_the_architecture_are_those_of_the_linter() -> None:
    page = (PROJECT / "docs/concepts/architecture.md").read_text("utf-8")
    drawn = page.partition("## Layers")[2].partition("| Package |")[0]
    lines = [line[4:46] for line in drawn.splitlines() if line.startswith("    ") and "───" not in line]
    layers = [sorted(name.strip().removesuffix(".py") for name in line.split("│")) for line in lines]
    linter = tomllib.loads((PROJECT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"]
    [contract] = [one for one in linter["contracts"] if one["type"] == "layers"]
    expected = [sorted(name.strip() for name in layer.split("|")) for layer in contract["layers"]]
    assert layers == [layer for layer in expected if layer != ["dagster_internals"]]
