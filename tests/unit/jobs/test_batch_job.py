from __future__ import annotations

import asyncio
import json
import logging
import pickle
import time
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
import redis
from celery import Celery, Task

from claude_batch_tasks import BatchJob, JobStatus, Progress, RequestResult, adopt, errors, list_jobs, run_batch
from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.jobs.job_status import OLD_NAMES
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import Unit
from claude_batch_tasks.results.stored.messages_outcomes import error_outcome, kept_outcome, message_outcome
from claude_batch_tasks.store import Store, open_store_at
from claude_batch_tasks.store.redis.keys import SCHEMA
from claude_batch_tasks.wire.batch_requests import wire_id
from claude_batch_tasks.wire.completeness import Completeness
from tests.support import ASKED_ONCE

JOB = "job-1"
PROMPT = "SECRET-PROMPT"
Keys = Callable[[], set[str]]


@pytest.fixture
def keys(redis_url: str) -> Keys:
    client: Any = redis.Redis.from_url(redis_url)
    return lambda: {key.decode() for key in client.keys("*")} - {SCHEMA}


@pytest.fixture
def store(app: Celery, redis_url: str) -> Store:
    return open_store_at(redis_url)


@pytest.fixture
def stage(app: Celery, make_request: Any) -> Callable[..., BatchJob]:
    """``stage("a", "b", max_requests_per_batch=1)``: a job of these requests, not begun."""

    def stage(*custom_ids: str, **options: Any) -> BatchJob:
        submission.submit_job(app, JOB, [make_request(i, text=f"{PROMPT} {i}") for i in custom_ids], options)
        return BatchJob(JOB, app)

    return stage


@pytest.fixture
def finish(store: Store) -> Callable[..., None]:
    """``finish(0, [{"type": "expired"}, ...], batch_id="x")``: publish what became of a batch."""

    def finish(batch: int, results: list[dict[str, Any] | None], **changes: Any) -> None:
        job, record, unit = store.jobs.read_job(JOB), store.records.read_batch(JOB, batch), Unit(JOB, batch)
        assert job is not None
        assert record is not None
        lines = [
            json.dumps({"custom_id": wire_id(job.nonce, record.first + place), "result": result}).encode()
            for place, result in enumerate(results)
            if result is not None
        ]
        store.leases.acquire_lease(unit, 0, "test", 60)
        seen = Completeness(job.nonce, record.first, record.count)
        store.results.write_rows(JOB, batch, 1, seen.keep_rows([b"\n".join([*lines[1::-1], *lines[2:]])]))
        known = {
            "pieces": seen.pieces.tobytes(),
            "eligible_places": seen.judged.eligible.tobytes(),
            "counts": dict(seen.tallies),
        }
        assert store.results.publish_rows(
            unit, "test", 1, **{"state": "fetched", "final": True, "done": True, **known, **changes}
        )

    return finish


def message(text: str = "hi", **own: Any) -> dict[str, Any]:
    return {
        "id": "msg_1",
        "type": "message",
        "content": [{"type": "text", "text": text}],
        "usage": {"input_tokens": 3, "output_tokens": 5},
        **own,
    }


def succeeded(text: str = "hi") -> dict[str, Any]:
    return {"type": "succeeded", "message": message(text)}


class TestSubmitting:
    def test_stages_everything_under_the_job(self, app: Celery, store: Store, make_request: Any) -> None:
        job = submission.submit_job(app, JOB, [make_request("a")], {"poll_min": 1, "client": "default"}, queue="slow")
        assert (job.requests, job.batches, job.state, job.queue) == (1, 1, "staged", "slow")
        assert job.options == {"poll_min": 1}
        assert store.jobs.read_job(JOB) == job

    def test_stores_and_reports_label_and_metadata(
        self, app: Celery, store: Store, make_request: Any, caplog: pytest.LogCaptureFixture
    ) -> None:
        caplog.set_level(logging.INFO)
        options = {"label": "nightly", "metadata": {"team": "search", "run": 7}, "poll_min": 1}
        submission.submit_job(app, JOB, [make_request("a")], options)
        record = store.jobs.read_job(JOB)
        assert record is not None
        assert (record.label, record.metadata) == ("nightly", {"team": "search", "run": "7"})
        assert record.options == {"poll_min": 1}, "an older worker knows no such option"
        job = BatchJob(JOB, app)
        assert (job.status().label, job.status().metadata) == (record.label, record.metadata)
        [event] = job.history()
        assert (event.details["label"], event.details["metadata"]) == (record.label, record.metadata)
        [line] = [each for each in caplog.records if getattr(each, "claude_batch_event", "") == "submitted"]
        assert (vars(line)["claude_batch_label"], vars(line)["claude_batch_metadata"]) == (
            record.label,
            record.metadata,
        )

    def test_adopts_with_label_and_metadata(self, app: Celery) -> None:
        job = adopt("msgbatch_1", label="nightly", metadata={"run": 7}, app=app)
        assert (job.status().label, job.status().metadata) == ("nightly", {"run": "7"})
        [event] = job.history()
        assert (event.event, event.details["label"], event.details["metadata"]) == ("adopted", "nightly", {"run": "7"})
        with pytest.raises(errors.InvalidSettings, match="label must be"):
            adopt("msgbatch_2", label="", app=app)
        assert [each.job_id for each in list_jobs(app=app)] == [job.id]

    @pytest.mark.parametrize("options", [{"label": ""}, {"label": 7}, {"metadata": {"team": None}}, {"metadata": []}])
    def test_refuses_wrong_labels_and_stores_nothing(
        self, app: Celery, store: Store, redis_client: redis.Redis, make_request: Any, options: dict[str, Any]
    ) -> None:
        with pytest.raises(errors.InvalidSettings, match=r"job option (label|metadata)"):
            submission.submit_job(app, JOB, [make_request("a")], options)
        assert redis_client.keys(f"*{JOB}*") == []

    @pytest.mark.parametrize(
        ("options", "counts"),
        [({}, [7]), ({"max_requests_per_batch": 3}, [3, 3, 1]), ({"max_bytes_per_batch": 1000}, None)],
    )
    def test_knows_the_exact_bytes_of_every_create(
        self, store: Store, stage: Any, options: dict[str, Any], counts: list[int] | None
    ) -> None:
        stage(*[f"ü{n}" for n in range(7)], **options)
        job, records = store.jobs.read_job(JOB), store.records.read_batches(JOB)
        assert job is not None
        assert counts is None or [record.count for record in records] == counts
        assert len(records) > 1 or not options
        first = 0
        for number, record in enumerate(records):
            body = b"".join(submission.read_body(store, JOB, job, number, record))
            assert len(body) == record.body_bytes <= options.get("max_bytes_per_batch", 256_000_000)
            assert len(json.loads(body)["requests"]) == record.count
            assert record.first == first
            first += record.count
        assert first == 7

    def test_sends_wire_ids_in_place_of_the_callers(self, store: Store, stage: Any) -> None:
        stage("a/b c", "ü")
        job = store.jobs.read_job(JOB)
        assert job is not None
        [record] = store.records.read_batches(JOB)
        sent = json.loads(b"".join(submission.read_body(store, JOB, job, 0, record)))["requests"]
        assert [request["custom_id"] for request in sent] == [wire_id(job.nonce, 0), wire_id(job.nonce, 1)]

    def test_counts_the_models(self, app: Celery, store: Store, make_request: Any) -> None:
        requests = [make_request(str(n), model=f"m{n % 3}") for n in range(7)]
        assert submission.submit_job(app, JOB, requests, {}).models == store.jobs.read_job(JOB).models == 3  # type: ignore[union-attr]

    def test_gives_every_job_a_nonce_of_its_own(self, app: Celery, make_request: Any) -> None:
        assert len({submission.submit_job(app, f"job-{n}", [make_request()], {}).nonce for n in range(20)}) == 20

    @pytest.mark.parametrize("state", ["staged", "running", "completed"])
    def test_again_under_the_same_id_is_refused_and_changes_nothing(
        self, store: Store, stage: Any, state: str, keys: Any
    ) -> None:
        job = stage("a")
        store.jobs.update_job(JOB, state=state)
        before = keys()
        with pytest.raises(errors.BatchTasksError, match="a task id belongs to one job"):
            stage("b", "c", max_requests_per_batch=1)
        assert [request["custom_id"] for request in job.requests()] == ["a"]
        assert keys() == before

    def test_by_many_at_once_under_one_id_makes_one_job_of_one_of_them(
        self, app: Celery, store: Store, make_request: Any
    ) -> None:
        def submit(n: int) -> int | None:
            try:
                submission.submit_job(
                    app, JOB, (make_request(f"{n}-{m}") for m in range(50)), {"max_requests_per_batch": 7}
                )
            except errors.BatchTasksError:
                return None
            return n

        with ThreadPoolExecutor(6) as pool:
            [first] = [n for n in pool.map(submit, range(6)) if n is not None]
        assert [r["custom_id"] for r in BatchJob(JOB, app).requests()] == [f"{first}-{m}" for m in range(50)]

    def test_takes_a_uuid_as_an_id(self, app: Celery, make_request: Any) -> None:
        chosen: Any = uuid.uuid4()
        result = run_batch.apply_async(([make_request("a")],), task_id=chosen)
        assert [request["custom_id"] for request in BatchJob(result.id, app).requests()] == ["a"]
        assert result.id == str(chosen)


class TestADeadline:
    IN_AN_HOUR = datetime.now(timezone.utc) + timedelta(hours=1)

    def stored(self, stage: Any, store: Store, deadline: Any) -> Any:
        stage("a", deadline=deadline)
        job = store.jobs.read_job(JOB)
        assert job is not None
        return job.options["deadline"]

    @pytest.mark.parametrize(
        "deadline",
        [
            IN_AN_HOUR,
            IN_AN_HOUR.astimezone(timezone(timedelta(hours=-9))),
            IN_AN_HOUR.isoformat(),
            IN_AN_HOUR.isoformat().replace("+00:00", "Z"),
        ],
        ids=["UTC", "elsewhere", "text", "Z"],
    )
    def test_that_is_a_moment_is_the_seconds_until_then(self, stage: Any, store: Store, deadline: Any) -> None:
        left = (self.IN_AN_HOUR - datetime.now(timezone.utc)).total_seconds()
        assert self.stored(stage, store, deadline) == pytest.approx(left, abs=5)

    @pytest.mark.parametrize(
        ("deadline", "seconds"),
        [(3600, 3600), (0.5, 0.5), (timedelta(hours=1), 3600), ("2001-01-01T00:00:00Z", 0), (None, None)],
    )
    def test_may_be_seconds_and_may_have_passed(self, stage: Any, store: Store, deadline: Any, seconds: Any) -> None:
        assert self.stored(stage, store, deadline) == seconds

    @pytest.mark.parametrize(
        ("deadline", "text"),
        [
            (datetime(2100, 1, 1), "must have a time zone"),
            ("2100-01-01T00:00:00", "must have a time zone"),
            ("tomorrow", "claude_batch_deadline must be a number, not 'tomorrow'"),
            (timedelta(seconds=-1), "claude_batch_deadline must be from 0"),
            ([3600], "claude_batch_deadline must be a number"),
        ],
    )
    def test_is_refused_if_it_is_not_clear(self, stage: Any, keys: Keys, deadline: Any, text: str) -> None:
        with pytest.raises(errors.InvalidSettings, match=text):
            stage("a", deadline=deadline)
        assert keys() == set()


class TestMaxCost:
    HAIKU = "claude-haiku-4-5"  # 1 / 5 USD per million tokens, half of it in a batch

    def submit(self, app: Celery, make_request: Any, max_cost: float | None, *models: str, **options: Any) -> None:
        """Requests of 14 tokens in, estimated, and 51 at most (a token a byte), and 1,000 out."""
        requests = [make_request(str(n), text="x" * 35, model=m, max_tokens=1_000) for n, m in enumerate(models)]
        submission.submit_job(app, JOB, requests, {"max_cost": max_cost, **options})

    def test_has_what_each_batch_costs_noted(self, app: Celery, make_request: Any, store: Store) -> None:
        self.submit(app, make_request, 1, *[self.HAIKU] * 5, max_requests_per_batch=2)
        assert [(batch.least, batch.most) for batch in store.records.read_batches(JOB)] == [
            (count * 7_000, count * 2_525_500) for count in (2, 2, 1)
        ]

    def test_that_nobody_set_has_nothing_noted(self, app: Celery, make_request: Any, store: Store) -> None:
        self.submit(app, make_request, None, self.HAIKU, "claude-x")
        assert [(batch.least, batch.most) for batch in store.records.read_batches(JOB)] == [(None, None)]

    @pytest.mark.parametrize(("max_cost", "enough"), [(0.000_014, True), (0.000_013_9, False), (0, False)])
    def test_must_cover_the_input(
        self, app: Celery, make_request: Any, keys: Keys, max_cost: float, enough: bool
    ) -> None:
        if enough:
            self.submit(app, make_request, max_cost, self.HAIKU, self.HAIKU, max_requests_per_batch=1)
            return
        with pytest.raises(errors.InvalidRequests, match=r"input alone costs about \$1.4e-05, more.*up to \$0.005051"):
            self.submit(app, make_request, max_cost, self.HAIKU, self.HAIKU, max_requests_per_batch=1)
        assert keys() == set()

    def test_cannot_be_kept_where_a_price_is_not_known(self, app: Celery, make_request: Any, keys: Keys) -> None:
        with pytest.raises(
            errors.InvalidRequests, match="the price of claude-x is not known; add it to claude_batch_pr"
        ):
            self.submit(app, make_request, 1, self.HAIKU, "claude-x")
        assert keys() == set()
        app.conf.claude_batch_prices = {"claude-x": {"input_mtok": 1, "output_mtok": 5}}
        self.submit(app, make_request, 1, self.HAIKU, "claude-x")


class TestARefusalModel:
    def test_that_is_the_one_that_refused_is_refused_itself(
        self, stage: Callable[..., BatchJob], keys: Keys, make_request: Any
    ) -> None:
        model = make_request("a")["params"]["model"]
        for given in (model, f"claude-opus-4-5, {model}", [model]):
            with pytest.raises(errors.InvalidSettings, match=f"refusal_model names {model}.*Nothing was stored"):
                stage("a", "b", refusal_model=given)
        assert keys() == set()
        stage("a", refusal_model=["claude-opus-4-5"])

    def test_of_all_jobs_may_be_that_of_some(
        self, stage: Callable[..., BatchJob], app: Celery, make_request: Any
    ) -> None:
        app.conf.claude_batch_refusal_model = make_request("a")["params"]["model"]
        stage("a")

    def test_must_take_what_the_first_model_is_sent(self, app: Celery, make_request: Any, keys: Keys) -> None:
        """Otherwise the API would refuse each repair, a day later."""
        output = {"type": "object", "properties": {}, "additionalProperties": False}
        own, forced = make_request("a"), make_request("b")
        own["params"]["output_config"] = {"format": {"type": "json_schema", "schema": output}}
        forced["params"] |= {"tools": [{"name": "t", "input_schema": output}], "tool_choice": {"type": "any"}}
        for request, options, wrong in (
            (own, {"refusal_model": "claude-opus-4-5, claude-3-haiku-20240307"}, "claude-3-haiku.*no structured outp"),
            (
                make_request("a"),
                {"refusal_model": "claude-3-haiku-20240307", "output": output},
                "no structured outputs",
            ),
            (forced, {"refusal_model": "claude-mythos-5"}, "tool_choice .*is not possible.*takes no forced tool"),
        ):
            with pytest.raises(errors.InvalidRequests, match=wrong):
                submission.submit_job(app, JOB, [request], options)
        app.conf.claude_batch_refusal_model = "claude-3-haiku-20240307"
        with pytest.raises(errors.InvalidRequests, match="refusal_model claude-3-haiku"):
            submission.submit_job(app, JOB, [own], {})
        assert keys() == set()
        submission.submit_job(app, JOB, [forced, make_request("c")], {})


class TestSubmittingThatFails:
    """Half way through, and nothing stays behind."""

    def requests(self, make_request: Any, keys: Keys, last: Callable[[], dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for n in range(1000):
            if n == 699:
                assert keys(), "there was something to be left behind"
                yield last()
            else:
                yield make_request(str(n), text="x" * 5000)

    def test_for_a_bad_request(self, app: Celery, make_request: Any, keys: Keys) -> None:
        requests = self.requests(make_request, keys, lambda: make_request("bad", max_tokens=0))
        with pytest.raises(errors.InvalidRequests, match=r"requests\[699\].params.max_tokens \(custom_id 'bad'\)"):
            run_batch.delay(requests)
        assert keys() == set()

    def test_for_requests_that_cannot_be_read_on(self, app: Celery, make_request: Any, keys: Keys) -> None:
        def broken() -> dict[str, Any]:
            raise OSError("the caller's file is gone")

        with pytest.raises(OSError, match="the caller's file"):
            run_batch.delay(self.requests(make_request, keys, broken))
        assert keys() == set()

    @pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit, GeneratorExit])
    def test_for_an_interrupt(self, app: Celery, make_request: Any, keys: Keys, interrupt: Any) -> None:
        def stop() -> dict[str, Any]:
            raise interrupt

        with pytest.raises(interrupt):
            run_batch.delay(self.requests(make_request, keys, stop))
        assert keys() == set()

    @pytest.mark.parametrize(
        "options", [{"poll_mim": 1}, {"fallback": "maybe"}, {"client": "tenant-b"}, {"store_url": "redis://elsewhere"}]
    )
    def test_for_an_option(self, app: Celery, make_request: Any, keys: Keys, options: dict[str, Any]) -> None:
        with pytest.raises(errors.InvalidSettings):
            run_batch.delay([make_request()], **options)
        assert keys() == set()

    def test_for_a_broker_that_is_gone(self, redis_url: str, make_request: Any, keys: Keys) -> None:
        app = Celery("tests", broker=f"redis://127.0.0.1:{free_port()}/0", set_as_current=False)
        app.conf.update(claude_batch_store_url=redis_url, task_publish_retry=False, broker_transport_options=ASKED_ONCE)
        with app, pytest.raises(Exception, match="refused"):
            app.tasks[run_batch.name].apply_async(([make_request()],), retry=False)
        assert keys() == set()

    def test_not_if_only_the_brokers_answer_is_lost(
        self, app: Celery, make_request: Any, store: Store, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A worker has begun it, and may be paying for it: the caller gets its id."""

        def taken(task: Any, args: Any, kwargs: Any, task_id: str, **_: Any) -> None:
            store.jobs.update_job(task_id, state="running")
            raise ConnectionResetError("no answer")

        monkeypatch.setattr(Task, "apply_async", taken)
        result = run_batch.apply_async(([make_request("a")],), task_id=JOB)
        assert result.id == JOB
        assert len(list(BatchJob(JOB, app).requests())) == 1

    def test_for_a_store_whose_last_answer_is_lost(
        self, app: Celery, store: Store, make_request: Any, keys: Keys, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The job was made, but nobody can know: it must not block its id."""
        create = type(store.jobs).create_job

        def lost(*args: Any) -> bool:
            assert create(*args)
            raise errors.StoreUnavailable("no answer")

        with monkeypatch.context() as patched:
            patched.setattr(type(store.jobs), "create_job", lost)
            with pytest.raises(errors.StoreUnavailable):
                submission.submit_job(app, JOB, [make_request()], {})
        assert keys() == set()
        submission.submit_job(app, JOB, [make_request()], {})

    def test_for_a_store_that_is_gone(self, make_request: Any) -> None:
        with RedisServer() as server:
            app = Celery("tests", broker=server.url, set_as_current=False)

            def requests() -> Iterator[dict[str, Any]]:
                for n in range(1000):
                    if n == 699:
                        server.stop(kill=True)
                    yield make_request(str(n), text="x" * 5000)

            with pytest.raises(errors.StoreUnavailable):
                submission.submit_job(app, JOB, requests(), {})
            server.start()
            client = server.client()
            assert open_store_at(server.url).jobs.read_job(JOB) is None
            assert all(0 < client.ttl(key) <= 86_400 for key in client.keys("*{*"))
            # And when it is handed over again under the same id, nothing of the first time is mixed in.
            submission.submit_job(app, JOB, [make_request("a")], {})
            assert [request["custom_id"] for request in BatchJob(JOB, app).requests()] == ["a"]


class TestTheRequests:
    def test_come_back_as_they_were_handed_over(self, app: Celery, make_request: Any) -> None:
        handed_over = [
            make_request("ü\u2028\n", text="\u2028\x85\x00😀"),
            make_request("x" * 512, temperature=0.1, metadata={"n": 2**63, "f": 1e300, "t": True, "z": None}),
            *(make_request(str(n), text="x" * 300_000) for n in range(8)),
        ]
        submission.submit_job(app, JOB, iter(handed_over), {"max_requests_per_batch": 4})
        assert list(BatchJob(JOB, app).requests()) == handed_over

    def test_hold_nothing_of_ours(self, stage: Any) -> None:
        [request] = stage("a").requests()
        assert set(request) == {"custom_id", "params"}


class TestAResult:
    @pytest.mark.parametrize(
        ("result", "expected"),
        [
            (succeeded(), {"type": "succeeded", "message": message()}),
            ({"type": "expired"}, {"type": "expired"}),
            ({"type": "canceled"}, {"type": "canceled"}),
            (
                {"type": "errored", "error": {"type": "error", "error": {"type": "api_error", "message": "m"}}},
                {"type": "errored", "error": {"type": "api_error", "message": "m"}},
            ),
            (
                {
                    "type": "errored",
                    "error": {
                        "type": "error",
                        "request_id": "r",
                        "error": {"type": "rate_limit_error", "message": "m"},
                    },
                },
                {"type": "errored", "error": {"type": "rate_limit_error", "message": "m", "request_id": "r"}},
            ),
            (
                {"type": "errored"},
                {"type": "errored", "error": {"type": None, "message": "the result does not say why"}},
            ),
            (
                {"type": "paused", "until": 7},
                {
                    "type": "errored",
                    "error": {
                        "type": "unknown_result_type",
                        "message": "a result of type 'paused'",
                        "result": {"type": "paused", "until": 7},
                    },
                },
            ),
        ],
    )
    def test_says_what_became_of_the_request(self, stage: Any, finish: Any, result: Any, expected: Any) -> None:
        job = stage("a", "other")
        finish(0, [result, {"type": "expired"}])
        wanted = RequestResult(custom_id="a", source="batch", **expected)
        one = job.result("a")
        assert [found for found in job.results() if found.custom_id == "a"] == [one]
        assert replace(one, attempts=()) == wanted
        assert [(attempt.kind, attempt.type) for attempt in one.attempts] == [("first", one.type)]

    def test_carries_the_callers_custom_id(self, stage: Any, finish: Any) -> None:
        ids = ["review/17", "ü\u2028", "x" * 512, "0", "a b"]
        job = stage(*ids)
        finish(0, [succeeded(custom_id) for custom_id in ids])
        assert {result.custom_id: result.text for result in job.results()} == {i: i for i in ids}

        async def read() -> dict[str, str]:
            return {result.custom_id: result.text async for result in job.aresults(order="request")}

        assert asyncio.run(read()) == {i: i for i in ids}
        assert [job.result(custom_id).text for custom_id in ids] == ids

    def test_is_not_final_where_it_was_canceled_for_a_deadline(self, stage: Any, finish: Any) -> None:
        job, rows = stage("a", "b"), [succeeded("a"), {"type": "canceled"}]
        finish(0, rows, final=False, done=False, cut_short=True)
        assert [found.custom_id for found in job.results(ids=["a", "b"])] == ["a"]

    def test_is_final_where_somebody_canceled_it(self, stage: Any, finish: Any) -> None:
        job, rows = stage("a", "b"), [succeeded("a"), {"type": "canceled"}]
        finish(0, rows, final=False, done=False)
        assert sorted(found.custom_id for found in job.results(ids=["a", "b"])) == ["a", "b"]

    def test_may_come_through_the_messages_api(self, store: Store, stage: Any, finish: Any) -> None:
        job = stage("a", "b", "c", "d")
        finish(0, [succeeded("a"), {"type": "expired"}, {"type": "expired"}, {"type": "expired"}])
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 1, message_outcome(json.dumps(message("b")).encode()))
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 2, error_outcome("invalid_request_error", "m", None))
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 3, kept_outcome("the answer was lost", tried=True))
        found = {result.custom_id: result for result in job.results()}
        assert len(list(job.results())) == 4
        assert {i: (r.type, r.source) for i, r in found.items()} == {
            "a": ("succeeded", "batch"),
            "b": ("succeeded", "messages"),
            "c": ("errored", "messages"),
            "d": ("expired", "batch"),
        }
        assert found["b"].text == "b"
        assert found["c"].error == {"type": "invalid_request_error", "message": "m"}
        assert {custom_id: job.result(custom_id) for custom_id in "abcd"} == found

    def test_of_a_batch_that_never_had_results_is_the_batchs_own(self, store: Store, stage: Any) -> None:
        job = stage("a", "b")
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        error = {"type": "not_found_error", "message": "gone"}
        store.leases.write_record(
            Unit(JOB, 0), "test", final=True, done=True, state="lost", outcome={"type": "errored", "error": error}
        )
        store.message_queue.save_outcome(Unit(JOB, 0, 0), 1, message_outcome(json.dumps(message("b")).encode()))
        assert job.result("a") == RequestResult(custom_id="a", type="errored", source="batch", error=error)
        assert job.result("b").text == "b"
        assert sorted(result.custom_id for result in job.results()) == ["a", "b"]

    def test_is_there_once_its_batch_is_done(self, stage: Any, finish: Any) -> None:
        job = stage("a", "b", max_requests_per_batch=1)
        finish(1, [succeeded("b")])
        assert [result.custom_id for result in job.results()] == ["b"]
        assert job.result("b").text == "b"
        with pytest.raises(errors.RequestNotFound, match="'a' of job job-1 has no outcome yet"):
            job.result("a")
        finish(0, [succeeded("a")])
        assert sorted(result.custom_id for result in job.results()) == ["a", "b"]

    def test_that_never_came_is_not_made_up(self, stage: Any, finish: Any) -> None:
        job = stage("a", "b")
        finish(0, [succeeded("a"), None], error=["ResultsMissing", ["1 of 2"]])
        assert [result.custom_id for result in job.results()] == ["a"]
        with pytest.raises(errors.RequestNotFound):
            job.result("b")

    @pytest.mark.parametrize("custom_id", ["nobody", "", "A", "cbt-1-0"])
    def test_of_a_request_the_job_does_not_have_is_an_error(self, stage: Any, finish: Any, custom_id: str) -> None:
        job = stage("a")
        finish(0, [succeeded()])
        with pytest.raises(errors.RequestNotFound, match="no request"):
            job.result(custom_id)

    def test_is_found_even_if_another_answer_quotes_its_wire_id(self, store: Store, stage: Any, finish: Any) -> None:
        job = stage("a", "b")
        record = store.jobs.read_job(JOB)
        assert record is not None
        finish(0, [succeeded("mine"), succeeded(f'"{wire_id(record.nonce, 0)}"')])
        assert job.result("a").text == "mine"

    def test_is_a_value(self) -> None:
        result = RequestResult(custom_id="a", type="succeeded", source="batch", message=message())
        assert pickle.loads(pickle.dumps(result)) == result
        with pytest.raises(AttributeError):
            result.custom_id = "b"  # type: ignore[misc]


class TestTheTextOfAResult:
    @pytest.mark.parametrize(
        ("content", "text"),
        [
            ([], ""),
            (None, ""),
            ([{"type": "text", "text": "a"}], "a"),
            ([{"type": "thinking"}, {"type": "text", "text": "a"}, {"type": "text", "text": "b"}], "ab"),
            ([{"type": "tool_use", "input": {"text": "x"}}], ""),
            ([{"type": "a_block_of_next_year", "text": "x"}, {}], ""),
            ([{"type": "text", "text": "", "citations": None}], ""),
        ],
    )
    def test_is_its_text_blocks(self, content: Any, text: str) -> None:
        assert RequestResult(custom_id="a", type="succeeded", source="batch", message={"content": content}).text == text

    @pytest.mark.parametrize("kind", ["errored", "expired", "canceled"])
    def test_is_empty_without_a_message(self, kind: Any) -> None:
        result = RequestResult(custom_id="a", type=kind, source="batch")
        assert (result.text, result.usage) == ("", None)

    def test_stands_beside_its_usage(self) -> None:
        result = RequestResult(custom_id="a", type="succeeded", source="batch", message=message())
        assert result.usage == {"input_tokens": 3, "output_tokens": 5}


class TestStatus:
    def test_of_a_staged_job(self, stage: Any) -> None:
        before = datetime.now(timezone.utc)
        status = stage("a", "b", "c", max_requests_per_batch=2).status()
        assert (status.job_id, status.state, status.requests, status.processing) == (JOB, "staged", 3, 3)
        assert (status.succeeded, status.errored, status.expired, status.canceled) == (0, 0, 0, 0)
        assert [(batch.state, batch.requests, batch.batch_id) for batch in status.batches] == [
            ("staged", 2, None),
            ("staged", 1, None),
        ]
        assert (status.next_poll_at, status.started_at, status.ended_at, status.error, status.summary) == (None,) * 5
        assert 0 <= (datetime.now(timezone.utc) - status.submitted_at).total_seconds() < 60
        assert abs((status.submitted_at - before).total_seconds()) < 60

    def test_of_a_running_job_adds_its_batches_up(self, store: Store, stage: Any) -> None:
        job = stage("a", "b", "c", "d", max_requests_per_batch=2)
        store.jobs.update_job(JOB, state="running", started_at=1000.5)
        for number, changes in enumerate(
            (
                {"state": "in_progress", "batch_id": "msgbatch_1", "looks": 3, "not_found": 1, "due_at": 2000.0},
                {
                    "state": "ended",
                    "looks": 4,
                    "not_found": 2,
                    "due_at": 1900.0,
                    "counts": {"succeeded": 1, "expired": 1},
                },
            )
        ):
            store.leases.acquire_lease(Unit(JOB, number), 0, "test", 60)
            store.leases.write_record(Unit(JOB, number), "test", **changes)
        status = job.status()
        assert (status.state, status.processing, status.succeeded, status.expired) == ("running", 2, 1, 1)
        assert (status.polls, status.polls_404) == (7, 3)
        assert status.next_poll_at == datetime.fromtimestamp(1900, timezone.utc)
        assert status.started_at == datetime.fromtimestamp(1000.5, timezone.utc)
        assert [(batch.number, batch.batch_id) for batch in status.batches] == [(1, "msgbatch_1"), (2, None)]

    def test_of_a_running_job_says_how_far_it_is(self, store: Store, stage: Any) -> None:
        job = stage("a", "b", "c", "d", max_requests_per_batch=2)
        assert (job.status().phase, job.status().progress) == ("queued", None)
        store.jobs.update_job(JOB, state="running")
        assert (job.status().phase, job.status().progress) == ("running", None), "nothing is known"
        units, created = [Unit(JOB, number) for number in range(2)], store.now() - 40
        for unit in units:
            store.leases.acquire_lease(unit, 0, "test", 60)
            store.leases.write_record(unit, "test", state="in_progress", batch_id="msgbatch_1", created_at=created)
        assert job.status().progress is None
        record = store.jobs.read_job(JOB)
        assert record is not None
        assert record.model is not None
        for _ in range(4):
            store.in_flight.add_duration("account", 2, 100.0, kind=f"{record.model}:1")
        progress = job.status().progress
        assert progress is not None
        assert 0.4 <= progress.fraction < 0.5
        assert not progress.measured
        assert str(progress) == progress.text == "about 40 %, by the time that 4 similar batches took"
        store.leases.write_record(units[0], "test", processed=1)
        store.leases.write_record(units[1], "test", state="fetched", final=True, done=True)
        assert job.status().progress == Progress(fraction=0.75, measured=True, text="75 % of the requests")
        assert job.status().asdict()["progress"]["fraction"] == 0.75
        store.leases.write_record(units[0], "test", state="ended")
        assert job.status().phase == "saving results"
        store.jobs.update_job(JOB, state="completed", ended_at=5.0)
        assert (job.status().phase, job.status().progress) == ("completed", None)

    def test_has_the_old_names_of_its_attributes(self, store: Store, stage: Any) -> None:
        job = stage("a", "b", "c", max_requests_per_batch=2)
        store.leases.acquire_lease(Unit(JOB, 0), 0, "test", 60)
        store.leases.write_record(Unit(JOB, 0), "test", looks=3, not_found=1, due_at=2000.0)
        status = job.status()
        shown = status.asdict()
        assert [(each.looks, each.not_found) for each in (status, *status.batches)] == [(3, 1), (3, 1), (0, 0)]
        assert status.next_look == status.batches[0].next_look == datetime.fromtimestamp(2000, timezone.utc)
        assert msgspec.convert(shown, JobStatus) == status
        for each in (shown, *shown["batches"]):
            assert [each[old] for old in OLD_NAMES] == [each[new] for new in OLD_NAMES.values()]
        assert (shown["looks"], shown["batches"][1]["next_look"]) == (3, None)

    def test_says_what_it_has_cost_and_how_outcomes_came(self, store: Store, stage: Any) -> None:
        job = stage("a", "b", "c", "d", max_requests_per_batch=2)
        assert (job.status().cost, job.status().cost_by_model, job.status().stopped) == (0, {}, None)
        store.jobs.update_job(JOB, stopped="no credit")
        for number, costs in enumerate(({"m": "0.1"}, {"m": "0.2", "n": "1"})):
            store.leases.acquire_lease(Unit(JOB, number), 0, "test", 60)
            store.leases.write_record(Unit(JOB, number), "test", costs=costs, resubmitted=1, answered=2, skipped=3)
        status = job.status()
        assert (status.cost, status.cost_by_model, status.stopped) == (1.3, {"m": 0.3, "n": 1}, "no credit")
        assert (status.resubmitted, status.fallback, status.fallback_skipped) == (2, 4, 6)
        store.leases.write_record(Unit(JOB, 0), "test", costs={"m": None})
        status = job.status()
        assert (status.cost, status.cost_by_model) == (1.2, {"m": 0.2, "n": 1})
        assert status.cost_unknown == {"m": None}, "written down by a release that did not count them"
        store.leases.write_record(
            Unit(JOB, 0), "test", costs={"m (fast)": None, "o": None}, unpriced={"m (fast)": 3, "o": 1}
        )
        status = job.status()
        assert (status.cost, status.cost_by_model) == (1.2, {"m (fast)": None, "o": None, "m": 0.2, "n": 1})
        assert status.cost_unknown == {"m (fast)": 3, "o": 1}
        store.leases.write_record(Unit(JOB, 1), "test", costs={"o": None}, unpriced={"o": 2})
        status = job.status()
        assert (status.cost, status.cost_unknown) == (None, {"m (fast)": 3, "o": 3}), "nothing is known: not 0"

    def test_of_a_batch_that_is_done_shows_no_next_poll(self, stage: Any, finish: Any) -> None:
        job = stage("a")
        finish(0, [succeeded()], counts={"succeeded": 1}, due_at=2000.0)
        status = job.status()
        assert status.next_poll_at is None
        assert (status.batches[0].state, status.batches[0].next_poll_at) == ("done", None)

    @pytest.mark.parametrize("state", ["completed", "canceled", "failed"])
    def test_of_a_job_that_ended_has_nothing_processing(self, store: Store, stage: Any, state: Any) -> None:
        job, summary = stage("a", "b"), {"x": 1, "failures": {}}
        store.jobs.update_job(
            JOB, state=state, ended_at=5.0, error="why" if state == "failed" else None, summary=summary
        )
        status = job.status()
        assert (status.state, status.processing, status.summary) == (state, 0, summary)
        assert status.error == ("why" if state == "failed" else None)

    def test_of_a_failed_batch_says_why(self, stage: Any, finish: Any) -> None:
        job = stage("a")
        finish(0, [None], state="failed", error=["BatchLost", ["gone", 404]])
        assert (job.status().batches[0].state, job.status().batches[0].error) == ("failed", "gone")

    def test_holds_no_prompt(self, stage: Any, finish: Any) -> None:
        job = stage("a")
        finish(0, [succeeded("SECRET-ANSWER")])
        assert "SECRET" not in repr(job.status()) + repr(job)


class TestAJobThatIsNotThere:
    CALLS: dict[str, Callable[[BatchJob], Any]] = {  # noqa: RUF012
        "status": lambda job: job.status(),
        "results": lambda job: list(job.results()),
        "result": lambda job: job.result("a"),
        "requests": lambda job: list(job.requests()),
        "cancel": lambda job: job.cancel(),
    }

    @pytest.mark.parametrize("name", CALLS)
    def test_is_said_to_be_missing(self, app: Celery, keys: Keys, name: str) -> None:
        with pytest.raises(errors.JobNotFound, match="no job nobody"):
            self.CALLS[name](BatchJob("nobody", app))
        assert keys() == set()

    @pytest.mark.parametrize("name", CALLS)
    def test_is_not_said_to_be_missing_when_the_store_does_not_answer(
        self, monkeypatch: pytest.MonkeyPatch, app: Celery, name: str
    ) -> None:
        # Without the pauses the client makes between its own attempts.
        monkeypatch.setattr(time, "sleep", lambda seconds: None)
        app.conf.claude_batch_store_url = f"redis://127.0.0.1:{free_port()}/0"
        with pytest.raises(errors.StoreUnavailable):
            self.CALLS[name](BatchJob("nobody", app))

    def test_is_missing_even_if_a_late_change_was_written(self, app: Celery, store: Store) -> None:
        store.jobs.update_job("gone", cancel_requested=True)
        with pytest.raises(errors.JobNotFound):
            BatchJob("gone", app).status()


class TestCanceling:
    def test_a_running_job_leaves_the_asking_to_a_worker(self, store: Store, stage: Any, redis_url: str) -> None:
        job = stage("a", "b", max_requests_per_batch=1)
        job.cancel()
        record = store.jobs.read_job(JOB)
        assert record is not None
        assert record.cancel_requested
        messages: Any = redis.Redis.from_url(redis_url).lrange("celery", 0, -1)
        assert len(messages) == 2
        assert PROMPT.encode() not in b"".join(messages)

    @pytest.mark.parametrize("state", ["completed", "canceled", "failed"])
    def test_a_job_that_ended_changes_nothing(self, store: Store, stage: Any, redis_url: str, state: str) -> None:
        job = stage("a")
        store.jobs.update_job(JOB, state=state)
        job.cancel()
        record = store.jobs.read_job(JOB)
        assert record is not None
        assert not record.cancel_requested
        assert redis.Redis.from_url(redis_url).llen("celery") == 0
