"""Failures have the class that decides what becomes of their day; reliability/failing.py provokes them for real."""

import errno

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest
import torch
from deltalake.exceptions import DeltaError
from hypothesis import given
from hypothesis import strategies as st

from batch_scoring.defs.asset_checks import RefusedError
from batch_scoring.errors import (
    FAILURES,
    DeviceError,
    FailureClass,
)
from batch_scoring.operations import retry_policy, run_history
from batch_scoring.operations.retry_policy import Pauses, classify
from batch_scoring_tests.tiny import DAY, TinyProject


def raised(what: object) -> BaseException:
    """What a library really raises."""
    try:
        what()  # type: ignore[operator]
    except Exception as error:
        return error
    raise AssertionError("it went well")


ERRORS: list[tuple[BaseException, FailureClass]] = [
    (RefusedError("model", "a check"), "bad_model"),
    (DeviceError("no GPU"), "processing_error"),
    (PermissionError(errno.EACCES, "denied"), "storage"),
    (OSError(errno.ENOSPC, "full"), "storage"),
    (TimeoutError("silence"), "storage"),
    (OSError(errno.ENOMEM, "no memory"), "out_of_memory"),
    (MemoryError(), "out_of_memory"),
    (raised(lambda: np.empty(2**60, np.uint8)), "out_of_memory"),
    (raised(lambda: torch.empty(2**60, dtype=torch.uint8)), "out_of_memory"),
    (raised(lambda: pa.allocate_buffer(2**60)), "out_of_memory"),
    (RuntimeError("can't start new thread"), "out_of_memory"),
    (torch.OutOfMemoryError("CUDA out of memory"), "out_of_memory"),
    (DeltaError("Generic S3 error: 503"), "storage"),
    (ZeroDivisionError(), "processing_error"),
    (dg.Failure("somebody's own"), "processing_error"),
]


@pytest.mark.parametrize(("error", "failure"), ERRORS, ids=[f"{type(e).__name__}-{f}" for e, f in ERRORS])
def test_an_exception_has_a_class(error: BaseException, failure: FailureClass) -> None:
    assert classify(error) == failure


def test_an_error_of_boto3_itself_is_one_of_storage() -> None:
    from botocore.exceptions import EndpointConnectionError

    assert classify(EndpointConnectionError(endpoint_url="http://127.0.0.1:1")) == "storage"


def test_the_table_of_the_docstring_has_every_class() -> None:
    assert all(f"| `{failure}` |" in (retry_policy.__doc__ or "") for failure in FAILURES)


@given(st.integers(1, 12), st.text(max_size=20))
def test_pauses_double_and_differ_by_a_quarter(failed: int, seed: str) -> None:
    pauses = Pauses(retries=20, first=300)
    usual = min(300 * 2 ** (failed - 1), retry_policy.LONGEST_PAUSE)
    assert 0.75 * usual <= pauses.after(failed, seed) <= 1.25 * usual
    assert pauses.after(failed, seed) == pauses.after(failed, seed)


def test_days_that_failed_together_come_back_apart() -> None:
    assert len({round(Pauses().after(1, f"2024-03-{day:02}")) for day in range(1, 31)}) > 25


def test_no_memory_for_the_model_is_not_the_models_fault(tiny: TinyProject) -> None:
    network = (tiny.folder / "network.py").read_text()
    hungry = "        torch.empty(2**60, dtype=torch.uint8)\n        result ="
    tiny.write_code(network=network.replace("        result =", hungry))
    tiny.land(DAY, tiny.rows(20))
    with dg.DagsterInstance.ephemeral() as instance:
        tiny.run(instance=instance, raise_on_error=False)
        (known,) = run_history.of_day(instance, tiny.pipeline, DAY)
        assert (known.status, known.failure) == ("failed", "out_of_memory")


def test_a_disk_that_errs_is_no_broken_file(tiny: TinyProject, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny.land(DAY, b"id,x,y,n,c\nk1,1,1,1,red\n", "a.csv")

    def fails(self: object, size: int = -1) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("batch_scoring.ingest.formats.text_stream.Text.read", fails)
    with dg.DagsterInstance.ephemeral() as instance:
        tiny.run(instance=instance, raise_on_error=False)
        (known,) = run_history.of_day(instance, tiny.pipeline, DAY)
        assert (known.status, known.failure) == ("failed", "storage")
