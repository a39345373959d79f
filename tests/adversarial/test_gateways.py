"""A gateway without Message Batches is recognised, said to be one, and remembered for the account."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from claude_batch_tasks import errors
from tests.adversarial.conftest import World
from tests.adversarial.server import Answer, Manners, html, refusal

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

Spare = Callable[[], str]

#: What routes answer that are not there.
NO_ROUTE = {
    "404 of FastAPI": Answer(404, b'{"detail":"Not Found"}', {"Content-Type": "application/json"}),
    "404 of nginx": html(404),
    "404 as the API's": refusal(404, "not_found_error", "Not found"),
    "405": Answer(405, b'{"detail":"Method Not Allowed"}', {"Content-Type": "application/json"}),
    "405 without a body": Answer(405),
    "501": Answer(501, b'{"message":"not implemented"}', {"Content-Type": "application/json"}),
    "501 as the API's": refusal(501, "api_error", "not implemented"),
}
#: What may have been an accident, of a create that was stored.
BROKEN = {
    "500": Answer(500, b'{"error":{"message":"KeyError: batches"}}', {"Content-Type": "application/json"}),
    "500 of nginx": html(500),
    "200 that is no answer": Answer(200, b'{"ok":true}', {"Content-Type": "application/json"}),
}


def manners(answer: Answer) -> Manners:
    return Manners(forever=dict.fromkeys(("create", "list", "retrieve", "results", "cancel"), answer))


@pytest.mark.parametrize("name", NO_ROUTE)
def test_a_job_fails_with_that_and_the_next_does_not_try(world: World, spare: Spare, name: str) -> None:
    first = world.submit(account := spare(), manners(NO_ROUTE[name]), fallback="off", create_not_found_limit=2)
    with pytest.raises(errors.BatchesUnsupported) as caught:
        first.get()
    said = str(caught.value)
    assert f"a gateway without Message Batches: it answers {NO_ROUTE[name].status} to them" in said or "501" in name
    assert "Nothing of this batch was created" in said
    assert "Let the gateway forward /v1/messages/batches" in said
    assert "resume(fallback='messages')" in said
    creates = first.account.calls["create"]
    second = world.submit(account, first.account.manners, fallback="off")
    with pytest.raises(errors.BatchesUnsupported, match="nothing was created"):
        second.get()
    assert first.account.calls["create"] == creates <= 2
    assert first.account.calls["messages"] == 0


@pytest.mark.parametrize("name", NO_ROUTE)
def test_a_job_that_may_falls_back_and_says_so(world: World, spare: Spare, name: str) -> None:
    options: dict[str, Any] = {"fallback": "messages", "create_not_found_limit": 2}
    first = world.submit(account := spare(), manners(NO_ROUTE[name]), **options)
    assert first.get()["fallback"] == 12
    creates = first.account.calls["create"]
    second = world.submit(account, first.account.manners, **options)
    assert second.get()["fallback"] == 12
    assert first.account.calls["create"] == creates <= 2
    assert set(first.account.paid.values()) == {2}, "once for each job"
    texts = [event.text for event in second.job.history() if event.event == "unsent"]
    assert any("at full price" in text for text in texts), texts


@pytest.mark.parametrize("name", BROKEN)
def test_a_create_that_may_have_been_stored_is_not_sent_another_way(world: World, spare: Spare, name: str) -> None:
    first = world.submit(account := spare(), manners(BROKEN[name]), fallback="messages")
    with pytest.raises(errors.BatchesUnsupported) as caught:
        first.get()
    said = str(caught.value)
    assert f"it answers {BROKEN[name].status} to them" in said
    assert "so nothing is sent in its place" in said
    assert "was not answered: see the Console" in said
    assert "fallback='messages'" not in said
    assert first.account.calls["create"] == 1
    assert first.account.calls["messages"] == 0
    # Of what comes after it nothing is created, so it may go another way.
    second = world.submit(account, first.account.manners, fallback="messages")
    assert second.get()["fallback"] == 12
    assert first.account.calls["create"] == 1


def test_what_a_create_made_is_found_when_the_gateway_is_mended(world: World, spare: Spare) -> None:
    stored = manners(BROKEN["500"])
    stored.script["create"] = [Answer(500, acts=True)]
    given = world.submit(spare(), stored, fallback="messages")
    with pytest.raises(errors.BatchesUnsupported):
        given.get()
    given.account.manners = Manners()
    assert given.job.resume().get(timeout=180)["succeeded"] == 12
    assert Counter(given.account.sent.values()) == {1: 12}
    assert given.account.calls["messages"] == 0


def test_a_gateway_that_has_them_now_is_believed(world: World, spare: Spare) -> None:
    first = world.submit(account := spare(), manners(NO_ROUTE["405"]), fallback="off")
    with pytest.raises(errors.BatchesUnsupported):
        first.get()
    assert world.submit(account, Manners()).get()["succeeded"] == 12
    assert first.job.resume().get(timeout=180)["succeeded"] == 12


def test_batches_that_pass_are_not_taken_for_none(world: World, spare: Spare) -> None:
    """An outage, and a create that is refused while batches can be listed."""
    outage = Manners(script={"create": [html(502)], "list": [html(502)] * 4})
    refused = Manners(forever={"create": Answer(405)})
    jobs = [world.submit(spare(), outage), world.submit(spare(), refused)]
    assert jobs[0].get()["succeeded"] == 12
    with pytest.raises(errors.PermanentError, match="list calls show that nothing was created") as caught:
        jobs[1].get()
    assert type(caught.value) is errors.PermanentError


def test_a_body_that_a_gateway_does_not_take_names_the_setting(world: World, spare: Spare) -> None:
    given = world.submit(spare(), Manners(forever={"create": html(413)}))
    with pytest.raises(errors.PermanentError, match="set max_bytes_per_batch below it") as caught:
        given.get()
    assert "run_batch.delay(BatchJob(" in str(caught.value)
