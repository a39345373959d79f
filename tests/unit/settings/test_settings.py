from __future__ import annotations

import json
import math
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
import redis
from celery import Celery

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.pricing.prices import Used
from claude_batch_tasks.records import DEFAULTS, JobRecord
from claude_batch_tasks.settings import (
    Settings,
    configuration,
    from_environment,
    prices_of,
    visibility_timeout,
)
from claude_batch_tasks.settings.redis_urls import redis_url

REDIS = "redis://localhost:6379/0"
NUMBERS = ["poll_min", "retry_max", "not_found_grace", "listings", "results_limit", "result_ttl", "lease", "timeout"]


def new_app(**conf: Any) -> Celery:
    app = Celery("tests", set_as_current=False)
    app.conf.update({"broker_url": REDIS, **conf})
    return app


def settings(**conf: Any) -> Settings:
    return Settings.of(new_app(**conf))


def namespaced(namespace: str | None, **names: Any) -> Settings:
    """As a Django project does it: ``app.config_from_object("django.conf:settings", namespace="CELERY")``."""
    app = Celery("tests", set_as_current=False)
    app.config_from_object(SimpleNamespace(**names), namespace=namespace)
    return Settings.of(app)


class TestReadFromTheApp:
    def test_are_the_documented_defaults(self) -> None:
        found = settings()
        assert (found.poll_min, found.poll_max, found.retry_min, found.retry_max) == (5, 120, 2, 300)
        assert (found.not_found_grace, found.create_not_found_limit, found.create_settle) == (900, 5, 120)
        assert (found.fallback, found.max_fallback_requests, found.max_wait) == ("messages", 1000, None)
        assert (found.max_requests_per_batch, found.max_bytes_per_batch) == (100_000, 256_000_000)
        assert (found.retries, found.deadline, found.max_fallback_cost, found.max_cost) == (2, None, 5.0, None)
        assert (found.max_messages_in_flight, found.prices) == (64, {})
        assert found.result_ttl == 604_800
        assert found.store_url == REDIS

    def test_are_read_by_their_names(self) -> None:
        found = settings(claude_batch_poll_min=0.25, claude_batch_fallback="off", claude_batch_listings=5)
        assert (found.poll_min, found.fallback, found.listings) == (0.25, "off", 5)

    @pytest.mark.parametrize("value", [3, 3.0, "3", " 3 ", "3.0"])
    def test_may_be_numbers_in_text(self, value: Any) -> None:
        assert settings(claude_batch_poll_min=value, claude_batch_listings=value).listings == 3

    def test_are_read_from_a_django_settings_module(self) -> None:
        found = namespaced("CELERY", CELERY_BROKER_URL=REDIS, CELERY_CLAUDE_BATCH_POLL_MIN=3, DEBUG=True)
        assert found.poll_min == 3

    def test_are_read_from_a_plain_settings_module(self) -> None:
        assert namespaced(None, broker_url=REDIS, claude_batch_poll_min=3).poll_min == 3

    def test_that_are_unknown_are_refused_in_a_django_settings_module_too(self) -> None:
        with pytest.raises(InvalidSettings, match=r"pol_min; did you mean poll_min\?"):
            namespaced("CELERY", CELERY_BROKER_URL=REDIS, CELERY_CLAUDE_BATCH_POL_MIN=3)

    def test_are_read_under_any_namespace(self) -> None:
        assert namespaced("QUEUE", QUEUE_BROKER_URL=REDIS, QUEUE_CLAUDE_BATCH_POLL_MIN=3).poll_min == 3

    @pytest.mark.parametrize(
        ("namespace", "names"),
        [
            ("CELERY", {"CELERY_BROKER_URL": REDIS, "CLAUDE_BATCH_POLL_MIN": 3}),
            ("CELERY", {"CELERY_BROKER_URL": REDIS, "claude_batch_poll_min": 3}),
            (None, {"BROKER_URL": REDIS, "CLAUDE_BATCH_POLL_MIN": 3}),
            (None, {"BROKER_URL": REDIS, "CELERY_CLAUDE_BATCH_POLL_MIN": 3}),
            (None, {"broker_url": REDIS, "CLAUDE_BATCH_POLL_MIN": 3}),
        ],
    )
    def test_are_read_with_and_without_the_namespace(self, namespace: str | None, names: dict[str, Any]) -> None:
        assert namespaced(namespace, **names).poll_min == 3

    @pytest.mark.parametrize("name", ["CLAUDE_BATCH_POLL_MIN", "CELERY_CLAUDE_BATCH_POLL_MIN"])
    def test_are_read_from_a_mapping_laid_over(self, name: str) -> None:
        assert settings(**{name: 3}).poll_min == 3
        assert prices_of(new_app(**{name.replace("POLL_MIN", "PRICES"): TestPrices.OWN})) == TestPrices.OWN

    def test_that_the_program_assigns_have_precedence(self) -> None:
        app = Celery("tests", broker=REDIS, set_as_current=False)
        app.config_from_object({"CLAUDE_BATCH_POLL_MIN": 3})
        app.conf.claude_batch_poll_min = 4
        assert Settings.of(app).poll_min == 4

    def test_that_are_spelled_in_two_ways_with_two_values_are_refused(self) -> None:
        both = {"CLAUDE_BATCH_POLL_MIN": 3, "claude_batch_poll_min": 4}
        with pytest.raises(InvalidSettings, match=r"CLAUDE_BATCH_POLL_MIN and claude_batch_poll_min are the same"):
            settings(**both)
        with pytest.raises(InvalidSettings, match="two values"):
            from_environment({"CLAUDE_BATCH_POLL_MIN": "3", "CELERY_CLAUDE_BATCH_POLL_MIN": "4"})
        assert settings(**{**both, "claude_batch_poll_min": 3}).poll_min == 3

    def test_that_make_no_sense_are_named_as_they_are_written(self) -> None:
        with pytest.raises(InvalidSettings, match=r"^CELERY_CLAUDE_BATCH_POLL_MIN must be a number"):
            namespaced("CELERY", CELERY_BROKER_URL=REDIS, CELERY_CLAUDE_BATCH_POLL_MIN="soon")
        with pytest.raises(InvalidSettings, match=r"CLAUDE_BATCH_POLL_MIN is greater than CELERY_"):
            namespaced("CELERY", CELERY_BROKER_URL=REDIS, CLAUDE_BATCH_POLL_MIN=500)
        with pytest.raises(InvalidSettings, match="CELERY_CLAUDE_BATCH_STORE_URL is not set"):
            namespaced("CELERY", CELERY_BROKER_URL="amqp://host")

    @pytest.mark.parametrize(
        ("name", "hint"),
        [("pol_min", "did you mean poll_min?"), ("falback", "did you mean fallback?"), ("zzz", "known:")],
    )
    def test_that_are_unknown_are_refused_with_a_suggestion(self, name: str, hint: str) -> None:
        with pytest.raises(InvalidSettings) as caught:
            settings(**{f"claude_batch_{name}": 1})
        assert f"claude_batch_{name}" in str(caught.value)
        assert hint in str(caught.value)


class TestNonsense:
    @pytest.mark.parametrize("name", NUMBERS)
    @pytest.mark.parametrize(
        "value",
        [math.nan, math.inf, -math.inf, -1, -0.5, True, False, None, "", "soon", "nan", "inf", "1 s", [], {}, 10**400],
    )
    def test_is_refused_with_the_name_and_the_meaning(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidSettings, match=rf"claude_batch_{name} must be .*\("):
            settings(**{f"claude_batch_{name}": value})

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("poll_min", 0),
            ("retry_min", 0),
            ("listings", 0),
            ("listings", 1.5),
            ("max_requests_per_batch", 0),
            ("max_bytes_per_batch", 10),
            ("max_wait", 0),
            ("max_wait", math.nan),
            ("lease", 0.1),
            ("fallback", "Messages"),
            ("fallback", True),
            ("fallback", None),
            ("store_url", 17),
            ("workspace_id", ""),
            ("workspace_id", "wrkspc_1\r\nx-api-key: stolen"),
            ("user_profile_id", 17),
            ("user_profile_id", "uprof 1"),
            ("betas", ["a,b"]),
            ("betas", ["a\nb"]),
            ("betas", [1]),
            ("retries", None),
            ("max_cost", "much"),
            ("prices", None),
            ("prices", "not json"),
            ("prices", ["claude-x"]),
            ("prices", {"claude-x": {"input_mtok": 1}}),
            ("prices", {"claude-x": {"input_mtok": -1, "output_mtok": 1}}),
            ("client_factories", "not json"),
            ("client_factories", ["a.b"]),
            ("client_factories", {"a": 17}),
            ("client_factories", {"a": "nodots"}),
            ("client_factories", None),
            ("metrics_job_label", "maybe"),
            ("metrics_job_label", 2),
            ("metrics_job_label", None),
        ],
    )
    def test_is_refused_for_each_kind_of_setting(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidSettings, match=f"claude_batch_{name}"):
            settings(**{f"claude_batch_{name}": value})

    @pytest.mark.parametrize(("low", "high"), [("poll_min", "poll_max"), ("retry_min", "retry_max")])
    def test_is_a_minimum_over_its_maximum(self, low: str, high: str) -> None:
        with pytest.raises(InvalidSettings, match=f"{low} is greater than .*{high}"):
            settings(**{f"claude_batch_{low}": 9, f"claude_batch_{high}": 8})
        same = settings(**{f"claude_batch_{low}": 9, f"claude_batch_{high}": 9})
        assert getattr(same, low) == getattr(same, high) == 9

    @pytest.mark.parametrize(
        ("name", "limit"), [("max_requests_per_batch", 100_000), ("max_bytes_per_batch", 256_000_000)]
    )
    def test_is_more_than_anthropic_takes(self, name: str, limit: int) -> None:
        assert getattr(settings(**{f"claude_batch_{name}": limit}), name) == limit
        with pytest.raises(InvalidSettings, match="Anthropic's limit"):
            settings(**{f"claude_batch_{name}": limit + 1})

    @pytest.mark.parametrize("url", ["localhost:6379", "memcached://h", "nonsense", "redis://h:port/0"])
    def test_is_a_store_that_cannot_be(self, url: str) -> None:
        with pytest.raises(InvalidSettings, match="store_url"):
            settings(claude_batch_store_url=url)


class TestFromTheEnvironment:
    def test_are_read_in_their_types(self) -> None:
        found = from_environment(
            {
                "CLAUDE_BATCH_POLL_MIN": "0.5",
                "CLAUDE_BATCH_LISTINGS": "2",
                "CLAUDE_BATCH_FALLBACK": "off",
                "CLAUDE_BATCH_MAX_WAIT": "None",
                "CLAUDE_BATCH_STORE_URL": REDIS,
                "CLAUDE_BATCH_CLIENT_FACTORIES": '{"tenant-b": "shop.clients.tenant_b"}',
                "CLAUDE_BATCH_RESULT_TTL": "",
                "CELERY_BROKER_URL": REDIS,
                "HOME": "/",
            }
        )
        factories = found.pop("claude_batch_client_factories")
        assert factories["tenant-b"] == "shop.clients.tenant_b"
        assert factories["default"] == "claude_batch_tasks.api.default_client"
        assert found == {
            "claude_batch_poll_min": 0.5,
            "claude_batch_listings": 2,
            "claude_batch_fallback": "off",
            "claude_batch_max_wait": None,
            "claude_batch_store_url": REDIS,
        }

    @pytest.mark.parametrize("value", ["nan", "inf", "-1", "soon", "true", "1,5", "None"])
    def test_are_refused_if_they_make_no_sense(self, value: str) -> None:
        with pytest.raises(InvalidSettings, match="claude_batch_poll_min"):
            from_environment({"CLAUDE_BATCH_POLL_MIN": value})

    def test_are_refused_if_unknown(self) -> None:
        with pytest.raises(InvalidSettings, match=r"did you mean retry_max\?"):
            from_environment({"CLAUDE_BATCH_RETRYMAX": "1"})

    def test_reach_the_ready_made_app(self) -> None:
        conf = configuration({"CELERY_BROKER_URL": "redis://b/1", "CLAUDE_BATCH_POLL_MIN": "3"})
        assert (conf["broker_url"], conf["result_backend"]) == ("redis://b/1", "redis://b/1")
        assert settings(**conf).poll_min == 3
        assert settings(**conf).store_url == "redis://b/1"

    def test_may_say_nothing(self) -> None:
        conf = configuration({})
        assert (conf["broker_url"], conf["result_backend"]) == (REDIS, REDIS)


class TestForOneJob:
    def test_are_laid_over_the_apps(self) -> None:
        found = settings(claude_batch_poll_max=60).override({"fallback": "off", "poll_min": 1})
        assert (found.fallback, found.poll_min, found.poll_max, found.store_url) == ("off", 1, 60, REDIS)

    def test_leave_the_apps_alone(self) -> None:
        own = settings()
        own.override({"poll_min": 1})
        assert own.poll_min == 5

    @pytest.mark.parametrize(
        "options", [{"retries": 0}, {"retries": 9}, {"deadline": 0}, {"max_cost": 0}, {"max_fallback_cost": 2.5}]
    )
    def test_say_how_what_failed_is_sent_again(self, options: dict[str, Any]) -> None:
        [(name, value)] = options.items()
        assert getattr(settings().override(options), name) == value
        assert getattr(settings(**{f"claude_batch_{name}": str(value)}), name) == value

    @pytest.mark.parametrize("name", ["store_url", "client_factories", "prices"])
    def test_are_not_where_things_are(self, name: str) -> None:
        with pytest.raises(InvalidSettings, match=f"run_batch option {name}"):
            settings().override({name: getattr(settings(), name)})

    @pytest.mark.parametrize(
        "options",
        [
            {"poll_min": math.nan},
            {"poll_min": 500},
            {"fallback": "maybe"},
            {"fallbak": "off"},
            {"retries": -1},
            {"retries": 1.5},
            {"deadline": -1},
            {"deadline": "tomorrow"},
            {"max_cost": -0.01},
            {"max_fallback_cost": math.inf},
            {"max_messages_in_flight": 0},
        ],
    )
    def test_are_refused_if_they_make_no_sense(self, options: dict[str, Any]) -> None:
        with pytest.raises(InvalidSettings):
            settings().override(options)


class TestPrices:
    OWN = {"claude-x": {"input_mtok": 2.0, "output_mtok": 0.0}}  # noqa: RUF012
    USED = Used(input_tokens=1_000_000, output_tokens=5)

    def test_may_be_the_operators_own(self) -> None:
        found = settings(claude_batch_prices=self.OWN).price_list
        assert found.compute_cost("claude-x", self.USED, batch=False) == 2
        assert settings(claude_batch_prices=self.OWN).price_list is found, "and are looked up once"
        assert settings().price_list.compute_cost("claude-x", self.USED, batch=False) is None

    def test_come_from_the_environment_as_json(self) -> None:
        found = from_environment({"CLAUDE_BATCH_PRICES": json.dumps(self.OWN)})
        assert found == {"claude_batch_prices": self.OWN}
        assert settings(**found).price_list.compute_cost("claude-x", self.USED, batch=True) == 1
        with pytest.raises(InvalidSettings, match=r"claude_batch_prices: .*claude-x: output_mtok is missing"):
            from_environment({"CLAUDE_BATCH_PRICES": '{"claude-x": {"input_mtok": 1}}'})


class TestTheStore:
    @pytest.mark.parametrize(
        ("conf", "url"),
        [
            ({"broker_url": "redis://b/1", "result_backend": "redis://r/2"}, "redis://r/2"),
            ({"broker_url": "redis://b/1", "result_backend": "db+postgresql://h/x"}, "redis://b/1"),
            ({"broker_url": "amqp://h", "result_backend": "redis://r/2"}, "redis://r/2"),
            ({"broker_url": "redis://b/1"}, "redis://b/1"),
            (
                {"broker_url": "rediss://:p%40ss@h:1/2?ssl_cert_reqs=CERT_REQUIRED"},
                "rediss://:p%40ss@h:1/2?ssl_cert_reqs=required",
            ),
            ({"broker_url": "amqp://h", "claude_batch_store_url": "redis://own/3"}, "redis://own/3"),
        ],
    )
    def test_is_the_redis_the_app_has(self, conf: dict[str, Any], url: str) -> None:
        assert settings(**conf).store_url == url

    def test_must_be_named_where_there_is_no_redis(self) -> None:
        with pytest.raises(InvalidSettings) as caught:
            settings(broker_url="amqp://user:SECRET@h", result_backend="db+postgresql://user:SECRET@h/x")
        text = str(caught.value)
        assert "claude_batch_store_url" in text
        assert "noeviction" in text
        assert "SECRET" not in text

    def test_that_is_no_text_is_not_quoted(self) -> None:
        with pytest.raises(InvalidSettings, match="store_url must be a text, not of type list") as caught:
            settings(claude_batch_store_url=["redis://:SECRET@h/0"])
        assert "SECRET" not in str(caught.value)

    @pytest.mark.parametrize(
        ("url", "expected"),
        [
            ("redis://h", {"host": "h"}),
            ("redis://:pass@h:6380/3", {"host": "h", "port": 6380, "db": 3, "password": "pass"}),
            ("redis://u:p%40%2Fss@h/0", {"username": "u", "password": "p@/ss"}),
            ("redis://h/0?virtual_host=4", {"db": 4}),
            ("rediss://h/1?ssl_cert_reqs=CERT_NONE", {"db": 1, "ssl_cert_reqs": "none"}),
            ("rediss://h/1?ssl_cert_reqs=required&ssl_ca_certs=/etc/ca.pem", {"ssl_ca_certs": "/etc/ca.pem"}),
            ("valkey://h/2", {"host": "h", "db": 2}),
        ],
    )
    def test_is_reached_with_the_brokers_own_url(self, url: str, expected: dict[str, Any]) -> None:
        found = redis.ConnectionPool.from_url(redis_url(url)).connection_kwargs
        assert {name: found[name] for name in expected} == expected

    @pytest.mark.parametrize("url", ["redis+socket:///run/redis.sock?virtual_host=3", "unix:///run/redis.sock?db=3"])
    def test_is_reached_through_a_socket(self, url: str) -> None:
        found = redis.ConnectionPool.from_url(redis_url(url)).connection_kwargs
        assert (found["path"], found["db"]) == ("/run/redis.sock", 3)

    def test_may_be_named_in_the_brokers_spelling_too(self) -> None:
        url = settings(claude_batch_store_url="rediss://h/1?ssl_cert_reqs=CERT_NONE").store_url
        assert url == "rediss://h/1?ssl_cert_reqs=none"


@pytest.mark.parametrize(("options", "seconds"), [({}, 3600), (None, 3600), ({"visibility_timeout": 60}, 60)])
def test_the_visibility_timeout_is_the_brokers(options: Any, seconds: float) -> None:
    assert visibility_timeout(new_app(broker_transport_options=options)) == seconds


class TestTheLimitOfAJobThatAnEarlierReleaseSubmitted:
    OLD = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0)
    NEW = JobRecord(nonce="n", requests=1, batches=1, submitted_at=1.0, defaults=DEFAULTS)

    def test_is_none_as_it_was_then(self) -> None:
        assert settings().of_job(self.OLD).max_fallback_cost is None
        assert settings().of_job(self.NEW).max_fallback_cost == 5.0

    def test_is_what_the_app_or_the_job_says(self) -> None:
        assert settings(claude_batch_max_fallback_cost=5.0).of_job(self.OLD).max_fallback_cost == 5.0
        for job in (self.OLD, self.NEW):
            for limit in (2.0, None):
                chosen = msgspec.structs.replace(job, options={"max_fallback_cost": limit})
                assert settings(claude_batch_max_fallback_cost=7).of_job(chosen).max_fallback_cost == limit
