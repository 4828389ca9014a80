"""Errors of AWS explained, and nothing asked of it in vain; test_doctor_on_s3.py has the probes on a store."""

from pathlib import Path

import pytest
from botocore.exceptions import ClientError

from batch_scoring.cli.doctor import cloud
from batch_scoring.cli.doctor.probe import Site
from batch_scoring_tests.tiny import TinyProject


def test_credentials_that_aws_itself_does_not_know() -> None:
    answer = {"Error": {"Code": "ExpiredToken", "Message": "expired"}, "ResponseMetadata": {"HTTPStatusCode": 400}}
    finding = cloud.explain(ClientError(answer, "ListObjectsV2"), "s3://b", "s3:ListBucket")  # type: ignore[arg-type]
    assert (finding.severity, finding.where) == ("error", "AWS credentials") and "log in again" in finding.remedy


def test_a_bucket_in_another_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ENDPOINT_URL_S3", raising=False)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    answer = {"ResponseMetadata": {"HTTPHeaders": {"x-amz-bucket-region": "eu-central-1"}}}
    (finding,) = cloud.other_region(answer, "s3://b")
    assert finding.severity == "error" and finding.remedy == "export AWS_REGION=eu-central-1"
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    assert list(cloud.other_region(answer, "s3://b")) == []


def test_nothing_is_asked_of_aws_where_everything_is_local(tmp_path: Path) -> None:
    assert list(cloud.identity.look(Site((TinyProject(tmp_path).pipeline,)))) == []
