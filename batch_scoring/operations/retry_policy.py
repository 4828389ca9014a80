"""Failure classes and the retry policy.

| class | cause | the day is run again | alert |
|---|---|---|---|
| `superseded` | newer files or another model arrived | from raw_input, once the files are quiet | none |
| `bad_input` | a broken file, a missing column, a blocking check on the input | with other files or code | at once |
| `bad_model` | a broken bundle, invalid scores, code that does not load | with another model or code | at once |
| `bad_sink` | a sink refuses the rows or the account | with another spec or sink | at once |
| `storage` | S3, network or disk: no answer, access denied, full | after a pause | on the last attempt |
| `sink` | the sink of an export: no answer, full | after a pause | on the last attempt |
| `out_of_memory` | an allocation failed | after a pause, with half the batch size | on the last attempt |
| `timeout` | longer than `runs.max_hours`, or a pod waited `compute.*.start_minutes` | at once | on the last attempt |
| `lost` | the process was killed, or its machine went down | at once, with half the batch size | on the last attempt |
| `processing_error` | any other exception in a step | after a pause | on the last attempt |

"At once" is Dagster's own retry (`run_retries`), for runs that its daemon has launched; every other retry is requested
by the sensor, after a pause. A retry continues from the finished shards. `runs.retries` and `runs.retry_minutes` in the
spec set the number of retries and the pauses, which double; a jitter by day keeps days that failed together from being
retried together. What was published before stays until a run succeeds. The class is a tag of the run.

`failed_runs.py` determines and records the class of a Dagster run.
"""

import errno
import hashlib
from dataclasses import dataclass

from deltalake.exceptions import DeltaError

from batch_scoring.errors import BatchScoringError, FailureClass, is_out_of_memory

FINAL: frozenset[FailureClass] = frozenset({"bad_input", "bad_model", "bad_sink"})
"""Never retried: the same files, model and code would fail again."""
HEAVY: frozenset[FailureClass] = frozenset({"out_of_memory", "lost"})
"""Retried with smaller batches: the step may have run out of memory."""

LONGEST_PAUSE = 24 * 3600.0
"""Seconds."""
_LIBRARIES = ("botocore", "boto3", "urllib3")
"""Top-level modules whose exceptions are storage failures."""


@dataclass(frozen=True)
class Pauses:
    """Number of retries of a failed day, and the pauses before them."""

    retries: int = 2
    first: float = 300.0
    """Seconds before the first retry; doubled before each next one."""

    @property
    def tries(self) -> int:
        """Runs of the same files and code that may fail."""
        return self.retries + 1

    def after(self, failed: int, seed: str) -> float:
        """Seconds to wait after a number of failed runs: exponential backoff with a jitter of 25 % by the seed."""
        jitter = int(hashlib.sha256(seed.encode()).hexdigest()[:8], 16) / 2**32
        return min(self.first * 2.0 ** (failed - 1), LONGEST_PAUSE) * (0.75 + jitter / 2)


def classify(error: BaseException) -> FailureClass:
    """The class of an exception that a step has raised."""
    if isinstance(error, BatchScoringError):
        return error.failure_class
    if is_out_of_memory(error) or getattr(error, "errno", None) == errno.ENOMEM:
        return "out_of_memory"
    is_of_store = type(error).__module__.partition(".")[0] in _LIBRARIES
    return "storage" if is_of_store or isinstance(error, OSError | DeltaError) else "processing_error"
