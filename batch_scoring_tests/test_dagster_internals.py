import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from batch_scoring import dagster_internals
from batch_scoring.dagster_internals import ATTRIBUTES, NAMES

PACKAGE = Path(dagster_internals.__file__).parent
MODULE = "batch_scoring.dagster_internals"
TREES = {
    file.relative_to(PACKAGE).as_posix(): ast.parse(file.read_text())
    for file in PACKAGE.rglob("*.py")
    if file != Path(dagster_internals.__file__)
}
PUBLIC = {"_replace"}
"""Documented attributes, of named tuples, in spite of their underscore."""


def imports(tree: ast.AST) -> Iterator[tuple[str, str]]:
    """Module and name of everything that is imported, at any depth."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def is_private(module: str, name: str) -> bool:
    library = module.partition(".")[0]
    is_dagster = library == "dagster" or library.startswith("dagster_")
    return is_dagster and ("." in module or library == "dagster_shared" or name.startswith("_"))


def of_dagster_itself(tree: ast.AST) -> set[str]:
    """Attributes that classes of ours use of themselves and do not define: their bases of Dagster do."""
    bases = {name for module, name in imports(tree) if module == MODULE}
    found: set[str] = set()
    for node in ast.walk(tree):
        if not (
            isinstance(node, ast.ClassDef) and {base.id for base in node.bases if isinstance(base, ast.Name)} & bases
        ):
            continue
        used = [a for a in ast.walk(node) if isinstance(a, ast.Attribute) and getattr(a.value, "id", "") == "self"]
        own = {f.name for f in ast.walk(node) if isinstance(f, ast.FunctionDef)}
        own |= {a.attr for a in used if isinstance(a.ctx, ast.Store)}
        found |= {a.attr for a in used if a.attr.startswith("_")} - own
    return found


def of_others(tree: ast.AST) -> set[str]:
    """Attributes with a leading underscore, of anything but `self`."""
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute)]
    return {
        one.attr
        for one in attributes
        if one.attr.startswith("_") and not one.attr.startswith("__") and getattr(one.value, "id", "") != "self"
    }


@pytest.mark.parametrize("file", TREES)
def test_no_other_module_imports_a_private_api(file: str) -> None:
    assert [f"{module}: {name}" for module, name in imports(TREES[file]) if is_private(module, name)] == []


@pytest.mark.parametrize("file", TREES)
def test_every_private_attribute_in_use_is_listed(file: str) -> None:
    tree = TREES[file]
    own = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    own |= {
        node.target.id
        for node in ast.walk(tree)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    assert (of_dagster_itself(tree) | of_others(tree)) - own - PUBLIC <= set(ATTRIBUTES)


def test_what_type_checkers_read_is_what_is_imported() -> None:
    declared = dict(reversed(pair) for pair in imports(ast.parse(inspect.getsource(dagster_internals))))
    assert {name: module for name, module in declared.items() if module.startswith("dagster")} == {
        name: internal.where for name, internal in NAMES.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_there_and_in_use(name: str) -> None:
    assert getattr(dagster_internals, name) is getattr(import_module(NAMES[name].where), name)
    assert any((MODULE, name) in imports(tree) for tree in TREES.values())


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_is_there_and_in_use(name: str) -> None:
    module, _, kind = ATTRIBUTES[name].where.rpartition(".")
    assert name in "".join(map(source, inspect.getmro(getattr(import_module(module), kind))))
    used = {node.attr for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    defined = {node.name for tree in TREES.values() for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    assert name in used | defined


def source(kind: type[Any]) -> str:
    return inspect.getsource(kind) if kind.__module__.startswith("dagster") else ""


@pytest.mark.parametrize("test", sorted({internal.test for internal in (*NAMES.values(), *ATTRIBUTES.values())}))
def test_every_test_that_pins_one_is_there(test: str) -> None:
    assert (Path(__file__).parent / test).is_file()


def test_a_name_that_is_not_listed_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RunMonitor'"):
        _ = dagster_internals.RunMonitor  # type: ignore[attr-defined]


def test_importing_the_module_imports_nothing_of_dagster() -> None:
    asked = "import sys, batch_scoring.dagster_internals; print(*[m for m in sys.modules if m.startswith('dagster')])"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
