"""What ``record`` wrote, put into a Redis and a simulator of today."""

from __future__ import annotations

import base64
import gzip
import json
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import anthropic

from claude_batch_tasks import api
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.simulator import Outcome, Simulator

KEY = "sk-ant-test-key-never-to-be-seen"

#: What one of the recorded jobs is encrypted with, and the queues that recorded jobs are in.
ENCRYPTION_KEY = "bm9ib2R5IHdpbGwgZXZlciB3YW50IHRvIHJlYWQgaXQ="
QUEUES = "celery,sealed,nobody"

#: Longer than a test takes, seconds.
NEVER = 3600

#: No time in a store is further away than this from the moment it was recorded, and no other number as near: seconds.
_NEAR = 40 * 86_400
_NUMBER = re.compile(r"\b\d{10}(?:\.\d+)?\b")
_NONCE = re.compile(r'"nonce",\s+"\\"(\w+)\\""')


@dataclass
class Dump:
    """A recorded store, its jobs by what they were in the middle of, and what the Messages API had answered by then."""

    jobs: dict[str, str]
    batches: int
    answered: list[str]


def load(path: Path, redis: RedisServer, simulator: Simulator) -> Dump:
    """Put all of it where it was; every time is as long ago as it was then."""
    now, text = time.time(), gzip.decompress(path.read_bytes()).decode()
    recorded = json.loads(text)
    for then, today in {**_batches(recorded, simulator), **_credentials(text, recorded["url"], simulator.url)}.items():
        assert then in text
        text = text.replace(then, today)
    _fill(redis, json.loads(text)["redis"], recorded["taken_at"], now - recorded["taken_at"])
    return Dump(recorded["jobs"], len(recorded["batches"]), recorded["answered"])


def _batches(recorded: dict[str, Any], simulator: Simulator) -> dict[str, str]:
    """Create the batches; the ids they had, and have."""
    ids, client = {}, _client(simulator.url)
    for batch in recorded["batches"]:
        simulator.behave(
            processing_seconds=0 if batch["ended"] else NEVER,
            cancel_seconds=NEVER,
            outcomes=[Outcome("expired", count=batch["expired"])] if batch["expired"] else [],
        )
        body = batch["body"].encode()
        ids[batch["id"]] = api.create_batch(client, [body], len(body)).id
        if batch.get("canceling"):
            api.cancel_batch(client, ids[batch["id"]], timeout=60)
    simulator.behave(processing_seconds=0.1, cancel_seconds=0.5, outcomes=[])
    return ids


def _credentials(text: str, then: str, today: str) -> dict[str, str]:
    """The hashes of the credential, of which the API's address is a part."""
    before, after = _client(then), _client(today)
    hashes = {api.account_name(before): api.account_name(after)}
    for nonce in _NONCE.findall(text):
        if (known := api.hash_credential(before, nonce)) in text:  # of a job that has sent something
            hashes[known] = api.hash_credential(after, nonce)
    assert len(hashes) > 1
    return hashes


def _client(url: str) -> anthropic.Anthropic:
    return anthropic.Anthropic(base_url=url, api_key=KEY, max_retries=0)


def _fill(redis: RedisServer, keys: list[dict[str, Any]], taken_at: float, later: float) -> None:
    client: Any = redis.client()

    def moved(number: float) -> float:
        return number + later if abs(number - taken_at) < _NEAR else number

    def plain(value: Any) -> Any:
        if isinstance(value, list):
            return [plain(part) for part in value]
        if isinstance(value, dict):
            return base64.b64decode(value["base64"])
        if isinstance(value, str):
            return _NUMBER.sub(lambda found: repr(moved(float(found[0]))), value)
        return moved(value)

    for entry in keys:
        key, value = entry["key"], plain(entry["value"])
        if entry["type"] == "string":
            client.set(key, value)
        elif entry["type"] == "list":
            client.rpush(key, *value)
        elif entry["type"] == "set":
            client.sadd(key, *value)
        elif entry["type"] == "hash":
            client.hset(key, mapping=dict(value))
        else:
            client.zadd(key, dict(value))
        if entry["ttl"]:
            client.pexpire(key, entry["ttl"])
