"""AWS as the environment's standard variables describe it, and its errors as those of a local folder."""

from pathlib import Path

import pytest
from boto3.exceptions import S3UploadFailedError
from botocore.exceptions import ClientError, EndpointConnectionError, NoCredentialsError, NoRegionError
from urllib3.exceptions import ProtocolError

from batch_scoring.errors import FileChangedError, StoreError
from batch_scoring.storage import aws
from batch_scoring.storage.aws import Access, as_os_errors

VARIABLES = {
    "AWS_ACCESS_KEY_ID": "a key",
    "AWS_SECRET_ACCESS_KEY": "a secret",
    "AWS_SESSION_TOKEN": "a token",
    "AWS_REGION": "eu-north-7",
    "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No file of the user's and no machine's role says anything."""
    for name in ("AWS_PROFILE", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, str(tmp_path / "none"))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name, value in VARIABLES.items():
        monkeypatch.setenv(name, value)


def test_access_is_what_the_environment_says(monkeypatch: pytest.MonkeyPatch) -> None:
    said = Access("http://127.0.0.1:9", "eu-north-7", "a key", "a secret", "a token")
    assert aws.access() == said
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.delenv("AWS_SESSION_TOKEN")
    assert aws.access() == Access(None, "eu-north-7", "a key", "a secret", None)


def test_one_client_serves_all_until_the_environment_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    first = aws.client("s3")
    assert aws.client("s3") is first
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another key")
    assert aws.client("s3") is not first


def test_without_credentials_access_is_denied_and_the_remedy_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    says = r"the queue: no AWS credentials; set the standard AWS_\* variables"
    with pytest.raises(PermissionError, match=says), as_os_errors("the queue"):
        aws.client("sqs").list_queues()


def answer(status: int) -> ClientError:
    """S3's answer to a request that it does not fulfil."""
    metadata = {"HTTPStatusCode": status, "HostId": "", "RequestId": "", "HTTPHeaders": {}, "RetryAttempts": 0}
    return ClientError({"Error": {"Code": "a code"}, "ResponseMetadata": metadata}, "GetObject")


@pytest.mark.parametrize(
    ("error", "expected", "says"),
    [
        (answer(404), FileNotFoundError, "there is no s3://b/a"),
        (answer(412), FileChangedError, "s3://b/a has changed"),
        (answer(401), PermissionError, "s3://b/a: access denied: .*a code"),
        (answer(403), PermissionError, "s3://b/a: access denied: .*a code"),
        (answer(503), StoreError, "s3://b/a: .*a code"),
        (NoCredentialsError(), PermissionError, "s3://b/a: no AWS credentials"),
        (NoRegionError(), StoreError, "s3://b/a: no AWS region; set AWS_REGION"),
        (EndpointConnectionError(endpoint_url="http://127.0.0.1:9"), StoreError, "s3://b/a: .*127.0.0.1:9"),
        (ProtocolError("cut short"), StoreError, "s3://b/a: cut short"),
    ],
    ids=lambda value: f"{type(value).__name__}" if isinstance(value, Exception) else None,
)
def test_an_error_is_that_of_a_local_folder(error: Exception, expected: type[OSError], says: str) -> None:
    with pytest.raises(OSError, match=says) as caught, as_os_errors("s3://b/a"):
        raise error
    assert type(caught.value) is expected and caught.value.__cause__ is error


def test_of_an_upload_that_failed_the_answer_counts_and_other_errors_pass() -> None:
    with pytest.raises(PermissionError, match="access denied"), as_os_errors("s3://b/a"):
        try:
            raise answer(403)
        except ClientError:
            raise S3UploadFailedError("failed to upload")  # noqa: B904  (as boto3 does it)
    with pytest.raises(KeyError), as_os_errors("s3://b/a"):
        raise KeyError
