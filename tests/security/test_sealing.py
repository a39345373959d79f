"""Encryption of what the store keeps: what is encrypted, for whom it opens, and what those without the key meet."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Iterator
from contextlib import suppress
from hashlib import blake2b
from typing import Any

import anthropic
import pytest
import redis
from celery import Celery, chain, chord

from claude_batch_tasks import BatchJob, adopt, ask, run_batch
from claude_batch_tasks.api import clients
from claude_batch_tasks.compression import zstd
from claude_batch_tasks.errors import InvalidSettings, KeyMissing, PayloadDamaged, StoreUnavailable
from claude_batch_tasks.settings import Settings, from_environment
from claude_batch_tasks.simulator import Fault, Simulator
from claude_batch_tasks.store import open_store
from claude_batch_tasks.store.encryption import Cipher
from tests.factories import make_params
from tests.support import FAST

A, B = (base64.b64encode(bytes([n]) * 32).decode() for n in (250, 251))
PROMPT, ID = "prompt-never-to-be-seen", "id-never-to-be-seen"


class TestAKey:
    def test_is_read_as_openssl_and_as_python_make_it(self) -> None:
        raw = b"\xfb\xff" * 16
        for text in (base64.b64encode(raw).decode(), base64.urlsafe_b64encode(raw).decode() + "\n"):
            assert (
                Cipher([base64.b64encode(raw).decode()]).decrypt(Cipher([text]).encrypt(b"x", "here"), "here") == b"x"
            )

    @pytest.mark.parametrize(
        "given", ["too-short", "", f"{A},", f"{A[:-4]}", f"{A}{A}", [A, None], 17, [17], "é" * 44, A.encode()]
    )
    def test_that_makes_no_sense_is_refused_and_not_shown(self, given: Any) -> None:
        with pytest.raises(InvalidSettings, match="openssl rand -base64 32") as caught:
            Settings(encryption_key=given)
        assert A[:10] not in str(caught.value)
        assert "too-short" not in str(caught.value)

    def test_may_be_several(self) -> None:
        assert Settings(encryption_key=[A, B]).encryption_key == (A, B)  # type: ignore[arg-type]
        found = from_environment({"CLAUDE_BATCH_ENCRYPTION_KEY": f"{A}, {B}"})
        assert found == {"claude_batch_encryption_key": (A, B)}

    def test_is_in_no_repr_and_neither_is_a_password(self) -> None:
        settings = Settings(encryption_key=(A,), store_url="redis://:PASSWORD@host:6379/0")
        assert A not in repr(settings)
        assert "PASSWORD" not in repr(settings)

    def test_is_no_option_of_a_job(self) -> None:
        with pytest.raises(InvalidSettings, match="encryption_key"):
            Settings().override({"encryption_key": A})


class TestAPiece:
    def test_opens_with_its_key_in_its_place(self) -> None:
        piece = Cipher([A]).encrypt(b"text", "here")
        assert b"text" not in piece
        assert Cipher([A]).decrypt(piece, "here") == b"text"

    def test_is_never_the_same_twice(self) -> None:
        assert Cipher([A]).encrypt(b"text", "here") != Cipher([A]).encrypt(b"text", "here")

    def test_opens_while_keys_are_changed(self) -> None:
        old, new = Cipher([A]).encrypt(b"old", "here"), Cipher([B, A]).encrypt(b"new", "here")
        for keys in ([A, B], [B, A]):
            assert (Cipher(keys).decrypt(old, "here"), Cipher(keys).decrypt(new, "here")) == (b"old", b"new")
        with pytest.raises(KeyMissing):
            Cipher([A]).decrypt(new, "here")

    def test_of_before_there_was_a_key_is_readable(self) -> None:
        plain = zstd.compress(b"text")
        assert Cipher([A]).decrypt(plain, "here") == plain
        assert Cipher().encrypt(plain, "here") == plain

    @pytest.mark.parametrize(("keys", "why"), [([], "is not set here"), ([B], "has others here")])
    def test_without_its_key_says_what_to_set_and_that_it_is_kept(self, keys: list[str], why: str) -> None:
        with pytest.raises(KeyMissing) as caught:
            Cipher(keys).decrypt(Cipher([A]).encrypt(b"text", "here"), "here")
        assert isinstance(caught.value, StoreUnavailable)
        assert f"claude_batch_encryption_key {why}" in str(caught.value)
        assert "Nothing was deleted" in str(caught.value)

    @pytest.mark.parametrize("at", [-1, 20, 30])
    def test_that_was_changed_does_not_open(self, at: int) -> None:
        piece = bytearray(Cipher([A]).encrypt(b"a longer text", "here"))
        piece[at] ^= 1
        with pytest.raises(PayloadDamaged):
            Cipher([A]).decrypt(bytes(piece), "here")

    def test_that_was_cut_or_moved_does_not_open(self) -> None:
        piece = Cipher([A]).encrypt(b"a longer text", "here")
        for given, place in ((piece, "there"), (piece[:25], "here"), (piece[:-1], "here")):
            with pytest.raises(PayloadDamaged):
                Cipher([A]).decrypt(given, place)


def values(client: redis.Redis) -> Iterator[tuple[str, bytes]]:
    """Everything a Redis holds, each value under its key; what is packed, unpacked."""
    for name in client.scan_iter(count=1000):
        key = name.decode()
        kind = client.type(name)
        found: Any = {
            b"string": lambda name=name: [client.get(name)],
            b"list": lambda name=name: client.lrange(name, 0, -1),
            b"hash": lambda name=name: [part for pair in client.hgetall(name).items() for part in pair],
            b"zset": lambda name=name: client.zrange(name, 0, -1),
            b"set": lambda name=name: client.smembers(name),
            b"none": list,  # it has expired since
        }[kind]()
        for value in found:
            yield key, value
            with suppress(zstd.ZstdError):
                yield key, zstd.decompress(value)


def make_app(url: str, *keys: str) -> Celery:
    app = Celery("sealed", broker=url, backend=url, set_as_current=False)
    app.conf.update({name.lower(): float(value) for name, value in FAST.items()})
    # Results that are still held when their Redis has ended must not look for it for twenty seconds each.
    patience = {"retry_policy": {"max_retries": 1, "interval_start": 0, "interval_step": 0, "interval_max": 0}}
    app.conf.result_backend_transport_options = patience
    app.conf.update(task_always_eager=True, claude_batch_encryption_key=keys or None)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    return app


class TestAJob:
    @pytest.fixture
    def keyed(self, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Celery]:
        monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-eager")
        clients._client.cache_clear()  # another test's, whose server is gone
        app = make_app(redis_url, A)
        app.set_current()
        yield app
        clients._client.cache_clear()
        app.close()

    def requests(self) -> dict[str, Any]:
        content = f"{PROMPT} {os.urandom(4).hex()}"
        params = make_params(content, max_tokens=9)
        return {f"{ID} {i}": params for i in range(20)}

    def test_leaves_nothing_readable_in_the_store(
        self, keyed: Celery, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Simulator("partial") as simulator:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
            result = run_batch.delay(self.requests(), retries=1)
            elsewhere = [
                {"custom_id": f"{ID}-{n}", "params": params} for n, params in enumerate(self.requests().values())
            ]
            with anthropic.Anthropic() as client:
                adopted = adopt(client.messages.batches.create(requests=elsewhere).id)  # type: ignore[arg-type]
        job = BatchJob(result.id, keyed)
        rows = list(job.results())
        assert {row.source for row in rows} >= {"batch", "messages"}
        assert len(rows) == 20
        assert all(PROMPT in row.text for row in rows if row.type == "succeeded")
        assert job.result(f"{ID} 3") in rows
        assert len(list(job.requests())) == 20

        assert BatchJob(adopted.id, keyed).result(f"{ID}-3").custom_id == f"{ID}-3"

        held = list(values(redis.Redis.from_url(redis_url)))
        digests = [blake2b(f"{ID}{sep}{i}".encode(), digest_size=8).digest() for i in range(20) for sep in " -"]
        assert any(key.endswith(":outcomes") for key, _ in held)
        assert any(":index:" in key and adopted.id in key for key, _ in held)
        for key, value in held:
            for text in (PROMPT.encode(), ID.encode(), A.encode(), *digests):
                assert text not in value, key

    def test_is_read_by_those_with_the_key_only(
        self, keyed: Celery, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with Simulator() as simulator:
            monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
            result = run_batch.delay(self.requests())
        for keys in ((), (B,)):
            other = make_app(redis_url, *keys)
            job = BatchJob(result.id, other)
            assert job.status().state == "completed"
            with pytest.raises(KeyMissing, match="claude_batch_encryption_key"):
                next(iter(job.results()))
            with pytest.raises(KeyMissing):
                job.result(f"{ID} 3")
            other.close()
        changing = make_app(redis_url, B, A)
        assert len(list(BatchJob(result.id, changing).results())) == 20
        changing.close()

    def test_of_before_there_was_a_key_goes_on(
        self, keyed: Celery, redis_url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        keyed.conf.claude_batch_encryption_key = None
        with Simulator() as simulator:
            simulator.faults(Fault("create", "status", status=401, calls=(1,)))
            monkeypatch.setenv("ANTHROPIC_BASE_URL", simulator.url)
            result = run_batch.apply_async((self.requests(),), {"fallback": "off"}, throw=False)
            keyed.conf.claude_batch_encryption_key = A
            BatchJob(result.id, keyed).resume()
        assert len(list(BatchJob(result.id, keyed).results())) == 20
        client = redis.Redis.from_url(redis_url)
        found = json.dumps([[key, PROMPT.encode() in value] for key, value in values(client)])
        assert ':body", true' in found
        assert ':rows:1", true' not in found


class TestAnAsk:
    @pytest.fixture
    def asking(self, redis_url: str) -> Iterator[Celery]:
        app = make_app(redis_url, A)
        app.conf.task_always_eager = False
        app.set_current()
        yield app
        app.close()

    def test_leaves_nothing_readable_of_those_that_follow_it(self, asking: Celery, redis_url: str) -> None:
        question = make_params(PROMPT, max_tokens=9)
        chained = chain(ask.s(question).set(link=ask.si(question)), ask.si(question)).apply_async()
        joined = chord([ask.s(question), ask.s(question)], ask.si(question)).apply_async()
        for key, value in values(redis.Redis.from_url(redis_url)):
            assert PROMPT.encode() not in value, key
            with suppress(ValueError):
                assert PROMPT.encode() not in base64.b64decode(value), key
        asked = [chained.parent.id, *(each.id for each in joined.parent.results)]
        read = open_store(Settings.of(asking)).asks.read_places(asked, with_canvas=True)
        assert [found is not None and PROMPT in found.canvas for found in read] == [True] * 3

    def test_shows_its_state_without_the_key_and_what_follows_it_with_it(self, asking: Celery, redis_url: str) -> None:
        result = ask.apply_async((make_params(PROMPT),), link=ask.si(make_params(PROMPT)))
        other = make_app(redis_url, B)
        other.conf.task_always_eager = False
        assert other.tasks[ask.name].AsyncResult(result.id).state == "PROGRESS"
        with pytest.raises(KeyMissing):
            open_store(Settings.of(other)).asks.read_places([result.id], with_canvas=True)
        other.close()

    def test_of_before_there_was_a_key_is_read(self, asking: Celery) -> None:
        asking.conf.claude_batch_encryption_key = None
        result = ask.apply_async((make_params(PROMPT),), link=ask.si(make_params(PROMPT)))
        asking.conf.claude_batch_encryption_key = A
        [found] = open_store(Settings.of(asking)).asks.read_places([result.id], with_canvas=True)
        assert found is not None
        assert PROMPT in found.canvas
