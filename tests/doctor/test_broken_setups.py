"""``claude-batch doctor`` names what is wrong with a set-up, and what mends it: each is broken for real."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import anthropic
import psycopg
import pytest
from celery import Celery
from kombu import Connection

from claude_batch_tasks.api import clients
from claude_batch_tasks.doctor import workers
from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.store import open_store_at
from tests.doctor.conftest import KEY, PASSWORD, Said, Set, answering
from tests.postgres_server import PostgresServer
from tests.unit.checks.test_pools import add_asks

pytestmark = pytest.mark.workers

MakeApp = Callable[..., Celery]
DoctorSays = Callable[..., Said]
RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


@pytest.fixture
def own_redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


def test_a_healthy_set_up_has_no_finding(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    said = doctor_says(make_app(), "--strict")
    assert (said.ids, said.exit_code) == ([], 0)
    assert "runs jobs, with claude-batch-tasks" in said.text
    assert "client 'default': 127.0.0.1" in said.text
    assert "0 errors, 0 warnings" in said.text


# -- settings


@pytest.mark.parametrize(
    ("changes", "problem", "words"),
    [
        ({"claude_batch_pol_min": 3}, "E001", ["unknown setting claude_batch_pol_min", "did you mean poll_min"]),
        (
            {"claude_batch_client_factories": {"tenant": "no_such.module.make"}},
            "E002",
            ["'no_such.module.make'", "No module named 'no_such'", "claude_batch_client_factories = {'tenant'"],
        ),
        (
            {"broker_transport_options": {"visibility_timeout": 30}},
            "W004",
            ["visibility_timeout is 30 s", "broker_transport_options = {'visibility_timeout': 2400}"],
        ),
        (
            {"accept_content": ["json", "pickle"]},
            "W010",
            ["pickle", "run code in workers", "accept_content = ['json']"],
        ),
        ({"result_backend": None}, "W013", ["the result back end is disabled", "result_backend = 'redis://...'"]),
        ({"task_always_eager": True}, "W015", ["task_always_eager = False"]),
        ({"result_backend": "no-such-kind://"}, "E018", ["result back end cannot be used", "result_backend"]),
    ],
)
def test_settings(
    changes: dict[str, Any], problem: str, words: list[str], make_app: MakeApp, doctor_says: DoctorSays
) -> None:
    said = doctor_says(make_app(**changes), "settings")
    assert said.ids == [problem]
    assert all(word in said.text for word in words), said.text
    assert said.exit_code == (1 if problem.startswith("E") else 0)


# -- servers


def test_a_redis_that_evicts(own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    own_redis.client().config_set("maxmemory-policy", "allkeys-lru")
    said = doctor_says(make_app(claude_batch_store_url=own_redis.url), "servers")
    assert "evicts (allkeys-lru)" in said.text
    assert "maxmemory-policy noeviction" in said.text
    assert said.ids == ["E106"]


def test_a_redis_without_an_append_only_file(
    own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays
) -> None:
    own_redis.client().config_set("appendonly", "no")
    said = doctor_says(
        make_app(result_backend=own_redis.url, claude_batch_store_url=make_app().conf.broker_url), "servers"
    )
    assert said.ids == ["W108"]
    assert "the result back end's Redis" in said.text
    assert "appendonly yes" in said.text


def test_a_wrong_password(own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    own_redis.client().config_set("requirepass", "another")
    url = f"redis://:{PASSWORD}@127.0.0.1:{own_redis.port}/0"
    said = doctor_says(make_app(claude_batch_store_url=url), "servers")
    assert said.ids == ["E102"]
    assert f"(127.0.0.1:{own_redis.port}) refuses the user or the password" in said.text
    assert "claude_batch_store_url = 'redis://user:password@host:port/...'" in said.text


def test_a_store_that_is_not_there(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    port = free_port()
    said = doctor_says(make_app(claude_batch_store_url=f"redis://127.0.0.1:{port}/0"), "servers")
    assert said.ids == ["E101"]
    assert f"the store's Redis (127.0.0.1:{port}) does not answer (no server listens there)" in said.text
    assert "Start it, or correct claude_batch_store_url" in said.text


@pytest.mark.parametrize("scheme", ["redis", "amqp"])
def test_a_broker_that_is_down(scheme: str, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    url = f"{scheme}://user:{PASSWORD}@127.0.0.1:{free_port()}//"
    said = doctor_says(make_app(broker_url=url), "servers")
    assert said.ids == ["E101"]
    assert "does not answer (no server listens there)" in said.text
    assert "Start it, or correct broker_url" in said.text


def test_sentinels_that_are_down(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    url, options = f"sentinel://:{PASSWORD}@127.0.0.1:{free_port()}", {"master_name": "mymaster"}
    app = make_app(broker_url=url, broker_transport_options=options, result_backend_transport_options=options)
    app.conf.result_backend = url
    said = doctor_says(app, "servers")
    assert said.ids == ["E101"]
    assert "the store, broker and result back end's Redis (mymaster by the Sentinels 127.0.0.1:" in said.text
    assert "its Sentinels do not answer, or know no master of that name" in said.text
    assert "correct claude_batch_store_url and broker_url and result_backend and master_name" in said.text


def test_a_password_that_breaks_the_address_of_the_result_back_end(
    healthy: Set, make_app: MakeApp, doctor_says: DoctorSays
) -> None:
    app = make_app(result_backend=f"redis://:{PASSWORD}/x@127.0.0.1:6379/0", claude_batch_store_url=healthy.url)
    said = doctor_says(app, "servers")
    assert said.ids == ["E018"]
    assert "as %2F" in said.text


def test_a_database_of_results(tmp_path: Path, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    there = tmp_path / "results.db"
    assert doctor_says(make_app(result_backend=f"db+sqlite:///{there}"), "servers").ids == []
    with sqlite3.connect(there) as database:
        assert database.execute("select * from sqlite_master").fetchall() == []
    url = f"db+postgresql+psycopg://user:{PASSWORD}@127.0.0.1:{free_port()}/results"
    said = doctor_says(make_app(result_backend=url), "servers")
    assert said.ids == ["E101"]
    assert "does not answer (no server listens there): result.get() and result.state fail" in said.text


def test_a_database_of_results_whose_user_may_not_create_its_tables(
    postgres_server: PostgresServer, postgres_url: str, make_app: MakeApp, doctor_says: DoctorSays
) -> None:
    url = postgres_url.replace("postgresql", "db+postgresql+psycopg")
    assert doctor_says(make_app(result_backend=url), "servers").ids == []
    with psycopg.connect(postgres_url, autocommit=True) as database:
        assert database.execute("SELECT to_regclass('celery_taskmeta')").fetchone() == (None,)
        database.execute("REVOKE CREATE ON SCHEMA public FROM public")
    postgres_server.execute("CREATE ROLE guest_of_results LOGIN")
    try:
        said = doctor_says(make_app(result_backend=url.replace("postgres@", "guest_of_results@")), "servers")
    finally:
        postgres_server.execute("DROP ROLE guest_of_results")
    assert said.ids == ["E101"]
    assert "permission denied for schema public" in said.text


def test_a_rabbitmq_that_refuses_the_password(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    try:
        with Connection(RABBITMQ, connect_timeout=3) as connection:
            connection.connect()
    except OSError as exc:
        pytest.skip(f"no RabbitMQ at {RABBITMQ} ({exc}); set TEST_RABBITMQ_URL")
    said = doctor_says(make_app(broker_url=RABBITMQ.replace(":guest@", f":{PASSWORD}@")), "servers")
    assert said.ids == ["E102"]
    assert "refuses the user or the password" in said.text


def test_a_redis_that_is_a_replica(own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    own_redis.client().execute_command("REPLICAOF", "127.0.0.1", str(free_port()))
    said = doctor_says(make_app(claude_batch_store_url=own_redis.url), "servers")
    assert said.ids == ["E104"]
    assert "is a read-only replica" in said.text
    assert "the primary's address into claude_batch_store_url" in said.text


def test_a_redis_without_memory(own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    own_redis.client().config_set("maxmemory", 1000)
    said = doctor_says(make_app(claude_batch_store_url=own_redis.url), "servers")
    assert said.ids == ["E105"]
    assert "is out of memory" in said.text
    assert "CONFIG SET maxmemory" in said.text


def test_a_redis_that_permits_too_little(own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    with own_redis.client() as client:
        client.execute_command(
            "ACL", "SETUSER", "batches", "on", f">{PASSWORD}", "~claude_batch*", "+@all", "-evalsha", "-zadd", "-scan"
        )
    url = f"redis://batches:{PASSWORD}@127.0.0.1:{own_redis.port}/0"
    said = doctor_says(make_app(claude_batch_store_url=url), "servers")
    assert said.ids == ["E103"]
    assert "does not permit its user to run ZADD, SCAN, EVALSHA" in said.text
    assert "ACL SETUSER batches ~claude_batch* &claude_batch* +zadd +scan +evalsha +publish +subscribe" in said.text


def test_a_database_that_is_not_there(healthy: Set, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    said = doctor_says(make_app(result_backend=f"{healthy.url[:-1]}99", claude_batch_store_url=healthy.url), "servers")
    assert said.ids == ["E114"]
    assert "has no database 99: result.get() and result.state fail" in said.text
    assert "Correct the part after the last / in result_backend" in said.text


def test_an_object_store(tmp_path: Path, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    url = f"file://{tmp_path}"
    said = doctor_says(make_app(claude_batch_payload_url=url), "servers")
    assert said.ids == []
    assert f"the object store at {url} works: an object was written, found, read and removed" in said.text
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["claude-batch-objects"]
    said = doctor_says(make_app(claude_batch_payload_url=f"{url}/not/there"), "servers")
    assert said.ids == ["E120"]
    assert f"the object store at {url}/not/there did not answer" in said.text
    assert "See claude_batch_payload_url, the credentials in the environment" in said.text


# -- workers


def test_no_worker(
    own_redis: RedisServer, make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "FIRST", 0.3)
    said = doctor_says(make_app(broker_url=own_redis.url), "workers")
    assert said.ids == ["E201"]
    assert "no worker answers: jobs wait" in said.text
    assert "celery -A examined worker" in said.text


def test_a_worker_without_our_tasks(bare: str, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    said = doctor_says(make_app(broker_url=bare), "workers")
    assert said.ids == ["E202"]
    assert "does not know the tasks of this package" in said.text
    assert "include=['claude_batch_tasks.tasks']" in said.text


def test_a_worker_on_another_queue(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    said = doctor_says(make_app(task_routes={"claude_batch_tasks.*": {"queue": "batches"}}), "workers")
    assert said.ids == ["E203"]
    assert "no worker consumes the queue 'batches', to which claude_batch_tasks.run_batch" in said.text
    assert "celery -A examined worker -Q batches" in said.text


def test_asks_that_nobody_makes_jobs_of(healthy: Set, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    store = open_store_at(healthy.url)
    add_asks(store, "reviews", 2, queue="nobody-listens")
    said = doctor_says(make_app(), "workers")
    assert said.ids == ["E211"]
    assert "the pool 'reviews' has 2 asks, waiting for up to " in said.text
    assert "celery -A examined worker -Q nobody-listens" in said.text
    assert store.asks.withdraw(["reviews-nobody-listens-0", "reviews-nobody-listens-1"], 60) == [True, True]
    assert doctor_says(make_app(), "workers").ids == []


def test_a_worker_with_another_store(healthy: Set, make_app: MakeApp, doctor_says: DoctorSays) -> None:
    said = doctor_says(make_app(claude_batch_store_url=f"{healthy.url[:-1]}9"), "workers")
    assert said.ids == ["E205"]
    assert "uses another store" in said.text
    assert "The same claude_batch_store_url" in said.text


def test_a_worker_with_other_settings(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    factories = {"tenant": "claude_batch_tasks.api.default_client"}
    said = doctor_says(make_app(claude_batch_poll_max=77, claude_batch_client_factories=factories), "workers")
    assert said.ids == ["W206", "E207"]
    assert "has other settings than this process: poll_max. Steps use the settings of the worker" in said.text
    assert "does not know the client 'tenant'" in said.text


# -- Anthropic

PAGE = {"data": [], "has_more": False, "first_id": None, "last_id": None}


def error(kind: str) -> dict[str, Any]:
    return {"type": "error", "error": {"type": kind, "message": "No."}}


@pytest.mark.parametrize(
    ("answer", "problem", "words"),
    [
        ((401, error("authentication_error")), "E301", ["does not accept the key (401)", "ANTHROPIC_API_KEY"]),
        ((403, error("permission_error")), "E302", ["may not use Message Batches (403)", "A key of a workspace"]),
        ((404, error("not_found_error")), "E303", ["no Message Batches API at this address", "without /v1"]),
        (
            (302, "", {"Location": "https://login.example.com/?token=secret"}),
            "E304",
            ["redirects to login.example.com (302)", "Set ANTHROPIC_BASE_URL"],
        ),
        ((200, "<html>Hello</html>", {"Content_Type": "text/html"}), "E305", ["answers with HTML", "a proxy"]),
        ((403, "<html>Blocked</html>", {"Content_Type": "text/html"}), "E305", ["answers with HTML (status 403)"]),
        ((529, error("overloaded_error")), "W310", ["answers 529 at present"]),
        ((400, error("invalid_request_error")), "E311", ["400 invalid_request_error: No."]),
    ],
)
def test_what_the_api_answers(
    answer: tuple[Any, ...],
    problem: str,
    words: list[str],
    make_app: MakeApp,
    doctor_says: DoctorSays,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app = make_app()
    status, body, *headers = answer
    with answering(status, body, **(headers[0] if headers else {})) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        said = doctor_says(app, "anthropic")
    assert said.ids == [problem]
    assert all(word in said.text for word in words), said.text
    assert "token=secret" not in said.text


@pytest.mark.parametrize(("status", "body"), [(404, "{}"), (405, ""), (500, "<html>"), (501, "{}"), (200, "{}")])
def test_a_gateway_without_batches(
    status: int, body: str, make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    with answering(status, body, elsewhere={"data": []}) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        said = doctor_says(app, "anthropic")
    assert (said.ids, said.exit_code) == (["E318"], 1)
    assert f"answers {status} to a list call" in said.text
    assert "a gateway without Message Batches" in said.text


@pytest.mark.parametrize("key", [KEY + "\n", f'"{KEY}"', "\ufeff" + KEY, f" {KEY}", ""])
@pytest.mark.parametrize("variable", ["ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"])
def test_a_key_of_a_form_that_none_has(
    key: str, variable: str, make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    monkeypatch.setenv(variable, key)
    clients._client.cache_clear()
    said = doctor_says(app, "anthropic")
    assert (said.ids, said.exit_code) == (["E316"], 1)
    assert variable in said.text


@pytest.mark.parametrize("address", ["api.anthropic.com", "ftp://api.anthropic.com"])
def test_an_address_that_nothing_can_be_sent_to(
    address: str, make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    monkeypatch.setenv("ANTHROPIC_BASE_URL", address)
    said = doctor_says(app, "anthropic")
    assert (said.ids, said.exit_code) == (["E317"], 1)
    assert "Begin ANTHROPIC_BASE_URL, or base_url in the client's factory, with https://" in said.text


@pytest.mark.parametrize(("hours", "problem"), [(1, "E312"), (-0.02, "W313")])
def test_a_clock_that_is_wrong(
    hours: float, problem: str, make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    date = format_datetime(datetime.now(timezone.utc) + timedelta(hours=hours), usegmt=True)
    with answering(200, PAGE, Date=date) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        said = doctor_says(app, "anthropic")
    assert said.ids == [problem]
    assert f"s {'behind' if hours > 0 else 'ahead of'} the API's" in said.text
    assert "timedatectl set-ntp true" in said.text


@pytest.mark.parametrize(
    ("url", "problem", "words"),
    [
        ("http://127.0.0.1:{port}", "E309", ["127.0.0.1:{port} cannot be reached", "Correct ANTHROPIC_BASE_URL"]),
        ("https://127.0.0.1:{redis}", "E307", ["no TLS connection with 127.0.0.1:{redis}", "SSL_CERT_FILE"]),
        ("http://no-such-host.invalid", "E308", ["the name no-such-host.invalid cannot be resolved", "DNS"]),
    ],
)
def test_an_api_that_is_not_there(
    url: str,
    problem: str,
    words: list[str],
    redis_server: RedisServer,
    make_app: MakeApp,
    doctor_says: DoctorSays,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    app, ports = make_app(), {"port": free_port(), "redis": redis_server.port}
    with answering(200, PAGE) as plain:
        ports["redis"] = int(plain.rpartition(":")[2])
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url.format(**ports))
        said = doctor_says(app, "anthropic")
    assert said.ids == [problem]
    assert all(word.format(**ports) in said.text for word in words), said.text


def test_a_process_without_a_key_is_told_that_only_workers_need_one(
    make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = make_app()
    monkeypatch.delenv("ANTHROPIC_API_KEY")
    clients._client.cache_clear()
    said = doctor_says(app, "anthropic", "--strict")
    assert (said.ids, said.exit_code) == ([], 0)
    assert "this process has no key" in said.text
    assert "only workers need one" in said.text


class Platform(anthropic.Anthropic):
    """A client that asks somebody for its tokens, and one of a platform without Message Batches."""

    @property
    def auth_headers(self) -> dict[str, str]:
        return {"Authorization": "Bearer from somewhere"}


def foundry() -> Any:
    from anthropic.lib.foundry import AnthropicFoundry

    return AnthropicFoundry(api_key="sk-ant-of-azure", resource="resource")


def test_a_client_that_cannot_be_identified(
    make_app: MakeApp, doctor_says: DoctorSays, monkeypatch: pytest.MonkeyPatch
) -> None:
    with answering(200, {"data": [], "has_more": False}) as url:
        monkeypatch.setenv("ANTHROPIC_BASE_URL", url)
        factories = {"default": f"{__name__}.Platform"}
        said = doctor_says(make_app(claude_batch_client_factories=factories), "anthropic")
    assert said.ids == ["W315"]
    assert "client 'default' (Platform without a key)" in said.text
    assert "anthropic-organization-id" in said.text


def test_a_client_without_message_batches(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    factories = {"azure": f"{__name__}.foundry"}
    said = doctor_says(make_app(claude_batch_client_factories=factories), "anthropic")
    assert said.ids == ["E004"]
    assert "AnthropicFoundry has no Message Batches" in said.text


# -- what comes of it


def test_one_problem_hides_no_other(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    nobody = f"redis://127.0.0.1:{free_port()}/0"
    broken = {"claude_batch_pol_min": 1, "task_serializer": "pickle", "result_expires": "soon"}
    said = doctor_says(make_app(broker_url=nobody, result_backend=nobody, **broken))
    assert {"E001", "E101", "W901"} <= set(said.ids)
    assert "the workers were not asked, since the broker does not answer" in said.text
    assert "client 'default': 127.0.0.1" in said.text


def test_the_exit_code_counts_warnings_when_asked_to(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    warned = make_app(worker_prefetch_multiplier=0)
    assert (doctor_says(warned, "settings").exit_code, doctor_says(warned, "settings", "--strict").exit_code) == (0, 1)


def test_json_is_a_line_for_each_finding(make_app: MakeApp, doctor_says: DoctorSays) -> None:
    said = doctor_says(make_app(worker_prefetch_multiplier=0), "settings", "--json")
    lines = [json.loads(line) for line in said.text.splitlines() if line.startswith("{")]
    [warning] = [line for line in lines if line["status"] != "ok"]
    assert (warning["id"], warning["part"], warning["status"]) == ("claude_batch.W007", "settings", "warning")
    assert warning["hint"] == "worker_prefetch_multiplier = 1"
