"""What the parts of a Redis store have in common: the client, the clock, the cipher, and how outages are reported."""

from __future__ import annotations

from typing import Any

import redis

from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.store.answering import make_answering
from claude_batch_tasks.store.clock import StoreClock
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.packing import Packer
from claude_batch_tasks.store.record_encoding import _Record, decode_hashes, read_record
from claude_batch_tasks.store.redis.keys import first_key, job_key
from claude_batch_tasks.store.redis.schema import open_schema
from claude_batch_tasks.store.redis.scripts import Script


class Connection:
    """A server that holds a store.

    Args:
        client: one that does not decode responses.
        where: what error messages call the server; no password.
        cipher: encrypts chunks.
    """

    def __init__(self, client: redis.Redis, where: str, cipher: Cipher) -> None:
        # Typed loosely: redis-py types each reply as bytes or str, whichever the client decodes.
        self.client: Any = client
        self.where = where
        self.cipher = cipher
        self.packer = Packer(cipher)
        #: What the client puts in front of all keys but those in arguments of scripts.
        self.prefix: str = getattr(client, "key_prefix", "")
        self.clock = StoreClock(self._read_time)
        self._opened = False

    def open(self) -> None:
        """See, once, that this release can use the store, and bring the store up to date."""
        if not self._opened:
            open_schema(self.client, self.where)
            self._opened = True

    def open_marked(self) -> None:
        """Use the store although it is marked: its jobs are copied."""
        try:
            open_schema(self.client, self.where, marked=True)
        except redis.RedisError as exc:
            raise self.unavailable(exc) from exc
        self._opened = True

    def now(self) -> float:
        """Return the time by Redis' clock, epoch seconds."""
        return self.clock.now()

    def unavailable(self, exc: Exception) -> StoreUnavailable:
        """Return the error for what prevented the server from answering."""
        return StoreUnavailable(f"the store at {self.where} did not answer: {type(exc).__name__}: {exc}")

    def is_first(self, name: str, ttl: float) -> bool:
        """Return whether the caller is the first of all who ask for that name within ``ttl`` seconds."""
        return bool(self.client.set(first_key(name), b"", nx=True, px=int(ttl * 1000)))

    def expire_with_job(self, job_id: str, *keys: str) -> None:
        """Let keys expire with their job, if that is over (revoked, most likely) and will expire."""
        if (left := self.client.pttl(job_key(job_id))) > 0:
            for key in keys:
                self.client.pexpire(key, left)

    def _read_time(self) -> float:
        try:
            self.open()
            seconds, microseconds = self.client.time()
        except redis.RedisError as exc:
            raise self.unavailable(exc) from exc
        return float(seconds + microseconds / 1e6)


class Part:
    """A part of a Redis store."""

    _hashes = Script("read_records")

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._redis = connection.client

    def _read_record(self, cls: type[_Record], key: str) -> _Record | None:
        """Return the record that is at a key; None: it is gone."""
        return read_record(cls, self._read_hashes(key)[0])

    def _read_hashes(self, *keys: str) -> list[dict[str, str]]:
        """Return the fields of hashes; none of one that is not there."""
        return decode_hashes(self._hashes(keys=keys))


answering = make_answering(redis.RedisError)
