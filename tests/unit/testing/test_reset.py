"""What a process keeps, and that a test of an application sees nothing of the one before."""

from __future__ import annotations

import functools
import importlib
import os
import pkgutil
import sys
import weakref
from collections.abc import Iterator

import anthropic
import pytest

import claude_batch_tasks
from claude_batch_tasks import api, errors, testing
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store.redis import open_store_at

#: Kept for the life of a process, and no matter to a test that follows.
STAYS = {
    "api.body_limits._body",  # classes, made of those of the HTTP library
    "api.body_limits._stream",
    "api.simulated._running",  # the simulator of this process
    "instruments.prometheus._family",  # metrics in Prometheus' registry, which takes each once
    "store.postgres.borrowed.django_alias._sources",  # of stores that are in use, for a child process
    "store.postgres.borrowed.sqlalchemy_engine._engines",
    "store.postgres.statements.read_queries",  # files of the package
    "store.redis.scripts.script_text",  # files of the package
    "transport._kept",  # messages that are to be given back
}

FACTORIES = {"default": "claude_batch_tasks.api.default_client", "own": f"{__name__}.make"}


def make() -> anthropic.Anthropic:
    """A factory of an application's own, which reads what it likes."""
    return anthropic.Anthropic(api_key=os.environ["SHOP_KEY"], base_url="http://127.0.0.1:9")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANTHROPIC_API_KEY", "one")
    monkeypatch.setenv("SHOP_KEY", "one")


def kept() -> Iterator[str]:
    """The caches, and what is empty when its module is imported, by their dotted names."""
    root = claude_batch_tasks.__name__ + "."
    for found in pkgutil.walk_packages(claude_batch_tasks.__path__, root):
        if any(part in found.name for part in (".simulator", ".contrib", ".demo", "__main__", ".app", ".cli")):
            continue
        try:
            module = importlib.import_module(found.name)
        except ImportError:
            continue
        for name, value in vars(module).items():
            mutable = isinstance(value, (dict, set, list, weakref.WeakSet, weakref.WeakKeyDictionary))
            defined = getattr(value, "__module__", found.name) == found.name or mutable
            cache = isinstance(value, functools._lru_cache_wrapper) and defined
            state = mutable and name.startswith("_") and not name.startswith("__") and not value and name.islower()
            if cache or state:
                yield f"{found.name.removeprefix(root)}.{name}"


def test_all_that_is_kept_is_forgotten_or_named_here() -> None:
    testing.reset()
    named = {f"{module}.{name}" for module, names in testing.KEPT.items() for name in names}
    assert set(kept()) - STAYS <= named
    for one in named:
        module, _, name = one.rpartition(".")
        assert hasattr(importlib.import_module(f"claude_batch_tasks.{module}"), name), one


class TestAClient:
    @pytest.mark.parametrize(
        ("alias", "variable"),
        [
            ("default", "ANTHROPIC_API_KEY"),
            ("default", "ANTHROPIC_BASE_URL"),
            ("default", "HTTPS_PROXY"),
            ("own", "SHOP_KEY"),
        ],
    )
    def test_is_another_where_what_its_factory_reads_is(
        self, alias: str, variable: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        first = api.get_client(alias, FACTORIES)
        assert api.get_client(alias, FACTORIES) is first
        monkeypatch.setenv(variable, "http://127.0.0.1:1")
        second = api.get_client(alias, FACTORIES)
        assert second is not first
        assert api.get_client(alias, FACTORIES) is second
        monkeypatch.delenv(variable)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "three")
        monkeypatch.setenv("SHOP_KEY", "three")
        assert api.get_client(alias, FACTORIES).api_key == "three"

    def test_is_another_where_its_factory_is(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = api.get_client("own", FACTORIES)
        other = anthropic.Anthropic(api_key="other")
        monkeypatch.setattr(sys.modules[__name__], "make", lambda: other)
        assert api.get_client("own", FACTORIES) is other is not first

    def test_that_cannot_be_made_any_more_is_not_the_one_before(self, monkeypatch: pytest.MonkeyPatch) -> None:
        api.get_client("own", FACTORIES)
        monkeypatch.delenv("SHOP_KEY")
        with pytest.raises(errors.PermanentError):
            api.get_client("own", FACTORIES)

    def test_is_each_processs_own(self, monkeypatch: pytest.MonkeyPatch) -> None:
        first = api.get_client("own", FACTORIES)
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert api.get_client("own", FACTORIES) is not first

    def test_is_another_after_a_reset(self) -> None:
        first = api.get_client("own", FACTORIES)
        testing.reset()
        assert api.get_client("own", FACTORIES) is not first


def test_a_reset_has_stores_and_prices_made_anew() -> None:
    url, prices = "redis://127.0.0.1:9/0", Settings().price_list
    store = open_store_at(url)
    assert open_store_at(url) is store
    testing.reset()
    assert open_store_at(url) is not store
    assert Settings().price_list is not prices
