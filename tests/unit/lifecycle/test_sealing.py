"""Pools become jobs, once each, whoever notices and whatever happens meanwhile."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
import threading
from collections.abc import Sequence
from typing import Any

import pytest
from celery import Celery
from celery.states import REVOKED
from celery.utils import uuid
from kombu.exceptions import OperationalError

from claude_batch_tasks import ask, errors, rules
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.lifecycle.pools import due_pools, pool_job, sealing
from claude_batch_tasks.pool_records import Ask, PoolLimits, PoolRecord, PoolSearch
from claude_batch_tasks.records import Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store, open_store_at
from claude_batch_tasks.tasks import seal_pool
from tests.factories import make_params


@pytest.fixture
def store(app: Celery) -> Store:
    return open_store(Settings.of(app))


def put_asks(store: Store, count: int, *, more: Sequence[Ask] = (), **pool: Any) -> str:
    """Put asks into one pool that is full with them; return its id."""
    asks = [
        *(Ask(id=f"ask-{n}", params=json.dumps(make_params(f"question {n}")).encode()) for n in range(count)),
        *more,
    ]
    record, limits = PoolRecord(name="tests", **pool), PoolLimits(len(asks), 1_000_000, 60.0)
    for each in asks:
        place = store.pools.add_ask("key", record, uuid(), each, 100, limits)
    assert store.pools.take_due(10, 60.0)[0] == [place.job_id]
    return place.job_id


def read_requests(store: Store, job_id: str) -> dict[str, str]:
    """Return the texts of the requests of a job by their custom_ids."""
    bodies = b",".join(store.payloads.read_bodies(job_id, 0))
    items = json.loads(b"[%s]" % bodies)
    ids = [custom_id for page in store.payloads.read_custom_ids(job_id, 0) for custom_id in page]
    return {custom_id: item["params"]["messages"][0]["content"] for custom_id, item in zip(ids, items, strict=True)}


def test_a_job_has_the_pools_options_and_its_asks_in_their_order(app: Celery, store: Store) -> None:
    options = {"fallback": "off", "metadata": {"team": "a"}}
    job_id = put_asks(store, 3, options=options, queue="nightly")
    assert sealing.seal_pool(app, job_id) == "sealed: 3 requests"
    job = store.jobs.read_job(job_id)
    assert job is not None
    assert (job.requests, job.batches, job.state, job.model) == (3, 1, "staged", "claude-haiku-4-5")
    assert (job.pool, job.label, job.queue, job.options) == ("tests", "pool:tests", "nightly", {"fallback": "off"})
    assert list(read_requests(store, job_id).items()) == [(f"ask-{n}", f"question {n}") for n in range(3)]
    assert store.schedule.find_lost(Unit(job_id), 0) is not None
    pool = store.pools.read_pool(job_id)
    assert pool is not None
    assert pool.state == "sealed"


def test_a_label_of_the_users_own_stays(app: Celery, store: Store) -> None:
    job_id = put_asks(store, 1, options={"label": "reviews"})
    sealing.seal_pool(app, job_id)
    job = store.jobs.read_job(job_id)
    assert job is not None
    assert job.label == "reviews"


def test_many_who_notice_make_one_job(app: Celery, store: Store) -> None:
    job_id = put_asks(store, 200)
    gate, said = threading.Barrier(6), []

    def seal() -> None:
        gate.wait()
        said.append(sealing.seal_pool(app, job_id))

    threads = [threading.Thread(target=seal) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(said) == 6
    job = store.jobs.read_job(job_id)
    assert job is not None
    assert job.requests == 200
    assert len(read_requests(store, job_id)) == 200
    assert sealing.seal_pool(app, job_id) == "nothing to seal: sealed"


@pytest.mark.parametrize("part", ["jobs.create_job", "schedule.add_units", "pools.finish_sealing"])
@pytest.mark.parametrize("done", [False, True], ids=["before", "after"])
def test_a_store_that_goes_away_in_the_middle_makes_no_second_job(
    part: str, done: bool, app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put_asks(store, 5)
    of, _, method = part.partition(".")
    real = getattr(getattr(store, of), method)

    def break_off(*args: Any, **named: Any) -> Any:
        if done:
            real(*args, **named)
        raise errors.StoreUnavailable("away")

    with monkeypatch.context() as patched:
        patched.setattr(getattr(store, of), method, break_off)
        with contextlib.suppress(errors.StoreUnavailable):
            sealing.seal_pool(app, job_id)
    assert sealing.seal_pool(app, job_id) in ("nothing to seal: sealed", "sealed: 5 requests")
    assert store.schedule.find_lost(Unit(job_id), 0) is not None
    assert len(read_requests(store, job_id)) == 5
    assert store.pools.take_due(10, 60.0)[0] == []


def test_what_has_expired_is_not_sent(app: Celery, store: Store) -> None:
    params = json.dumps(make_params("too late")).encode()
    late = [Ask(id="late", params=params, expires_at=store.now() - 1)]
    job_id = put_asks(store, 2, more=late)
    assert sealing.seal_pool(app, job_id) == "sealed: 2 requests"
    assert "late" not in read_requests(store, job_id)
    assert [place.state if place else None for place in store.asks.read_places(["late", "ask-0"])] == [
        "revoked",
        "waiting",
    ]
    assert ask.AsyncResult("late").state == REVOKED


def test_a_pool_of_which_nothing_is_left_becomes_no_job(app: Celery, store: Store) -> None:
    job_id = put_asks(store, 2)
    assert store.asks.withdraw(["ask-0", "ask-1"], 600) == [True, True]
    assert sealing.seal_pool(app, job_id) == "nothing to seal: none of its asks is left"
    assert store.jobs.read_job(job_id) is None
    assert list(store.pools.list_pools()) == []


def test_what_is_revoked_while_the_job_is_made_is_told_to_be_too_late(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    job_id = put_asks(store, 3)
    real, withdrawn = submission.submit_job, []

    def submit(*args: Any, **named: Any) -> Any:
        withdrawn.append(store.asks.withdraw(["ask-1"], 600))
        return real(*args, **named)

    monkeypatch.setattr(submission, "submit_job", submit)
    sealing.seal_pool(app, job_id)
    assert withdrawn == [[False]]
    assert "ask-1" in read_requests(store, job_id)


def test_a_job_that_its_user_has_deleted_is_not_made_again(app: Celery, store: Store) -> None:
    job_id = put_asks(store, 2)
    assert pool_job.make_job(app, store, job_id, PoolRecord(name="tests")) is not None
    store.storage.delete_job(job_id, remember=True)
    sealing.seal_pool(app, job_id)
    assert store.jobs.read_job(job_id) is None
    assert store.pools.take_due(10, 60.0)[0] == []


def test_nor_by_a_worker_that_began_to_make_it_before_it_was_made_and_deleted(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sleeps in between. Its asks may be in other pools, or answered."""
    job_id = put_asks(store, 2)
    create = store.jobs.create_job

    def wake_up_late(*args: Any, **named: Any) -> bool:
        monkeypatch.setattr(store.jobs, "create_job", create)
        assert sealing.seal_pool(app, job_id) == "sealed: 2 requests"
        store.storage.delete_job(job_id, remember=True)
        return create(*args, **named)

    monkeypatch.setattr(store.jobs, "create_job", wake_up_late)
    assert sealing.seal_pool(app, job_id).startswith("nothing to seal")
    assert store.jobs.read_job(job_id) is None


def test_asks_that_are_too_dear_together_become_several_jobs(app: Celery, store: Store) -> None:
    dear = [
        Ask(id=f"dear-{n}", params=json.dumps(make_params("word " * 10_000, max_tokens=1)).encode()) for n in range(4)
    ]
    put_asks(store, 0, more=dear, options={"max_cost": 0.012, "fallback": "off"})
    jobs = {pool_id for pool_id, _ in store.pools.list_pools()}
    while jobs:
        for job_id in jobs:
            assert seal_pool.apply((job_id,)).successful()
        jobs = set(store.pools.take_due(10, 60.0)[0])
    places = store.asks.read_places([one.id for one in dear])
    made = {place.job_id for place in places if place is not None}
    assert len(made) > 1
    assert sum(job.requests for job_id in made if (job := store.jobs.read_job(job_id)) is not None) == 4


def test_settings_that_do_not_go_with_a_pool_leave_it_as_it_is(
    app: Celery, store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    job_id = put_asks(store, 2, client="nobody's")
    with caplog.at_level(logging.ERROR):
        assert seal_pool.apply((job_id,)).result == "not sealed: InvalidSettings"
    assert "nobody's" in caplog.text
    assert "question" not in caplog.text
    pool = store.pools.read_pool(job_id)
    assert pool is not None
    assert pool.state == "closed"


def test_what_no_worker_can_make_a_job_of_can_be_revoked(app: Celery, store: Store) -> None:
    job_id = put_asks(store, 2, client="nobody's")
    seal_pool.apply((job_id,))
    assert ask.AsyncResult("ask-0").cancel()
    assert ask.AsyncResult("ask-0").state == REVOKED


def test_asks_of_which_no_worker_can_make_a_job_fail_in_the_end(app: Celery, store: Store) -> None:
    app.conf.claude_batch_max_step_failures = 3
    parked = PoolRecord(name="tests", state="parked", due_at=store.now() + 3600)
    job_id = put_asks(store, 2, client="nobody's", search=PoolSearch(rest="parked"))
    store.pools.add_ask("other", parked, "before", Ask(id="other", params=b"{}"), 2, PoolLimits(1, 1000, 60.0))
    store.pools.divide("before", {"parked": (parked, [0])})
    assert [seal_pool.apply((job_id,)).result for _ in range(4)] == [
        "not sealed: InvalidSettings",
        "not sealed: InvalidSettings",
        "given up: 2 asks have failed: InvalidSettings",
        "nothing to seal: sealed",
    ]
    for ask_id in ("ask-0", "ask-1"):
        with pytest.raises(errors.RequestFailed, match=r"nobody's.*Nothing was sent or paid") as caught:
            ask.AsyncResult(ask_id).get()
        assert "question" not in str(caught.value)
    assert [place and place.state for place in store.asks.read_places(["ask-0", "other"])] == ["failed", "waiting"]
    assert [name for name, _ in store.pools.list_pools()] == ["parked"]
    assert store.pools.take_due(10, 60.0)[0] == ["parked"]


def test_asks_whose_key_a_worker_does_not_have_wait_for_one_that_has_it(
    app: Celery, store: Store, redis_url: str
) -> None:
    app.conf.claude_batch_max_step_failures = 1
    job_id = put_asks(open_store_at(redis_url, (base64.b64encode(bytes(32)).decode(),)), 2)
    for _ in range(3):
        assert seal_pool.apply((job_id,)).result == "not sealed: KeyMissing"
    assert [place and place.state for place in store.asks.read_places(["ask-0", "ask-1"])] == ["waiting"] * 2
    assert store.asks.withdraw(["ask-0"], 600) == [True]


def seal_all(store: Store, job_id: str) -> set[str]:
    """Seal a pool, and those by which it is replaced; return the names of all."""
    found, due = set[str](), [job_id]
    while due:
        for each in due:
            assert seal_pool.apply((each,)).successful()
        found.update(due)
        due = store.pools.take_due(10, 60.0)[0]
    return found


def test_an_ask_that_cannot_be_read_fails_alone(app: Celery, store: Store, caplog: pytest.LogCaptureFixture) -> None:
    app.conf.claude_batch_max_step_failures = 1
    job_id = put_asks(store, 3, more=[Ask(id="damaged", params=b"\x28\xb5\x2f\xfdsecret")])
    with caplog.at_level(logging.ERROR):
        made = [job for each in seal_all(store, job_id) if (job := store.jobs.read_job(each)) is not None]
    assert sum(job.requests for job in made) == 3
    states = [place and place.state for place in store.asks.read_places(["ask-0", "ask-1", "ask-2", "damaged"])]
    assert states == ["waiting", "waiting", "waiting", "failed"]
    assert "PayloadDamaged" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("limit", [{"max_fallback_requests": 3}, {"max_fallback_cost": 0.0003}])
def test_asks_that_are_sent_at_once_become_as_many_jobs_as_their_budgets_take(
    app: Celery, store: Store, limit: dict[str, float]
) -> None:
    """Which asks are in one pool is chance, and they are not to fail for it."""
    job_id = put_asks(store, 10, mode="messages", options=limit)
    made = [job for each in seal_all(store, job_id) if (job := store.jobs.read_job(each)) is not None]
    assert all(job.direct and job.requests <= 3 for job in made)
    assert sum(job.requests for job in made) == 10


@pytest.mark.parametrize(("max_cost", "hurried"), [(0.0003, False), (0.01, True)])
def test_a_batch_is_cut_short_for_a_deadline_only_if_the_rest_can_be_paid(
    app: Celery, store: Store, max_cost: float, hurried: bool
) -> None:
    job_id = put_asks(store, 10, deadline=store.now() + 86_400, options={"max_cost": max_cost})
    sealing.seal_pool(app, job_id)
    job = store.jobs.read_job(job_id)
    assert job is not None
    assert (job.answer_by is not None) is hurried


def test_asks_that_no_budget_covers_become_one_job(app: Celery, store: Store) -> None:
    job_id = put_asks(store, 10, mode="messages", options={"max_fallback_requests": 0})
    assert seal_all(store, job_id) == {job_id}


def test_a_worker_whose_batches_are_smaller_makes_jobs_of_one_batch(app: Celery, store: Store) -> None:
    """In a job of several, the asks of a batch would fail with one that the API refuses."""
    job_id = put_asks(store, 10)
    app.conf.claude_batch_max_requests_per_batch = 3
    made = [job for each in seal_all(store, job_id) if (job := store.jobs.read_job(each)) is not None]
    assert [job.batches for job in made] == [1] * len(made)
    assert sum(job.requests for job in made) == 10


def test_due_pools_are_sent_to_their_queue(app: Celery, store: Store) -> None:
    limits = PoolLimits(1, 1_000_000, 60.0)
    for queue in ("nightly", None):
        params = json.dumps(make_params()).encode()
        one = Ask(id=f"ask {queue}", params=params)
        store.pools.add_ask("key", PoolRecord(queue=queue), uuid(), one, 100, limits)
    assert due_pools.send_due(app) <= 1.0
    with app.connection_for_read() as connection:
        for queue in ("nightly", "celery"):
            message = connection.SimpleQueue(queue).get(block=False)
            assert message.headers["task"] == "claude_batch_tasks.seal_pool"
            message.ack()
    assert store.pools.take_due(10, 60.0)[0] == []


def test_due_pools_wait_no_longer_than_an_outage_of_the_broker(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often it was tried meanwhile."""
    limits = PoolLimits(1, 1_000_000, 60.0)
    for number in range(3):
        one = Ask(id=f"ask {number}", params=json.dumps(make_params()).encode())
        store.pools.add_ask("key", PoolRecord(queue="nightly"), uuid(), one, 100, limits)
    due_in: list[float | None] = []
    with monkeypatch.context() as patch:
        patch.setattr(app, "signature", lambda *args, **own: NoBroker())
        for _ in range(12):
            with pytest.raises(OperationalError):
                due_pools.send_due(app)
            due_in.append(store.pools.take_due(0, 60.0)[1])
            store.pools.wait_again([job_id for job_id, _ in store.pools.list_pools()], -1.0)
    assert max(each or 0 for each in due_in) <= rules.LONGEST_IN_BROKER + 1
    due_pools.send_due(app)
    with app.connection_for_read() as connection:
        queue = connection.SimpleQueue("nightly")
        for _ in range(3):
            queue.get(block=False).ack()


class NoBroker:
    """A signature whose message cannot be sent."""

    def set(self, **options: Any) -> NoBroker:
        return self

    def apply_async(self, **options: Any) -> None:
        raise OperationalError("connection refused")
