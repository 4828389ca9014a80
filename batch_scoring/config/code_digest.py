"""Source code that a module of a pipeline runs: its own, and that of all modules of `pipelines/` that it imports.

Modules are parsed and not imported, since that would import torch and pandera. Every import statement counts, at any
depth, within functions and under `if TYPE_CHECKING`, and so does `import_module` with a literal name. Computed names,
files read as data and installed packages are not followed.
"""

import ast
from collections.abc import Iterator
from pathlib import Path


def source(folder: Path, package: str, module: str) -> bytes:
    """All code that importing `<package>.<module>` runs; just the module's bytes if it imports no other.

    Args:
        folder: of the package.
        package: its name, `batch_scoring.pipelines.<pipeline>`.
        module: the module's name within it.
    """
    code = _Code(folder.parent, package.rpartition(".")[0])
    first = f"{package}.{module}"
    code.follow(first)
    content = (folder / f"{module}.py").read_bytes()
    others = sorted(code.modules.items())
    return content + b"".join(f"\0{name}\0{len(text)}\0".encode() + text for name, text in others if name != first)


class _Code:
    """The modules found so far below the package of all pipelines."""

    def __init__(self, root: Path, package: str) -> None:
        self._root, self._package = root, package
        self._seen: set[str] = set()
        self.modules: dict[str, bytes] = {}
        """Source of the modules that run any code, by name."""

    def follow(self, name: str) -> None:
        """Add a module, if it exists, with the packages above it and everything that they import."""
        waiting = [name]
        while waiting:
            for each in self._with_packages(waiting.pop()):
                if each not in self._seen:
                    self._seen.add(each)
                    waiting += self._imports_of(each)

    def _with_packages(self, name: str) -> Iterator[str]:
        """`name` and the packages above it, up to the package of all pipelines."""
        while name.startswith(f"{self._package}."):
            yield name
            name = name.rpartition(".")[0]

    def _imports_of(self, name: str) -> list[str]:
        place = self._root.joinpath(*name.removeprefix(f"{self._package}.").split("."))
        package, module = place / "__init__.py", place.with_name(f"{place.name}.py")
        file = package if package.is_file() else module
        if not file.is_file():
            return []
        content = file.read_bytes()
        try:
            tree = ast.parse(content)
        except (SyntaxError, ValueError):  # reported when it is imported
            self.modules[name] = content
            return []
        if file == module or not all(_is_text(statement) for statement in tree.body):
            self.modules[name] = content
        return list(_imported(tree, name if file == package else name.rpartition(".")[0]))


def _is_text(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Names of everything that code of a package may import; some are attributes of modules."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = _absolute("." * node.level + (node.module or ""), package)
            yield from (f"{module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call) and node.args:
            function, name = node.func, node.args[0]
            called = function.attr if isinstance(function, ast.Attribute) else getattr(function, "id", "")
            if called in ("import_module", "__import__") and isinstance(name, ast.Constant):
                yield _absolute(str(name.value), package)


def _absolute(name: str, package: str) -> str:
    """Full name of a module that code of a package imports as `name`, relative if it begins with dots."""
    level = len(name) - len(name.lstrip("."))
    if not level:
        return name
    above = package.split(".")[: 1 - level or None]
    return ".".join([*above, name[level:]]) if name[level:] else ".".join(above)
