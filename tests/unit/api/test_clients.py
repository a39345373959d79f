"""Clients of several aliases, made side by side by factories that change the environment for a moment."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import anthropic
import pytest

from claude_batch_tasks import api
from claude_batch_tasks.api import clients

FACTORIES = {"own": f"{__name__}.make_own", "other": f"{__name__}.make_other", "stuck": f"{__name__}.hang"}

inside, released = threading.Event(), threading.Event()


def make_own() -> anthropic.Anthropic:
    """The key is whatever the environment has."""
    return anthropic.Anthropic(base_url="http://127.0.0.1:9")


def make_other() -> anthropic.Anthropic:
    """Take another key for as long as this runs, as factories do that know no other way to say what they mean."""
    before = os.environ["ANTHROPIC_API_KEY"]
    os.environ["ANTHROPIC_API_KEY"] = "the other's"
    try:
        inside.set()
        time.sleep(0.1)
        return anthropic.Anthropic(base_url="http://127.0.0.1:9")
    finally:
        os.environ["ANTHROPIC_API_KEY"] = before


def hang() -> anthropic.Anthropic:
    inside.set()
    released.wait(20)
    return make_own()


@pytest.fixture(autouse=True)
def _fresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "its own")
    for event in (inside, released):
        event.clear()
    clients._client.cache_clear()
    yield
    clients._client.cache_clear()


def begin(alias: str) -> threading.Thread:
    thread = threading.Thread(target=api.get_client, args=(alias, FACTORIES))
    thread.start()
    assert inside.wait(10)
    return thread


@pytest.mark.parametrize("before", [False, True], ids=["made meanwhile", "made before"])
def test_a_client_has_no_other_ones_key(before: bool) -> None:
    if before:
        api.get_client("own", FACTORIES)
    other = begin("other")
    assert api.get_client("own", FACTORIES).api_key == "its own"
    other.join()
    assert api.get_client("other", FACTORIES).api_key == "the other's"
    assert api.get_client("own", FACTORIES).api_key == "its own"


def test_a_factory_that_hangs_holds_up_no_other_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients, "_LONGEST_TURN", 0.1)
    stuck = begin("stuck")
    assert api.get_client("own", FACTORIES).api_key == "its own"
    released.set()
    stuck.join()


def test_a_process_forked_while_a_factory_runs_makes_its_own() -> None:
    other = begin("other")
    if (child := os.fork()) == 0:
        clients._LONGEST_TURN = 3600.0
        os.environ["ANTHROPIC_API_KEY"] = "its own"  # what the fork has cut short
        os._exit(0 if api.get_client("own", FACTORIES).api_key == "its own" else 1)
    for _ in range(200):
        pid, status = os.waitpid(child, os.WNOHANG)
        if pid:
            break
        time.sleep(0.05)
    else:
        os.kill(child, 9)
        os.waitpid(child, 0)
        pytest.fail("it waits for a thread that is not there")
    other.join()
    assert os.waitstatus_to_exitcode(status) == 0
