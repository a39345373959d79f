"""Prompts and custom_ids."""

from __future__ import annotations

import pytest

from claude_batch_tasks.errors import JobNotFound
from claude_batch_tasks.store import Store
from claude_batch_tasks.wire.batch_requests import Piece
from tests.unit.store.contract.samples import (
    JOB,
    LONG,
    NONCE,
    Contents,
    OpenStore,
    PassTime,
    batch_record,
    body_of,
    call_at_once,
    create_job,
    job_record,
    make_chunk,
    read_job,
)


class TestPayloads:
    def test_come_back_chunk_by_chunk(self, store: Store) -> None:
        chunks = [
            (["a", "ü\u2028"], body_of("a", "b")),
            (["c"], body_of("c")),
            (["d", "e", "f"], body_of("d", "e", "f")),
        ]
        staged = [Piece(0, ids, body) for ids, body in chunks] + [Piece(1, ["g"], body_of("g"))]
        assert create_job(store, job_record(), [batch_record(), batch_record()], *staged)
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [ids for ids, _ in chunks]
        assert list(store.payloads.read_bodies(JOB, 0)) == [body for _, body in chunks]
        first, second, third = ((start, body) for start, (_, body) in zip((0, 2, 3), chunks, strict=True))
        assert [store.payloads.find_chunk(JOB, 0, position) for position in range(6)] == [
            first,
            first,
            second,
            third,
            third,
            third,
        ]
        assert store.payloads.find_chunk(JOB, 1, 0) == (0, body_of("g"))
        assert [store.payloads.find_custom_id(JOB, 0, position) for position in range(6)] == ["a", "ü\u2028", *"cdef"]

    def test_may_be_large(self, store: Store) -> None:
        text = "x" * 3_000_000
        create_job(store, job_record(batches=1), [batch_record()], Piece(0, ["a"], body_of(text)))
        assert list(store.payloads.read_bodies(JOB, 0)) == [body_of(text)]

    def test_of_nothing_are_nothing(self, store: Store, contents: Contents) -> None:
        assert list(store.results.read_outcomes("nobody", 0)) == []
        assert store.results.find_outcomes("nobody", 0, [0]) == {}
        assert store.results.read_eligible("nobody", 0, 1) == b""
        assert (
            store.results.find_chunks("nobody", 0, 1, range(1000))
            == store.results.find_chunks("nobody", 0, 1, [0])
            == {}
        )
        assert store.results.read_chunk("nobody", 0, 1, 0) == b""
        assert store.payloads.read_index("nobody", 0) == b""
        assert contents() == set()

    def test_of_a_job_that_is_gone_say_so(self, store: Store) -> None:
        for read in (store.payloads.read_bodies, store.payloads.read_custom_ids):
            with pytest.raises(JobNotFound, match="expired or was deleted"):
                next(read("nobody", 0))
        with pytest.raises(JobNotFound, match="expired or was deleted"):
            next(store.results.read_rows("nobody", 0, 1))
        for lookup in (store.payloads.find_chunk, store.payloads.find_custom_id):
            with pytest.raises(JobNotFound, match="expired or was deleted"):
                lookup("nobody", 0, 0)


class TestWhatIsStaged:
    def test_is_of_no_job_before_there_is_one(self, store: Store) -> None:
        store.payloads.stage_requests(JOB, NONCE, [make_chunk(0, "a")])
        store.payloads.stage_index(JOB, NONCE, [(0, b"index")])
        assert store.jobs.read_job(JOB) is None
        assert store.payloads.read_index(JOB, 0) == b""
        with pytest.raises(JobNotFound):
            next(store.payloads.read_bodies(JOB, 0))

    def test_is_the_jobs_that_has_its_nonce(self, store: Store) -> None:
        for nonce in ("first", "second"):
            store.payloads.stage_requests(JOB, nonce, [make_chunk(0, nonce)])
            store.payloads.stage_index(JOB, nonce, [(0, nonce.encode()), (9, b"more")])
        assert store.jobs.create_job(JOB, job_record(nonce="second", batches=1), [batch_record()], LONG)
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [["second"]]
        assert [store.payloads.read_index(JOB, part) for part in (0, 9, 1)] == [b"second", b"more", b""]

    def test_is_gone_once_it_was_discarded(self, store: Store) -> None:
        store.payloads.stage_requests(JOB, NONCE, [make_chunk(0, "a")])
        store.payloads.stage_index(JOB, NONCE, [(0, b"index")])
        store.payloads.discard_staged(JOB, NONCE, 1)
        with pytest.raises(JobNotFound):
            store.jobs.create_job(JOB, job_record(batches=1), [batch_record()], LONG)
        assert store.jobs.read_job(JOB) is None

    def test_expires_in_a_day(self, store: Store, pass_time: PassTime) -> None:
        store.payloads.stage_requests(JOB, NONCE, [make_chunk(0, "a")])
        store.payloads.stage_index(JOB, NONCE, [(0, b"index")])
        pass_time(86_500)
        with pytest.raises(JobNotFound, match="has expired: its requests took longer than 24 hours"):
            store.jobs.create_job(JOB, job_record(batches=1), [batch_record()], LONG)

    def test_is_as_it_was_handed_over_though_many_stage_at_once(self, open_store: OpenStore, store: Store) -> None:
        def hand_over(store: Store, number: int) -> bool:
            record = job_record(nonce=f"nonce-{number}", batches=1)
            store.payloads.stage_requests(JOB, record.nonce, [make_chunk(0, f"{number}"), make_chunk(0, f"{number}b")])
            store.payloads.stage_index(JOB, record.nonce, [(0, b"%d" % number)])
            return store.jobs.create_job(JOB, record, [batch_record()], LONG)

        [maker] = [number for number, made in enumerate(call_at_once(open_store, hand_over, range(16))) if made]
        assert read_job(store).nonce == f"nonce-{maker}"
        assert list(store.payloads.read_custom_ids(JOB, 0)) == [[f"{maker}"], [f"{maker}b"]]
        assert list(store.payloads.read_bodies(JOB, 0)) == [body_of(f"{maker}"), body_of(f"{maker}b")]
        assert store.payloads.read_index(JOB, 0) == b"%d" % maker
