"""Looks at batches that run: when the API asks for the next one, and what a proxy in front of it may refuse."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable

import pytest

from claude_batch_tasks import errors
from tests.adversarial.conftest import World
from tests.adversarial.server import CHALLENGED, NOT_ALLOWED, Manners, html
from tests.support import wait_until

pytestmark = pytest.mark.workers

Spare = Callable[[], str]


def test_come_no_sooner_than_the_last_one_was_answered(world: World, spare: Spare) -> None:
    name = spare()
    given = world.submit(name, Manners(asks="2", looks=3), 2)
    assert given.get()["succeeded"] == 2
    [batch] = given.account.own
    assert len(batch.looked_at) == 4
    assert min(later - sooner for sooner, later in itertools.pairwise(batch.looked_at)) >= 1.95


def test_are_not_waited_for_by_a_cancel(world: World, spare: Spare) -> None:
    name = spare()
    given = world.submit(name, Manners(asks="500", looks=10**6), 2)
    wait_until(lambda: (look := given.job.status().next_poll_at) and look.timestamp() > time.time() + 300)
    given.job.cancel()
    begun = time.monotonic()
    assert given.get()["canceled"] == 2
    assert time.monotonic() - begun < 30


def test_go_on_where_a_cancel_is_refused_by_a_proxy(world: World, spare: Spare) -> None:
    name = spare()
    given = world.submit(name, Manners(forever={"cancel": CHALLENGED}, looks=5), 2)
    wait_until(lambda: given.account.own and given.account.own[0].looked_at)
    given.job.cancel()
    assert given.get()["succeeded"] == 2
    assert given.account.calls["cancel"] >= 2, "it is asked for again"


@pytest.mark.parametrize("endpoint", ["retrieve", "results"])
def test_that_a_proxy_refused_for_too_long_go_on_when_the_job_is_resumed(
    endpoint: str, world: World, spare: Spare
) -> None:
    name = spare()
    manners = Manners(forever={endpoint: NOT_ALLOWED})
    given = world.submit(name, manners, 2, proxy_error_grace=0.5)
    with pytest.raises(errors.PermanentError, match="Request not allowed"):
        given.get()
    del manners.forever[endpoint]
    manners.script[endpoint] = [html(403)] * (given.account.calls[endpoint] + 1)
    assert given.job.resume(proxy_error_grace=60).get(timeout=180)["succeeded"] == 2
    assert given.account.calls["create"] == 1
    assert set(given.account.paid.values()) == {1}
