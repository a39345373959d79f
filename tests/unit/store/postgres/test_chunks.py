"""Chunks in PostgreSQL: written and read in short transactions, and bound to the names that all stores have."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext

import pytest

from claude_batch_tasks.errors import JobNotFound, ResultsMissing
from claude_batch_tasks.store.encryption import Cipher
from claude_batch_tasks.store.packing import Packer
from claude_batch_tasks.store.places import attempt_key, batch_key
from claude_batch_tasks.store.postgres import PostgresStore, chunks
from claude_batch_tasks.store.postgres.sources import Connected
from claude_batch_tasks.wire.batch_requests import Piece
from tests.unit.store.contract.samples import (
    BATCH,
    JOB,
    LONG,
    NO_ROWS,
    NONCE,
    batch_record,
    body_of,
    create_job,
    create_staged_job,
    job_record,
    make_chunk,
)
from tests.unit.store.postgres.conftest import Database


class Lent:
    """Lends a connection that a caller has."""

    where = "the caller's connection"

    def __init__(self, connection: Connected) -> None:
        self._connection = connection

    def connect(self) -> AbstractContextManager[Connected]:
        return nullcontext(self._connection)

    def listen(self) -> AbstractContextManager[Connected]:
        raise NotImplementedError


@pytest.fixture
def store(database: Database) -> PostgresStore:
    return database.open_store()


@pytest.fixture
def small_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have each chunk written, and read, by itself."""
    monkeypatch.setattr(chunks, "_WRITTEN", 1)
    for part in ("payloads", "results"):
        monkeypatch.setattr(f"claude_batch_tasks.store.postgres.parts.{part}.READ", 1)


def idle_in_transaction(database: Database) -> int:
    """Return how many connections to this test's database are in the middle of a transaction."""
    [(count,)] = database.run(
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' AND datname = current_database()"
    )
    assert isinstance(count, int)
    return count


@pytest.mark.usefixtures("small_pages")
class TestAChunk:
    def test_comes_in_its_order_page_by_page(self, store: PostgresStore) -> None:
        create_job(store, job_record(batches=1), [batch_record()], *(make_chunk(0, f"{n}") for n in range(20)))
        assert list(store.payloads.read_bodies(JOB, 0)) == [body_of(f"{n}") for n in range(20)]
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [[f"{n}"] for n in range(20)]

    def test_leaves_no_transaction_open_while_it_is_made_or_read(
        self, store: PostgresStore, database: Database
    ) -> None:
        seen = []

        def pieces() -> Iterator[Piece]:
            for number in range(5):
                seen.append(idle_in_transaction(database))
                yield make_chunk(0, f"{number}")

        create_job(store, job_record(batches=1), [batch_record()], *pieces())
        store.payloads.stage_requests(JOB, "another", pieces())
        for _ in store.payloads.read_bodies(JOB, 0):
            seen.append(idle_in_transaction(database))
        assert len(seen) == 15
        assert set(seen) == {0}

    def test_goes_on_where_staging_was_interrupted(self, store: PostgresStore) -> None:
        store.payloads.stage_requests(JOB, NONCE, [make_chunk(0, "a", "b"), make_chunk(1, "c")])
        create_job(store, job_record(), [batch_record(), batch_record()], make_chunk(0, "d"), make_chunk(1, "e"))
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [["a", "b"], ["d"]]
        assert store.payloads.find_chunk(JOB, 0, 2) == (2, body_of("d"))
        assert store.payloads.find_custom_id(JOB, 1, 1) == "e"


@pytest.mark.usefixtures("small_pages")
class TestAJobThatIsRemovedMeanwhile:
    def test_is_not_taken_for_one_that_has_ended(self, store: PostgresStore) -> None:
        create_job(store, job_record(batches=1), [batch_record()], *(make_chunk(0, f"{n}") for n in range(3)))
        bodies = store.payloads.read_bodies(JOB, 0)
        assert next(bodies) == body_of("0")
        store.storage.delete_job(JOB)
        with pytest.raises(JobNotFound):
            next(bodies)

    def test_gets_no_more_requests(self, store: PostgresStore, database: Database) -> None:
        def pieces() -> Iterator[Piece]:
            for number in range(3):
                yield make_chunk(0, f"{number}")
            store.payloads.discard_staged(JOB, NONCE, 1)
            yield from (make_chunk(0, f"{number}") for number in range(3, 9))

        with pytest.raises(JobNotFound, match="has expired"):
            store.payloads.stage_requests(JOB, NONCE, pieces())
        assert database.run("SELECT * FROM claude_batch.payload_chunks") == []

    def test_gets_no_more_rows(self, store: PostgresStore, database: Database) -> None:
        create_staged_job(store)

        def rows() -> Iterator[bytes]:
            yield from [b"0", b"1" * 1_000_000]
            store.storage.delete_job(JOB)
            yield from [b"%d" % number * 1_000_000 for number in range(2, 9)]

        with pytest.raises(JobNotFound):
            store.results.write_rows(JOB, 0, 1, rows())
        assert database.run("SELECT * FROM claude_batch.result_chunks") == []
        with pytest.raises(JobNotFound):
            store.results.write_rows(JOB, 0, 1, [b"0"])


class TestADownload:
    def test_that_is_not_published_goes_after_a_day_with_its_rows(
        self, store: PostgresStore, database: Database
    ) -> None:
        create_staged_job(store)
        store.jobs.persist_job(JOB)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.results.write_rows(JOB, 0, 1, [b"published"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        store.results.write_rows(JOB, 0, 2, [b"forgotten"])
        store.results.write_rows(JOB, 0, 1, [b"likewise"], copy=":copy")
        database.pass_time(86_500)
        store.storage.forget_expired()
        assert database.run("SELECT attempt, copy FROM claude_batch.result_chunks") == [(1, "")]
        assert list(store.results.read_rows(JOB, 0, 1)) == [b"published"]
        assert not store.results.restore_rows(JOB, 0, 1, ":copy", pieces=b"", eligible_places=b"")

    def test_takes_the_place_of_one_that_broke_off_under_its_number(self, store: PostgresStore) -> None:
        create_staged_job(store)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.results.write_rows(JOB, 0, 1, [b"half", b"more"])
        store.results.write_rows(JOB, 0, 1, [b"whole"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        assert list(store.results.read_rows(JOB, 0, 1)) == [b"whole"]

    def test_whose_rows_were_removed_is_missing_in_the_middle_too(
        self, store: PostgresStore, small_pages: None
    ) -> None:
        create_staged_job(store)
        store.leases.acquire_lease(BATCH, 0, "me", LONG)
        store.results.write_rows(JOB, 0, 1, [b"0", b"1", b"2"])
        assert store.results.publish_rows(BATCH, "me", 1, **NO_ROWS)
        rows = store.results.read_rows(JOB, 0, 1)
        assert next(rows) == b"0"
        store.results.discard_rows(JOB, 0, 1)
        with pytest.raises(ResultsMissing) as error:
            next(rows)
        assert error.value.keys == [attempt_key(JOB, 0, "rows", 1)]
        assert list(store.results.read_rows(JOB, 0, 1)) == [], "as in Redis: whoever reads, counts"
        names = ["rows:1", "pieces:1", "eligible:1", "again:1", "index:1"]
        missing = [attempt_key(JOB, 0, name, 1) for name in ("rows", "again", "index")]
        assert store.storage.missing_keys(JOB, 0, names) == missing


class TestWhatIsStored:
    def test_can_be_moved_as_it_is_to_another_store(self, database: Database) -> None:
        key = base64.b64encode(bytes(range(32))).decode()
        store = PostgresStore(database.open_store()._connection.source, database.schema, Cipher([key]))
        create_staged_job(store)
        [(body, ids)] = database.run("SELECT body, ids FROM claude_batch.payload_chunks WHERE batch = 1")
        assert isinstance(body, bytes)
        assert isinstance(ids, bytes)
        packer = Packer(Cipher([key]))
        assert packer.unpack(body, batch_key(JOB, 1, "body")) == body_of("a1", "b1")
        assert packer.unpack(ids, batch_key(JOB, 1, "ids")) == b'["a1","b1"]'

    def test_says_what_was_lost_before_it_came_here(self, store: PostgresStore, database: Database) -> None:
        create_staged_job(store)
        database.run("UPDATE claude_batch.payload_chunks SET body = NULL WHERE batch = 0")
        assert store.storage.missing_keys(JOB, 0, ["body", "ids"]) == [batch_key(JOB, 0, "body")]
        assert store.payloads.find_custom_id(JOB, 0, 1) == "b0"
        for read in (
            lambda: list(store.payloads.read_bodies(JOB, 0)),
            lambda: store.payloads.find_chunk(JOB, 0, 0),
        ):
            with pytest.raises(ResultsMissing, match="is gone from the store"):
                read()


class TestInTheCallersTransaction:
    def test_requests_are_there_when_it_commits_and_not_if_it_rolls_back(self, database: Database) -> None:
        store = database.open_store()
        store.check_schema()
        with store._connection.source.connect() as connection:
            own = PostgresStore(Lent(connection), database.schema)
            with connection.transaction():
                own.jobs.read_job(JOB)
                assert idle_in_transaction(database) == 1
            for commits in (False, True):
                with connection.transaction(force_rollback=not commits):
                    assert create_job(own, job_record(batches=1), [batch_record()], make_chunk(0, "a"))
                    assert list(own.payloads.read_bodies(JOB, 0)) == [body_of("a")]
                    with pytest.raises(JobNotFound):
                        next(store.payloads.read_bodies(JOB, 0))
                rows = database.run("SELECT * FROM claude_batch.payload_chunks")
                assert len(rows) == (1 if commits else 0)
        assert list(store.payloads.read_bodies(JOB, 0)) == [body_of("a")]

    def test_an_error_leaves_it_usable(self, database: Database) -> None:
        store = database.open_store()
        create_staged_job(store)
        with store._connection.source.connect() as connection, connection.transaction():
            own = PostgresStore(Lent(connection), database.schema)

            def rows() -> Iterator[bytes]:
                yield b"row"
                own.storage.delete_job(JOB)

            with pytest.raises(JobNotFound):
                own.results.write_rows(JOB, 0, 1, rows())
            assert own.jobs.read_job(JOB) is None
