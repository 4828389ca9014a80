"""Batch scoring: from a trained PyTorch model and a table that arrives every day to scores that can be trusted.

The names in `__all__` are what other projects may rely on; each is imported when it is first used.
"""

import os

from batch_scoring import deprecated_imports

# MKL then sums a row in one order wherever it lies in memory. Without it, a linear layer of 25 inputs and 2 outputs
# gives a row other last bits at other positions of a batch. It is read when torch multiplies first, and costs no time.
os.environ.setdefault("MKL_CBWR", "AUTO,STRICT")

TYPE_CHECKING = False  # as type checkers know it, without the time that typing takes to import
if TYPE_CHECKING:
    from batch_scoring.inference.bundle import load_bundle, write_bundle
    from batch_scoring.inference.scorer import Scorer
    from batch_scoring.storage.folders.addresses import open_folder
    from batch_scoring.tables import read_day
    from batch_scoring.training import Training

__all__ = ["Scorer", "Training", "load_bundle", "open_folder", "read_day", "write_bundle"]

_MODULES = {
    "Scorer": "batch_scoring.inference.scorer",
    "Training": "batch_scoring.training",
    "load_bundle": "batch_scoring.inference.bundle",
    "open_folder": "batch_scoring.storage.folders.addresses",
    "read_day": "batch_scoring.tables",
    "write_bundle": "batch_scoring.inference.bundle",
}

deprecated_imports.install()


def __getattr__(name: str) -> object:
    """Import a public name (PEP 562)."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
