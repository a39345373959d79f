"""The search for asks for which the API refuses a create, on a real store, with creates that are pretended."""

from __future__ import annotations

import contextlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest
from celery import Celery
from celery.exceptions import Ignore

from claude_batch_tasks import errors
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.lifecycle.pools import dividing
from claude_batch_tasks.pool_records import Ask, PoolLimits, PoolRecord, PoolSearch
from claude_batch_tasks.records import BatchRecord, Unit
from claude_batch_tasks.store import Store, open_store_at
from tests.factories import make_batch_record, make_job_record

Refuse = Callable[[Sequence[str]], "str | None"]


class Api:
    """Seals pools and pretends to create their batches.

    Args:
        refuse: returns the API's message for a create of these asks; None: it succeeds.
    """

    def __init__(self, app: Celery, store: Store, refuse: Refuse, status: int = 400) -> None:
        self.app, self.store, self.refuse, self.status = app, store, refuse, status
        self.creates = 0
        #: How often each ask was in a batch that was created.
        self.sent: Counter[str] = Counter()
        #: The message with which each ask failed.
        self.failed: dict[str, str] = {}
        #: So many creates are not answered, and another application's batch is taken for theirs at first.
        self.mistaken = 0

    def run(self) -> None:
        """Go on until no pool is due."""
        while due := repeat(lambda: self.store.pools.take_due(10, 0.0)[0]):
            for job_id in due:
                with contextlib.suppress(errors.StoreUnavailable):  # it is due again
                    self.seal(job_id)

    def seal(self, job_id: str) -> None:
        pool = self.store.pools.begin_sealing(job_id)
        assert pool is not None
        if pool.state != "closed" or dividing.halve_known(self.store, job_id, pool):
            return
        asks = [ask.id for page in self.store.pools.read_asks(job_id) for ask in page if ask is not None]
        job = make_job_record(requests=len(asks), pool=pool.name, nonce="0123456789abcdef")
        batch = make_batch_record(count=len(asks))
        repeat(lambda: self.store.jobs.create_job(job_id, job, [batch], 600, staged=False))
        repeat(lambda: self.store.pools.finish_sealing(job_id))
        self.create(self.make_step(job_id, job, make_batch_record(count=len(asks))), asks)

    def make_step(self, job_id: str, job: Any, batch: BatchRecord) -> Any:
        def update(**changes: Any) -> None:
            for name, value in changes.items():
                setattr(batch, name, value)

        return SimpleNamespace(
            store=self.store,
            unit=Unit(job_id, 0),
            job=job,
            batch=batch,
            update_record=update,
            task=SimpleNamespace(app=self.app),
            released=False,
        )

    def create(self, step: Any, asks: Sequence[str]) -> None:
        if self.mistaken > 0:
            self.mistaken -= 1
            step.batch.batch_id, step.batch.state, step.batch.provisional = "msgbatch_theirs", "in_progress", True
            repeat(lambda: dividing.finish_create(step))
            step.batch.batch_id, step.batch.state, step.batch.provisional = None, "creating", False
        self.creates += 1
        if (message := self.refuse(asks)) is None:
            self.sent.update(asks)
            step.batch.batch_id, step.batch.state = "msgbatch_1", "in_progress"
            repeat(lambda: dividing.finish_create(step))
            return
        error = errors.PermanentError(f"create: {message}", self.status, "invalid_request_error")
        if dividing.may_be_divided(step, error):
            with pytest.raises(Ignore):
                repeat(
                    lambda: (
                        dividing.set_apart(step, error)
                        if step.batch.refusal is None
                        else dividing.finish_division(step)
                    )
                )
            return
        self.failed.update(dict.fromkeys(asks, message))
        step.batch.state, step.batch.error = "failed", ["PermanentError", list(error.args)]
        repeat(lambda: dividing.finish_create(step))


def repeat(act: Callable[[], Any]) -> Any:
    """Call a function until the store has answered it, as messages do that are delivered again."""
    while True:
        try:
            return act()
        except errors.StoreUnavailable:
            continue


class Unsteady:
    """A part of a store that does not answer now and then; what it was asked is done all the same, or not."""

    def __init__(self, part: Any, draw: random.Random) -> None:
        self._part, self._draw = part, draw

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._part, name)

        def call(*args: Any, **named: Any) -> Any:
            chance = self._draw.random()
            if chance < 0.15:
                raise errors.StoreUnavailable("before")
            found = method(*args, **named)
            if chance < 0.3:
                raise errors.StoreUnavailable("after")
            return found

        return call


@pytest.fixture
def store(redis_url: str) -> Store:
    return open_store_at(redis_url)


def put_asks(store: Store, count: int) -> list[str]:
    """Put asks into one pool that is full with them; return their ids.

    The id of a pool decides which half of it is tried, and so how many creates it takes: it is the same each time.
    """
    ids = [f"ask-{number}" for number in range(count)]
    for ask_id in ids:
        ask = Ask(id=ask_id, params=b"{}")
        store.pools.add_ask(
            "key", PoolRecord(name="p"), f"pool-of-{ask_id}", ask, 10, PoolLimits(count, 1_000_000, 60.0)
        )
    return ids


def refuse_any_of(bad: set[str]) -> Refuse:
    return lambda asks: "Invalid request" if bad & set(asks) else None


@pytest.mark.parametrize("count", [1, 2, 3, 10, 1000])
@pytest.mark.parametrize("where", [0.0, 0.3, 0.999])
def test_one_ask_is_found_in_few_creates(count: int, where: float, app: Celery, store: Store) -> None:
    ids = put_asks(store, count)
    bad = ids[int(where * count)]
    api = Api(app, store, refuse_any_of({bad}))
    api.run()
    assert api.failed == {bad: "Invalid request"}
    assert api.sent == Counter(set(ids) - {bad})
    assert api.creates - 1 <= 12
    assert list(store.pools.list_pools()) == []


@pytest.mark.parametrize("seed", range(6))
def test_several_are_found(seed: int, app: Celery, store: Store) -> None:
    draw = random.Random(seed)
    ids = put_asks(store, 200)
    bad = set(draw.sample(ids, [2, 3, 7, 20, 150, 200][seed]))
    api = Api(app, store, refuse_any_of(bad))
    api.run()
    assert api.failed.keys() == bad
    assert api.sent == Counter(set(ids) - bad)
    assert api.creates <= min(10 * len(bad) + 2, 2 * len(ids) + 40)
    assert list(store.pools.list_pools()) == []


@pytest.mark.parametrize("seed", range(8))
def test_a_search_goes_on_whatever_breaks_off(seed: int, app: Celery, store: Store) -> None:
    draw = random.Random(seed)
    ids = put_asks(store, 60)
    bad = set(draw.sample(ids, 1 + seed % 4))
    parts = {name: Unsteady(getattr(store, name), draw) for name in ("pools", "jobs", "storage")}
    unsteady = SimpleNamespace(**parts, now=store.now, asks=store.asks)
    api = Api(app, cast("Store", unsteady), refuse_any_of(bad))
    api.run()
    assert api.failed.keys() == bad
    assert api.sent == Counter(set(ids) - bad)
    assert list(store.pools.list_pools()) == []


@pytest.mark.parametrize("mistaken", [1, 3])
def test_a_create_is_refused_that_another_batch_was_taken_for(mistaken: int, app: Celery, store: Store) -> None:
    ids = put_asks(store, 20)
    api = Api(app, store, refuse_any_of({ids[13]}))
    api.mistaken = mistaken
    api.run()
    assert api.failed == {ids[13]: "Invalid request"}
    assert api.sent == Counter(set(ids) - {ids[13]})
    assert list(store.pools.list_pools()) == []


def test_pools_that_were_divided_expire(app: Celery, store: Store, redis_server: RedisServer) -> None:
    ids = put_asks(store, 30)
    Api(app, store, refuse_any_of({ids[20]})).run()
    with redis_server.client() as client:
        pools = [key for key in client.scan_iter("*:pool*") if b"{" in key]
        divided = [key for key in pools if key.endswith(b":pool") and client.hget(key, "state") == b"divided"]
        assert divided, "those that are known to have the ask were halved without a job"
        assert [key for key in pools if client.ttl(key) < 0] == []


def test_those_that_the_api_names_are_set_apart_at_once(app: Celery, store: Store) -> None:
    ids = put_asks(store, 1000)
    bad = {ids[17], ids[400]}

    def refuse(asks: Sequence[str]) -> str | None:
        named = [number for number, ask_id in enumerate(asks) if ask_id in bad]
        return f"requests.{named[0]}.params: Invalid" if named else None

    api = Api(app, store, refuse)
    api.run()
    assert api.failed == dict.fromkeys(bad, "requests.0.params: Invalid")
    assert api.sent == Counter(set(ids) - bad)
    assert api.creates == 5


def test_many_of_which_the_api_names_one_at_a_time_do_not_wait_for_each_other(app: Celery, store: Store) -> None:
    ids = put_asks(store, 100)
    bad = set(ids[::2])

    def refuse(asks: Sequence[str]) -> str | None:
        named = [number for number, ask_id in enumerate(asks) if ask_id in bad]
        return f"requests.{named[0]}.params: Invalid" if named else None

    api, rounds = Api(app, store, refuse), 0
    while due := store.pools.take_due(1000, 60.0)[0]:
        rounds += 1
        for job_id in due:
            api.seal(job_id)
    assert api.failed.keys() == bad
    assert api.sent == Counter(set(ids) - bad)
    assert rounds < 15
    assert api.creates < 200


def test_asks_do_not_wait_for_a_pool_that_was_sealed_meanwhile(app: Celery, store: Store) -> None:
    ids = put_asks(store, 4)
    [job_id] = store.pools.take_due(10, 60.0)[0]
    search = PoolSearch(other="other", rest="rest")
    parts = {"tried": ("closed", search, [0, 1]), "other": ("parked", None, [2]), "rest": ("closed", None, [3])}
    store.pools.divide(
        job_id,
        {name: (PoolRecord(name="p", state=state, search=own), at) for name, (state, own, at) in parts.items()},  # type: ignore[arg-type]
    )
    api = Api(app, store, refuse_any_of({ids[0]}))
    api.run()
    assert api.failed.keys() == {ids[0]}
    assert api.sent == Counter(ids[1:])


def test_a_job_whose_maker_died_before_its_pool_was_sealed_loses_no_ask(app: Celery, store: Store) -> None:
    ids = put_asks(store, 4)
    [job_id] = store.pools.take_due(10, 60.0)[0]
    store.pools.begin_sealing(job_id)
    job, batch = make_job_record(requests=4, pool="p"), make_batch_record(count=4)
    store.jobs.create_job(job_id, job, [batch], 600, staged=False)
    api = Api(app, store, refuse_any_of({ids[2]}))
    api.create(api.make_step(job_id, job, batch), ids)
    api.run()
    assert api.failed.keys() == {ids[2]}
    assert api.sent == Counter(set(ids) - {ids[2]})


def test_what_is_too_large_together_is_sent_in_halves(app: Celery, store: Store) -> None:
    ids = put_asks(store, 100)
    api = Api(app, store, lambda asks: "Request exceeds the maximum size" if len(asks) > 60 else None, status=413)
    api.run()
    assert (api.failed, api.sent, api.creates) == ({}, Counter(ids), 3)


@pytest.mark.parametrize(
    ("status", "kind", "message"),
    [
        (401, "authentication_error", "invalid x-api-key"),
        (402, "billing_error", "Your credit balance is too low"),
        (400, "invalid_request_error", "Your credit balance is too low to access the Anthropic API."),
        (400, "invalid_request_error", "Unexpected value(s) `x` for the `anthropic-beta` header"),
        (404, "not_found_error", "Not found"),
        (400, None, "<html>"),
    ],
)
def test_what_is_about_no_single_request_divides_nothing(
    status: int, kind: str | None, message: str, app: Celery, store: Store
) -> None:
    step = Api(app, store, refuse_any_of(set())).make_step(
        "job", make_job_record(requests=10, pool="p"), make_batch_record(count=10)
    )
    assert not dividing.may_be_divided(step, errors.PermanentError(f"create: {message}", status, kind))


def test_pools_that_wait_do_so_for_a_while_at_most(app: Celery, store: Store) -> None:
    """The job whose create was tried is gone: a user has deleted it, or the store has lost it."""
    ids = put_asks(store, 4)
    api = Api(app, store, refuse_any_of({ids[0]}))
    api.seal(store.pools.take_due(1, 0.0)[0][0])
    waiting = dict(store.pools.list_pools())
    assert Counter(pool.state for pool in waiting.values()) == {"closed": 1, "parked": 1}
    parked = next(pool for pool in waiting.values() if pool.state == "parked")
    assert 3000 < parked.due_at - store.now() <= 3600
