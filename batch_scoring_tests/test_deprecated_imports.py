"""Import paths, commands and a dagster.yaml from before the packages still work, and say what replaces them."""

import importlib
import os
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from batch_scoring import deprecated_imports as moved
from batch_scoring.config.loader import PROJECT

OF_OLD = Path(__file__).parent / "fixtures/dagster_of_1db5e24.yaml"
USED = {
    "batch_scoring.bundle": ["GOLDEN_ROWS", "load_bundle", "read_bundle", "write_bundle"],
    "batch_scoring.calibration": ["calibrate"],
    "batch_scoring.checkpoint": ["convert"],
    "batch_scoring.databases": ["RunStorage", "ScheduleStorage"],
    "batch_scoring.drift": ["Reference"],
    "batch_scoring.event_log": ["EventLog"],
    "batch_scoring.inference.checkpoint": ["convert"],
    "batch_scoring.pipeline": ["PROJECT", "Pipeline", "data_root", "declared_pipeline", "find_pipeline"],
    "batch_scoring.report_server": ["ReportServer"],
    "batch_scoring.scoring": ["Scorer"],
    "batch_scoring.storage": ["Folder", "open_folder"],
}
"""What the README, dagster.yaml, the benchmarks and the embedded pipelines imported at commit 1db5e24 or f9c2ce9."""


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=PROJECT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


def forget(name: str) -> None:
    """Let the next import of an old name be the first."""
    sys.modules.pop(name, None)
    parent, _, child = name.rpartition(".")
    vars(importlib.import_module(parent)).pop(child, None)


@pytest.mark.parametrize("module", USED)
def test_an_old_import_is_the_new_object_and_warns_once(module: str) -> None:
    old = [name for name in (*moved.MODULES, *moved.NAMES) if name == module or name.startswith(f"{module}.")]
    for name in old:
        forget(name)
    imports = f"from {module} import {', '.join(USED[module])}"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        exec(imports, found := {})
        exec(imports, {})
    said = [str(warning.message) for warning in caught if warning.category is FutureWarning]
    assert len(said) == len(old)
    for name, text in zip(sorted(old), sorted(said), strict=True):
        assert text.startswith(f"{name} is now batch_scoring.") and text.endswith("removed in the next release")
    for name in USED[module]:
        places = moved.MODULES.get(module) or (moved.NAMES[f"{module}.{name}"],)
        homes = [vars(importlib.import_module(place)) for place in places]
        assert any(home.get(name) is found[name] for home in homes)


def test_every_old_name_is_tried_here_and_none_stands_in_the_way_of_a_module() -> None:
    assert {name for name in moved.MODULES} | {name.rpartition(".")[0] for name in moved.NAMES} == USED.keys()
    folder = PROJECT / "batch_scoring"
    for name in moved.MODULES:
        path = folder.joinpath(*name.split(".")[1:])
        assert not path.exists() and not path.with_suffix(".py").exists(), f"{name}: a new module would hide it"


def test_the_names_of_several_modules_may_stand_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "batch_scoring.of_old"
    monkeypatch.setitem(moved.MODULES, name, ("batch_scoring.storage.state", "batch_scoring.runtime.printable"))
    with pytest.warns(FutureWarning, match=r"of_old is now batch_scoring\.storage\.state and batch_scoring\.runtime"):
        merged = importlib.import_module(name)
    forget(name)
    assert merged.State and merged.printable


def test_a_name_that_never_was_is_no_module() -> None:
    with pytest.raises(ModuleNotFoundError, match=r"batch_scoring\.nothing"):
        importlib.import_module("batch_scoring.nothing")


@pytest.mark.parametrize(
    ("old", "new", "code", "says"),
    [
        (
            "drift calibrate nobody",
            "batch-scoring calibrate",
            2,
            "no pipeline 'nobody'; known pipelines: customer_churn",
        ),
        ("drift --help", "batch-scoring calibrate", 0, "Usage: batch-scoring calibrate"),
        ("checkpoint --pipeline x", "batch-scoring checkpoint", 2, "Missing option '--checkpoint'"),
        ("databases", "batch-scoring repair-instance", 2, "DAGSTER_HOME is ''; expected the absolute path"),
        ("report_server true", "python -m batch_scoring.cli.report_server", 0, "links lead to REPORTS_URL"),
    ],
)
def test_an_old_command_runs_the_new_one_and_says_so(old: str, new: str, code: int, says: str) -> None:
    module, *arguments = old.split()
    done = run("-m", f"batch_scoring.{module}", *arguments, DAGSTER_HOME="", REPORTS_URL="http://elsewhere")
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith(f"python -m batch_scoring.{module} is now ") and new in done.stderr.splitlines()[0]
    assert says in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_dagster_yaml_of_old_opens_an_instance_with_our_storages(tmp_path: Path) -> None:
    shutil.copy(OF_OLD, tmp_path / "dagster.yaml")
    program = (
        "import dagster as dg\n"
        "with dg.DagsterInstance.get() as i:\n"
        "    print(i.get_runs_count(), *(type(s).__module__ for s in (i.event_log_storage, i.run_storage)))\n"
    )
    done = run("-c", program, DAGSTER_HOME=str(tmp_path))
    assert done.returncode == 0, done.stderr
    own = "batch_scoring.defs.execution"
    assert done.stdout.split() == ["0", f"{own}.sqlite_event_log", f"{own}.sqlite_databases"]
    assert "batch_scoring.event_log is now batch_scoring.defs.execution.sqlite_event_log" in done.stderr
    assert done.stderr.count("FutureWarning") == 2
