"""Old import paths and `python -m` commands, kept for one release; a warning names the replacement.

Python asks this finder last, so it only sees names that no longer exist.
"""

import sys
from importlib.machinery import ModuleSpec
from types import CodeType, ModuleType

MODULES: dict[str, tuple[str, ...]] = {
    "batch_scoring.bundle": ("batch_scoring.inference.bundle",),
    "batch_scoring.calibration": ("batch_scoring.monitoring.drift.calibration",),
    "batch_scoring.checkpoint": ("batch_scoring.inference.checkpoints.convert",),
    "batch_scoring.databases": ("batch_scoring.defs.execution.sqlite_databases",),
    "batch_scoring.drift": ("batch_scoring.monitoring.drift.distances",),
    "batch_scoring.event_log": ("batch_scoring.defs.execution.sqlite_event_log",),
    "batch_scoring.inference.checkpoint": ("batch_scoring.inference.checkpoints.convert",),
    "batch_scoring.pipeline": ("batch_scoring.config.pipeline", "batch_scoring.config.loader"),
    "batch_scoring.report_server": ("batch_scoring.cli.report_server",),
    "batch_scoring.scoring": ("batch_scoring.inference.scorer",),
}
"""The modules in which a former module's names are now."""

NAMES = {
    "batch_scoring.storage.Folder": "batch_scoring.storage.folders.folder",
    "batch_scoring.storage.open_folder": "batch_scoring.storage.folders.addresses",
}
"""The modules of names that a former module had; a package has taken its place."""

COMMANDS = {
    "batch_scoring.checkpoint": "checkpoint",
    "batch_scoring.databases": "repair-instance",
    "batch_scoring.drift": "calibrate",
}
"""Subcommands of `batch-scoring` that were programs of their own."""


def install() -> None:
    """Make the old names importable."""
    sys.meta_path.append(_Finder())


class _Finder:
    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        if name not in MODULES and name not in NAMES:
            return None
        loader = _Loader()  # not one of importlib.abc, which is slow to import
        return ModuleSpec(name, loader, origin=__file__)  # type: ignore[arg-type]

    def invalidate_caches(self) -> None:
        pass


class _Loader:
    def create_module(self, spec: ModuleSpec) -> None:
        return None  # Python makes an empty one, which `exec_module` replaces

    def exec_module(self, module: ModuleType) -> None:
        """Replace the module by the one that the old name stands for."""
        import warnings

        old = module.__name__
        new = MODULES.get(old) or (f"{NAMES[old]}.{old.rpartition('.')[2]}",)
        warnings.warn(
            f"{old} is now {' and '.join(new)}; the old name will be removed in the next release",
            FutureWarning,
            stacklevel=2,
        )
        sys.modules[old] = _found(old)

    def get_code(self, name: str) -> CodeType:
        """The program that `python -m` runs."""
        return compile(
            f"from batch_scoring import deprecated_imports\ndeprecated_imports.run({name!r})", __file__, "exec"
        )


def _found(old: str) -> ModuleType:
    from importlib import import_module

    if old in NAMES:
        found: ModuleType = getattr(import_module(NAMES[old]), old.rpartition(".")[2])
        return found
    modules = [import_module(name) for name in MODULES[old]]
    if len(modules) == 1:
        return modules[0]
    merged = ModuleType(old)
    for module in modules:
        merged.__dict__.update((name, value) for name, value in vars(module).items() if not name.startswith("__"))
    return merged


def run(name: str) -> None:
    """Run what `python -m NAME` ran."""
    if command := COMMANDS.get(name):
        sys.stderr.write(
            f"python -m {name} is now `batch-scoring {command}`; the old command will be removed in the next release\n"
        )
        given = sys.argv[1:]
        sys.argv[1:] = given if given[:1] == [command] else [command, *given]
        from batch_scoring.cli.main import main

        sys.exit(main())
    import runpy

    (new,) = MODULES[name]
    sys.stderr.write(f"python -m {name} is now python -m {new}; the old name will be removed in the next release\n")
    runpy.run_module(new, run_name="__main__", alter_sys=True)
