import ast
import inspect
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path

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


def of_bases(tree: ast.AST) -> set[str]:
    """Attributes with a leading underscore that classes of ours use of themselves and inherit from Dagster's."""
    bases = {name for module, name in imports(tree) if module == MODULE}
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ClassDef) and bases & {base.id for base in node.bases if isinstance(base, ast.Name)}:
            used = [a for a in ast.walk(node) if isinstance(a, ast.Attribute) and is_private_attribute(a)]
            used = [a for a in used if getattr(a.value, "id", "") == "self"]
            own = {f.name for f in node.body if isinstance(f, ast.FunctionDef)}
            own |= {a.attr for a in used if isinstance(a.ctx, ast.Store)}
            found |= {a.attr for a in used} - own
    return found


def of_others(tree: ast.AST) -> set[str]:
    """Attributes with a leading underscore of anything but `self`, `cls` and other libraries' modules and classes."""
    names = {"self", "cls", *(name or module for module, name in imports(tree) if not module.startswith("dagster"))}
    attributes = [node for node in ast.walk(tree) if isinstance(node, ast.Attribute) and is_private_attribute(node)]
    return {one.attr for one in attributes if getattr(one.value, "id", "") not in names} - PUBLIC


def is_private_attribute(node: ast.Attribute) -> bool:
    return node.attr.startswith("_") and not node.attr.startswith("__")


def knows_dagster(tree: ast.AST) -> bool:
    return any(module.startswith("dagster") or module == MODULE for module, _ in imports(tree))


def test_no_other_module_imports_a_private_api() -> None:
    found = [(file, module, name) for file, tree in TREES.items() for module, name in imports(tree)]
    assert [one for one in found if is_private(*one[1:])] == []


def test_every_private_attribute_in_use_is_listed() -> None:
    used = {file: of_bases(tree) | of_others(tree) for file, tree in TREES.items() if knows_dagster(tree)}
    assert {file: names - set(ATTRIBUTES) for file, names in used.items() if names - set(ATTRIBUTES)} == {}


def test_what_type_checkers_read_is_what_is_imported() -> None:
    declared = dict(reversed(pair) for pair in imports(ast.parse(inspect.getsource(dagster_internals))))
    assert {name: module for name, module in declared.items() if module.startswith("dagster")} == {
        name: internal.where for name, internal in NAMES.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_every_name_resolves(name: str) -> None:
    assert getattr(dagster_internals, name) is getattr(import_module(NAMES[name].where), name)


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_every_attribute_is_one_of_its_class(name: str) -> None:
    module, _, kind = ATTRIBUTES[name].where.rpartition(".")
    bases = inspect.getmro(getattr(import_module(module), kind))
    assert any(name in inspect.getsource(base) for base in bases if base.__module__.startswith("dagster"))


def test_everything_that_is_listed_is_in_use() -> None:
    used = {name for tree in TREES.values() for module, name in imports(tree) if module == MODULE}
    nodes = [node for tree in TREES.values() for node in ast.walk(tree)]
    used |= {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    used |= {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    assert {*NAMES, *ATTRIBUTES} - used == set()


def test_every_test_that_pins_one_is_there() -> None:
    files = {internal.test for internal in (*NAMES.values(), *ATTRIBUTES.values())}
    assert [file for file in files if not (Path(__file__).parent / file).is_file()] == []


def test_a_name_that_is_not_listed_is_an_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'RunMonitor'"):
        _ = dagster_internals.RunMonitor  # type: ignore[attr-defined]


def test_importing_the_module_imports_nothing_of_dagster() -> None:
    asked = "import sys, batch_scoring.dagster_internals; print(*[m for m in sys.modules if m.startswith('dagster')])"
    found = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert found.stdout.split() == []
