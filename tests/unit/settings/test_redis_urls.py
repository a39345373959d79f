"""Addresses of Redis servers, and which options of theirs a store takes."""

from __future__ import annotations

import inspect
import ssl
from typing import Any, ClassVar

import pytest
import redis
from celery import Celery

from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings, redis_urls
from claude_batch_tasks.settings.redis_urls import connect_redis, redis_address, redis_url
from claude_batch_tasks.store import open_store


def store_url(**conf: Any) -> str:
    app = Celery(set_as_current=False)
    app.conf.update(conf)
    url = Settings.of(app).store_url
    assert url is not None
    return url


def made_with(url: str) -> dict[str, Any]:
    return {
        **connect_redis(url, {}).connection_pool.connection_kwargs,
        "class": connect_redis(url, {}).connection_pool.connection_class,
    }


def options_of_redis_py() -> list[str]:
    """What redis-py may be given, be it in a URL or not."""
    classes = (redis.Redis, redis.ConnectionPool, redis.BlockingConnectionPool, redis.Connection, redis.SSLConnection)
    classes += (redis.UnixDomainSocketConnection, redis.connection.AbstractConnection)
    names = {name for each in classes for name in inspect.signature(each.__init__).parameters}
    return sorted(names - {"self", "kwargs", "connection_kwargs"} | set(redis.connection.URL_QUERY_ARGUMENT_PARSERS))


GOOD = {
    "ssl_cert_reqs": "required",
    "ssl_min_version": "TLSv1_2",
    "ssl_include_verify_flags": "VERIFY_X509_STRICT",
    "ssl_exclude_verify_flags": "VERIFY_X509_STRICT",
    "credential_provider": "redis.credentials:UsernamePasswordCredentialProvider",
    "socket_keepalive": "yes",
}


class TestAnOption:
    @pytest.mark.parametrize("name", options_of_redis_py())
    @pytest.mark.parametrize("setting", ["claude_batch_store_url", "result_backend"])
    def test_is_passed_on_overruled_or_refused_by_name(self, name: str, setting: str) -> None:
        given = f"rediss://h/0?ssl_cert_reqs=none&{name}={GOOD.get(name, '3')}"
        if "flag" in redis_urls._PASSED.get(name, str).__name__ and name not in GOOD:
            given = f"rediss://h/0?{name}=true"
        if name in redis_urls._OVERRULED:
            assert name not in store_url(**{setting: given})
            assert not made_with(given).get("decode_responses")
        elif name in redis_urls._PASSED and name != "ssl":
            url = store_url(**{setting: given})
            assert f"{name}=" in url
            assert name in made_with(url) or name == "max_connections"
        elif name not in redis_urls._PASSED:
            with pytest.raises(InvalidSettings, match=rf"store_url: the option {name} cannot be used for the store"):
                store_url(**{setting: given})

    @pytest.mark.parametrize("option", ["decode_response=True", "sockettimeout=3"])
    def test_that_nobody_knows_is_refused_by_name(self, option: str) -> None:
        with pytest.raises(InvalidSettings, match=option.split("=")[0]):
            store_url(claude_batch_store_url=f"redis://h/0?{option}")

    @pytest.mark.parametrize("option", ["db=x", "socket_timeout=soon", "ssl_cert_reqs=perhaps", "max_connections=0"])
    def test_whose_value_makes_no_sense_is_refused_by_name(self, option: str) -> None:
        with pytest.raises(InvalidSettings, match=f"value of the option {option.split('=')[0]} is not valid"):
            store_url(claude_batch_store_url=f"redis://h/0?{option}")

    def test_of_kombus_is_nothing_to_the_store(self) -> None:
        url = "redis://h/1?connect_timeout=3&heartbeat=10&socket_timeout=7"
        assert store_url(broker_url=url, result_backend="rpc://") == "redis://h/1?socket_timeout=7"

    def test_may_say_how_many_connections(self) -> None:
        assert connect_redis("redis://h?max_connections=7", {}).connection_pool.max_connections == 7

    @pytest.mark.parametrize("setting", ["claude_batch_store_url", "result_backend"])
    def test_to_decode_loses_nothing(self, setting: str, redis_server: RedisServer) -> None:
        app = Celery(broker=redis_server.url, backend=redis_server.url, set_as_current=False)
        app.conf[setting] = f"{redis_server.url}?decode_responses=True"
        client = open_store(Settings.of(app))._redis  # type: ignore[attr-defined]
        client.set("key", b"\xff")
        assert client.get("key") == b"\xff"


class TestTls:
    GIVEN: ClassVar[dict[str, Any]] = {
        "ssl_cert_reqs": ssl.CERT_REQUIRED,
        "ssl_ca_certs": "/etc/ca of ours.pem",
        "ssl_certfile": "/c.pem",
        "ssl_keyfile": None,
    }
    EXPECTED: ClassVar[dict[str, Any]] = {
        "ssl_cert_reqs": "required",
        "ssl_ca_certs": "/etc/ca of ours.pem",
        "ssl_certfile": "/c.pem",
    }

    @pytest.mark.parametrize("scheme", ["redis", "rediss", "valkey", "valkeys"])
    @pytest.mark.parametrize(
        ("server", "tls"), [("result_backend", "redis_backend_use_ssl"), ("broker_url", "broker_use_ssl")]
    )
    def test_is_the_apps(self, scheme: str, server: str, tls: str) -> None:
        url = store_url(**{"result_backend": "rpc://", server: f"{scheme}://u:p%40@h:1/2", tls: self.GIVEN})
        assert url.startswith("rediss://u:p%40@h:1/2?")
        found = made_with(url)
        assert issubclass(found["class"], redis.SSLConnection)
        assert found | self.EXPECTED | {"password": "p@", "db": 2} == found
        assert store_url(claude_batch_store_url=url) == url

    def test_of_the_broker_is_not_the_result_back_ends(self) -> None:
        assert store_url(result_backend="redis://h/0", broker_url="redis://b", broker_use_ssl=self.GIVEN) == (
            "redis://h/0"
        )

    @pytest.mark.parametrize("given", [True, {}, None, False])
    def test_may_be_a_flag(self, given: Any) -> None:
        url = store_url(broker_url="redis://h/0", result_backend="rpc://", broker_use_ssl=given)
        assert url == ("rediss://h/0" if given is True else "redis://h/0")

    @pytest.mark.parametrize("value", ["CERT_NONE", "none", ssl.CERT_NONE])
    def test_may_accept_anybody(self, value: Any) -> None:
        url = store_url(result_backend="redis://h/0", redis_backend_use_ssl={"ssl_cert_reqs": value})
        assert url == "rediss://h/0?ssl_cert_reqs=none"

    def test_is_what_the_url_says_where_both_do(self) -> None:
        url = store_url(
            result_backend="rediss://h/0?ssl_cert_reqs=CERT_NONE", redis_backend_use_ssl={"ssl_cert_reqs": "required"}
        )
        assert url == "rediss://h/0?ssl_cert_reqs=none"

    def test_is_meant_by_its_options(self) -> None:
        assert redis_url("redis://h/0?ssl_ca_certs=/ca.pem") == "rediss://h/0?ssl_ca_certs=%2Fca.pem"


class TestSentinels:
    URL = "sentinel://u:p@one:26379;sentinel://two;sentinel://three:3/4"

    @pytest.mark.parametrize("options", ["broker_transport_options", "result_backend_transport_options"])
    @pytest.mark.parametrize("setting", ["claude_batch_store_url", "own"])
    def test_are_named_as_celery_names_them(self, options: str, setting: str) -> None:
        server = "broker_url" if "broker" in options else "result_backend"
        conf = {"result_backend": "rpc://", server if setting == "own" else setting: self.URL}
        transport = {"master_name": "m", "sentinel_kwargs": {"password": "s"}, "visibility_timeout": 3}
        url = store_url(**conf, **{options: transport})
        pool = connect_redis(url, {"socket_timeout": 2}).connection_pool
        assert isinstance(pool, redis.sentinel.SentinelConnectionPool)
        assert pool.service_name == "m"
        assert pool.connection_kwargs | {"username": "u", "password": "p", "db": 4} == pool.connection_kwargs
        kwargs = [each.connection_pool.connection_kwargs for each in pool.sentinel_manager.sentinels]
        assert [(each["host"], each["port"]) for each in kwargs] == [("one", 26379), ("two", 26379), ("three", 3)]
        assert {(each["password"], each["socket_timeout"]) for each in kwargs} == {("s", 2)}
        assert store_url(claude_batch_store_url=url) == url
        assert redis_address(url) == "m by the Sentinels one:26379,two:26379,three:3"

    def test_may_have_all_in_their_url(self) -> None:
        url = f"{self.URL}?master_name=m&min_other_sentinels=1&ssl=true"
        pool = connect_redis(store_url(claude_batch_store_url=url), {}).connection_pool
        assert issubclass(pool.connection_class, redis.sentinel.SentinelManagedSSLConnection)
        assert pool.sentinel_manager.min_other_sentinels == 1

    def test_without_a_name_are_refused(self) -> None:
        with pytest.raises(InvalidSettings, match="master_name"):
            store_url(claude_batch_store_url=self.URL)

    def test_are_meant_by_one_scheme_only(self) -> None:
        with pytest.raises(InvalidSettings, match="master_name is for sentinel"):
            redis_url("redis://h/0?master_name=m")
