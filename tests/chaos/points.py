"""Named points at which a worker of these tests can be killed: before, after and in the middle of all that it does.

They exist only in workers that import ``tests.chaos.app``; the package knows nothing of them. Every point that is
passed is counted in Redis, under its name, so that a run without kills tells which points there are; and one may be
armed to kill at its n-th passing. Counting and firing are one atomic step: it fires once, whoever passes.
"""

from __future__ import annotations

import contextlib
import functools
import inspect
import os
import signal
import threading
from collections.abc import Callable, Iterator
from importlib import import_module
from pkgutil import iter_modules
from typing import Any, get_type_hints

import redis
from celery import current_task
from celery.app.task import Task
from celery.backends.base import Backend
from kombu.transport import redis as transport

from claude_batch_tasks import api
from claude_batch_tasks.store import interface

#: The number of the Redis database for all that is not the workers' own.
DATABASE = 9
HITS, ARMED, FIRED = "chaos:hits", "chaos:armed", "chaos:fired"

#: What is published on behalf of the caller, by whichever step comes to it: on no list.
CALLED_BACK = "publish tests.chaos.note"

#: What a point of a thread is called, by the thread's name; other threads of the main process are its consumer.
_THREADS = {
    "claude-batch-lease": "lease",
    "claude-batch-recovery": "recovery",
    "claude-batch-pools": "pools",
    "claude-batch-revokes": "revokes",
    "claude-batch-ticker": "ticker",
    # In each of these a lane makes a call.
    "claude-batch-call": "send_messages",
}
_OURS = "claude_batch_tasks."

#: What takes a client of the API and calls nobody.
_CALLS_NOBODY = ("hash_credential", "account_name", "host_of")

#: Parts of a store that change nothing of jobs that run.
_NO_JOBS = ("wakeups", "inspection", "transactions", "schema", "transfer")

_PASS = """
local count = redis.call('HINCRBY', KEYS[1], ARGV[1], 1)
local armed = redis.call('HGET', KEYS[2], ARGV[1])
if not armed then
  return ''
end
local number, victim = string.match(armed, '^(%d+) (%a+)$')
if count < tonumber(number) then
  return ''
end
redis.call('HDEL', KEYS[2], ARGV[1])
redis.call('RPUSH', KEYS[3], ARGV[1] .. '|' .. victim)
return victim
"""


def store_operations() -> list[tuple[type, str, Callable[..., Any]]]:
    """Return the operations of the store: the class on which each is looked up, its name there and its function."""
    return [
        (owner, name, method)
        for owner in _store_parts()
        for name, method in vars(owner).items()
        if inspect.isfunction(method) and not name.startswith("_")
    ]


def store_point(owner: type, name: str) -> str:
    """Return what an operation of the store is called in the names of its points."""
    return f"store.{_store_parts()[owner]}.{name}"


@functools.cache
def _store_parts() -> dict[type, str]:
    """Return the classes of the parts of the store that this process uses, and what the store calls each.

    What changes nothing of jobs that run is none of them.
    """
    kind = os.environ.get("CHAOS_STORE", "redis")
    parts = import_module(f"claude_batch_tasks.store.{kind}.parts")
    modules = [import_module(module.name) for module in iter_modules(parts.__path__, f"{parts.__name__}.")]
    classes = {name: value for module in modules for name, value in vars(module).items()}
    named = get_type_hints(interface.Store)
    known = ((f"{kind.title()}{protocol.__name__}", part) for part, protocol in named.items() if part not in _NO_JOBS)
    return {classes[name]: part for name, part in known}


def api_operations() -> list[tuple[str, Callable[..., Any]]]:
    """Return the names and functions of what calls Anthropic: all that takes the client."""
    return [
        (name, function)
        for name, function in vars(api).items()
        if inspect.isfunction(function)
        and not name.startswith("_")
        and function.__module__.startswith(api.__name__)
        and "client" in inspect.signature(function).parameters
        and name not in _CALLS_NOBODY
    ]


def operations() -> set[str]:
    """Return what the names of points say of each operation on the store and the API."""
    store = {store_point(owner, name) for owner, name, _ in store_operations()}
    return store | {f"api.{name}" for name, _ in api_operations()}


def operation_of(point: str) -> str:
    """Return the operation that a point is before, after or in the middle of."""
    when = point.partition(": ")[2]
    return when.removeprefix("before ").removeprefix("after ").removeprefix("middle of ")


def install(url: str) -> None:
    """Put the points into this process and what it forks.

    Args:
        url: of the Redis, with its database number.
    """
    Points(url).wrap_all()


class Points:
    def __init__(self, url: str) -> None:
        self._url = url
        self._main = os.getpid()

    def passed(self, what: str) -> None:
        """Count the passing of a point, and die there if it is armed."""
        who = self._who()
        if who is None:
            return
        try:
            victim = _script(self._url, os.getpid())(keys=[HITS, ARMED, FIRED], args=[f"{who}: {what}"]).decode()
        except redis.RedisError:
            return  # being restarted
        if victim == "child" and os.getpid() != self._main:
            os.kill(os.getpid(), signal.SIGKILL)
        elif victim == "main":
            os.kill(self._main, signal.SIGKILL)
        elif victim:
            os.killpg(os.getpgrp(), signal.SIGKILL)

    def _who(self) -> str | None:
        """Whose point it is: the task that runs, or what the thread is for."""
        if current_task:
            name = str(current_task.name)
            return name.removeprefix(_OURS) if name.startswith(_OURS) else None
        name = threading.current_thread().name
        return _THREADS.get(name, "worker" if os.getpid() == self._main else None)

    # -- where

    def wrap_all(self) -> None:
        """Every operation on store, API, broker and result back end."""
        for owner, name, function in store_operations():
            setattr(owner, name, self._around(function, store_point(owner, name)))
        special = {"create_batch": self._create, "open_results": self._results}
        for name, function in api_operations():
            setattr(api, name, special[name](function) if name in special else self._around(function, f"api.{name}"))
        Task.apply_async = self._publish(Task.apply_async)  # type: ignore[method-assign]
        Backend.store_result = self._store_result(Backend.store_result)
        for name, what in (("append", "noting a message"), ("ack", "an ack"), ("reject", "a reject")):
            method = vars(transport.QoS)[name]
            setattr(transport.QoS, name, self._around(method, what))
        restore = transport.Channel._do_restore_message
        transport.Channel._do_restore_message = self._around(restore, "a message handed out again")

    def _around(self, function: Callable[..., Any], what: str) -> Callable[..., Any]:
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def iterate(*args: Any, **kwargs: Any) -> Iterator[Any]:
                self.passed(f"before {what}")
                yield from function(*args, **kwargs)
                self.passed(f"after {what}")

            return iterate

        @functools.wraps(function)
        def call(*args: Any, **kwargs: Any) -> Any:
            self.passed(f"before {what}")
            value = function(*args, **kwargs)
            self.passed(f"after {what}")
            return value

        return call

    def _create(self, create: Callable[..., Any]) -> Callable[..., Any]:
        def half(body: Iterator[bytes]) -> Iterator[bytes]:
            for number, piece in enumerate(body):
                if number:
                    self.passed("middle of api.create_batch")
                yield piece

        @functools.wraps(create)
        def call(client: Any, body: Any, size: int) -> Any:
            self.passed("before api.create_batch")
            created = create(client, half(body), size)
            self.passed("after api.create_batch")
            return created

        return call

    def _results(self, results: Callable[..., Any]) -> Callable[..., Any]:
        def half(chunks: Iterator[bytes]) -> Iterator[bytes]:
            for chunk in chunks:
                # Cut where no line ends, as a network would.
                yield chunk[: len(chunk) // 2]
                self.passed("middle of api.open_results")
                yield chunk[len(chunk) // 2 :]

        @contextlib.contextmanager
        def call(*args: Any, **kwargs: Any) -> Iterator[Iterator[bytes]]:
            self.passed("before api.open_results")
            with results(*args, **kwargs) as chunks:
                yield half(chunks)
            self.passed("after api.open_results")

        return call

    def _publish(self, apply_async: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(apply_async)
        def call(task: Any, *args: Any, **kwargs: Any) -> Any:
            what = f"publish {str(task.name).removeprefix(_OURS)}"
            self.passed(f"before {what}")
            sent = apply_async(task, *args, **kwargs)
            self.passed(f"after {what}")
            return sent

        return call

    def _store_result(self, store_result: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(store_result)
        def call(backend: Any, task_id: str, result: Any, state: str, *args: Any, **kwargs: Any) -> Any:
            self.passed(f"before backend.store_result {state}")
            stored = store_result(backend, task_id, result, state, *args, **kwargs)
            self.passed(f"after backend.store_result {state}")
            return stored

        return call


@functools.lru_cache(maxsize=4)
def _script(url: str, pid: int) -> Any:
    """A connection of this process's own: one made before a fork is not used after it."""
    return redis.Redis.from_url(url, socket_timeout=2, socket_connect_timeout=1).register_script(_PASS)
