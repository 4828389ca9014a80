"""All exceptions of the package, each with its failure class and its exit code.

This module imports nothing from the package, so every module can raise and catch these. Exceptions that subclass one
of Dagster's are in `defs`. The builtin bases (`ValueError`, `OSError` …) stay: callers catch them too.
"""

from dataclasses import dataclass
from typing import Literal, get_args

FailureClass = Literal[
    "superseded",
    "bad_input",
    "bad_model",
    "bad_sink",
    "storage",
    "sink",
    "out_of_memory",
    "timeout",
    "lost",
    "processing_error",
]
"""Why a run failed; `operations/retry_policy.py` says what each class means for the day."""
FAILURES: tuple[FailureClass, ...] = get_args(FailureClass)


class BatchScoringError(Exception):
    """Base of the package's exceptions. The message says where, what was found, what was expected and what to do."""

    failure_class: FailureClass = "processing_error"
    """Failure class of a run that it ends."""
    exit_code: int = 1
    """Exit code of a command that it ends: 1 something failed, 2 the command was wrong."""


# Process


class HeldError(BatchScoringError, RuntimeError):
    """Another process holds the lock; the message says which."""

    exit_code = 2


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an allocation failed: numpy and Arrow raise MemoryError, torch its own class or just a message."""
    words = ("can't allocate memory", "not enough memory", "can't start new thread")  # on Linux and elsewhere
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and (type(error).__name__ == "OutOfMemoryError" or any(said in str(error) for said in words))
    )


# Storage


@dataclass(frozen=True)
class Trouble:
    """The reason why a folder entry is not read."""

    reason: str
    """What was found, and what to do."""
    may_pass: bool = False
    """Whether the same entry may be read the next time: permissions, a disk, a mount."""


class EntryError(BatchScoringError, OSError):
    """An entry of a folder is not read; the message names it and says why."""

    failure_class = "storage"

    def __init__(self, where: str, trouble: Trouble) -> None:
        """`where`: the entry's address."""
        super().__init__(f"{where}: {trouble.reason}")
        self.trouble = trouble


class OutsideFolderError(BatchScoringError, ValueError):
    """A path would leave the folder that it is relative to."""


class FileChangedError(BatchScoringError, OSError):
    """A file is no longer the version that the caller named."""

    failure_class = "storage"


class StoreError(BatchScoringError, OSError):
    """AWS did not answer, or answered with an error; the same request may succeed later."""

    failure_class = "storage"


class TakenError(BatchScoringError, FileExistsError):
    """Another file has appeared under the name in the meantime; it is left as it is."""

    failure_class = "storage"
    exit_code = 2


class StateError(BatchScoringError, ValueError):
    """The state lacks what a step needs, or it is damaged; the message names the asset to run first."""


class SchemaChangedError(BatchScoringError, ValueError):
    """A column of a table would change its type; the message names it and what to do."""

    failure_class = "bad_input"


class PublicationError(BatchScoringError, RuntimeError):
    """A day could not be committed in time, or a planned file is missing."""

    failure_class = "storage"


class NotPublishedError(BatchScoringError, LookupError):
    """The requested day has no rows yet."""


# Configuration


class SpecError(BatchScoringError, ValueError):
    """One or more specs are invalid; the message lists every error with its file, field and value."""

    exit_code = 2

    def __init__(self, errors: list[str]) -> None:
        count = "1 error" if len(errors) == 1 else f"{len(errors)} errors"
        super().__init__("\n  ".join([f"{count} in the pipelines' specs:", *errors]))
        self.errors = errors


class UnknownPipelineError(BatchScoringError, ValueError):
    """No pipeline has the requested name."""

    exit_code = 2


class ComputeError(BatchScoringError, RuntimeError):
    """The steps cannot be executed as the environment specifies."""

    exit_code = 2


class CodeError(BatchScoringError, ImportError):
    """A pipeline's own code cannot be imported; the message says which, from where, and what it raised."""

    failure_class = "bad_model"


# Input


class UnreadableFileError(BatchScoringError, ValueError):
    """A landing file cannot be read; the message names it, what was found and what to do."""

    failure_class = "bad_input"


class ContractError(BatchScoringError, ValueError):
    """The schema cannot be applied row by row, or a file lacks columns that it requires: the day stops."""

    failure_class = "bad_input"


# Model


class BundleError(BatchScoringError, ValueError):
    """A bundle does not match its manifest or pipeline; the message says which file, what was expected and found."""

    failure_class = "bad_model"


class UnsoundError(BatchScoringError, ValueError):
    """A network or its data cannot go into a bundle; the message says what was found and expected, and what to do."""


class CheckpointError(BatchScoringError, ValueError):
    """A checkpoint or its sample cannot become a bundle; the message says where, what was found and expected."""


class ScoringError(BatchScoringError, RuntimeError):
    """The model cannot score this input at all: columns, shapes or the network itself do not fit."""

    failure_class: FailureClass = "bad_model"


class DeviceError(ScoringError):
    """The device is missing or was lost; another machine may have it."""

    failure_class = "processing_error"


# Day


class RowsLostError(BatchScoringError, RuntimeError):
    """The ledger of rows does not balance: a row was lost or written twice."""


class SupersededError(BatchScoringError, RuntimeError):
    """Newer input or another model arrived during the step: its results are not published."""

    failure_class = "superseded"


# Decisions and exports


class RuleError(BatchScoringError, ValueError):
    """A rule cannot be read, or does not fit the columns that it names; the message says where and what is accepted."""

    failure_class = "bad_input"


class DecisionError(BatchScoringError, ValueError):
    """A day cannot be decided as the spec says; the message names the action, column or function, and what to do."""

    failure_class = "bad_model"


class SinkError(BatchScoringError, OSError):
    """A sink does not answer or is full; the same export may succeed later. What it showed before stands."""

    failure_class = "sink"


class SinkRefusedError(BatchScoringError, RuntimeError):
    """A sink refuses the rows or the account, and will refuse them again. What it showed before stands."""

    failure_class = "bad_sink"


# Drift and retention


class CalibrationError(BatchScoringError, ValueError):
    """Drift thresholds cannot be learned from the reference; the message says what is missing."""

    exit_code = 2


class NotComparableError(BatchScoringError, ValueError):
    """There is nothing to compare the day with; the message says what is missing."""


class UnsureError(BatchScoringError, RuntimeError):
    """Which files are still needed cannot be determined, so none is deleted; the message says what prevents it."""


# Commands


class AddressError(BatchScoringError, ValueError):
    """An address cannot be read from, or written to; the message says what is expected."""

    exit_code = 2


class SampleError(BatchScoringError, ValueError):
    """No pipeline can be made of a sample; the message says why and what to do."""

    exit_code = 2


class PartlyWrittenError(BatchScoringError, RuntimeError):
    """Only some files of an output were written; the message says which, its cause why."""


class RangeError(BatchScoringError, ValueError):
    """The range of days is empty or not within the pipeline's days."""

    exit_code = 2


class StoppedError(BatchScoringError, RuntimeError):
    """The command is ending: nothing more is written."""


class RemoteError(BatchScoringError):
    """A command for a remote deployment failed; the message is one line."""


class WrongCommandError(RemoteError):
    """The command was wrong: an invalid address, or something that the deployment does not have."""

    exit_code = 2


class UnreachableError(RemoteError):
    """The deployment does not answer, or its answer is not Dagster's."""

    exit_code = 3

    def __init__(self, message: str, *, in_doubt: bool = False, is_denied: bool = False) -> None:
        """`in_doubt`: the request may have been carried out all the same. `is_denied`: a retry does not help."""
        super().__init__(message)
        self.in_doubt, self.is_denied = in_doubt, is_denied


class WaitTimeoutError(RemoteError):
    """The wait timed out before the run ended."""

    exit_code = 4
