"""The line that ``doctor`` prints for a Redis user who may not do enough: applied to the letter, it is enough."""

from __future__ import annotations

import logging
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import redis
from celery import Celery

import claude_batch_tasks
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.doctor import servers
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.store.redis import open_store_at
from claude_batch_tasks.store.redis.parts.inspection import PROBES

STORE = Path(claude_batch_tasks.__file__).parent / "store"
SENT_BY_LUA = set(re.findall(r"redis\.p?call\('(\w+)'", "".join(p.read_text() for p in STORE.rglob("*.lua"))))
PASSWORD = "a-password-never-to-be-seen"


def problems_of(url: str, prefix: str) -> list[Finding]:
    """Return what ``doctor`` finds wrong with a store."""
    app = Celery(broker="memory://", backend="disabled://", set_as_current=False)
    app.conf.update(claude_batch_store_url=url, claude_batch_store_prefix=prefix)
    return [one for one in servers.check_servers(app) if one.level > logging.INFO and "E103" in one.id]


def in_lua(command: str) -> str:
    """Return a script that sends the command."""
    quoted = ", ".join(f"'{part}'" for part in command.split())
    return f"return redis.pcall({quoted})"


def answer(client: redis.Redis, *command: Any) -> str:
    """Return what the server says to a command, be it an error."""
    try:
        return str(client.execute_command(*command))
    except redis.exceptions.NoPermissionError as exc:
        return f"NOPERM {exc}"
    except redis.ResponseError as exc:
        return str(exc)


@pytest.mark.parametrize(
    "rules",
    ["-@all", "~claude_batch* -@all", "~claude_batch* +@all -exec", "~claude_batch* +@all -multi -exec -script"],
)
@pytest.mark.parametrize(("database", "prefix"), [(0, ""), (3, ""), (3, "shop:")])
def test_the_line_is_sufficient(rules: str, database: int, prefix: str, redis_server: RedisServer) -> None:
    with redis_server.client() as root:
        root.flushall()
        root.execute_command("ACL", "DELUSER", "batches")
        root.execute_command("ACL", "SETUSER", "batches", "on", f">{PASSWORD}", "resetkeys", *rules.split())
        url = f"redis://batches:{PASSWORD}@127.0.0.1:{redis_server.port}/{database}"
        [found] = problems_of(url, prefix)
        assert found.id == "claude_batch.E103"
        assert found.hint.startswith(f"ACL SETUSER batches ~{prefix}claude_batch* ")
        root.execute_command(*shlex.split(found.hint))
        assert problems_of(url, prefix) == []
        client = redis.Redis.from_url(url)
        for probe in PROBES.split("|"):
            command = probe.strip().format(key=f"{prefix}claude_batch:x")
            assert "NOPERM" not in answer(client, *command.split()), command
            if command.split()[0] in SENT_BY_LUA:
                said = answer(client, "EVALSHA", root.script_load(in_lua(command)), 0)
                assert not re.search("permission|can't run this", said), command
        store = open_store_at(url, (), prefix)
        store.check_schema()
        assert list(store.jobs.job_ids()) == []
        with pytest.raises(redis.exceptions.NoPermissionError):
            client.get("another")
