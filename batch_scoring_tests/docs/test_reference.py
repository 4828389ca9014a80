"""The reference pages say what the code does: the generated ones word for word, the others with nothing left out."""

import ast
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_scoring import errors
from batch_scoring.config.loader import PROJECT
from batch_scoring.config.spec import Checks
from docs.reference import generate

MODULES = {path: ast.parse(path.read_text("utf-8")) for path in sorted((PROJECT / "batch_scoring").rglob("*.py"))}
LIBRARIES = {"REQUESTS_CA_BUNDLE"}
"""Variables that only libraries read."""
OPTIONS = {"AWS_ALLOW_HTTP"}
"""Of delta-rs: named like a variable, and never read from the environment."""


def page(name: str) -> str:
    return (generate.FOLDER / name).read_text("utf-8")


@pytest.fixture(scope="module")
def written() -> dict[str, str]:
    return generate.pages()


def test_the_generated_pages_are_current(written: dict[str, str]) -> None:
    old = [name for name, text in written.items() if page(name) != text]
    assert not old, "run `make reference`"


def test_every_page_is_generated_or_kept_by_hand() -> None:
    by_hand = {"environment.md", "exit-codes.md"}
    assert {path.name for path in generate.FOLDER.glob("*.md")} == set(generate.SOURCES) | by_hand


def test_every_check_is_on_the_page() -> None:
    assert set(re.findall(r"^- `(\w+)`", page("checks.md"), re.MULTILINE)) == set(Checks.model_fields)


def test_every_exit_code_is_on_the_page() -> None:
    described = {
        int(code)
        for row in re.findall(r"^\| (\d[\d, ]*) \|", page("exit-codes.md"), re.MULTILINE)
        for code in row.split(",")
    }
    found = [thing for thing in vars(errors).values() if isinstance(thing, type)]
    raised = {error.exit_code for error in found if issubclass(error, errors.BatchScoringError)}
    assert described == {0, 128 + signal.SIGINT, 128 + signal.SIGTERM} | raised


def test_every_failure_class_is_in_the_guide() -> None:
    guide = (PROJECT / "docs/guides/when-a-run-fails.md").read_text("utf-8")
    assert re.findall(r"^\| `(\w+)` \|", guide, re.MULTILINE) == list(errors.FAILURES)


def test_the_environment_variables_are_those_of_the_code() -> None:
    described = set(re.findall(r"`([A-Z][A-Z0-9_]*_[A-Z0-9_]+)`", page("environment.md")))
    assert read_variables() <= described, "docs/reference/environment.md does not have them"
    assert described <= read_variables() | spec_variables() | LIBRARIES, "nothing reads them any more"


def spec_variables() -> set[str]:
    """Those that the embedded specs take values from."""
    return {
        name
        for spec in (PROJECT / "batch_scoring/pipelines").rglob("pipeline.yaml")
        for name in re.findall(r"\$\{(\w+)", spec.read_text("utf-8"))
    }


def read_variables() -> set[str]:
    """What the code reads from the environment, also by the name of a constant, and AWS's variables in its lists."""
    named = dict(pair for module in MODULES.values() for pair in constants(module))
    found = set()
    for module in MODULES.values():
        for node in ast.walk(module):
            if (asked := environment_key(node)) is not None:
                if isinstance(asked, ast.Constant):
                    found.add(str(asked.value))
                name = (
                    asked.id if isinstance(asked, ast.Name) else asked.attr if isinstance(asked, ast.Attribute) else ""
                )
                if name in named:
                    found.add(named[name])
            if isinstance(node, ast.Constant) and re.fullmatch(r"AWS_[A-Z0-9_]+", str(node.value)):
                found.add(str(node.value))
    return found - OPTIONS


def constants(module: ast.Module) -> Iterator[tuple[str, str]]:
    """Names of a module's texts."""
    for node in module.body:
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            for target in node.targets:
                if isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]+", node.value.value):
                    yield target.id, node.value.value


def environment_key(node: ast.AST) -> ast.expr | None:
    """What is asked of `os.environ` here, if anything is; `channels.of` reads channels from a variable."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
        return node.slice
    if isinstance(node, ast.Call) and re.fullmatch(
        r"os\.(environ\.(get|pop)|getenv)|channels\.of", ast.unparse(node.func)
    ):
        return node.args[0]
    return None


def test_the_reader_of_the_environment_sees_every_way_of_reading_it(tmp_path: Path) -> None:
    module = ast.parse('import os\nos.environ["A_B"]; os.environ.get("C_D", ""); os.getenv("E_F"); os.environ.pop(G)')
    keys = [key for node in ast.walk(module) if (key := environment_key(node)) is not None]
    assert {ast.unparse(key) for key in keys} == {"'A_B'", "'C_D'", "'E_F'", "G"}
