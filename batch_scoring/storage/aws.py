"""AWS access: one session from the standard environment variables, its clients, and their errors as OSErrors.

boto3 and deltalake both get their settings from here. dagster-aws's `S3Resource` is not used: importing it adds a
second to every step process, and it creates the same client.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from batch_scoring.errors import FileChangedError, StoreError


@dataclass(frozen=True)
class Access:
    """How to reach S3, as boto3 resolves it from the environment, profiles or the machine's role."""

    endpoint: str | None
    region: str | None
    key: str | None
    secret: str | None
    session_token: str | None


_AWS_VARIABLES = (
    "AWS_ACCESS_KEY_ID",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "AWS_PROFILE",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT_URL_S3",
)


def client(service: Literal["cloudwatch", "s3", "sqs"]) -> Any:  # noqa: ANN401  (boto3 creates its client classes at run time)
    """Return a client for this environment, shared by all threads; it renews short-lived credentials itself."""
    return _client(service, _environment())


def quick_client(service: Literal["s3", "sqs", "sts"]) -> Any:  # noqa: ANN401
    """Return a client that gives up within seconds, to test whether a service responds."""
    from botocore.config import Config

    retries: Any = {"mode": "standard", "total_max_attempts": 2}
    config = Config(retries=retries, connect_timeout=2.5, read_timeout=2.5)
    return _session(_environment()).client(service, config=config)


def access() -> Access:
    """Return how to reach S3, for a library that does not use boto3."""
    session, s3 = _session(_environment()), client("s3")
    found = session.get_credentials()
    credentials = found.get_frozen_credentials() if found else None
    is_aws = re.search(r"\.amazonaws\.com(\.cn)?$", s3.meta.endpoint_url)  # otherwise set by a variable or in a profile
    return Access(
        endpoint=None if is_aws else s3.meta.endpoint_url,
        region=session.region_name,
        key=credentials.access_key if credentials else None,
        secret=credentials.secret_key if credentials else None,
        session_token=credentials.token if credentials else None,
    )


def _environment() -> tuple[str | None, ...]:
    return tuple(os.environ.get(name) for name in _AWS_VARIABLES)


@functools.lru_cache
def _session(_environment: tuple[str | None, ...]) -> Any:  # noqa: ANN401
    import boto3

    return boto3.session.Session(region_name=os.environ.get("AWS_REGION"))


@functools.lru_cache
def _client(service: str, environment: tuple[str | None, ...]) -> Any:  # noqa: ANN401
    from botocore.config import Config

    retries: Any = {"mode": "standard", "max_attempts": 10}
    config = Config(retries=retries, connect_timeout=10, read_timeout=60)
    return _session(environment).client(service, config=config)


@contextlib.contextmanager
def as_os_errors(where: str) -> Iterator[None]:
    """Translate botocore's errors into those that a local folder would raise."""
    from boto3.exceptions import Boto3Error
    from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError, NoRegionError
    from urllib3.exceptions import HTTPError

    try:
        yield
    except (ClientError, Boto3Error, BotoCoreError, HTTPError) as error:
        cause = error if isinstance(error, ClientError) else error.__context__  # an upload's error wraps the response
        status = cause.response["ResponseMetadata"]["HTTPStatusCode"] if isinstance(cause, ClientError) else None
        if status == 404:
            raise FileNotFoundError(f"there is no {where}") from error
        if status == 412:
            raise FileChangedError(f"{where} has changed") from error
        if status in (401, 403):
            raise PermissionError(f"{where}: access denied: {cause}") from error
        if isinstance(error, NoCredentialsError):
            raise PermissionError(f"{where}: no AWS credentials; set the standard AWS_* variables") from error
        if isinstance(error, NoRegionError):
            raise StoreError(f"{where}: no AWS region; set AWS_REGION") from error
        raise StoreError(f"{where}: {error}") from error
