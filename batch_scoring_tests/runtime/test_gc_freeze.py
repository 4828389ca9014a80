"""The collector passes over what was imported, over nothing else, and over all of it at the end."""

import gc
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from batch_scoring.config.loader import PROJECT
from batch_scoring.runtime import gc_freeze


@pytest.fixture(autouse=True)
def _collector() -> Iterator[None]:
    gc.unfreeze()  # what the tests import
    yield
    gc.enable()
    gc.freeze()


def test_the_collector_rests_while_a_library_is_imported_and_passes_over_it_afterwards(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a_library_of_this_test.py").write_text("import gc\n\nRESTS = not gc.isenabled()\n")
    monkeypatch.syspath_prepend(tmp_path)
    with gc_freeze.imports():
        import a_library_of_this_test  # type: ignore[import-not-found]
    assert a_library_of_this_test.RESTS
    assert gc.isenabled()
    assert gc.get_freeze_count() > 0


def test_what_is_no_import_stays_with_the_collector() -> None:
    with gc_freeze.imports():
        import json  # noqa: F401  (known)
    assert gc.isenabled()
    assert gc.get_freeze_count() == 0


def test_the_collector_works_on_after_an_import_that_fails() -> None:
    with pytest.raises(ModuleNotFoundError), gc_freeze.imports():
        import no_library_has_this_name  # type: ignore[import-not-found]  # noqa: F401
    assert gc.isenabled()


def test_a_collector_that_somebody_has_switched_off_stays_off() -> None:
    gc.disable()
    with gc_freeze.imports():
        pass
    assert not gc.isenabled()


def test_a_process_with_the_definitions_ends_without_looking_through_them() -> None:
    asked = "import atexit, gc; atexit.register(lambda: print(len(gc.get_objects())))"  # the first is called last
    done = subprocess.run(
        [sys.executable, "-c", f"{asked}; import batch_scoring.definitions; later = [[] for _ in range(1000)]"],
        cwd=PROJECT,
        check=True,
        capture_output=True,
        text=True,
    )
    assert int(done.stdout) < 100
