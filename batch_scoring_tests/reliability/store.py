"""S3 for tests: moto's server in its own process, behind the proxy, only on the loopback interface."""

import contextlib
import itertools
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from batch_scoring_tests.reliability.proxy import FaultyProxy

PAGE = 50
"""Keys of one answer to a listing; S3 gives 1,000."""

_SERVER = """
import os, sys, threading
from moto.server import main
threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
main(sys.argv[1:])
"""
"""Ends with the process that started it, however that ends: its standard input is closed then."""

_count = itertools.count()


@dataclass(frozen=True)
class Store:
    """A running store with its proxy."""

    proxy: FaultyProxy
    port: int
    """Of moto itself."""

    @property
    def environment(self) -> dict[str, str]:
        """The AWS variables with which it is reached."""
        return {
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": self.proxy.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "no_proxy": "127.0.0.1",
        }

    def new_bucket(self) -> str:
        """The name of a new, empty bucket."""
        name = f"bucket-{os.getpid()}-{next(_count)}"
        self.client_of_moto().create_bucket(Bucket=name)
        return name

    def client_of_moto(self, service: str = "s3") -> Any:  # noqa: ANN401  (boto3 makes its clients' classes at run time)
        """A client that goes past the proxy, for what others do to the bucket."""
        import boto3

        return boto3.client(
            service,
            endpoint_url=f"http://127.0.0.1:{self.port}",
            region_name="us-east-1",
            aws_access_key_id="test",
            aws_secret_access_key="test",
        )


@contextlib.contextmanager
def running_store() -> Iterator[Store]:
    """Start a store; it is gone at the end."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    command = [sys.executable, "-c", _SERVER, "-H", "127.0.0.1", "-p", str(port)]
    quiet: dict[str, Any] = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    environment = os.environ | {"MOTO_S3_DEFAULT_MAX_KEYS": str(PAGE)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, env=environment, **quiet) as server:
        _wait_for(port, server)
        with FaultyProxy(("127.0.0.1", port)) as proxy:
            yield Store(proxy, port)
        server.terminate()


def _wait_for(port: int, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise RuntimeError("moto's server does not answer")
