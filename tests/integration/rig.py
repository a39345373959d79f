"""What the tests of stops and of brokers share: requests told apart by job, a proxy with a gate, the final count."""

from __future__ import annotations

import contextlib
import gc
import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from celery import Celery

from claude_batch_tasks import BatchJob
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Simulator
from tests.chaos.ledgers import LEDGERS, Ledger
from tests.factories import make_params
from tests.support import FAST, STORE, LendStore, inherited, wait_until

#: Where the app ``ending`` writes down signals: name, task, its id, the process and thread, when, more.
HEARD = "ending:heard"

#: Where it writes down the messages of tasks that ran.
RAN = "ending:ran"

__all__ = [
    "Proxy",
    "Source",
    "account_for",
    "forget_account",
    "ledger_of",
    "name_servers",
    "open_world",
    "requests",
    "set_up",
    "signal_worker",
]

_REQUEST_LINE = re.compile(rb"([A-Z]+ \S+) HTTP/1\.1\r\n")


def requests(name: str, count: int) -> dict[str, dict[str, Any]]:
    """Requests whose prompts are this job's alone, so that the simulator can tell who paid for what."""
    return {f"{name} {i}": make_params(f"prompt {i} of {name}", max_tokens=64) for i in range(count)}


def account_for(app: Celery, job_id: str, name: str, count: int) -> dict[str, int]:
    """One outcome for each request of a job, and its own; how often each type occurred."""
    types: dict[str, int] = {}
    seen = set()
    for row in BatchJob(job_id, app).results():
        assert row.custom_id not in seen, f"{row.custom_id} has two outcomes"
        seen.add(row.custom_id)
        types[row.type] = types.get(row.type, 0) + 1
        if row.type == "succeeded":
            number = row.custom_id.rpartition(" ")[2]
            assert row.text.rstrip(".") == f"Echo: prompt {number} of {name}"
    assert len(seen) == count
    return types


@contextlib.contextmanager
def open_world(log: Path, lend_store: LendStore) -> Iterator[tuple[Celery, Simulator]]:
    """Yield an app with a worker of two processes, and the simulator that both call; tests that do no harm share it."""
    with ExitStack() as stack:
        redis, simulator = stack.enter_context(RedisServer()), stack.enter_context(Simulator("healthy"))
        store_url = stack.enter_context(lend_store(redis.url))
        env = {**inherited(), **FAST, **simulator.env, **name_servers(redis.url, store_url)}
        stack.enter_context(Worker(env, log))
        app = Celery("world", broker=redis.url, backend=redis.url, set_as_current=False)
        app.conf.update(result_expires=3600, claude_batch_store_url=store_url)
        app.loader.import_task_module("claude_batch_tasks.tasks")
        yield app, simulator
        gc.collect()
        app.close()


def forget_account(app: Celery) -> None:
    """Leave nothing of what the calls of earlier tests have shown of the account: pauses, and how long batches took."""
    ledger_of(app).forget_accounts()


def ledger_of(app: Celery) -> Ledger:
    """What is in the store of such an app, beyond its interface."""
    return LEDGERS[STORE](app.conf.claude_batch_store_url)


def name_servers(redis_url: str, store_url: str) -> dict[str, str]:
    """Return the environment of processes of the ready-made app: a Redis for broker and back end, and the store."""
    return {
        "CELERY_BROKER_URL": redis_url,
        "CELERY_RESULT_BACKEND": redis_url,
        "CLAUDE_BATCH_STORE_URL": store_url,
    }


class Source(str):
    """A setting's value as Python source, where its repr is not."""

    __slots__ = ()
    __repr__ = str.__str__


def set_up(folder: Path, **settings: Any) -> str:
    """A folder whose ``celeryconfig.py`` lays these settings over the ready-made app's; the folder as a string."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [f"{name} = {value!r}\n" for name, value in settings.items()]
    (folder / "celeryconfig.py").write_text("from kombu import Queue  # noqa: F401\n\n" + "".join(lines))
    return str(folder)


def signal_worker(worker: Worker, number: int, said: str, *, group: bool = False) -> None:
    """Send the main process (or the group) a signal, and wait until its log says this once more than before."""
    before = worker.log.read_text(errors="replace").count(said)
    (os.killpg if group else os.kill)(worker.pid, number)
    wait_until(lambda: worker.log.read_text(errors="replace").count(said) > before or worker.returncode is not None)


class Proxy:
    """A TCP proxy on a free port that can hold back the answers to some HTTP requests, and cut every connection.

    >>> with Proxy("127.0.0.1", 8787) as proxy:
    ...     proxy.hold(r"POST /v1/messages/batches$")  # the next create is done, and its answer waits ...
    ...     proxy.release()  # ... until here
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._lock = threading.Lock()
        self._gate = threading.Event()
        self._rules: list[list[Any]] = []
        self._pairs: set[tuple[socket.socket, socket.socket]] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port: int = self._listener.getsockname()[1]
        #: How many answers wait at the gate.
        self.held = 0
        #: How many connections were accepted.
        self.accepted = 0

    @property
    def url(self) -> str:
        """For HTTP."""
        return f"http://127.0.0.1:{self.port}"

    def hold(self, request: str, *, times: int = 1, after: int = 0) -> None:
        """Hold back what follows the first ``after`` bytes of the answers to the next ``times`` such requests."""
        with self._lock:
            if self._gate.is_set():
                self._gate = threading.Event()
            self._rules.append([re.compile(request.encode()), times, after])

    def release(self) -> None:
        """Open the gate; later requests pass until something is to be held again."""
        with self._lock:
            self._rules.clear()
            self._gate.set()

    def drop(self) -> int:
        """Cut every connection there is; how many."""
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)
        return len(pairs)

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        # accept() does not notice that its socket was closed; a shutdown wakes it up.
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                self.accepted += 1
                try:
                    server = socket.create_connection(self._target, timeout=10)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                pair = (client, server)
                with self._lock:
                    self._pairs.add(pair)
                # One answer at a time: what the reader of requests decides, the reader of answers obeys.
                allowed: dict[str, Any] = {}
                for pump in (self._requests, self._answers):
                    threading.Thread(target=pump, args=(pair, allowed), daemon=True).start()

    def _end(self, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in pair:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _requests(self, pair: tuple[socket.socket, socket.socket], allowed: dict[str, Any]) -> None:
        client, server = pair
        for piece in _received(client):
            if line := _REQUEST_LINE.match(piece):
                allowed.clear()
                with self._lock:
                    for rule in self._rules:
                        if rule[1] and rule[0].search(line[1]):
                            rule[1] -= 1
                            allowed.update(bytes=rule[2], gate=self._gate)
                            break
            with contextlib.suppress(OSError):
                server.sendall(piece)
        self._end(pair)

    def _answers(self, pair: tuple[socket.socket, socket.socket], allowed: dict[str, Any]) -> None:
        client, server = pair
        for piece in _received(server):
            with contextlib.suppress(OSError):
                if gate := allowed.get("gate"):
                    now, piece = piece[: allowed["bytes"]], piece[allowed["bytes"] :]
                    allowed["bytes"] -= len(now)
                    client.sendall(now)
                    if piece and not gate.is_set():
                        self._wait(gate, pair)
                client.sendall(piece)
        self._end(pair)

    def _wait(self, gate: threading.Event, pair: tuple[socket.socket, socket.socket]) -> None:
        with self._lock:
            self.held += 1
        while not gate.wait(0.05) and pair in self._pairs:
            pass
        with self._lock:
            self.held -= 1


def _received(end: socket.socket) -> Iterator[bytes]:
    with contextlib.suppress(OSError):
        while piece := end.recv(65536):
            yield piece
