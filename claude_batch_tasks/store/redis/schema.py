"""Which release's store this is, and what brings one that an earlier release has written up to date.

Releases share a store while one replaces the other, so it has two numbers; a process can raise them and not lower them.
``version`` says what has been done to it: a process that knows of more does the rest, when it first uses the store.
``least`` is what a process must know to work on it at all. It is raised only where an earlier release would do harm,
which its release notes then say; a new key or field is none, since each release leaves alone what it does not know.
"""

from __future__ import annotations

from itertools import islice
from typing import Any

import msgspec

from claude_batch_tasks.errors import StoreTooNew
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.store.redis.keys import JOBS, MOVED, SCHEMA, SUBMITTED_AT, job_key, job_of
from claude_batch_tasks.store.transfer.items import Mark
from claude_batch_tasks.store.transfer.marks import CLOSED, describe_mark

log = get_logger(__name__)

#: What this release makes of a store, and which releases may work beside it: all.
VERSION, LEAST = 2, 1

#: Keys that are read in one go.
_PAGE = 500


def open_schema(client: Any, where: str, *, marked: bool = False) -> None:
    """See that a store can be used, and bring it up to date.

    Args:
        marked: also one that is marked.

    Raises:
        StoreTooNew: it is not for this release; nothing was changed.
        StoreMoved: it is marked.
    """
    version, least = (int(number or 1) for number in client.zmscore(SCHEMA, ["version", "least"]))
    if least >= CLOSED and not marked:
        raise describe_mark(read_mark(client), where)
    if least % CLOSED > VERSION:
        raise StoreTooNew(
            f"the store at {where} was written by a newer release of claude-batch-tasks (schema {version}; this one "
            f"knows {VERSION}): upgrade it here too. Nothing was read or changed"
        )
    if version < VERSION:
        client.zadd(SCHEMA, {"least": LEAST}, gt=True)
        for migrate in _MIGRATIONS[version - 1 :]:
            migrate(client)
        client.zadd(SCHEMA, {"version": VERSION}, gt=True)
        if client.exists(JOBS):  # an empty store has nothing to tell
            log.info("the store at %s was migrated from schema %d to %d", where, version, VERSION)


def read_mark(client: Any) -> Mark | None:
    """Return what says that the store is not to be used; None: nothing does."""
    found = client.get(MOVED)
    return msgspec.json.decode(found, type=Mark) if found else None


def set_mark(client: Any, mark: Mark | None) -> None:
    """Mark the store; None: remove the mark. Earlier releases learn of it by what they must know."""
    least = int(client.zscore(SCHEMA, "least") or LEAST) % CLOSED
    with client.pipeline(transaction=True) as pipe:
        if mark is None:
            pipe.zadd(SCHEMA, {"least": least})
            pipe.delete(MOVED)
        else:
            pipe.zadd(SCHEMA, {"least": CLOSED + least})
            pipe.set(MOVED, msgspec.json.encode(mark))
        pipe.execute()


def list_jobs(client: Any) -> None:
    """List all jobs there are, by when they were submitted; from 1 to 2 none were."""
    keys = client.scan_iter(match=job_key("*"), count=1000)
    while some := list(islice(keys, _PAGE)):
        with client.pipeline(transaction=False) as pipe:
            for key in some:
                pipe.hget(key, SUBMITTED_AT)
            submitted = zip(some, pipe.execute(), strict=True)
        jobs = {job_of(key.decode()): float(at) for key, at in submitted if at is not None}
        if jobs:
            client.zadd(JOBS, jobs, nx=True)


#: Each may run again at any time, by several at once, after one that died in the middle, and beside earlier releases.
_MIGRATIONS = (list_jobs,)
