"""Exceptions stand in one module, each with the failure class and the exit code that it has always had."""

import ast
import importlib
import pkgutil
from pathlib import Path

import pytest

import batch_scoring
from batch_scoring import errors
from batch_scoring.defs.asset_checks import RefusedError, UnavailableError
from batch_scoring.errors import FAILURES, BatchScoringError, EntryError, FailureClass, SpecError, Trouble
from batch_scoring.operations.retry_policy import classify

OF_DAGSTER = {"RefusedError", "UnavailableError"}
"""They subclass an exception of Dagster's, and stand in `defs`."""

KNOWN: dict[str, tuple[FailureClass, int]] = {
    "AddressError": ("processing_error", 2),
    "BatchScoringError": ("processing_error", 1),
    "BundleError": ("bad_model", 1),
    "CalibrationError": ("processing_error", 2),
    "CheckpointError": ("processing_error", 1),
    "CodeError": ("bad_model", 1),
    "ComputeError": ("processing_error", 2),
    "ContractError": ("bad_input", 1),
    "DecisionError": ("bad_model", 1),
    "DeviceError": ("processing_error", 1),
    "EntryError": ("storage", 1),
    "FileChangedError": ("storage", 1),
    "HeldError": ("processing_error", 2),
    "NotComparableError": ("processing_error", 1),
    "NotPublishedError": ("processing_error", 1),
    "OutsideFolderError": ("processing_error", 1),
    "PartlyWrittenError": ("processing_error", 1),
    "PublicationError": ("storage", 1),
    "RangeError": ("processing_error", 2),
    "RemoteError": ("processing_error", 1),
    "RowsLostError": ("processing_error", 1),
    "RuleError": ("bad_input", 1),
    "SchemaChangedError": ("bad_input", 1),
    "SampleError": ("processing_error", 2),
    "ScoringError": ("bad_model", 1),
    "SinkError": ("sink", 1),
    "SinkRefusedError": ("bad_sink", 1),
    "SpecError": ("processing_error", 2),
    "StateError": ("processing_error", 1),
    "StoppedError": ("processing_error", 1),
    "StoreError": ("storage", 1),
    "SupersededError": ("superseded", 1),
    "TakenError": ("storage", 2),
    "UnknownPipelineError": ("processing_error", 2),
    "UnreachableError": ("processing_error", 3),
    "UnreadableFileError": ("bad_input", 1),
    "UnsoundError": ("processing_error", 1),
    "UnsureError": ("processing_error", 1),
    "WaitTimeoutError": ("processing_error", 4),
    "WrongCommandError": ("processing_error", 2),
}

BUILTIN_BASES = {
    "CodeError": ImportError,
    "EntryError": OSError,
    "FileChangedError": OSError,
    "NotPublishedError": LookupError,
    "SampleError": ValueError,
    "SpecError": ValueError,
    "StateError": ValueError,
    "StoreError": OSError,
    "TakenError": FileExistsError,
}
"""By which users and this code catch them."""


def exceptions() -> dict[str, type[BaseException]]:
    """Every exception class that a module of the package defines."""
    found = dict[str, type[BaseException]]()
    for module in pkgutil.walk_packages(batch_scoring.__path__, "batch_scoring."):
        if module.name == "batch_scoring.pipelines" or module.name.startswith("batch_scoring.pipelines."):
            continue
        for kind in vars(importlib.import_module(module.name)).values():
            if isinstance(kind, type) and issubclass(kind, BaseException) and kind.__module__ == module.name:
                found[f"{module.name}.{kind.__name__}"] = kind
    return found


def made(name: str) -> BatchScoringError:
    """One of them."""
    if name == "EntryError":
        return EntryError("folder/x.csv", Trouble("it is a link"))
    if name == "SpecError":
        return SpecError(["pipeline.yaml: name: expected text"])
    kind: type[BatchScoringError] = getattr(errors, name)
    return kind("what was found")


def test_every_exception_stands_in_the_module_of_errors() -> None:
    elsewhere = {name: kind for name, kind in exceptions().items() if kind.__module__ != "batch_scoring.errors"}
    assert {kind.__name__ for kind in elsewhere.values()} == OF_DAGSTER
    assert all(name.startswith("batch_scoring.defs.") for name in elsewhere)


def test_every_exception_has_a_class_and_an_exit_code() -> None:
    found = exceptions().values()
    assert all(issubclass(kind, BatchScoringError) for kind in found)
    assert {kind.__name__ for kind in found} - OF_DAGSTER == set(KNOWN)


@pytest.mark.parametrize("name", KNOWN)
def test_failure_class_and_exit_code_do_not_change(name: str) -> None:
    error, (failure, code) = made(name), KNOWN[name]
    assert failure in FAILURES
    assert (classify(error), error.failure_class, error.exit_code) == (failure, failure, code)


def test_those_of_dagster_have_them_too() -> None:
    by_asset = {asset: classify(RefusedError(asset, "a check")) for asset in ("raw_input", "validated_features")}
    assert by_asset == dict.fromkeys(by_asset, "bad_input")
    assert {classify(RefusedError(asset, "a check")) for asset in ("model", "predictions")} == {"bad_model"}
    assert (classify(UnavailableError("denied")), UnavailableError.exit_code) == ("storage", 1)


@pytest.mark.parametrize("name", BUILTIN_BASES)
def test_builtin_bases_stay(name: str) -> None:
    assert isinstance(made(name), BUILTIN_BASES[name])


def test_the_module_of_errors_imports_nothing_of_the_package() -> None:
    tree = ast.parse(Path(errors.__file__).read_text(encoding="utf-8"))
    imported = [node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    imported += [name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names]
    assert set(imported) == {"dataclasses", "typing"}
