"""The layout of the project: where a module and its tests are, and how large packages and modules become."""

import ast
from collections.abc import Iterator
from pathlib import Path

from batch_scoring.cli.subcommands import SUBCOMMANDS

TESTS = Path(__file__).parent
PACKAGE = TESTS.parent / "batch_scoring"
SPANNING = {
    "benchmarks": "programs of `benchmarks/`",
    "deploy": "manifests and images of `deploy/`",
    "docs": "pages of `docs/`",
    "end_to_end": "whole days and commands, from the landing file to what is printed",
    "examples": "the tutorial of `examples/`",
    "pipelines": "the three pipelines of the repository: their data, networks and days",
    "pods": "days in pods, on a stand-in of Kubernetes",
    "reliability": "processes that are killed, stores and disks that fail",
    "simulation": "histories of many days, in memory and on real tables",
    "test_dagster_behaviour.py": "Dagster itself",
    "test_layout.py": "all modules",
    "test_public_names.py": "the package's own `__init__.py`",
}
"""Tests of no single module, with what they are of. Every other test file mirrors one."""
MOST_ENTRIES = 12
"""Modules and folders of a package; a reader takes them in at a glance."""
MOST_LINES = 650


def modules() -> Iterator[Path]:
    """Every module that has tests of its own, relative to the package."""
    for file in sorted(PACKAGE.rglob("*.py")):
        path = file.relative_to(PACKAGE)
        if path.parts[0] != "pipelines" and path.stem not in ("__init__", "__main__"):
            yield path


def packages() -> list[Path]:
    """Every package below the top one, which has the public names and the layers."""
    return [file.parent for file in sorted(PACKAGE.glob("*/**/__init__.py"))]


def test_every_module_has_a_test_file_of_its_name() -> None:
    missing = [str(module) for module in modules() if not Path(TESTS, module.parent, f"test_{module.name}").is_file()]
    assert not missing, f"modules without a test file of their name: {', '.join(missing)}"


def test_every_test_file_has_a_module_of_its_name_or_spans_several() -> None:
    files = [file.relative_to(TESTS) for file in sorted(TESTS.rglob("test_*.py"))]
    mirrors = {file: Path(file.parent, file.name.removeprefix("test_")) for file in files}
    alone = {file for file, module in mirrors.items() if not (PACKAGE / module).is_file()}
    assert [str(file) for file in sorted(alone) if file.parts[0] not in SPANNING] == []
    assert SPANNING.keys() - {file.parts[0] for file in alone} == set(), "what is named here and is not there"


def test_a_package_s_own_file_holds_its_docstring_alone() -> None:
    trees = {package: ast.parse((package / "__init__.py").read_text("utf-8")) for package in packages()}
    wrong = [package for package, tree in trees.items() if len(tree.body) != 1 or not ast.get_docstring(tree)]
    assert [str(package.relative_to(PACKAGE)) for package in wrong] == []


def test_a_package_is_taken_in_at_a_glance() -> None:
    """In `cli` the subcommands, a module or folder each, are not counted: its own table lists them."""
    commands = {PACKAGE.parent.joinpath(*entry.module.split(".")[:3]) for entry in SUBCOMMANDS.values()}
    large: dict[str, int] = {}
    for package in packages():
        entries = {path.with_suffix("") for path in package.iterdir() if not path.name.startswith("__")}
        if (count := len(entries - commands)) > MOST_ENTRIES:
            large[str(package.relative_to(PACKAGE))] = count
    assert large == {}


def test_no_module_is_too_long_to_be_read_at_once() -> None:
    lines = {module: len((PACKAGE / module).read_text("utf-8").splitlines()) for module in modules()}
    assert {str(module): count for module, count in lines.items() if count > MOST_LINES} == {}
