"""Tokens that are refused, accounts that change under a running worker, and what a job asks its calls to carry."""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.embedded import RedisServer, Worker
from tests.adversarial import tenants
from tests.adversarial.conftest import environment, make_app
from tests.adversarial.server import Account, Manners
from tests.adversarial.tasks import params
from tests.adversarial.tenants import TenantServer
from tests.adversarial.test_one_account import expires
from tests.support import wait_until

pytestmark = [pytest.mark.workers, pytest.mark.timeout(400)]

ALL = [
    "provider_revoked",
    "provider_dead",
    "provider_messages",
    "google_switched",
    "key_options",
    "key_wrong",
    "key_changed",
    "foundry_none",
]
NAMES = [name for name in ALL if name.partition("_")[0] not in tenants.NEWER]
newer = pytest.mark.skipif("provider" in tenants.NEWER, reason="this SDK has keys and tokens only")


class World:
    """One worker for all of them, which is never restarted."""

    def __init__(self, folder: Path, redis: RedisServer, stack: ExitStack) -> None:
        self.folder, self.log = folder, folder / "worker.log"
        self.server = stack.enter_context(TenantServer())
        self.app: Celery = make_app(redis.url, NAMES)
        stack.callback(self.app.close)
        env = environment(redis.url, self.server.url, NAMES)
        env["CLAUDE_BATCH_CLIENT_FACTORIES"] = json.dumps({name: f"tests.adversarial.tenants.{name}" for name in NAMES})
        env |= {tenants.FOLDER: str(folder), "CLAUDE_BATCH_NOT_FOUND_GRACE": "1"}
        for name in NAMES:
            tenants.write(folder, name)
        options = ("--concurrency=2", "--include=tests.adversarial.tasks")
        stack.enter_context(Worker(env, self.log, options=options))

    def account(self, name: str, organization: str = "A", workspace: str = "w1") -> Account:
        return self.server.account(f"{name}/{organization}/{workspace}")

    def submit(self, name: str, manners: Manners, **options: Any) -> Any:
        self.app.set_current()
        self.server.manners[name] = manners
        requests = {f"id {i}": params(f"{name} {i}") for i in range(3)}
        return run_batch.delay(requests, client=name, retries=0, **options)

    def revoke(self, name: str, serial: int) -> None:
        self.server.revoked.add(f"tok-{name}-A-w1-{serial}")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, redis_server: RedisServer) -> Iterator[World]:
    redis_server.client().flushall()
    with ExitStack() as stack:
        yield World(tmp_path_factory.mktemp("tenants"), redis_server, stack)
        gc.collect()


def seen(world: World, name: str) -> Callable[[], bool]:
    return lambda: world.account(name).calls["retrieve"] > 1


@newer
def test_a_token_that_is_revoked_before_its_time_is_replaced(world: World) -> None:
    manners = Manners(looks=10**9)
    result = world.submit("provider_revoked", manners)
    wait_until(seen(world, "provider_revoked"))
    tenants.write(world.folder, "provider_revoked", serial=2)
    world.revoke("provider_revoked", 1)
    manners.looks = 0
    assert result.get(timeout=180)["succeeded"] == 3
    assert set(world.account("provider_revoked").paid.values()) == {1}


@newer
def test_a_job_whose_tokens_are_all_refused_is_resumed_by_the_same_worker(world: World) -> None:
    manners = Manners(looks=10**9)
    result = world.submit("provider_dead", manners)
    wait_until(seen(world, "provider_dead"))
    world.revoke("provider_dead", 1)
    with pytest.raises(errors.PermanentError, match="401") as caught:
        result.get(timeout=180)
    assert "tok-" not in str(caught.value)
    tenants.write(world.folder, "provider_dead", serial=2)
    manners.looks = 0
    assert BatchJob(result.id, world.app).resume().get(timeout=180)["succeeded"] == 3
    account = world.account("provider_dead")
    assert account.calls["create"] == 1
    assert not account.canceled


@newer
def test_a_call_of_the_messages_api_is_made_again_with_another_token(world: World) -> None:
    manners = Manners(looks=10**9, result=expires)
    result = world.submit("provider_messages", manners)
    wait_until(seen(world, "provider_messages"))
    # Only what is paid for meets the refusal, so that it is the lane which has to replace the token.
    world.server.revoked_for_messages.add("tok-provider_messages-A-w1-1")
    tenants.write(world.folder, "provider_messages", serial=2)
    manners.looks = 0
    summary = result.get(timeout=180)
    assert (summary["succeeded"], summary["fallback"], summary["stopped"]) == (3, 1, None)
    assert set(world.account("provider_messages").paid.values()) == {1}


@newer
def test_an_account_that_changes_under_a_running_worker_is_noticed(world: World) -> None:
    """Its tokens come from somewhere else at each call: nothing but the answers says that it is another."""
    result = world.submit("google_switched", Manners(looks=10**9))
    wait_until(seen(world, "google_switched"))
    tenants.write(world.folder, "google_switched", "B")
    with pytest.raises(errors.AccountChanged, match="its organization is org-B, the job's org-A"):
        result.get(timeout=180)
    tenants.write(world.folder, "google_switched", "A")
    world.server.manners["google_switched"].looks = 0
    assert BatchJob(result.id, world.app).resume().get(timeout=180)["succeeded"] == 3
    assert set(world.account("google_switched").paid.values()) == {1}
    assert world.account("google_switched", "B").calls["create"] == 0


def test_a_key_that_was_changed_is_read_anew_where_the_old_one_is_refused(world: World) -> None:
    manners = Manners(looks=10**9)
    result = world.submit("key_changed", manners)
    wait_until(seen(world, "key_changed"))
    tenants.write(world.folder, "key_changed", serial=2)
    world.revoke("key_changed", 1)
    manners.looks = 0
    assert result.get(timeout=180)["succeeded"] == 3
    assert set(world.account("key_changed").paid.values()) == {1}


def test_a_job_of_which_nothing_was_created_may_go_on_on_any_account(world: World) -> None:
    """The key was of no use. That it is resumed with is another organization's, and read anew by the factory."""
    world.revoke("key_wrong", 1)
    result = world.submit("key_wrong", Manners())
    with pytest.raises(errors.PermanentError, match="401"):
        result.get(timeout=180)
    tenants.write(world.folder, "key_wrong", "B")
    assert BatchJob(result.id, world.app).resume().get(timeout=180)["succeeded"] == 3
    assert world.account("key_wrong", "B").calls["create"] == 1


def test_a_job_names_its_workspace_its_user_profile_and_its_betas(world: World) -> None:
    options = {"workspace_id": "wrkspc_7", "user_profile_id": "uprof_1", "betas": ["one", "two"]}
    result = world.submit("key_options", Manners(result=expires), **options)
    assert result.get(timeout=180)["succeeded"] == 3
    account = world.account("key_options", "A", "7")
    calls = ("create", "retrieve", "results", "messages")
    assert all(account.calls[call] for call in calls)
    assert world.account("key_options").calls.total() == 0
    assert {headers["anthropic-beta"] for headers in world.server.headers["key_options"]} == {"one,two"}
    profiles = [headers.get("anthropic-user-profile-id") for headers in world.server.headers["key_options"]]
    assert profiles.count("uprof_1") == account.calls["create"] + account.calls["messages"]


def test_a_client_without_batches_is_refused_before_anything_is_created(world: World) -> None:
    wait_until(lambda: "AnthropicFoundry has no Message Batches" in world.log.read_text())
    result = world.submit("foundry_none", Manners())
    with pytest.raises(errors.BatchesUnsupported, match="AnthropicFoundry has no Message Batches") as caught:
        result.get(timeout=180)
    assert "Nothing of this batch was created or billed" in str(caught.value)
    assert ".resume()" in str(caught.value)
