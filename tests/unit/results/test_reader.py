"""What comes back of a job: filtered, in order, as files; and its end."""

from __future__ import annotations

import csv
import io
import json
import os
import random
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import msgspec
import pyarrow.parquet
import pytest
import redis
from celery import Celery

from claude_batch_tasks import BatchJob, RequestResult, errors
from claude_batch_tasks.lifecycle import resubmission, submission
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.results import export, flat_rows
from claude_batch_tasks.results.stored.messages_outcomes import error_outcome, kept_outcome, message_outcome
from claude_batch_tasks.store import Store, open_store_at
from claude_batch_tasks.wire import lenient_json
from claude_batch_tasks.wire.batch_requests import wire_id
from claude_batch_tasks.wire.completeness import AdoptedCompleteness, Completeness
from tests.odd_answers import ODD, RESULTS, UNREADABLE, check, message, succeeded

JOB = "job-1"
PER_BATCH = 40
TYPES = ("succeeded", "errored", "expired", "canceled")


@pytest.fixture
def store(app: Celery, redis_url: str) -> Store:
    return open_store_at(redis_url)


def answer(number: int, size: int = 10) -> dict[str, Any]:
    kind = TYPES[number % len(TYPES)]
    if kind == "succeeded":
        usage = {"input_tokens": number, "output_tokens": 5, "cache_read_input_tokens": None}
        content = [{"type": "text", "text": f"answer {number} " + "x" * size}]
        message = {"id": f"msg_{number}", "model": "m", "stop_reason": "end_turn", "content": content, "usage": usage}
        return {"type": kind, "message": message}
    if kind == "errored":
        error = {"type": "error", "error": {"type": "api_error", "message": f"no {number}"}, "request_id": "req_1"}
        return {"type": kind, "error": error}
    return {"type": kind}


@pytest.fixture
def finish(store: Store) -> Callable[..., None]:
    """``finish(0)``: the batch's results arrive, in no order, and nothing is left to be done for it."""

    def finish(number: int, answers: Callable[[int], dict[str, Any]] = answer, **changes: Any) -> None:
        job, record, unit = store.jobs.read_job(JOB), store.records.read_batch(JOB, number), Unit(JOB, number)
        assert job is not None
        assert record is not None
        indexes = list(range(record.first, record.first + record.count))
        random.Random(number).shuffle(indexes)
        store.leases.acquire_lease(unit, 0, "test", 60)
        seen = Completeness(job.nonce, record.first, record.count)
        lines = (
            json.dumps({"custom_id": wire_id(job.nonce, i), "result": answers(i)}).encode() + b"\n" for i in indexes
        )
        store.leases.write_record(unit, "test", attempt=1)
        store.results.write_rows(JOB, number, 1, seen.keep_rows(lines))
        rows = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.judged.eligible.tobytes()}
        known = {"state": "fetched", "final": True, "done": True, "counts": dict(seen.tallies)}
        assert store.results.publish_rows(unit, "test", 1, **rows, **{**known, **changes})

    return finish


@pytest.fixture
def job(app: Celery, make_request: Any, finish: Any) -> BatchJob:
    """Three batches, all of them finished."""
    requests = (make_request(f"review {n}") for n in range(3 * PER_BATCH))
    submission.submit_job(app, JOB, requests, {"max_requests_per_batch": PER_BATCH})
    for number in range(3):
        finish(number)
    return BatchJob(JOB, app)


@pytest.fixture
def again(store: Store) -> Callable[..., None]:
    """``again({1: answer(0), ...}, done=False)``: what is left of the first batch goes through a smaller one."""

    def again(results: dict[int, dict[str, Any]], **changes: Any) -> None:
        job, unit, record = store.jobs.read_job(JOB), Unit(JOB, 0), store.records.read_batch(JOB, 0)
        assert job is not None
        assert record is not None
        store.leases.write_record(unit, "test", **resubmission.begin_round(store, JOB, job, 0, record))
        record = store.records.read_batch(JOB, 0)
        assert record is not None
        attempt, name = record.attempt + 1, resubmission.nonce_of_round(job, record)
        seen = Completeness(
            name, record.first, record.count, places=resubmission.positions_in_batch(store, JOB, 0, record)
        )
        lines = (
            json.dumps({"custom_id": wire_id(name, record.first + place), "result": result}).encode() + b"\n"
            for place, result in results.items()
        )
        store.leases.write_record(unit, "test", attempt=attempt)
        store.results.write_rows(JOB, 0, attempt, seen.keep_rows(lines))
        assert seen.complete
        rows = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.judged.eligible.tobytes()}
        known = {"state": "fetched", **resubmission.merge_rows(record, seen), **changes}
        keep = [round.attempt for round in record.rounds]
        assert store.results.publish_rows(unit, "test", attempt, keep=keep, **rows, **known)

    return again


def numbers(results: Iterator[RequestResult]) -> list[int]:
    return [int(result.custom_id.removeprefix("review ")) for result in results]


class TestResults:
    def test_are_of_one_type_if_asked_so(self, job: BatchJob) -> None:
        for place, kind in enumerate(TYPES):
            found = numbers(job.results(type=kind))  # type: ignore[arg-type]
            assert sorted(found) == [n for n in range(3 * PER_BATCH) if n % len(TYPES) == place]
            assert all(result.type == kind for result in job.results(kind))  # type: ignore[arg-type]

    def test_come_in_the_order_of_the_requests_if_asked_so(self, job: BatchJob) -> None:
        assert numbers(job.results(order="request")) == list(range(3 * PER_BATCH))
        assert numbers(job.results()) != list(range(3 * PER_BATCH))
        assert numbers(job.results(type="errored", order="request")) == list(range(1, 3 * PER_BATCH, len(TYPES)))
        by_id = {result.custom_id: result for result in job.results()}
        assert [by_id[result.custom_id] for result in job.results(order="request")] == list(
            job.results(order="request")
        )

    def test_in_order_name_where_they_come_from(self, job: BatchJob, store: Store) -> None:
        store.message_queue.save_outcome(Unit(JOB, 1, 0), 2, message_outcome(json.dumps(answer(0)["message"]).encode()))
        store.message_queue.save_outcome(Unit(JOB, 1, 0), 3, kept_outcome("the answer was lost", tried=True))
        found = list(job.results(order="request"))
        assert [n for n, result in enumerate(found) if result.source == "messages"] == [PER_BATCH + 2]
        assert len(found) == 3 * PER_BATCH

    def test_of_a_batch_without_rows_come_in_order_too(self, app: Celery, make_request: Any, store: Store) -> None:
        submission.submit_job(app, JOB, (make_request(f"review {n}") for n in range(5)), {})
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        unsent = {"outcome": {"type": "canceled"}, "counts": {"canceled": 5}, "final": True, "done": True}
        store.leases.write_record(Unit(JOB, 0), "test", **unsent)
        job = BatchJob(JOB, app)
        assert numbers(job.results(order="request")) == list(range(5))
        assert [result.type for result in job.results(type="canceled")] == ["canceled"] * 5
        assert list(job.results(type="expired")) == []

    @pytest.mark.parametrize(
        ("options", "text"),
        [
            ({"type": "failed"}, "type must be 'succeeded' or .*, not 'failed'"),
            ({"order": "random"}, "order must be 'stored' or 'request', not 'random'"),
        ],
    )
    def test_are_not_of_a_type_or_order_that_does_not_exist(self, job: BatchJob, options: Any, text: str) -> None:
        with pytest.raises(ValueError, match=text):
            job.results(**options)
        with pytest.raises(ValueError, match=text):
            job.export(io.BytesIO(), **options)

    def test_may_be_read_while_the_job_runs(self, app: Celery, make_request: Any, finish: Any, store: Store) -> None:
        """Of complete batches only, whole ones, whatever is being written meanwhile."""
        requests = (make_request(f"review {n}") for n in range(6 * PER_BATCH))
        submission.submit_job(app, JOB, requests, {"max_requests_per_batch": PER_BATCH})
        job, over, seen = BatchJob(JOB, app), threading.Event(), []

        def read() -> None:
            while not over.is_set() or len(seen) < 2:
                found = sorted(numbers(job.results()))
                batches = len(found) // PER_BATCH
                seen.append(found == list(range(batches * PER_BATCH)))

        results = threading.Thread(target=read)
        results.start()
        for number in range(6):
            # Another worker's download, which is not published.
            store.results.write_rows(JOB, number, 7, [b'{"custom_id":"half","result"'])
            finish(number)
            store.results.discard_rows(JOB, number, 7)
        over.set()
        results.join()
        assert all(seen)
        assert numbers(job.results(order="request")) == list(range(6 * PER_BATCH))

    def test_stay_what_they_are_under_a_reader_that_is_in_the_middle_of_them(
        self, job: BatchJob, store: Store, finish: Any
    ) -> None:
        results = job.results()
        first = next(results)
        unit = Unit(JOB, 0)
        store.results.write_rows(JOB, 0, 2, [b"rubbish"])
        assert not store.results.publish_rows(unit, "somebody whose lease is over", 2, pieces=b"", eligible_places=b"")
        assert sorted(numbers(iter([first, *results]))) == list(range(3 * PER_BATCH))

    def test_may_hold_what_strict_readers_refuse(self, app: Celery, make_request: Any, store: Store) -> None:
        """It is stored and paid for, so it is read somehow, and what comes after it as well."""
        submission.submit_job(app, JOB, [make_request(f"review {n}") for n in range(3)], {})
        record = store.jobs.read_job(JOB)
        assert record is not None
        texts = [b'"\xff\xfe"', rb'"\ud800"', b'"fine"']
        lines = [
            b'{"custom_id":"%s","result":{"type":"succeeded","message":{"content":[{"type":"text","text":%s}]}}}'
            % (wire_id(record.nonce, n).encode(), text)
            for n, text in enumerate(texts)
        ]
        seen = Completeness(record.nonce, 0, 3)
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.results.write_rows(JOB, 0, 1, seen.keep_rows([b"\n".join(lines)]))
        assert seen.complete
        store.results.publish_rows(
            Unit(JOB, 0),
            "test",
            1,
            pieces=seen.pieces.tobytes(),
            eligible_places=b"",
            final=True,
            done=True,
            counts={"succeeded": 3},
        )
        job = BatchJob(JOB, app)
        assert [result.text for result in job.results()] == ["\ufffd\ufffd", "\ud800", "fine"]
        assert job.result("review 0").text == "\ufffd\ufffd"
        out, text_out = io.BytesIO(), io.StringIO()
        assert job.export(out) == job.export(text_out) == 3
        assert out.getvalue().decode() == text_out.getvalue()
        assert len([json.loads(line) for line in out.getvalue().splitlines()]) == 3
        table = io.BytesIO()
        job.export(table, format="parquet")
        assert pyarrow.parquet.read_table(table).column("text").to_pylist() == ["\ufffd\ufffd", "?", "fine"]


ALL = {**{name: succeeded(odd.json) for name, odd in ODD.items()}, **{n: r.json for n, r in RESULTS.items()}}


class TestOddAnswers:
    """Each is read by itself, by every reader."""

    @pytest.fixture
    def odd(self, app: Celery, make_request: Any, store: Store) -> BatchJob:
        """Every odd answer there is, in one batch."""
        submission.submit_job(app, JOB, [make_request(name) for name in ALL], {})
        record, unit = store.jobs.read_job(JOB), Unit(JOB, 0)
        assert record is not None
        lines = [
            b'{"custom_id":"%s","result":%s}' % (wire_id(record.nonce, place).encode(), result)
            for place, result in enumerate(ALL.values())
        ]
        seen = Completeness(record.nonce, 0, len(ALL))
        store.leases.acquire_lease(unit, 0, "test", 60)
        store.results.write_rows(JOB, 0, 1, seen.keep_rows([b"\n".join([*reversed(lines), b""])]))
        assert (seen.complete, seen.unreadable, seen.broken, seen.foreign) == (True, len(UNREADABLE), 0, 0)
        rows = {"pieces": seen.pieces.tobytes(), "eligible_places": b""}
        known = {"counts": dict(seen.tallies), "usage": dict(seen.usage), "costs": seen.meter.sum_costs()}
        assert store.results.publish_rows(unit, "test", 1, **rows, **known, final=True, done=True)
        return BatchJob(JOB, app)

    def check(self, found: Iterator[RequestResult], lines: bool = True) -> None:
        by_id = {result.custom_id: result for result in found}
        for name, odd in ODD.items():
            check(odd, by_id[name].message, by_id[name].note)
            assert (by_id[name].type, by_id[name].text) == ("succeeded", "fine")
        for name, expected in RESULTS.items():
            result = by_id[name]
            assert (result.type, (result.error or {}).get("type")) == (expected.type, expected.error_type), name
            assert (expected.noted in (result.note or "")) if expected.noted else result.note is None
            assert result.text == expected.text
            assert json.dumps(msgspec.to_builtins(result))
        for name, result in by_id.items():
            assert (result.raw is None) == (result.note is None)
            assert result.raw is None or ALL[name] in result.raw

    @pytest.mark.parametrize("how", [{}, {"order": "request"}, {"ids": ALL}], ids=["as they came", "in order", "by id"])
    def test_are_read_in_every_way(self, odd: BatchJob, how: dict[str, Any]) -> None:
        found = list(odd.results(**how))
        assert sorted(result.custom_id for result in found) == sorted(ALL)
        self.check(iter(found))
        if "order" in how:
            assert [result.custom_id for result in found] == list(ALL)

    def test_are_read_one_by_one(self, odd: BatchJob) -> None:
        found = [odd.result(name) for name in ALL]
        assert [result.custom_id for result in found] == list(ALL)
        self.check(iter(found))

    def test_are_found_by_their_type(self, odd: BatchJob) -> None:
        names = [name for name, result in RESULTS.items() if result.type == "errored"]
        assert sorted(result.custom_id for result in odd.results(type="errored")) == sorted(names)
        assert [result.custom_id for result in odd.results(type="expired")] == ["an expiry that does not end"]

    def test_are_lines_of_strict_json(self, odd: BatchJob) -> None:
        out = io.BytesIO()
        assert odd.export(out, order="request") == len(ALL)
        lines = out.getvalue().split(b"\n")
        assert lines.pop() == b""
        for (name, result), line in zip(ALL.items(), lines, strict=True):
            line.decode()
            begin = b'{"custom_id":"%s","source":"batch","result":' % name.encode()
            assert line.startswith(begin)
            plain = name in ODD and ODD[name].legal and "twice" not in name and "surrogate" not in name
            if plain:
                assert line == begin + result + b"}"
            _, note = lenient_json.read_json(line)
            assert "not JSON" not in (note or "")
            assert "NaN" not in (note or "")
            values, _ = lenient_json.read_json(line)
            noted = (name in ODD and not ODD[name].legal and "control" not in name) or name in UNREADABLE
            assert ("note" in values) == (noted or "not UTF-8" in name)
            assert values["result"]["type"] == (json.loads(result)["type"] if name == "a type nobody knows" else ANY)
            if name == "an answer that is not JSON":
                assert values["result"]["raw"].endswith('"result":{"type":"succeeded","message":{"a" 1}}}')

    def test_are_rows_of_a_table(self, odd: BatchJob) -> None:
        out = io.BytesIO()
        assert odd.export(out, "parquet", order="request") == len(ALL)
        rows = pyarrow.parquet.read_table(out).to_pylist()
        assert [row["custom_id"] for row in rows] == list(ALL)
        for row in rows:
            name = row["custom_id"]
            if name in ODD:
                assert (row["type"], row["text"], row["input_tokens"]) == ("succeeded", "fine", 10)
                found, _ = lenient_json.read_json(row["message"])
                if ODD[name].legal:
                    check(ODD[name]._replace(noted=""), found, None)
            else:
                assert (row["type"], row["error_type"]) == (RESULTS[name].type, RESULTS[name].error_type)

    @pytest.mark.parametrize("pretty", [False, True])
    def test_may_be_the_messages_apis(self, app: Celery, make_request: Any, store: Store, pretty: bool) -> None:
        submission.submit_job(app, JOB, [make_request(name) for name in ODD], {})
        lost = {"outcome": {"type": "expired"}, "counts": {"succeeded": len(ODD)}, "final": True, "done": True}
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.leases.write_record(Unit(JOB, 0), "test", **lost)
        for place, odd in enumerate(ODD.values()):
            answer = message(odd.json)
            if pretty:
                answer = answer.replace(b'"content":', b'\r\n\t"content" :\n')
            store.message_queue.save_outcome(Unit(JOB, 0, 0), place, message_outcome(answer))
        job = BatchJob(JOB, app)
        for found in (job.results(), job.results(order="request"), job.results(ids=ODD)):
            for result in found:
                check(ODD[result.custom_id], result.message, result.note)
        out, table = io.BytesIO(), io.BytesIO()
        assert job.export(out) == job.export(table, "parquet") == len(ODD)
        assert out.getvalue().count(b"\n") == len(ODD)

    def test_may_have_an_odd_id_where_the_batch_was_adopted(self, app: Celery, store: Store) -> None:
        record = JobRecord(nonce="n", requests=4, batches=1, submitted_at=1.0, adopted=True)
        store.jobs.create_job(JOB, record, [BatchRecord(first=0, count=4, body_bytes=0)], 600, staged=False)
        lines = [
            rb'{"custom_id":"\ud83d","result":{"type":"expired"}}',
            rb'{"custom_id":"a\"b","result":{"type":"expired","x":NaN}}',
            b'{"custom_id":"c","result":{"type":"expired","x" 1}}',
            b'{"custom_id":"d","result":{"type":"expired"}}',
        ]
        seen = AdoptedCompleteness("n", 0, 4)
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.results.write_rows(JOB, 0, 1, seen.keep_rows([b"\n".join(lines) + b"\n"]))
        assert seen.complete
        rows = {"pieces": seen.pieces.tobytes(), "eligible_places": b"", "index": seen.index.list_parts()}
        store.results.publish_rows(Unit(JOB, 0), "test", 1, **rows, final=True, done=True)
        job = BatchJob(JOB, app)
        ids = ["\ud83d", 'a"b', "c", "d"]
        assert [result.custom_id for result in job.results()] == ids
        assert [job.result(each).custom_id for each in ids] == ids
        out, table = io.BytesIO(), io.BytesIO()
        assert job.export(out) == job.export(table, "parquet") == 4
        assert [json.loads(line)["custom_id"] for line in out.getvalue().splitlines()] == ids


class TestOneResult:
    def test_is_found_in_whatever_batch_and_piece_it_is(self, app: Celery, make_request: Any, finish: Any) -> None:
        requests = (make_request(f"review {n}") for n in range(60))
        submission.submit_job(app, JOB, requests, {"max_requests_per_batch": 25})
        for number in range(3):
            finish(number, lambda n: answer(n, size=100_000))
        job = BatchJob(JOB, app)
        for n in range(60):
            result = job.result(f"review {n}")
            assert (result.custom_id, result.type) == (f"review {n}", TYPES[n % 4])
            assert result.type != "succeeded" or result.text.startswith(f"answer {n} ")

    def test_is_looked_up_and_not_searched_for(self, job: BatchJob, store: Store, monkeypatch: Any) -> None:
        def scanned(*_: Any) -> Any:
            pytest.fail("everything was read for one result")

        for part, name in (
            (store.results, "read_rows"),
            (store.payloads, "read_custom_ids"),
            (store.results, "read_outcomes"),
        ):
            monkeypatch.setattr(type(part), name, scanned)
        assert job.result("review 77").custom_id == "review 77"


EXPIRED, GOOD = {"type": "expired"}, answer(0)
OVERLOADED = {"type": "errored", "error": {"type": "error", "error": {"type": "overloaded_error", "message": "m"}}}
INVALID = {"type": "errored", "error": {"type": "error", "error": {"type": "invalid_request_error", "message": "m"}}}
#: What becomes of six requests at first.
FIRST = [GOOD, EXPIRED, OVERLOADED, EXPIRED, INVALID, EXPIRED]


@pytest.fixture
def six(app: Celery, make_request: Any, finish: Any) -> BatchJob:
    """A job of six requests, the batch of which is fetched; what is left of it may be sent again."""
    submission.submit_job(app, JOB, [make_request(f"review {n}") for n in range(6)], {})
    finish(0, lambda n: FIRST[n], final=False, done=False, eligible=4, open={"expired": 3, "errored": 1})
    return BatchJob(JOB, app)


def keep(store: Store, place: int, note: str) -> None:
    store.message_queue.save_outcome(Unit(JOB, 0, 0), place, kept_outcome(note, tried=False))


def come(store: Store, place: int, number: int = 0) -> None:
    """An answer of the Messages API."""
    message = json.dumps(answer(number)["message"]).encode()
    store.message_queue.save_outcome(Unit(JOB, 0, 0), place, message_outcome(message))


class TestResultsOfSeveralRounds:
    @pytest.fixture
    def three(self, six: BatchJob, store: Store, again: Any) -> BatchJob:
        """After three rounds; then the Messages API was asked for what was left."""
        again({1: answer(4), 2: EXPIRED, 3: OVERLOADED, 5: INVALID})
        again({2: answer(8), 3: EXPIRED}, final=True, done=True, note="the money was gone")
        return six

    def shown(self, results: Iterator[RequestResult]) -> dict[int, tuple[str, str, str]]:
        found = list(results)
        by_number = {int(r.custom_id.removeprefix("review ")): (r.type, r.source, r.text[:8]) for r in found}
        assert len(by_number) == len(found)
        return by_number

    def test_are_those_of_the_last_one_that_has_one(self, three: BatchJob) -> None:
        expected = {
            0: ("succeeded", "batch", "answer 0"),
            1: ("succeeded", "resubmitted", "answer 4"),
            2: ("succeeded", "resubmitted", "answer 8"),
            3: ("expired", "resubmitted", ""),
            4: ("errored", "batch", ""),
            5: ("errored", "resubmitted", ""),
        }
        assert self.shown(three.results()) == expected
        assert list(self.shown(three.results(order="request")).items()) == sorted(expected.items())
        assert set(self.shown(three.results(type="errored"))) == {4, 5}
        assert self.shown(three.result(f"review {n}") for n in range(6)) == expected
        assert self.shown(three.results(ids=[f"review {n}" for n in range(6)])) == expected

    def test_give_way_to_the_messages_apis(self, three: BatchJob, store: Store) -> None:
        come(store, 3, 12)
        expected = ("succeeded", "messages", "answer 1")
        assert self.shown(three.results())[3] == self.shown(iter([three.result("review 3")]))[3] == expected

    def test_say_why_they_got_no_other_chance(self, three: BatchJob, store: Store) -> None:
        batch = {n: "the money was gone" if n == 3 else None for n in range(6)}
        for order in ("stored", "request"):
            found = three.results(order=order)  # type: ignore[arg-type]
            assert {int(r.custom_id[7:]): r.note for r in found} == batch
        keep(store, 3, "its answer was lost")
        keep(store, 0, "never asked")
        for results in (three.results(), three.results(order="request"), three.results(ids=["review 0", "review 3"])):
            notes = {r.custom_id: r.note for r in results}
            assert (notes["review 0"], notes["review 3"]) == (None, "its answer was lost")
        assert three.result("review 3").note == "its answer was lost"

    def test_are_those_before_where_the_last_batch_was_never_made(
        self, six: BatchJob, store: Store, again: Any
    ) -> None:
        again({1: answer(4), 2: EXPIRED, 3: OVERLOADED, 5: INVALID})
        job, record = store.jobs.read_job(JOB), store.records.read_batch(JOB, 0)
        assert job is not None
        assert record is not None
        changes = resubmission.begin_round(store, JOB, job, 0, record)
        store.leases.write_record(Unit(JOB, 0), "test", **{**changes, "state": "unsent", "final": True, "done": True})
        assert {n: kind for n, (kind, _, _) in self.shown(six.results()).items()} == {
            0: "succeeded", 1: "succeeded", 2: "expired", 3: "errored", 4: "errored", 5: "errored",
        }  # fmt: skip


class TestResultsByTheirIds:
    """Also of batches that are not finished: those that are final."""

    def found(self, job: BatchJob, *wanted: int, **options: Any) -> list[int]:
        return sorted(numbers(job.results(ids=[f"review {n}" for n in wanted or range(6)], **options)))

    def test_are_there_when_they_will_not_be_sent_again(self, six: BatchJob, store: Store, again: Any) -> None:
        assert self.found(six) == [0, 4]
        assert list(six.results()) == []
        again({1: GOOD, 2: EXPIRED, 3: EXPIRED, 5: INVALID})
        assert self.found(six) == [0, 1, 4, 5]
        come(store, 2)
        keep(store, 3, "its answer was lost")
        assert self.found(six) == list(range(6))

    def test_are_not_those_of_a_round_before_while_the_next_is_under_way(
        self, six: BatchJob, store: Store, again: Any
    ) -> None:
        job, record = store.jobs.read_job(JOB), store.records.read_batch(JOB, 0)
        assert job is not None
        assert record is not None
        store.leases.write_record(Unit(JOB, 0), "test", **resubmission.begin_round(store, JOB, job, 0, record))
        assert self.found(six) == [0, 4]
        with pytest.raises(errors.RequestNotFound, match="has no outcome yet"):
            six.result("review 1")

    def test_are_all_that_there_are_when_nothing_is_left_to_be_done(self, six: BatchJob, store: Store) -> None:
        store.leases.write_record(Unit(JOB, 0), "test", final=True, done=True)
        assert self.found(six) == list(range(6))

    def test_are_those_asked_for_and_of_a_type(self, six: BatchJob, store: Store) -> None:
        store.leases.write_record(Unit(JOB, 0), "test", final=True, done=True)
        assert self.found(six, 1, 1, 4, 77) == [1, 4]
        assert self.found(six, 0, 1, 3, 4, type="expired") == [1, 3]
        assert list(six.results(ids=[])) == list(six.results(ids=iter(["nobody", "\ud800"]))) == []

    def test_are_asked_for_in_earnest(self, app: Celery, six: BatchJob) -> None:
        for options in ({"type": "failed"}, {"order": "random"}):
            with pytest.raises(ValueError, match="must be"):
                six.results(ids=[], **options)  # type: ignore[arg-type]
        with pytest.raises(errors.JobNotFound):
            BatchJob("nobody", app).results(ids=["a"])

    def test_are_looked_up_in_whatever_batch_and_piece_they_are(
        self, app: Celery, make_request: Any, finish: Any, store: Store, monkeypatch: Any
    ) -> None:
        requests = (make_request(f"review {n}") for n in range(1500))
        submission.submit_job(app, JOB, requests, {"max_requests_per_batch": 1200})
        for number in range(2):
            finish(number, lambda n: answer(n, size=2000 if n % 3 else 1))
        for name in ("read_rows", "read_outcomes"):
            monkeypatch.setattr(
                type(store.results), name, lambda *_: pytest.fail("everything was read for some results")
            )
        job = BatchJob(JOB, app)
        for wanted in (range(1500), range(3, 1500, 300), [1199, 1200]):
            found = {r.custom_id: r.type for r in job.results(ids=[f"review {n}" for n in wanted])}
            assert found == {f"review {n}": TYPES[n % 4] for n in wanted}

    def test_may_be_of_an_adopted_batch(self, app: Celery, store: Store) -> None:
        record = JobRecord(nonce="n", requests=3, batches=1, submitted_at=1.0, adopted=True)
        store.jobs.create_job(JOB, record, [BatchRecord(first=0, count=3, body_bytes=0)], 600, staged=False)
        ids = ["b", 'quoted "a"', "a"]
        seen = AdoptedCompleteness("n", 0, 3)
        lines = [json.dumps({"custom_id": i, "result": result}).encode() for i, result in zip(ids, FIRST, strict=False)]
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.results.write_rows(JOB, 0, 1, seen.keep_rows([b"\n".join(lines)]))
        rows = {"pieces": seen.pieces.tobytes(), "eligible_places": b"", "index": seen.index.list_parts()}
        store.results.publish_rows(Unit(JOB, 0), "test", 1, **rows, final=True, done=True)
        job = BatchJob(JOB, app)
        assert {r.custom_id: r.type for r in job.results(ids=[*ids, "c"])} == {
            "b": "succeeded", 'quoted "a"': "expired", "a": "errored",
        }  # fmt: skip
        assert [r.custom_id for r in job.results(ids=["a"])] == ["a"]

    def test_of_a_batch_without_rows_are_the_messages_apis_and_then_its_own(
        self, app: Celery, make_request: Any, store: Store
    ) -> None:
        submission.submit_job(app, JOB, [make_request(f"review {n}") for n in range(3)], {})
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.leases.write_record(Unit(JOB, 0), "test", state="lost", outcome=INVALID, note="no budget")
        job = BatchJob(JOB, app)
        assert self.found(job, 0, 1, 2) == []
        come(store, 0)
        assert self.found(job, 0, 1, 2) == [0]
        store.leases.write_record(Unit(JOB, 0), "test", final=True, done=True)
        assert self.found(job, 0, 1, 2) == [0, 1, 2]
        assert [job.result(f"review {n}").note for n in range(3)] == [None, "no budget", "no budget"]

    def test_of_a_batch_without_rows_are_final_where_they_are_kept(
        self, app: Celery, make_request: Any, store: Store
    ) -> None:
        """``on_result`` is called with them at once."""
        submission.submit_job(app, JOB, [make_request(f"review {n}") for n in range(2)], {})
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.leases.write_record(Unit(JOB, 0), "test", state="lost", outcome=INVALID)
        keep(store, 0, "refused 8 times")
        [found] = BatchJob(JOB, app).results(ids=["review 0", "review 1"])
        assert (found.custom_id, found.type, found.note) == ("review 0", "errored", "refused 8 times")


class TestAnExport:
    def lines(self, data: bytes) -> dict[str, dict[str, Any]]:
        rows = [json.loads(line) for line in data.decode().splitlines()]
        assert len({row["custom_id"] for row in rows}) == len(rows)
        return {row["custom_id"]: row for row in rows}

    def test_has_anthropics_lines_under_your_ids(self, job: BatchJob) -> None:
        out = io.BytesIO()
        assert job.export(out) == 3 * PER_BATCH
        assert self.lines(out.getvalue()) == {
            f"review {n}": {"custom_id": f"review {n}", "source": "batch", "result": answer(n)}
            for n in range(3 * PER_BATCH)
        }

    def test_is_of_one_type_and_in_order_if_asked_so(self, job: BatchJob) -> None:
        out = io.StringIO()
        assert job.export(out, type="expired", order="request") == 30
        found = [json.loads(line)["custom_id"] for line in out.getvalue().splitlines()]
        assert found == [f"review {n}" for n in range(2, 120, 4)]

    def test_goes_to_a_path(self, job: BatchJob, tmp_path: Path) -> None:
        for path in (tmp_path / "a.jsonl", str(tmp_path / "b.jsonl")):
            job.export(path)
            assert len(self.lines(Path(path).read_bytes())) == 3 * PER_BATCH
        assert sorted(path.name for path in tmp_path.iterdir()) == ["a.jsonl", "b.jsonl"]

    def test_that_breaks_off_leaves_the_file_that_was_there(
        self, job: BatchJob, redis_url: str, tmp_path: Path
    ) -> None:
        path = tmp_path / "results.jsonl"
        path.write_text("of yesterday")
        client: Any = redis.Redis.from_url(redis_url)
        client.delete(*client.keys("*batch:1:rows*"))
        client.set("claude_batch:{job-1}:batch:1:rows:1", "not a list")
        with pytest.raises(errors.StoreUnavailable):
            job.export(path)
        assert path.read_text() == "of yesterday"
        assert [found.name for found in tmp_path.iterdir()] == ["results.jsonl"]

    def test_of_the_messages_api_looks_like_the_others(self, job: BatchJob, store: Store) -> None:
        pretty = json.dumps(answer(0)["message"], indent=2).encode()
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 1, message_outcome(pretty))
        store.message_queue.save_outcome(
            Unit(JOB, 0, 0), 2, error_outcome("invalid_request_error", "too long", "req_9")
        )
        out = io.BytesIO()
        assert job.export(out) == 3 * PER_BATCH
        found = self.lines(out.getvalue())
        assert found["review 1"] == {"custom_id": "review 1", "source": "messages", "result": answer(0)}
        inner = {"type": "invalid_request_error", "message": "too long"}
        error = {"type": "error", "error": inner, "request_id": "req_9"}
        assert found["review 2"]["result"] == {"type": "errored", "error": error}

    def test_may_be_a_table(self, job: BatchJob, tmp_path: Path) -> None:
        path = tmp_path / "results.parquet"
        assert job.export(path, format="parquet", order="request") == 3 * PER_BATCH
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert rows[4] == {
            "custom_id": "review 4",
            "type": "succeeded",
            "source": "batch",
            "text": "answer 4 xxxxxxxxxx",
            "stop_reason": "end_turn",
            "model": "m",
            "input_tokens": 4,
            "output_tokens": 5,
            "cache_creation_input_tokens": None,
            "cache_read_input_tokens": None,
            "error_type": None,
            "error_message": None,
            "message": json.dumps(answer(4)["message"]),
            "incomplete": None,
            "attempts": 1,
            "parse_error": None,
        }
        assert (rows[5]["type"], rows[5]["error_type"], rows[5]["error_message"]) == ("errored", "api_error", "no 5")
        assert (rows[6]["type"], rows[6]["text"], rows[6]["message"]) == ("expired", None, None)

    def test_may_be_a_csv_file(self, job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(export, "_CSV_CHARACTERS", 1000)
        path, table = tmp_path / "results.csv", tmp_path / "results.parquet"
        assert job.export(path, order="request") == job.export(table, order="request") == 3 * PER_BATCH
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        wanted = pyarrow.parquet.read_table(table).to_pylist()
        assert rows == [{name: "" if value is None else str(value) for name, value in row.items()} for row in wanted]
        text = io.StringIO()
        job.export(text, "csv", order="request")
        assert text.getvalue().encode() == path.read_bytes()

    def test_has_the_format_that_the_suffix_names(self, job: BatchJob, tmp_path: Path) -> None:
        for name, first in (
            ("a.csv", b"custom_id,"),
            ("a.CSV", b"custom_id,"),
            ("a.parquet", b"PAR1"),
            ("a.jsonl", b"{"),
            ("a.txt", b"{"),
            ("none", b"{"),
        ):
            job.export(tmp_path / name)
            assert (tmp_path / name).read_bytes().startswith(first), name
        job.export(tmp_path / "b.parquet", "csv")
        assert (tmp_path / "b.parquet").read_bytes().startswith(b"custom_id,")
        job.export(tmp_path / "b.xlsx", format="csv")
        for name in ("c.xlsx", "c.jsonl.gz"):
            with pytest.raises(ValueError, match="give a format"):
                job.export(tmp_path / name)
            assert not (tmp_path / name).exists()
        with pytest.raises(ValueError, match="'jsonl' or 'csv' or 'parquet', not 'xml'"):
            job.export(tmp_path / "c.csv", "xml")

    def test_becomes_a_data_frame(self, job: BatchJob, tmp_path: Path) -> None:
        path = tmp_path / "results.parquet"
        job.export(path, order="request")
        rows = pyarrow.parquet.read_table(path).to_pylist()
        assert job.to_arrow(order="request").to_pylist() == rows
        assert job.to_polars(order="request").to_dicts() == rows
        frame = job.to_pandas(order="request")
        assert list(frame.columns) == list(rows[0])
        assert frame.astype(object).where(frame.notna(), None).to_dict("records") == rows
        assert frame["input_tokens"].dtype == "Int64"
        assert len(job.to_pandas(type="expired")) == len(job.to_polars(type="expired")) == 30
        with pytest.raises(ValueError, match="type must be"):
            job.to_pandas(type="nonsense")  # type: ignore[arg-type]

    def test_without_the_package_says_what_to_install(self, job: BatchJob, monkeypatch: pytest.MonkeyPatch) -> None:
        for package, extra in (("pandas", "pandas"), ("polars", "polars"), ("pyarrow", "arrow")):
            monkeypatch.setitem(sys.modules, package, None)
            with pytest.raises(ImportError, match=rf"needs {package}: pip install 'claude-batch-tasks\[{extra}\]'"):
                getattr(job, f"to_{extra}")()

    def test_holds_few_bytes_of_a_table_at_a_time(
        self, job: BatchJob, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        whole, parts = tmp_path / "whole.parquet", tmp_path / "parts.parquet"
        job.export(whole, format="parquet")
        monkeypatch.setattr(flat_rows, "_GROUP_SIZE", 1_000)
        assert job.export(parts, format="parquet") == 3 * PER_BATCH
        assert pyarrow.parquet.read_table(parts).to_pylist() == pyarrow.parquet.read_table(whole).to_pylist()
        assert pyarrow.parquet.ParquetFile(whole).num_row_groups == 1
        assert pyarrow.parquet.ParquetFile(parts).num_row_groups > 3

    def test_may_be_a_table_of_odd_rows(self, app: Celery, make_request: Any, finish: Any) -> None:
        odd: list[dict[str, Any]] = [
            {"type": "succeeded", "message": "text"},
            {"type": "succeeded", "message": {"usage": {"input_tokens": 2**63, "output_tokens": True}}},
            {"type": "succeeded", "message": {"usage": {"input_tokens": -1}, "model": 7, "content": 5}},
            {"type": "errored", "error": {"type": ["x"]}},
        ]
        submission.submit_job(app, JOB, (make_request(f"review {n}") for n in range(4)), {})
        finish(0, lambda n: odd[n])
        job, out = BatchJob(JOB, app), io.BytesIO()
        assert job.export(out, format="parquet", order="request") == 4
        rows = pyarrow.parquet.read_table(out).to_pylist()
        assert [row["input_tokens"] for row in rows] == [None] * 4
        first = next(job.results(order="request"))
        assert (first.text, first.usage, first.type) == ("", None, "succeeded")

    def test_goes_through_a_link_and_into_what_is_no_file(self, job: BatchJob, tmp_path: Path) -> None:
        target, link, pipe = tmp_path / "target", tmp_path / "link", tmp_path / "pipe"
        target.write_text("of yesterday")
        link.symlink_to(target)
        job.export(link)
        assert link.is_symlink()
        assert len(self.lines(target.read_bytes())) == 3 * PER_BATCH
        os.mkfifo(pipe)
        read: list[bytes] = []
        results = threading.Thread(target=lambda: read.append(pipe.read_bytes()))
        results.start()
        job.export(pipe)
        results.join()
        assert len(self.lines(read[0])) == 3 * PER_BATCH

    def test_takes_any_text_file(self, job: BatchJob, tmp_path: Path) -> None:
        with tempfile.NamedTemporaryFile("w+", encoding="utf-8") as file:
            assert job.export(file) == 3 * PER_BATCH
            file.seek(0)
            assert len(self.lines(file.read().encode())) == 3 * PER_BATCH
            with pytest.raises(TypeError, match="a Parquet file is binary"):
                job.export(file, format="parquet")

    def test_that_nobody_can_write_says_what_is_missing(self, job: BatchJob, monkeypatch: Any, tmp_path: Path) -> None:
        monkeypatch.setitem(sys.modules, "pyarrow", None)
        with pytest.raises(ImportError, match=r"pip install 'claude-batch-tasks\[arrow\]'"):
            job.export(tmp_path / "x.parquet", format="parquet")
        with pytest.raises(ValueError, match="format must be 'jsonl' or 'csv' or 'parquet', not 'xml'"):
            job.export(tmp_path / "x.xml", format="xml")
        assert list(tmp_path.iterdir()) == []

    def test_of_a_result_is_builtins_for_other_libraries(self, job: BatchJob) -> None:
        row = msgspec.to_builtins(job.result("review 4"))
        assert (row["custom_id"], row["message"]["stop_reason"]) == ("review 4", "end_turn")


class TestDeleting:
    def test_leaves_nothing_of_a_job_that_ended(self, job: BatchJob, store: Store, redis_url: str) -> None:
        store.jobs.update_job(JOB, state="completed")
        job.delete()
        assert redis.Redis.from_url(redis_url).keys("*{*") == []
        with pytest.raises(errors.JobNotFound):
            job.delete()

    def test_is_refused_while_the_job_runs(self, job: BatchJob, store: Store) -> None:
        store.jobs.update_job(JOB, state="running")
        with pytest.raises(errors.JobRunning, match=r"job job-1 is running.*cancel\(\) it"):
            job.delete()
        assert len(list(job.results())) == 3 * PER_BATCH

    def test_takes_a_job_that_has_not_begun_from_its_workers_first(
        self, job: BatchJob, store: Store, monkeypatch: Any
    ) -> None:
        states = []
        delete = type(store.storage).delete_job
        monkeypatch.setattr(
            type(store.storage),
            "delete_job",
            lambda own, job_id, **how: (states.append(store.jobs.read_job(job_id).state), delete(own, job_id, **how)),
        )
        job.delete()
        assert states == ["revoked"]

    def test_ends_a_reader_of_what_has_no_rows_too(self, app: Celery, make_request: Any, store: Store) -> None:
        """All of it came through the Messages API; without that, it would look as if none of it had."""
        submission.submit_job(app, JOB, (make_request(f"review {n}") for n in range(600)), {})
        lost = {"outcome": {"type": "errored", "error": {}}, "counts": {"succeeded": 600}, "final": True, "done": True}
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.leases.write_record(Unit(JOB, 0), "test", **lost)
        for place in range(600):
            store.message_queue.save_outcome(
                Unit(JOB, 0, 0), place, message_outcome(json.dumps(answer(0)["message"]).encode())
            )
        store.jobs.update_job(JOB, state="completed")
        job = BatchJob(JOB, app)
        results = job.results()
        seen = [next(results)]
        job.delete()
        with pytest.raises(errors.JobNotFound):
            seen.extend(results)
        assert {result.type for result in seen} == {"succeeded"}

    def test_ends_a_reader_with_a_word(self, app: Celery, make_request: Any, finish: Any, store: Store) -> None:
        submission.submit_job(app, JOB, (make_request(f"review {n}") for n in range(20)), {})
        finish(0, lambda n: answer(4 * n, size=200_000))
        store.jobs.update_job(JOB, state="completed")
        job = BatchJob(JOB, app)
        not_begun, begun = job.results(), job.results()
        next(begun)
        job.delete()
        for results in (not_begun, begun):
            with pytest.raises(errors.JobNotFound, match="expired or was deleted"):
                list(results)
