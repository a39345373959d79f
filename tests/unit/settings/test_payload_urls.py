"""The URL of an object store."""

from __future__ import annotations

import pytest

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings


@pytest.mark.parametrize(
    ("given", "used"),
    [
        ("s3://bucket", "s3://bucket"),
        ("s3://my.bucket-1/some/prefix/", "s3://my.bucket-1/some/prefix"),
        ("gs://bucket/a=b_c.d", "gs://bucket/a=b_c.d"),
        ("az://container/prefix", "az://container/prefix"),
        ("file:///var/lib/claude-batch/", "file:///var/lib/claude-batch"),
        (None, None),
    ],
)
def test_is_used_without_a_slash_at_its_end(given: str | None, used: str | None) -> None:
    assert Settings(payload_url=given).payload_url == used


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("file://relative/folder", "by its whole path, with three slashes"),
        ("file:folder", "by its whole path"),
        ("bucket/prefix", "must be s3://bucket/prefix, gs://"),
        ("https://bucket.s3.amazonaws.com", "must be s3://bucket/prefix, gs://"),
        ("s3:///prefix", "must name a bucket"),
        ("az://", "must name a container"),
        ("s3://bucket/a b", "may have letters, digits"),
        ("s3://bucket/a//b", "may have letters, digits"),
        ("file:///var/../etc", "may have letters, digits"),
    ],
)
def test_that_is_none_is_refused(given: str, words: str) -> None:
    with pytest.raises(InvalidSettings) as caught:
        Settings(payload_url=given)
    assert words in str(caught.value)
    assert given in str(caught.value)


@pytest.mark.parametrize("given", ["s3://key:secret@bucket/x", "az://container/x?sig=secret", "gs://bucket#secret"])
def test_with_credentials_is_refused_and_not_shown(given: str) -> None:
    with pytest.raises(InvalidSettings, match="credentials and options come from the environment") as caught:
        Settings(payload_url=given)
    assert "secret" not in str(caught.value)
