"""What tests look at in a store beyond its interface: what a job has spent, what is to come, what is left over."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, Protocol

import psycopg
import redis

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import StoreUnavailable
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store, open_store_at
from claude_batch_tasks.store.postgres.migrations import migrate
from claude_batch_tasks.store.redis import schema
from tests.postgres_server import PostgresServer


class Ledger(Protocol):
    """What is in a store."""

    url: str
    """What ``claude_batch_store_url`` is for it."""

    def open(self) -> Store:
        """Return the store."""

    def empty(self) -> None:
        """Forget all jobs."""

    def read_money(self, job_id: str) -> dict[str, int]:
        """Return what a job has spent and reserved of all, and (``fallback_spent``) of the Messages API's share."""

    def count_unfinished(self) -> dict[str, int]:
        """Return how much is still to come, by what it is; nothing where nothing is."""

    def list_due(self) -> list[str]:
        """Return the units for which a message is to come."""

    def find_job(self, job_id: str) -> list[str]:
        """Return what there is of a job, in words; that it was deleted is none of it."""

    def read_bytes(self) -> int:
        """Return how much room all of it takes."""

    def read_payload_bytes(self) -> int:
        """Return how long all requests and results are, as they are stored."""

    def forget_accounts(self) -> None:
        """Forget what calls have shown of accounts: pauses, rate limits, and how long batches took."""

    def forget_owner(self, batch_id: str) -> None:
        """Forget whose a batch at Anthropic is."""

    def forget_ask(self, ask_id: str) -> None:
        """Forget where an ask is."""

    def lose_job(self, job_id: str) -> None:
        """Lose the record of a job, and nothing else of it."""

    def damage_rows(self, job_id: str, batch: int, attempt: int) -> None:
        """Damage the first chunk of a download."""

    def set_record(self, job_id: str, batch: int, **values: object) -> None:
        """Change the record of a batch without its lease."""

    def set_unit(self, unit: Unit, **values: object) -> None:
        """Change the ``position`` or the ``owner`` of a unit."""

    def make_newer(self, newer: bool) -> None:
        """Make it a store that a newer release has made its own, or one of this release again."""

    def find_leftovers(self, submitted: Collection[str], *, disturbed: bool) -> Iterator[str]:
        """Yield, in words, what no job should leave.

        Args:
            submitted: the jobs that a caller was given an id for.
            disturbed: whether something was killed, which may leave what expires.
        """


class ServedLedger(Ledger, Protocol):
    """A store on a server of its own, or on the broker's."""

    def restart(self, *, kill: bool) -> None:
        """Stop and start the store's server, where it is not the broker's."""


class RedisLedger:
    """``Ledger`` on Redis."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client: redis.Redis = redis.Redis.from_url(url)

    def open(self) -> Store:
        return open_store_at(self.url)

    def empty(self) -> None:
        if keys := list(self._client.scan_iter("claude_batch:*", count=1000)):
            self._client.delete(*keys)

    def read_money(self, job_id: str) -> dict[str, int]:
        found = self._client.hgetall(f"claude_batch:{{{job_id}}}:money")
        return {name.decode(): int(value) for name, value in found.items() if name.endswith((b"spent", b"reserved"))}

    def count_unfinished(self) -> dict[str, int]:
        sizes = {name: int(self._client.zcard(f"claude_batch:{name}")) for name in ("due", "waiting", "pools")}
        for key in self._client.scan_iter("claude_batch:account:*:flights", count=1000):
            sizes[key.decode()] = int(self._client.hlen(key))  # type: ignore[arg-type]
        return {name: size for name, size in sizes.items() if size}

    def list_due(self) -> list[str]:
        return [name.decode() for name in self._client.zrange("claude_batch:due", 0, -1)]

    def find_job(self, job_id: str) -> list[str]:
        return [key.decode() for key in self._client.scan_iter(f"claude_batch:{{{job_id}}}*", count=1000)]

    def read_bytes(self) -> int:
        return int(self._client.info("memory")["used_memory"])  # type: ignore[index]

    def read_payload_bytes(self) -> int:
        keys = [key for key in self._client.scan_iter("claude_batch:{*") if self._client.type(key) == b"list"]
        return sum(len(chunk) for key in keys for chunk in self._client.lrange(key, 0, -1))  # type: ignore[union-attr]

    def forget_accounts(self) -> None:
        for part in ("held", "pace:*", "account:*:past"):
            for key in self._client.keys(f"claude_batch:{part}"):  # type: ignore[union-attr]
                self._client.delete(key)

    def forget_owner(self, batch_id: str) -> None:
        assert self._client.delete(f"claude_batch:owner:{batch_id}")

    def forget_ask(self, ask_id: str) -> None:
        assert self._client.delete(f"claude_batch:ask:{ask_id}")

    def lose_job(self, job_id: str) -> None:
        assert self._client.delete(f"claude_batch:{{{job_id}}}:job")

    def damage_rows(self, job_id: str, batch: int, attempt: int) -> None:
        self._client.lset(f"claude_batch:{{{job_id}}}:batch:{batch}:rows:{attempt}", 0, "damaged")

    def set_record(self, job_id: str, batch: int, **values: object) -> None:
        key = f"claude_batch:{{{job_id}}}:batch:{batch}"
        self._client.hset(key, mapping={name: json.dumps(value) for name, value in values.items()})

    def set_unit(self, unit: Unit, **values: object) -> None:
        key, prefix = f"claude_batch:{{{unit.job_id}}}:batch:{unit.batch}", ""
        if unit.batch is None:
            key, prefix = f"claude_batch:{{{unit.job_id}}}:job", "lease:"
        elif unit.lane is not None:
            key, prefix = f"{key}:lanes", f"{unit.lane}:"
        self._client.hset(key, mapping={f"{prefix}{name}": str(value) for name, value in values.items()})

    def find_leftovers(self, submitted: Collection[str], *, disturbed: bool) -> Iterator[str]:
        for key in sorted(self._client.scan_iter("claude_batch:*", count=1000)):
            name = key.decode()
            if name in ("claude_batch:held", "claude_batch:jobs", "claude_batch:schema", "claude_batch:workers"):
                continue  # of all jobs
            if self._client.pttl(key) < 0:
                yield f"{name} never expires"
            # What a killed worker has staged of a pool expires; callers are not killed.
            if ":staging:" in name and (not disturbed or name.partition("{")[2].partition("}")[0] in submitted):
                yield f"{name} is left over"
            if name.endswith((":sent", ":to_send")):
                yield f"{name} is left over"
            if ":rows:" in name:
                found = self._client.hmget(name.partition(":rows:")[0], "published", "rounds")
                used = attempts_used(dict(zip(("published", "rounds"), found, strict=True)))
                if int(name.rpartition(":")[2]) not in used:
                    yield f"{name} is left over; published: {used}"
            if self._client.type(key) == b"hash" and not name.endswith(":outcomes"):
                fields = [name.decode() for name in self._client.hkeys(key)]
                if leases := [field for field in fields if field.rpartition(":")[2] in ("owner", "until")]:
                    yield f"{name} still has a lease: {leases}"
                done = self._client.hget(key, "done")
                if done is not None and json.loads(done) is not True:
                    yield f"{name} is not done"

    def make_newer(self, newer: bool) -> None:
        self._client.delete(schema.SCHEMA)
        if newer:
            self._client.zadd(schema.SCHEMA, dict.fromkeys(("version", "least"), schema.VERSION + 1))


def attempts_used(record: Mapping[str, bytes | str | None]) -> list[int | None]:
    """Return the downloads whose rows a batch's record needs."""
    return [
        json.loads(record.get("published") or "null"),
        *(past["attempt"] for past in json.loads(record.get("rounds") or "[]")),
    ]


class BrokersRedis(RedisLedger, contextlib.AbstractContextManager["BrokersRedis"]):
    """``ServedLedger`` on the broker's Redis."""

    def __init__(self, server: RedisServer) -> None:
        super().__init__(server.url)

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def restart(self, *, kill: bool) -> None:
        """Do nothing: the broker's server is restarted anyway."""


class PostgresLedger:
    """``Ledger`` on PostgreSQL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def open(self) -> Store:
        return open_store_at(self.url)

    def empty(self) -> None:
        tables = ", ".join(f"claude_batch.{name}" for name in self._tables() if name != "schema_version")
        self._run(f"TRUNCATE {tables}")

    def read_money(self, job_id: str) -> dict[str, int]:
        names = ("spent", "reserved", "fallback_spent", "fallback_reserved")
        found = self._run(
            f"SELECT {', '.join(f'm.{name}' for name in names)} FROM claude_batch.money m "
            "JOIN claude_batch.jobs j ON j.id = m.job WHERE j.job_id = %s AND j.created",
            job_id,
        )
        return dict(zip(names, found[0], strict=True)) if found else {}

    def count_unfinished(self) -> dict[str, int]:
        [sizes] = self._run(
            "SELECT count(due_at), count(*) FILTER (WHERE waiting), count(account),"
            "  (SELECT count(*) FROM claude_batch.pools WHERE state IN ('open', 'closed', 'parked'))"
            "FROM claude_batch.units"
        )
        named = zip(("due", "waiting", "in flight", "pools"), sizes, strict=True)
        return {name: size for name, size in named if size}

    def list_due(self) -> list[str]:
        found = self._run("SELECT batch, lane, job_id FROM claude_batch.units WHERE due_at IS NOT NULL ORDER BY due_at")
        return [":".join(map(str, unit)) for unit in found]

    def find_job(self, job_id: str) -> list[str]:
        # Whose a batch was is known for longer.
        named = [name for name in self._tables("job_id") if name != "batch_ids"]
        found = [(name, f"SELECT t::text FROM claude_batch.{name} t WHERE job_id = %s") for name in named]
        return [f"{name}: {row}" for name, statement in found for (row,) in self._run(statement, job_id)]

    def read_bytes(self) -> int:
        return int(self._run("SELECT pg_database_size(current_database())")[0][0])

    def read_payload_bytes(self) -> int:
        [(requests, results)] = self._run(
            "SELECT (SELECT coalesce(sum(length(body) + length(ids)), 0) FROM claude_batch.payload_chunks),"
            " (SELECT coalesce(sum(length(data)), 0) FROM claude_batch.result_chunks)"
        )
        return int(requests + results)

    def forget_accounts(self) -> None:
        self._run(
            "TRUNCATE claude_batch.pauses, claude_batch.paces, claude_batch.pace_calls, claude_batch.past_durations"
        )

    def forget_owner(self, batch_id: str) -> None:
        assert self._run("DELETE FROM claude_batch.batch_ids WHERE batch_id = %s RETURNING 1", batch_id)

    def forget_ask(self, ask_id: str) -> None:
        assert self._run("DELETE FROM claude_batch.asks WHERE ask_id = %s RETURNING 1", ask_id)

    def lose_job(self, job_id: str) -> None:
        assert self._run("DELETE FROM claude_batch.jobs WHERE job_id = %s RETURNING 1", job_id)

    def damage_rows(self, job_id: str, batch: int, attempt: int) -> None:
        self._change(
            "UPDATE claude_batch.result_chunks SET data = 'damaged' WHERE batch = %s AND attempt = %s AND number = 0",
            batch, attempt, job_id,
        )  # fmt: skip

    def set_record(self, job_id: str, batch: int, **values: object) -> None:
        changes = json.dumps({name: json.dumps(value) for name, value in values.items()})
        self._change(
            "UPDATE claude_batch.records SET record = record || %s::jsonb WHERE batch = %s AND lane = -1",
            changes, batch, job_id,
        )  # fmt: skip

    def set_unit(self, unit: Unit, **values: object) -> None:
        place = (unit.job_id, -1 if unit.batch is None else unit.batch, -1 if unit.lane is None else unit.lane)
        self._run(
            f"INSERT INTO claude_batch.units (job_id, batch, lane, {', '.join(values)})"
            f" VALUES (%s, %s, %s{', %s' * len(values)}) ON CONFLICT (job_id, batch, lane) DO UPDATE"
            f" SET {', '.join(f'{name} = excluded.{name}' for name in values)}",
            *place,
            *values.values(),
        )

    def find_leftovers(self, submitted: Collection[str], *, disturbed: bool) -> Iterator[str]:
        for job_id, created, expires_at in self._run("SELECT job_id, created, expires_at FROM claude_batch.jobs"):
            if expires_at is None:
                yield f"job {job_id} never expires"
            if not created and (not disturbed or job_id in submitted):
                yield f"what was staged for job {job_id} is left over"
        for name in self._tables("job"):
            for (job,) in self._run(
                f"SELECT DISTINCT job FROM claude_batch.{name} t WHERE NOT EXISTS "
                "(SELECT FROM claude_batch.jobs j WHERE j.id = t.job)"
                "AND NOT EXISTS (SELECT FROM claude_batch.removed_jobs r WHERE r.id = t.job)"
            ):
                yield f"{name} has rows of {job}, which is no job"
        for name in self._tables("expires_at"):
            if name not in ("jobs", "result_attempts"):
                [(lasting,)] = self._run(f"SELECT count(*) FROM claude_batch.{name} WHERE expires_at IS NULL")
                if lasting:
                    yield f"{lasting} rows of {name} never expire"
        [(calls,)] = self._run("SELECT count(*) FROM claude_batch.calls WHERE due_at IS NOT NULL OR lane IS NOT NULL")
        if calls:
            yield f"{calls} calls of the Messages API are left over"
        for unit in self._run("SELECT job_id, batch, lane FROM claude_batch.units WHERE owner IS NOT NULL"):
            yield f"{unit} still has a lease"
        for job, batch, record in self._run("SELECT job, batch, record FROM claude_batch.records WHERE lane = -1"):
            if batch >= 0 and record.get("done") != "true":
                yield f"batch {batch} of {job} is not done"
            statement = "SELECT attempt FROM claude_batch.result_attempts WHERE job = %s AND batch = %s"
            used = attempts_used(record)
            for (attempt,) in self._run(statement, job, batch):
                if attempt not in used:
                    yield f"attempt {attempt} of batch {batch} is left over; published: {used}"

    def make_newer(self, newer: bool) -> None:
        by = 1 if newer else -1
        self._run("UPDATE claude_batch.schema_version SET version = version + %s, least = version + %s", by, by)

    def _change(self, statement: str, *args: object) -> None:
        """Run what changes something of a job, whose id is the last argument."""
        of_job = "AND job = (SELECT id FROM claude_batch.jobs WHERE job_id = %s AND created) RETURNING 1"
        assert self._run(f"{statement} {of_job}", *args)

    def _connect(self) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, autocommit=True, connect_timeout=5)

    def _run(self, statement: str, *args: object) -> list[tuple[Any, ...]]:
        try:
            with self._connect() as connection:
                cursor = connection.execute(statement, args or None)  # type: ignore[call-overload]
                return cursor.fetchall() if cursor.description else []
        except psycopg.OperationalError as exc:
            raise StoreUnavailable(str(exc)) from exc

    def _tables(self, column: str | None = None) -> list[str]:
        """Return the names of the tables, or of those that have a column."""
        found = self._run(
            "SELECT DISTINCT table_name FROM information_schema.columns WHERE table_schema = 'claude_batch'"
            + (f" AND column_name = '{column}'" if column else "")
        )
        return [name for (name,) in found]


class OwnPostgres(PostgresLedger, contextlib.AbstractContextManager["OwnPostgres"]):
    """``ServedLedger`` on a PostgreSQL of its own, which keeps what it has acknowledged when it is killed."""

    def __init__(self, _: RedisServer) -> None:
        self._server = PostgresServer(settings={"fsync": "on", "full_page_writes": "on"})

    def __enter__(self) -> OwnPostgres:
        self._server.start()
        super().__init__(self._server.make_database())
        with self._connect() as connection:
            migrate(connection)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.__exit__()

    def restart(self, *, kill: bool) -> None:
        self._server.stop(kill=kill)
        self._server.start()


#: The kinds of stores, by what ``STORE`` and the command line call them.
LEDGERS: dict[str, Callable[[str], Ledger]] = {"redis": RedisLedger, "postgres": PostgresLedger}

#: Those that a run can be on.
KINDS: dict[str, Callable[[RedisServer], contextlib.AbstractContextManager[ServedLedger]]] = {
    "redis": BrokersRedis,
    "postgres": OwnPostgres,
}
