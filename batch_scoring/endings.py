"""How a run of a day ended, noted in its record where that decides whether it is tried again, or told to people."""

import contextlib
from collections.abc import Iterator

from batch_scoring import runs
from batch_scoring.contract import ContractError
from batch_scoring.invariants import RefusedError
from batch_scoring.landing import UnreadableFileError
from batch_scoring.steps import Run, SupersededError
from batch_scoring.tables import SchemaChangedError


@contextlib.contextmanager
def noted(run: Run) -> Iterator[Run]:
    """Note an end that the same files would come to again, and one that gives way to newer files or another model."""
    try:
        yield run
    except SupersededError:  # no failure, and no try of these files
        run.tag({runs.SUPERSEDED: "true", runs.FINGERPRINT: ""})
        raise
    except (RefusedError, ContractError, UnreadableFileError, SchemaChangedError):
        run.tag({runs.REFUSED: "true"})
        raise
