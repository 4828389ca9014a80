"""Probes of AWS: identity and queues; and explanations of AWS errors."""

import os
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from batch_scoring.cli.doctor.probe import NETWORK_TIMEOUT, ProbeFinding, Site, probe
from batch_scoring.config.pipeline import Pipeline
from batch_scoring.storage import aws

LEAST_RETENTION = 24 * 3600
"""Seconds that a queue should keep messages, so that none is lost while the daemon is off for a day."""
LEAST_RECEIVES = 5
"""Receives before a message goes to the dead-letter queue: several sensors may read one queue, and return messages."""
FULL = 50_000
"""Messages; far more than a running sensor leaves."""

_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or give the machine a role"
_MEANINGS = {
    "InvalidAccessKeyId": ("AWS credentials", "an access key that exists", _CREDENTIALS),
    "InvalidClientTokenId": ("AWS credentials", "an access key that exists", _CREDENTIALS),
    "SignatureDoesNotMatch": ("AWS credentials", "the secret that belongs to the access key", _CREDENTIALS),
    "ExpiredToken": ("AWS credentials", "credentials that are still valid", "log in again, or use a role: it renews"),
    "ExpiredTokenException": ("AWS credentials", "credentials that are still valid", "log in again, or use a role"),
    "RequestTimeTooSkewed": ("clock", "this machine's time within 15 minutes of AWS's", "set it: chronyc makestep"),
}


def explain(error: Exception, where: str, action: str) -> ProbeFinding:
    """The finding that explains an error of boto3.

    Args:
        error: as it was raised.
        where: the address of the request.
        action: the IAM permission that the request needs.
    """
    from botocore.exceptions import (
        ClientError,
        ConnectionError,
        CredentialRetrievalError,
        HTTPClientError,
        NoCredentialsError,
        NoRegionError,
        PartialCredentialsError,
        ProfileNotFound,
    )

    said = " ".join(str(error).split())
    if isinstance(error, NoCredentialsError | PartialCredentialsError | CredentialRetrievalError | ProfileNotFound):
        return ProbeFinding("error", "AWS credentials", said, "credentials for this account", _CREDENTIALS)
    if isinstance(error, NoRegionError):
        return ProbeFinding("error", "AWS region", said, "a region", "set AWS_REGION")
    if isinstance(error, ConnectionError | HTTPClientError):
        return ProbeFinding(
            "error",
            "AWS endpoint",
            re.sub(r'(: )?"(https?://[^/"]+)[^"]*"', r": \2", said),
            "an answer",
            "see AWS_ENDPOINT_URL, AWS_REGION and the network between here and there",
        )
    if not isinstance(error, ClientError):
        return ProbeFinding("error", where, said, "an answer")
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response["ResponseMetadata"]["HTTPStatusCode"]
    if code in _MEANINGS:
        place, expected, remedy = _MEANINGS[code]
        return ProbeFinding("error", place, f"{code}: {said}", expected, remedy)
    if code == "NoSuchBucket":
        bucket = re.sub(r"^(s3://[^/]+).*", r"\1", where)
        remedy = "create it, or correct BATCH_SCORING_DATA or the spec's location"
        return ProbeFinding("error", bucket, "there is no such bucket", "a bucket", remedy)
    if code.endswith("NonExistentQueue") or code == "QueueDoesNotExist":
        return ProbeFinding(
            "error", where, "there is no such queue", "an SQS queue", "create it, or correct events.queue"
        )
    if status in (401, 403):
        return ProbeFinding(
            "error", where, f"access denied: {said}", f"the permission {action}", f"allow {action} for our role"
        )
    if status in (301, 400) and "egion" in said:
        return ProbeFinding("error", "AWS region", said, "the bucket's region", "set AWS_REGION to the bucket's region")
    return ProbeFinding(
        "error", where, f"HTTP status {status}: {said}", "an answer", "try again; ask the operator of the store"
    )


@probe("AWS identity", seconds=NETWORK_TIMEOUT)
def identity(site: Site) -> Iterator[ProbeFinding]:
    """Credentials and a region are set, and AWS accepts the credentials."""
    if not uses_aws(site):
        return
    known = aws.access()
    if known.key is None:
        yield ProbeFinding("error", "AWS credentials", "there are none", "credentials for this account", _CREDENTIALS)
        return
    if known.region is None and known.endpoint is None:
        yield ProbeFinding("error", "AWS region", "none is set", "the region of bucket and queue", "set AWS_REGION")
        return
    if known.endpoint is None and known.session_token and _is_fixed():
        yield ProbeFinding(
            "warning",
            "AWS credentials",
            "AWS_SESSION_TOKEN is set: these credentials expire and are not renewed",
            "a role, or a profile that renews",
            "use a role or AWS_PROFILE for the daemon",
        )
    try:
        answer = aws.quick_client("sts").get_caller_identity()
    except Exception as error:  # boto3 raises many kinds of errors; each is explained
        if known.endpoint is None:
            yield explain(error, "AWS credentials", "sts:GetCallerIdentity")
        return  # a store that is not AWS may have no STS; the storage's own probes decide
    yield ProbeFinding("info", "AWS identity", str(answer["Arn"]))


@probe("queue", seconds=NETWORK_TIMEOUT)
def queue(pipeline: Pipeline) -> Iterator[ProbeFinding]:
    """The queue of events.queue exists, is readable, and keeps messages long enough."""
    url = pipeline.spec.events.queue
    if not url:
        return
    try:
        found = aws.quick_client("sqs").get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
    except Exception as error:
        yield explain(error, url, "sqs:GetQueueAttributes, sqs:ReceiveMessage, sqs:DeleteMessage")
        return
    kept, waiting = int(found.get("MessageRetentionPeriod", 345_600)), int(found.get("ApproximateNumberOfMessages", 0))
    if kept < LEAST_RETENTION:
        yield ProbeFinding(
            "warning",
            url,
            f"messages are kept for {timedelta(seconds=kept)}",
            "at least a day: else messages that arrive while no daemon runs are lost, and their files wait for a scan",
            f"aws sqs set-queue-attributes --queue-url {url} --attributes MessageRetentionPeriod=345600",
        )
    if int(found.get("VisibilityTimeout", 30)) == 0:
        yield ProbeFinding(
            "warning",
            url,
            "VisibilityTimeout is 0: other readers of the queue see a message again at once",
            "the default, 30 seconds, or more",
            f"aws sqs set-queue-attributes --queue-url {url} --attributes VisibilityTimeout=30",
        )
    receives = re.search(r'"maxReceiveCount"\s*:\s*"?(\d+)', found.get("RedrivePolicy", ""))
    if receives and int(receives[1]) < LEAST_RECEIVES:
        yield ProbeFinding(
            "warning",
            url,
            f"a message is given up after {receives[1]} reads",
            f"at least {LEAST_RECEIVES}: sensors that share the queue give back what is not theirs",
            "raise maxReceiveCount in its RedrivePolicy",
        )
    if waiting > FULL:
        yield ProbeFinding(
            "warning", url, f"{waiting:,} messages wait", "few", "start the daemon; see the sensor's ticks"
        )


def uses_aws(site: Site) -> bool:
    """Whether any pipeline uses AWS."""
    return any(
        p.spec.events.queue or not all(folder.is_local for folder in (p.landing, p.output, p.bundle))
        for p in site.pipelines
    )


def other_region(answer: dict[str, Any], where: str) -> Iterator[ProbeFinding]:
    """A finding if a bucket is in another region: boto3 follows the redirect, the Delta library does not."""
    there, known = answer["ResponseMetadata"]["HTTPHeaders"].get("x-amz-bucket-region"), aws.access()
    if known.endpoint is None and there and known.region and there != known.region:
        yield ProbeFinding(
            "error",
            where,
            f"the bucket is in {there}, our region is {known.region}: no table opens",
            "one region",
            f"export AWS_REGION={there}",
        )


def server_time(answer: dict[str, Any]) -> datetime | None:
    """The store's clock from the header of its answer, in whole seconds."""
    date = answer["ResponseMetadata"]["HTTPHeaders"].get("date")
    if not date:
        return None
    from email.utils import parsedate_to_datetime

    return parsedate_to_datetime(date).astimezone(UTC)


def _is_fixed() -> bool:
    """Whether the credentials come from environment variables."""
    return bool(os.environ.get("AWS_ACCESS_KEY_ID"))
