"""Garbage collection paused during imports, and loaded objects frozen.

Imported libraries are about a million objects that stay alive. The cyclic collector would traverse all of them several
times during the imports, and once more at exit: a quarter of the time that a small day takes.
"""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Pause the collector during imports, then freeze what was imported."""
    if not gc.isenabled():  # nested in another block, or disabled by the process itself
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
        if len(sys.modules) > known:  # else each call would freeze garbage
            gc.freeze()
    finally:
        gc.enable()


def freeze_loaded() -> None:
    """Exclude all current objects from collection, and everything at exit.

    The system reclaims the memory anyway. Clean-up still happens: `with` blocks, atexit and weakref.finalize do not
    depend on the collector.
    """
    gc.freeze()
    atexit.register(gc.freeze)
