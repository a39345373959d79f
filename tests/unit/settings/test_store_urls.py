"""The setting ``store_url`` where the store is no Redis."""

from __future__ import annotations

import sys
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings, store_urls
from claude_batch_tasks.store import open_store_at


def settings(**conf: Any) -> Settings:
    app = Celery("tests", set_as_current=False)
    app.conf.update(conf)
    return Settings.of(app)


def why_refused(**conf: Any) -> str:
    with pytest.raises(InvalidSettings) as caught:
        settings(**conf)
    assert "SECRET" not in str(caught.value)
    return str(caught.value)


class TestAnAddress:
    @pytest.mark.parametrize(
        ("url", "kept", "product", "address"),
        [
            ("postgresql://u:SECRET@h:5433/db", None, "PostgreSQL", "postgresql://h:5433/db"),
            ("postgres://h/db", "postgresql://h/db", "PostgreSQL", "postgresql://h/db"),
            ("postgresql://a:1,b:2/db?target_session_attrs=any", None, "PostgreSQL", "postgresql://a:1,b:2/db"),
            ("postgresql:///db?host=/run/postgresql", None, "PostgreSQL", "postgresql:///db"),
            ("postgresql://u:SECRET%23@[::1]:5432/db", None, "PostgreSQL", "postgresql://[::1]:5432/db"),
            ("django://default", None, "PostgreSQL", "Django's database 'default'"),
            ("django://jobs/", "django://jobs", "PostgreSQL", "Django's database 'jobs'"),
            ("myapp.db.engine", None, "PostgreSQL", "the engine myapp.db.engine"),
            ("myapp.db:engine", None, "PostgreSQL", "the engine myapp.db:engine"),
            ("redis://:SECRET@h/2", None, "Redis", "h:6379"),
        ],
    )
    def test_is_kept_and_named_without_a_password(self, url: str, kept: str | None, product: str, address: str) -> None:
        found = settings(broker_url="amqp://h", claude_batch_store_url=url).store_url
        assert found == (kept or url)
        assert (store_urls.store_product(found), store_urls.store_address(found)) == (product, address)
        assert "SECRET" not in store_urls.store_name(found)

    @pytest.mark.parametrize(
        ("url", "why"),
        [
            ("postgresql+psycopg2://u:SECRET@h/db", "write postgresql:// in place of postgresql+psycopg2://"),
            ("db+postgresql://u:SECRET@h/db", "write postgresql:// in place of db+postgresql://"),
            ("postgresql://u:SECRET@h/db?ssl=1", "libpq does not know the option ssl"),
            ("postgresql://u:%SECRET@h/db", "libpq cannot read it"),
            ("postgresql://u:SEC#RET@h/db", "%23"),
            ("postgresql://u:SEC/RET@h/db", "%2F"),
            ("postgresql://u:SEC@RET@h/db", "%40"),
            ("postgresql://h:0/db", "host and a database"),
            ("postgresql://", "host and a database"),
            ("django://", "django://default"),
            ("django://u:SECRET@default", "django://default"),
            ("mysql://u:SECRET@h/db", "postgresql://user:password@host/database"),
            ("nothing", "postgresql://user:password@host/database"),
            ("localhost:6379", "redis://host:6379/0"),
        ],
    )
    def test_says_what_is_wrong(self, url: str, why: str) -> None:
        text = why_refused(claude_batch_store_url=url)
        assert "claude_batch_store_url" in text
        assert why in text

    def test_needs_the_packages_of_its_database(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "psycopg.conninfo", None)
        text = why_refused(claude_batch_store_url="postgresql://not-yet-seen/db")
        assert "pip install 'claude-batch-tasks[postgres]'" in text

    def test_needs_them_where_it_is_opened(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setitem(sys.modules, "claude_batch_tasks.store.postgres", None)
        # Where it was imported before, the package has it as an attribute.
        monkeypatch.delattr("claude_batch_tasks.store.postgres", raising=False)
        with pytest.raises(InvalidSettings, match=r"pip install 'claude-batch-tasks\[postgres\]'"):
            open_store_at("myapp.db.engine")

    def test_has_hosts(self) -> None:
        assert store_urls.store_hosts("postgresql://u:SECRET@one:1,two/db?host=three,four") == [
            "one",
            "two",
            "three",
            "four",
        ]
        assert store_urls.store_hosts("redis://one:1/0") == ["one"]
        assert store_urls.store_hosts("django://default") == []


class TestAPrefix:
    def test_stands_in_front_of_a_schemas_name(self) -> None:
        url = "postgresql://h/db"
        assert settings(claude_batch_store_url=url, claude_batch_store_prefix="shop_").store_prefix == "shop_"
        text = why_refused(claude_batch_store_url=url, claude_batch_store_prefix="shop:")
        assert "claude_batch_store_prefix" in text
        assert "'shop:'" in text

    def test_is_none_where_only_redis_has_one(self) -> None:
        conf = {"broker_url": "redis://h/0", "broker_transport_options": {"global_keyprefix": "shop:"}}
        assert settings(**conf).store_prefix == "shop:"
        assert settings(**conf, claude_batch_store_url="postgresql://h/db").store_prefix == ""


class TestWithoutAnyRedis:
    """The store has to be named."""

    @pytest.mark.parametrize(
        ("backend", "example"),
        [
            ("db+postgresql://u:SECRET@h:5432/app", "'postgresql://user:password@h:5432/app'"),
            ("db+postgresql+psycopg://u:SECRET@h/app?sslmode=require", "'postgresql://user:password@h/app'"),
            ("django-db", "'django://default'"),
            ("db+mysql://u:SECRET@h/app", "'postgresql://user:password@host/database'"),
            ("rpc://", "'postgresql://user:password@host/database'"),
            (None, "'postgresql://user:password@host/database'"),
        ],
    )
    def test_the_error_has_an_example(self, backend: str | None, example: str) -> None:
        text = why_refused(broker_url="amqp://u:SECRET@h", result_backend=backend)
        assert text.startswith("claude_batch_store_url is not set")
        assert example in text
