"""Object stores for tests: a folder, and a server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.s3_server import S3Server, environment_of, run_s3_server


@pytest.fixture(scope="session")
def s3_server() -> Iterator[S3Server]:
    """A server of S3's protocol, with nothing in it."""
    with run_s3_server() as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server) -> Iterator[str]:
    """The URL of an empty place in a bucket, which this process finds as it finds Amazon's."""
    with environment_of(s3_server):
        yield f"s3://{s3_server.make_bucket()}/some/prefix"
