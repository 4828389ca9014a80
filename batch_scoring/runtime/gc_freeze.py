"""Python's cyclic garbage collector, kept from looking through what is no garbage.

Imported libraries are a million objects that stay. The collector goes through all of them several times while they are
loaded, and again at the end of the process: a quarter of the time that a small day takes.
"""

import atexit
import contextlib
import gc
import sys
from collections.abc import Iterator


@contextlib.contextmanager
def imports() -> Iterator[None]:
    """Import libraries with the collector at rest; from then on it passes over them."""
    if not gc.isenabled():  # within another of these, or as the process wants it
        yield
        return
    known = len(sys.modules)
    gc.disable()
    try:
        yield
        if len(sys.modules) > known:  # else what is garbage would be kept, call by call
            gc.freeze()
    finally:
        gc.enable()


def spare_what_is_loaded() -> None:
    """Let the collector pass over all that there is now, and at the end of the process over everything.

    What is in memory then goes back to the system anyway. What is to be done before the end is done: `with` blocks,
    atexit and weakref.finalize do not depend on the collector.
    """
    gc.freeze()
    atexit.register(gc.freeze)
