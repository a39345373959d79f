"""What runs the table: a worker with servers around it, and what can be seen of a task that ran on it."""

from __future__ import annotations

import itertools
import json
import os
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from celery import Celery
from celery.canvas import Signature
from celery.result import AsyncResult
from celery.states import READY_STATES
from kombu import Connection
from kombu.serialization import enable_insecure_serializers

from claude_batch_tasks import Answer, RequestResult
from claude_batch_tasks.embedded import RedisServer, Worker
from claude_batch_tasks.simulator import Fault, Scenario, Simulator
from claude_batch_tasks.simulator.script import Behaviour
from tests.conformance import project, setups
from tests.support import FAST, inherited

RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")

#: For how long what is to come is waited for.
PATIENCE = 90.0

#: How many rows run at once.
AT_ONCE = 16

#: The tasks that are compared.
SUBJECTS = (project.PLAIN, project.BATCH, project.ASK)

#: Tasks that are no part of what is compared.
FOLLOWING = ("conformance.after", "conformance.told", "conformance.told_id", "conformance.give", "conformance.join")

_numbers = itertools.count(1)


@dataclass(frozen=True)
class Lane:
    """A kind of broker and a kind of worker."""

    broker: str
    pool: str

    def __str__(self) -> str:
        return f"{self.broker}-{self.pool}"


LANES = [Lane(broker, pool) for broker in ("redis", "rabbitmq") for pool in ("prefork", "threads", "gevent")]


@dataclass(frozen=True)
class Configuration:
    """What an app is configured with, if not as usual.

    Args:
        conf: settings as JSON; a dict, frozen by its text.
        setup: the name of a function in ``setups``.
        options: of the worker's command line.
        backend: ``redis``, or a URL of a result back end.
        env: of caller and worker.
    """

    conf: str = "{}"
    setup: str = ""
    options: tuple[str, ...] = ()
    backend: str = "redis"
    env: tuple[tuple[str, str], ...] = ()


@dataclass
class Servers:
    """A Redis and three simulators, for the benches of one process."""

    redis: RedisServer
    simulator: Simulator
    refusing: Simulator
    slow: Simulator


@contextmanager
def servers() -> Iterator[Servers]:
    """Start what the benches of a process have in common."""
    fast = Scenario("fast", behaviour=Behaviour(processing_seconds=0.3))
    refusing = Scenario("refusing", faults=(Fault("create", "status", status=403),))
    slow = Scenario("slow", behaviour=Behaviour(processing_seconds=project.SLOW))
    with (
        RedisServer() as redis,
        Simulator(fast) as simulator,
        Simulator(refusing) as refused,
        Simulator(slow) as slowed,
    ):
        found = Servers(redis, simulator, refused, slowed)
        with _environment(environment(found)), project.listening():
            yield found


def environment(found: Servers) -> dict[str, str]:
    """Return what the clients read."""
    return {
        "ANTHROPIC_API_KEY": "sk-ant-test-key-never-to-be-seen",
        "ANTHROPIC_BASE_URL": found.simulator.url,
        "CONFORMANCE_REFUSING": found.refusing.url,
        "CONFORMANCE_SLOW": found.slow.url,
    }


@contextmanager
def _environment(changes: Mapping[str, str]) -> Iterator[None]:
    before = dict(os.environ)
    os.environ.update(changes)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@dataclass
class Bench:
    """A lane with a worker of one configuration, as rows see it."""

    lane: Lane
    names: str
    app: Celery
    folder: Path
    worker: Worker
    events: list[dict[str, Any]] = field(default_factory=list)
    _records: list[dict[str, Any]] = field(default_factory=list)
    _by: dict[str, dict[str, list[dict[str, Any]]]] = field(default_factory=lambda: {"id": {}, "token": {}})
    _offset: int = 0
    _of_here: int = field(default_factory=lambda: len(project.here))
    _lock: threading.Lock = field(default_factory=threading.Lock)

    # -- what was seen

    def records(self, signal: str = "", **having: Any) -> list[dict[str, Any]]:
        """Return the records that the worker wrote, and those of this process, with these values."""
        with self._lock:
            path = self.folder / "records.jsonl"
            if path.exists():
                with open(path) as file:
                    file.seek(self._offset)
                    while (line := file.readline()).endswith("\n"):
                        self._offset = file.tell()
                        self._keep(json.loads(line))
            while self._of_here < len(project.here):
                self._keep(project.here[self._of_here])
                self._of_here += 1
            kept = self._records
            for name in ("id", "token"):
                if name in having:
                    kept = self._by[name].get(having[name], [])
            found = list(kept)
        if signal:
            having = {**having, "signal": signal}
        return [line for line in found if all(line.get(name) == value for name, value in having.items())]

    def _keep(self, line: dict[str, Any]) -> None:
        self._records.append(line)
        for name, index in self._by.items():
            if line.get(name):
                index.setdefault(line[name], []).append(line)

    def wait(self, true: Callable[[], Any], seconds: float = PATIENCE) -> Any:
        """Return what becomes true, or what it was at last."""
        deadline = time.monotonic() + seconds
        while not (value := true()) and time.monotonic() < deadline:
            if self.worker.returncode is not None:
                raise RuntimeError(f"the worker has ended; see {self.worker.log}")
            time.sleep(0.25)
        return value

    def ended(self, result: AsyncResult[Any], seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait for a result; its state and its kind."""
        self.wait(lambda: result.state in READY_STATES, seconds)
        return self.outcome(result)

    def outcome(self, result: AsyncResult[Any]) -> dict[str, Any]:
        """Return the state and the kind of what a task ended with, as of now."""
        state, value = result.state, result.result
        if state not in READY_STATES:
            return {"state": "not ended"}
        if isinstance(value, Mapping) and "state" in value:
            return {"state": state, "result": value["state"]}
        if isinstance(value, str):
            return {"state": state, "result": value}
        if isinstance(value, Answer):
            return {"state": state, "result": "completed"}
        return {"state": state, "result": type(value).__name__}

    def quiet(self, result: AsyncResult[Any], seconds: float = 4.0) -> dict[str, Any]:
        """Let that many seconds pass, in which something would happen; the outcome by then."""
        time.sleep(seconds)
        return self.outcome(result)

    def began(self, task_id: str) -> float | None:
        """Return when the first task of an id, or begun by it, was run; None: none was."""
        times = [
            line["time"]
            for line in self.records("task_prerun")
            if task_id in (line["id"], line["root"], line["parent"])
        ]
        return min(times, default=None)

    def ran(self, token: str, times: int = 1, *, signal: str = "task_prerun") -> list[dict[str, Any]]:
        """Wait until what follows has run that often; its records."""
        self.wait(lambda: len(self.records(signal, token=token)) >= times)
        return self.records(signal, token=token)

    def signals(self, task_id: str, *names: str) -> dict[str, Any]:
        """Return how often handlers were called with an id, by signal and the name of the sender, and with what."""
        found: Counter[str] = Counter()
        for line in self.records(id=task_id):
            if line["signal"] in names:
                more = [str(line[key]) for key in ("state", "type") if line.get(key)]
                more += [key for key in ("terminated", "expired") if line.get(key)]
                sender = "itself" if line["task"] in SUBJECTS else line["task"]
                found[" ".join([line["signal"], sender, *more])] += 1
        return dict(sorted(found.items()))

    def happened(self, task_id: str, *types: str) -> dict[str, int]:
        """Return how often events of these types came of an id."""
        found = Counter(event["type"] for event in list(self.events) if event.get("uuid") == task_id)
        return {name: found[name] for name in types}

    def where(self, task_id: str) -> list[Any]:
        """Return where the messages of an id, and of what it began, came from: exchange, key, priority."""
        places = {
            tuple(line["delivery"].get(name) for name in ("exchange", "routing_key", "priority"))
            for line in self.records("task_prerun")
            if task_id in (line["id"], line["root"]) and line["task"] not in FOLLOWING
        }
        return sorted(([self._generic(part) for part in place] for place in places), key=str)

    def _generic(self, part: Any) -> Any:
        return part.replace(self.names, "*") if isinstance(part, str) else part

    @staticmethod
    def token() -> str:
        """Return a name that nobody has."""
        return uuid.uuid4().hex[:12]

    def after(self, token: str) -> Signature[Any]:
        """Return a task that is to follow."""
        return self.app.signature("conformance.after", kwargs={"token": token})


@dataclass
class Subject:
    """The plain task, ``run_batch`` or ``ask``, so that one function does the same with each."""

    app: Celery
    name: str

    @property
    def object(self) -> Any:
        """The task."""
        return self.app.tasks[self.name]

    @property
    def is_ours(self) -> bool:
        """Whether it is none of the application's."""
        return self.name != project.PLAIN

    @property
    def ends_elsewhere(self) -> bool:
        """Whether it has no message, and runs only where its end is known."""
        return self.name == project.ASK

    @property
    def argument(self) -> str:
        """The name of what it is called with."""
        return "params" if self.name == project.ASK else "requests"

    def requests(self) -> dict[str, Any]:
        """Return what it is called with."""
        found = setups.requests()
        return found["only"] if self.name == project.ASK else found

    @staticmethod
    def read(value: Any) -> Any:
        """Return what a task says of its end in what it returned."""
        return "completed" if isinstance(value, (Answer, RequestResult)) else value["state"]

    def s(self, client: str = "default") -> Signature[Any]:
        """Return a signature of it; ``refusing`` fails, ``slow`` takes long, ``deadly`` kills its first process."""
        options = {} if client == "default" else {"client": client}
        return self.app.signature(self.name, args=(self.requests(),), kwargs=options)

    def partial(self) -> Signature[Any]:
        """Return a signature that lacks its requests."""
        return self.app.signature(self.name)


@contextmanager
def bench(found: Servers, lane: Lane, configuration: Configuration, folder: Path) -> Iterator[Bench]:
    """Start a worker."""
    (folder / "results").mkdir(parents=True, exist_ok=True)
    number = next(_numbers)
    names = f"conformance-{uuid.uuid4().hex[:8]}"
    database = 1 + number % 15
    found.redis.client(database).flushdb()
    store = f"redis://127.0.0.1:{found.redis.port}/{database}"
    backend: str | None = configuration.backend.replace("FOLDER", str(folder))
    if backend == "redis":
        backend = store
    made = {
        "broker": store if lane.broker == "redis" else RABBITMQ,
        "backend": backend or None,
        "store": store,
        "names": names,
        "conf": json.loads(configuration.conf),
        "setup": configuration.setup,
    }
    env = {
        **inherited(),
        **FAST,
        "CLAUDE_BATCH_RECOVER_AFTER": "3600",
        **environment(found),
        "PYTHONPATH": os.getcwd(),
        "CONFORMANCE_FOLDER": str(folder),
        "CONFORMANCE_APP": json.dumps(made),
        **dict(configuration.env),
        "CONFORMANCE_SECURITY": str(folder / "security"),
    }
    with ExitStack() as stack:
        here = {**dict(configuration.env), "CONFORMANCE_SECURITY": str(folder / "security")}
        stack.enter_context(_environment(here))
        stack.callback(enable_insecure_serializers, ["json", "pickle", "yaml", "msgpack"])
        app = project.make_app(**made, set_as_current=False)
        stack.callback(app.close)
        if lane.broker == "rabbitmq":
            stack.callback(_clean, names)
        size = {"prefork": 6, "threads": 16, "gevent": 60}[lane.pool]
        queues = (f"--queues={names},{names}-other",)
        pool = (f"--pool={lane.pool}", f"--concurrency={size}", f"--hostname={names}@tests", "--task-events")
        options = (*pool, *queues, *configuration.options)
        worker = Worker(env, folder / "worker.log", app="tests.conformance.project", options=options, cwd=str(folder))
        made_bench = Bench(lane, names, app, folder, worker)
        # Killed, because how it stops is the subject of other tests, and takes its time.
        stack.callback(worker.stop, kill=True)
        worker.start()
        stack.enter_context(_listening(made_bench))
        yield made_bench


@contextmanager
def _listening(found: Bench) -> Iterator[None]:
    over, app = threading.Event(), found.app

    def listen() -> None:
        with suppress(Exception), app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": found.events.append})
            while not over.is_set():
                with suppress(OSError):
                    receiver.capture(limit=None, timeout=0.5, wakeup=False)

    thread = threading.Thread(target=listen, name="conformance-events", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(5)


def _clean(names: str) -> None:
    with suppress(Exception), Connection(RABBITMQ) as connection:
        for queue in (names, f"{names}-other"):
            connection.default_channel.queue_delete(queue)
        for exchange in (names, f"{names}-exchange", f"{names}-control", f"{names}-events"):
            with suppress(Exception), connection.channel() as channel:
                channel.exchange_delete(exchange)


Run = Callable[[Bench, Subject], Mapping[str, Any]]


def observe(found: Bench, runs: Mapping[str, Run], asks: Collection[str] = ()) -> dict[str, dict[str, dict[str, Any]]]:
    """Run rows, many at once, for a plain task and ours; what was seen, by row and task.

    Args:
        asks: the names of the rows that run for ``ask`` too.

    What a row returns as a function is called when all have run, and nothing more comes.
    """
    jobs = [(name, run, task) for name, run in runs.items() for task in SUBJECTS if task != project.ASK or name in asks]

    def one(job: tuple[str, Run, str]) -> dict[str, Any]:
        _, run, task = job
        found.app.set_current()
        try:
            return dict(run(found, Subject(found.app, task)))
        except Exception as exc:  # noqa: BLE001 - a refusal is what may be seen
            return {"raised": f"{type(exc).__name__}: {exc}"}

    # What keeps eager tasks from waiting for each other is one variable for all threads of a process.
    with ThreadPoolExecutor(1 if found.app.conf.task_always_eager else AT_ONCE) as pool:
        seen = list(pool.map(one, jobs))
    time.sleep(1.5)
    observed: dict[str, dict[str, dict[str, Any]]] = {}
    for (name, _, task), values in zip(jobs, seen, strict=True):
        observed.setdefault(name, {})[task] = {
            key: value() if callable(value) else value for key, value in values.items()
        }
    return observed
