"""The checks of store, broker and result back end: whether they answer, accept our user, and keep their data."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple
from uuid import uuid4

from celery import Celery
from celery.app import backends
from celery.backends.base import DisabledBackend
from celery.backends.rpc import RPCBackend

from claude_batch_tasks.checks import configuration, connections, problems
from claude_batch_tasks.checks.problems import Finding, ok
from claude_batch_tasks.checks.servers import (
    LEADS,
    STALLED,
    Server,
    describe_problem,
    find_servers,
    findings_of,
    no_answer,
)
from claude_batch_tasks.doctor import object_store
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import Settings, redis_reports

#: Seconds by which clocks may differ that are not synchronized.
DRIFT = 10.0


def check_servers(app: Celery) -> Iterator[Finding]:
    """Check every server that the app uses."""
    settings = configuration.readable_settings(app)
    found = find_servers(app, settings)
    for server in found:
        yield from configuration.run_isolated(server.name, partial(_check_server, server, settings))
    asked = {role for server in found for role in server.roles}
    if "broker" not in asked:
        yield from configuration.run_isolated("broker", partial(_other_broker, app))
    if "result back end" not in asked:
        yield from configuration.run_isolated("result back end", partial(_other_result_back_end, app))
    yield from configuration.run_isolated("object store", partial(object_store.check_object_store, app))
    yield from configuration.run_isolated("silent servers", partial(connections.of_silent_servers, app))


class Drift(NamedTuple):
    """The difference between two clocks in seconds, and its direction.

    ``ours``: ``ahead of`` or ``behind``, said of this machine's clock. ``theirs``: the same, said of the other clock.
    """

    seconds: float
    ours: str
    theirs: str


def measure_drift(theirs: float, before: float) -> Drift | None:
    """Return how this machine's clock differs from another; None if they differ by no more than ``DRIFT``.

    Args:
        theirs: the time of the other clock, in epoch seconds.
        before: the time of this machine's clock just before the other was read, in epoch seconds.
    """
    return judge_drift((before + time.time()) / 2 - theirs)


def judge_drift(ahead: float) -> Drift | None:
    """Return a difference of that many seconds, by which this machine's clock is ahead; None if it is small."""
    if abs(ahead) <= DRIFT:
        return None
    return Drift(ahead, "ahead of", "behind") if ahead > 0 else Drift(-ahead, "behind", "ahead of")


def _check_server(server: Server, settings: Settings) -> Iterator[Finding]:
    if missing := list(_missing_databases(server)):
        yield from missing
        return
    try:
        report = server.inspect(settings, thorough=True)
    except InvalidSettings as exc:
        yield problems.INVALID_SETTINGS.found(error=exc)
        return
    found = [ok(f"{server.name} {note}") for note in report.notes]
    found += findings_of(server, report)
    if report.ahead is not None and (differs := judge_drift(report.ahead)):
        found.append(problems.SERVER_CLOCK.found(server=server.name, seconds=differs.seconds, direction=differs.theirs))
    yield from found
    if all(one.level < logging.WARNING for one in found):
        yield ok(f"{server.name} answers" + (f": {report.product}, {report.state}" if report.product else ""))


def _missing_databases(server: Server) -> Iterator[Finding]:
    """Yield a finding for each database of a Redis that is not there, of broker and result back end."""
    for role, url in server.urls.items():
        if role != "store":
            for problem in redis_reports.inspect_redis(url).problems:
                if problem.kind == "NO_DATABASE":
                    yield describe_problem(problem, server.name, [role])


def _other_broker(app: Celery) -> Iterator[Finding]:
    """Check a broker that is not Redis, or that is reached through Sentinels."""
    try:
        unconnected = quick_connection(app)
    except connections.UNUSABLE:  # the check of the settings reports it
        return
    with unconnected as connection:
        name = f"the broker ({connections.mask_passwords(connection.as_uri())})"
        try:
            connection.ensure_connection(max_retries=1, interval_start=0, reraise_as_library_errors=False)
        except Exception as exc:  # noqa: BLE001 - of any broker's client
            if "ACCESS_REFUSED" in str(exc) or "AccessRefused" in type(exc).__name__:
                yield problems.REFUSED_PASSWORD.found(server=name, setting="broker_url", scheme="amqp", leads=STALLED)
            elif "vhost" in str(exc):
                database = f"(virtual host) {connection.virtual_host!r}"
                yield problems.NO_DATABASE.found(server=name, setting="broker_url", database=database, leads=STALLED)
            else:
                yield no_answer(name, "broker_url", STALLED, exc)
            return
        yield ok(f"{name} answers" + broker_version(connection))


def broker_version(connection: Any) -> str:
    """Return the product and version that the broker reports, as ``: RabbitMQ 3.13.1``; empty if it reports none."""
    info = getattr(connection.connection, "server_properties", None) or {}
    return f": {info['product']} {info['version']}" if "version" in info else ""


@contextmanager
def open_broker(app: Celery) -> Iterator[Any]:
    """Yield a connection to the broker, or None if it does not answer."""
    try:
        connection = quick_connection(app).ensure_connection(max_retries=1, interval_start=0)
    except Exception:  # noqa: BLE001 - of any broker's client; another check reports the cause
        yield None
        return
    with connection:
        yield connection


def quick_connection(app: Celery) -> Any:
    """Return a connection to the broker that gives up soon."""
    redis_like = app.connection_for_write().get_transport_cls().driver_type == "redis"
    # When it is closed, kombu 5.5 may wait for an answer that it has read already.
    limits = (
        {"socket_connect_timeout": redis_reports.ANSWER_TIMEOUT, "socket_timeout": redis_reports.ANSWER_TIMEOUT}
        if redis_like
        else {}
    )
    return app.connection_for_write(connect_timeout=redis_reports.ANSWER_TIMEOUT, transport_options=limits)


def _other_result_back_end(app: Celery) -> Iterator[Finding]:
    """Check a result back end that is not Redis by its address.

    A database is only connected to; any other back end is asked for a result that does not exist.
    """
    try:
        used = connections.result_back_end(app)
    except connections.UNUSABLE:  # the check of the settings reports it
        return
    if used in (DisabledBackend, RPCBackend):
        return
    answered: list[Any] = []

    def ask_backend() -> None:
        try:
            if _is_database(used):
                _connect_database(app)
                answered.append(None)
                return
            backend: Any = app.backend
            answered.append(backend.get_task_meta(f"claude-batch-doctor-{uuid4().hex}"))
        except Exception as exc:  # noqa: BLE001 - of any back end's client
            answered.append(exc)

    name = f"the result back end ({connections.mask_passwords(str(app.conf.result_backend))})"
    thread = threading.Thread(target=ask_backend, daemon=True)
    thread.start()
    thread.join(3 * redis_reports.ANSWER_TIMEOUT)
    answer = answered[0] if answered else TimeoutError("no answer in time")
    if isinstance(answer, connections.UNUSABLE):
        yield connections.unusable_result_back_end(app, answer)  # a driver is not installed
    elif isinstance(answer, Exception):
        yield no_answer(name, "result_backend", LEADS["result back end"], answer)
    else:
        yield ok(f"{name} answers")


def _is_database(back_end: type) -> bool:
    return any(base.__module__ == "celery.backends.database" for base in back_end.__mro__)


def _connect_database(app: Celery) -> None:
    """Connect to the database of a result back end; if it is a PostgreSQL, see that a result can be written.

    What is written is rolled back. The back end itself would create its tables, and would retry a missing database for
    longer than we wait.
    """
    from celery.backends.database.models import Task
    from sqlalchemy import create_engine, insert

    table: Any = Task
    made: Any = backends.by_url(app.conf.result_backend, app.loader)
    engine = create_engine(made[1] or app.conf.database_url, **(app.conf.database_engine_options or {}))
    try:
        with engine.connect() as connection:
            if engine.dialect.name == "postgresql":
                table.metadata.create_all(connection)
                connection.execute(insert(table).values(task_id=f"claude-batch-doctor-{uuid4().hex}"))
    finally:
        engine.dispose()
