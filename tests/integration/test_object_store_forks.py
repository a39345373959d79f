"""Processes that fork, and use an object store: the client's threads do not survive a fork."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store.objects import helper
from claude_batch_tasks.store.objects.bucket import Bucket
from tests.s3_server import S3Server, environment_of, run_s3_server
from tests.support import inherited


@pytest.fixture(scope="module")
def s3_server() -> Iterator[S3Server]:
    with run_s3_server() as server:
        yield server


@pytest.fixture
def s3_url(s3_server: S3Server) -> Iterator[str]:
    with environment_of(s3_server):
        yield f"s3://{s3_server.make_bucket()}/prefix"


FORKED = """
import os, sys, time
from claude_batch_tasks.store.objects import helper
from claude_batch_tasks.store.objects.bucket import Bucket

url, first = sys.argv[1:]
bucket = Bucket(url)
if first == "parent uses it":
    bucket.put("parent", b"parent")
pid = os.fork()
if pid == 0:
    bucket.put("child", b"child")
    with bucket.open_writer("stream") as writer:
        for _ in range(7):
            writer.write(os.urandom(1_000_000))
    assert bucket.size("stream") == 7_000_000
    assert bucket.read("child", 1, 3) == b"hi"
    try:
        with bucket.open_writer("broken") as writer:
            writer.write(b"x")
            raise KeyError
    except KeyError:
        pass
    print(sorted(found.path for found in bucket.list("")), helper.needs_helper(), flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
Bucket(url).put("later", b"x")
print(helper.needs_helper(), flush=True)
pid = os.fork()
if pid == 0:
    bucket.remove(["child", "not there"])
    bucket.remove(["stream"])
    print(sorted(found.path for found in bucket.list("")), flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
"""


class TestAProcessThatForks:
    @pytest.mark.parametrize("first", ["parent uses it", "parent does not"])
    def test_and_its_children_have_clients_that_work(self, s3_url: str, first: str) -> None:
        command = [sys.executable, "-c", FORKED, s3_url, first]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=inherited())
        assert done.returncode == 0, done.stderr
        mine = ["parent"] if first == "parent uses it" else []
        by_helper = bool(mine)
        assert done.stdout.splitlines() == [
            f"{sorted(['child', 'claude-batch-objects', 'stream', *mine])} {by_helper}",
            "True",
            str(sorted(["claude-batch-objects", "later", *mine])),
        ]

    def test_goes_on_when_its_helper_was_killed(self, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(helper, "_has_forked", True)
        bucket = Bucket(s3_url)
        bucket.put("a", b"x")
        assert bucket._client is not None
        process = bucket._client[1]._process  # type: ignore[attr-defined]
        process.kill()
        process.wait()
        with pytest.raises(StoreUnavailable, match="helper process has ended"):
            bucket.size("a")
        assert bucket.size("a") == 1

    def test_has_errors_as_they_are(self, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(helper, "_has_forked", True)
        with pytest.raises(StoreUnavailable, match=r"did not answer: FileNotFoundError .status 404, NoSuchBucket"):
            Bucket(s3_url.replace("bucket-", "no-bucket-")).put("a", b"x")
