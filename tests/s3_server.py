"""A real S3 server over HTTP, for tests: moto's, in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from claude_batch_tasks.embedded import free_port
from tests.support import wait_until

KEY_ID, SECRET = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY"


class S3Server:
    """A server on a free port."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._buckets = 0
        self.client = boto3.client(
            "s3",
            endpoint_url=self.url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}),
        )

    def make_bucket(self) -> str:
        """Return the name of a new bucket."""
        self._buckets += 1
        name = f"bucket-{self._buckets}"
        self.client.create_bucket(Bucket=name)
        return name

    def list_keys(self, bucket: str) -> list[str]:
        """Return the names of all objects in a bucket."""
        pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
        return [each["Key"] for page in pages for each in page.get("Contents", [])]

    def environment(self, url: str | None = None) -> dict[str, str]:
        """Return what the environment of a client has; its server may be reached at another URL."""
        return {
            "AWS_ENDPOINT_URL": url or self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def answers(self) -> bool:
        """Return whether the server is up."""
        try:
            self.client.list_buckets()
        except BotoCoreError:
            return False
        return True


@contextmanager
def run_s3_server() -> Iterator[S3Server]:
    """Run a server; its process ends with the test."""
    server = S3Server()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(server.port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ})
    try:
        wait_until(server.answers, 60)
        yield server
    finally:
        process.kill()
        process.wait()


@contextmanager
def environment_of(server: S3Server, url: str | None = None) -> Iterator[None]:
    """Have this process find the server as it finds Amazon's."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment(url).items():
            patch.setenv(name, value)
        yield
