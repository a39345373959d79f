"""An object store that is down, refuses, is slow, or breaks off in the middle: an outage, and never an absence."""

from __future__ import annotations

import re
import resource
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import fakeredis
import pytest

from claude_batch_tasks.embedded import free_port
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store import Store
from claude_batch_tasks.store.objects import client
from claude_batch_tasks.store.objects.bucket import MARKER, Bucket
from claude_batch_tasks.store.objects.store import with_objects
from claude_batch_tasks.store.redis import RedisStore
from tests.s3_server import SECRET, S3Server, environment_of
from tests.unit.store.contract.samples import JOB, batch_record, body_of, create_job, job_record, make_chunk


class Weather:
    """A proxy in front of an S3 server that answers some requests itself, or cuts them.

    ``rules``: pairs of what the first line of a request matches, and what happens to it: a status, ``cut`` (its answer
    breaks off in the middle) or ``drop`` (the connection is closed before the whole request was sent on).
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)
        self.port: int = self._listener.getsockname()[1]
        self.rules: list[tuple[str, str | int]] = []
        self.seen: list[str] = []
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one request: each connection is closed after its answer."""
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                if not (data := connection.recv(65536)):
                    return
                head += data
            line = head.split(b"\r\n")[0].decode()
            self.seen.append(line)
            what = next((what for pattern, what in self.rules if re.search(pattern, line)), None)
            if what == "drop":
                return
            if isinstance(what, int):
                self._drain(connection, head)
                reason = b"<Error><Code>SlowDown</Code><Message>Reduce your request rate.</Message></Error>"
                if what == 404:
                    reason = b"<Error><Code>NoSuchKey</Code></Error>"
                answer = b"HTTP/1.1 %d X\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % (what, len(reason))
                connection.sendall(answer + reason)
                return
            head = re.sub(rb"(?i)\r\nconnection: [^\r]*", b"", head).replace(b"\r\n", b"\r\nconnection: close\r\n", 1)
            with socket.create_connection(("127.0.0.1", self._port)) as server:
                server.sendall(head)
                threading.Thread(target=self._pump, args=(connection, server), daemon=True).start()
                answer = b""
                while data := server.recv(65536):
                    answer += data
                if what == "cut":
                    body = answer.index(b"\r\n\r\n") + 4
                    answer = answer[: body + (len(answer) - body) // 2]
                connection.sendall(answer)
            connection.shutdown(socket.SHUT_RDWR)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)

    def _drain(self, connection: socket.socket, head: bytes) -> None:
        length = re.search(rb"(?i)content-length: (\d+)", head)
        left = int(length[1]) - len(head.split(b"\r\n\r\n", 1)[1]) if length else 0
        while left > 0 and (data := connection.recv(65536)):
            left -= len(data)


@pytest.fixture
def weather(s3_server: S3Server) -> Iterator[Weather]:
    weather = Weather(s3_server.port)
    with environment_of(s3_server, weather.url):
        yield weather
    weather.close()


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(client._RETRIES, "max_retries", 1)


OpenAt = Callable[[], Store]


@pytest.fixture
def bucket(s3_server: S3Server) -> str:
    return s3_server.make_bucket()


@pytest.fixture
def open_at(bucket: str) -> OpenAt:
    redis_server = fakeredis.FakeServer()
    url = f"s3://{bucket}/prefix"

    def open_at() -> Store:
        return with_objects(RedisStore(fakeredis.FakeRedis(server=redis_server), "the test's server"), url)

    return open_at


@pytest.fixture
def store(open_at: OpenAt, weather: Weather) -> Store:
    """A store with a job of two chunks, of a megabyte each; another process reads it."""
    store = open_at()
    text = secrets.token_hex(500_000)
    create_job(store, job_record(batches=1), [batch_record()], make_chunk(0, "a", text), make_chunk(0, "b"))
    return open_at()


class TestReading:
    @pytest.mark.parametrize("what", [503, 500, 429, 403, "drop", "cut"])
    def test_is_an_outage(self, store: Store, weather: Weather, what: str | int) -> None:
        weather.rules = [("GET .*/bodies", what)]
        with pytest.raises(StoreUnavailable, match="the object store at s3://"):
            list(store.payloads.read_bodies(JOB, 0))
        weather.rules = []
        assert list(store.payloads.read_bodies(JOB, 0))[1] == body_of("b")

    def test_says_what_the_server_said(self, store: Store, weather: Weather) -> None:
        weather.rules = [("GET .*/bodies", 503)]
        with pytest.raises(StoreUnavailable, match=r"status 503"):
            list(store.payloads.read_bodies(JOB, 0))

    def test_waits_while_the_server_is_slow_for_a_moment(self, store: Store, weather: Weather) -> None:
        weather.rules = [("GET .*/bodies", 503)]
        threading.Timer(0.05, weather.rules.clear).start()
        assert len(list(store.payloads.read_bodies(JOB, 0))) == 2

    def test_takes_no_404_for_an_absence_while_the_bucket_says_404(self, store: Store, weather: Weather) -> None:
        weather.rules = [(".", 404)]
        with pytest.raises(StoreUnavailable):
            list(store.payloads.read_bodies(JOB, 0))
        with pytest.raises(StoreUnavailable):
            store.storage.missing_keys(JOB, 0, ["body"])


class TestWriting:
    @pytest.mark.parametrize("what", [503, 403, "drop"])
    @pytest.mark.parametrize("which", [r"POST .*\?uploads", "PUT .*partNumber=2", r"POST .*\?uploadId"])
    def test_is_an_outage_and_leaves_no_object(
        self, store: Store, weather: Weather, s3_server: S3Server, bucket: str, what: str | int, which: str
    ) -> None:
        weather.rules = [(which, what)]
        with pytest.raises(StoreUnavailable, match="the object store at s3://"):
            store.results.write_rows(JOB, 0, 1, (secrets.token_bytes(1_000_000) for _ in range(12)))
        assert any(re.search(which, line) for line in weather.seen)
        weather.rules = []
        assert not [key for key in s3_server.list_keys(bucket) if key.endswith("/rows")]
        store.results.write_rows(JOB, 0, 2, [b"row"])
        assert list(store.results.read_rows(JOB, 0, 2)) == [b"row"]

    def test_of_a_small_object_is_an_outage(self, store: Store, weather: Weather) -> None:
        weather.rules = [("PUT .*/rows", 503)]
        with pytest.raises(StoreUnavailable, match="503"):
            store.results.write_rows(JOB, 0, 1, [b"row"])


class TestABucket:
    def test_that_is_gone_is_an_outage(self, s3_server: S3Server, s3_url: str) -> None:
        bucket = Bucket(s3_url.replace("bucket-", "no-bucket-"))
        for act in (
            lambda: bucket.put("a", b"x"),
            lambda: bucket.size("a"),
            lambda: bucket.read("a", 0, 1),
            lambda: bucket.list("a"),
            lambda: bucket.remove(["a"]),
        ):
            with pytest.raises(StoreUnavailable) as caught:
                act()
            assert bucket.url in str(caught.value)

    def test_that_refuses_the_credentials_shows_none(
        self, s3_url: str, weather: Weather, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_SESSION_TOKEN", "a-session-token")
        weather.rules = [(".", 403)]
        with pytest.raises(StoreUnavailable, match=r"PermissionDeniedError.*403") as caught:
            Bucket(s3_url).put("a", b"x")
        assert caught.value.__cause__ is None
        assert caught.value.__suppress_context__
        for secret in (SECRET, "AKIA", "a-session-token", "X-Amz"):
            assert secret not in str(caught.value)

    def test_that_does_not_answer_is_waited_for_no_longer_than_a_minute(
        self, s3_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{free_port()}")
        began = time.monotonic()
        with pytest.raises(StoreUnavailable):
            Bucket(s3_url).list("a")
        assert time.monotonic() - began < 10
        slowest = client._CLIENT["timeout"] + client._RETRIES["retry_timeout"]
        assert slowest.total_seconds() <= 60

    def test_without_obstore_says_what_to_install(self, s3_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "obstore", None)
        with pytest.raises(StoreUnavailable, match=r"pip install 'claude-batch-tasks\[obstore\]'"):
            Bucket(s3_url).list("a")


class TestTheReason:
    """What an operator is shown of an outage."""

    def test_is_that_of_the_operating_system(self, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch()
        for path, reason in ((file, "Not a directory"), (tmp_path / "not there", "No such file or directory")):
            with pytest.raises(StoreUnavailable, match=f"did not answer: GenericError .{reason}"):
                Bucket(f"file://{path}").put("a", b"x")

    def test_is_that_of_a_disk_that_takes_no_more(self, tmp_path: Path) -> None:
        limits, data = resource.getrlimit(resource.RLIMIT_FSIZE), secrets.token_bytes(2_000_000)
        bucket = Bucket(f"file://{tmp_path}")
        bucket.mark()
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, limits[1]))
        try:
            with pytest.raises(StoreUnavailable, match="File too large"):
                bucket.put("a", data)
            with pytest.raises(StoreUnavailable, match="File too large"), bucket.open_writer("b") as writer:
                writer.write(data)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert [path.name for path in tmp_path.iterdir()] == [MARKER]

    @pytest.mark.parametrize(
        ("url", "reason"),
        [("http://127.0.0.1:1", "Connection refused"), ("http://a-name.invalid", "dns error")],
    )
    def test_is_that_of_the_network(self, s3_url: str, monkeypatch: pytest.MonkeyPatch, url: str, reason: str) -> None:
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        with pytest.raises(StoreUnavailable, match=reason):
            Bucket(s3_url).put("a", b"x")

    def test_is_that_there_are_no_credentials(self, monkeypatch: pytest.MonkeyPatch, weather: Weather) -> None:
        weather.rules = [(".", 404)]
        monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://169.254.1.1.invalid/")
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.delenv(name)
        with pytest.raises(StoreUnavailable, match="no credentials in the environment"):
            Bucket("s3://bucket/prefix").put("a", b"x")

    def test_is_that_no_account_is_named(self) -> None:
        with pytest.raises(StoreUnavailable, match="Account must be specified"):
            Bucket("az://container/prefix").put("a", b"x")


def test_threads_share_a_store(open_at: OpenAt, weather: Weather) -> None:
    store = open_at()
    found: list[bool] = []

    def use(number: int) -> None:
        job_id = f"job-{number}"
        create_job(store, job_record(batches=1), [batch_record()], make_chunk(0, f"{number}"), job_id=job_id)
        found.append(list(store.payloads.read_bodies(job_id, 0)) == [body_of(f"{number}")])

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert found == [True] * 8
