"""Every option of Celery's that a user can pass or configure, with what is done with it and what is expected.

A row is one function of a task: it runs for a plain task and for ``run_batch``, and what it returns is to be the same,
unless the row says why it is not.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from typing import Any

from celery import chain, chord, group
from celery.exceptions import TimeoutError as CeleryTimeoutError
from celery.result import AsyncResult, GroupResult, allow_join_result
from kombu import Exchange, Queue

from claude_batch_tasks.errors import JobNotFound
from tests.conformance.bench import Bench, Configuration, Lane, Subject

#: Of most rows, which share a worker.
USUAL = Configuration()

Run = Callable[[Bench, Subject], Mapping[str, Any]]


@dataclass(frozen=True)
class Row:
    """One option.

    Args:
        part: the heading it stands under in the documentation.
        name: as users know it.
        refused: what the error at the caller says, where ``run_batch`` does not take it.
        differs: what is seen of ``run_batch`` where that is not what is seen of the plain task.
        reason: why it is refused or differs; or how it is done.
        everywhere: it may make a difference on every lane; else on Redis with prefork alone,
        by_broker: or on RabbitMQ too.
        quick: a row with a configuration of its own that runs in ``make test``.
        only: the broker or the pool where alone it means anything.
    """

    part: str
    name: str
    run: Run
    refused: str = ""
    differs: Mapping[str, Any] = field(default_factory=dict)
    reason: str = ""
    configuration: Configuration = USUAL
    everywhere: bool = True
    by_broker: bool = False
    quick: bool = False
    only: str = ""

    @property
    def expected(self) -> str:
        """``same``, ``refused`` or ``differs``."""
        return "refused" if self.refused else "differs" if self.differs else "same"

    def runs_on(self, lane: Lane) -> bool:
        """Whether it means anything there."""
        return not self.only or self.only in (lane.broker, lane.pool)


ROWS: list[Row] = []


def row(
    part: str,
    name: str,
    *,
    conf: Mapping[str, Any] | None = None,
    setup: str = "",
    options: tuple[str, ...] = (),
    backend: str = "redis",
    env: Mapping[str, str] | None = None,
    everywhere: bool | None = None,
    **more: Any,
) -> Callable[[Run], Run]:
    """Put a function into the table; it may be put there several times, with other configurations."""
    configuration = Configuration(
        json.dumps(conf or {}, sort_keys=True), setup, options, backend, tuple(sorted((env or {}).items()))
    )

    def put(run: Run) -> Run:
        ROWS.append(
            Row(
                part,
                name,
                run,
                configuration=configuration,
                everywhere=configuration == USUAL if everywhere is None else everywhere,
                **more,
            )
        )
        return run

    return put


#: Signals that say what became of a task.
ENDS = ("task_success", "task_failure", "task_revoked", "task_retry", "task_internal_error")
RUNS = ("task_prerun", "task_postrun")


def standard(bench: Bench, task: Subject) -> dict[str, Any]:
    """One that ends well, with what is linked to it, and one that fails, with what hears of it."""
    token, told = bench.token(), bench.token()
    well = task.s().apply_async(link=bench.after(token))
    failing = task.s("refusing").apply_async(link_error=bench.app.signature("conformance.told", kwargs={"token": told}))
    return {
        "well": bench.ended(well),
        "failing": bench.ended(failing),
        "linked": len(bench.ran(token)),
        "told": len(bench.ran(told, signal="told")),
        "signals": lambda: [bench.signals(each.id, *ENDS) for each in (well, failing)],
    }


# -- calls

CALLS = "Ways to call"


@row(CALLS, "`delay()`")
def delay(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.object.delay(task.requests())
    return {**bench.ended(result), "type": isinstance(result, AsyncResult), "id": bool(result.id)}


@row(CALLS, "`apply_async(args, kwargs)`")
def apply_async(bench: Bench, task: Subject) -> dict[str, Any]:
    by_position = task.object.apply_async((task.requests(),), {})
    by_name = task.object.apply_async(kwargs={task.argument: task.requests()})
    as_list = task.object.apply_async([task.requests()])
    return {"ended": [bench.ended(each) for each in (by_position, by_name, as_list)]}


@row(CALLS, "a missing or surplus argument is a `TypeError`")
def arguments(bench: Bench, task: Subject) -> dict[str, Any]:
    found = []
    for arguments in ((), (task.requests(), "default", None, 4)):
        try:
            task.object.apply_async(arguments)
            found.append("taken")
        except TypeError:
            found.append("TypeError")
    return {"found": found}


@row(CALLS, "`signature.delay()`, `signature.apply_async()`")
def signature(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"delay": bench.ended(task.s().delay()), "apply_async": bench.ended(task.s().apply_async())}


@row(CALLS, "`signature.clone()`, `.set()`, `.replace()`, `immutable=True`")
def signatures(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    made = [
        task.s().clone(),
        task.partial().clone((task.requests(),)),
        task.partial().replace(args=(task.requests(),)),
        task.s().set(link=bench.after(token)),
        task.object.si(task.requests()),
        task.object.s(task.requests()),
        task.object.subtask((task.requests(),)),
    ]
    return {"ended": [bench.ended(each.apply_async()) for each in made], "linked": len(bench.ran(token))}


@row(CALLS, "`app.send_task(name)`", reason="the requests travel in the message: use a signature or the task")
def send_task(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = bench.app.send_task(task.name, (task.requests(),), link=bench.after(token))
    return {**bench.ended(result), "linked": len(bench.ran(token)), "signals": lambda: bench.signals(result.id, *ENDS)}


@row(
    CALLS,
    "the task called as a function",
    refused=r"\.delay\(",
    reason="a batch takes hours: `.delay()` returns at once",
)
def call(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"value": task.read(task.object(task.requests()))}


@row(CALLS, "the signature called as a function", refused=r"\.delay\(", reason="as above")
def call_signature(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"value": task.read(task.s()())}


@row(CALLS, "`task.apply()`: run here and now")
def apply(bench: Bench, task: Subject) -> dict[str, Any]:
    well, failing = task.object.apply((task.requests(),)), task.s("refusing").apply()
    return {
        "well": bench.outcome(well),
        "failing": bench.outcome(failing),
        "type": type(well).__name__,
        "signals": lambda: bench.signals(well.id, "task_success", "task_prerun", "task_postrun"),
    }


@row(CALLS, "`delay()` in a task")
def delay_inside(bench: Bench, task: Subject) -> dict[str, Any]:
    outer = bench.app.signature("conformance.caller", (task.name, "delay", task.requests(), {})).apply_async()
    bench.ended(outer)
    inner = task.object.AsyncResult(outer.result)
    begun = lambda: bench.records("task_prerun", id=inner.id)  # noqa: E731
    return {
        **bench.ended(inner),
        "children of the caller": [child.id == inner.id for child in outer.children or ()],
        "parent": lambda: {line["parent"] == outer.id for line in begun()},
        "root": lambda: {line["root"] == outer.id for line in begun()},
    }


@row(CALLS, "`get()` in a task is refused by Celery")
def get_inside(bench: Bench, task: Subject) -> dict[str, Any]:
    outer = bench.app.signature("conformance.caller", (task.name, "get", task.requests(), {})).apply_async()
    return bench.ended(outer)


@row(CALLS, "`apply()` in a task")
def apply_inside(bench: Bench, task: Subject) -> dict[str, Any]:
    outer = bench.app.signature("conformance.caller", (task.name, "apply", task.requests(), {})).apply_async()
    return bench.ended(outer)


@row(CALLS, "`self.replace(signature)` in a task")
def replace_inside(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    outer = bench.app.signature("conformance.caller", (task.name, "replace", task.requests(), {}))
    result = outer.apply_async(link=bench.after(token))
    return {**bench.ended(result), "linked": len(bench.ran(token))}


@row(CALLS, "`self.add_to_chord(signature)` in a task")
def add_to_chord_inside(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    outer = bench.app.signature("conformance.caller", (task.name, "add_to_chord", task.requests(), {}))
    result = chord([outer, bench.app.signature("conformance.give", ("one",))])(
        bench.app.signature("conformance.join", kwargs={"token": token})
    )
    bench.ended(result)
    return {"state": result.state, "joined": len(result.result) if isinstance(result.result, list) else 0}


@row(CALLS, "`map()`", refused=r"\.map", reason="each would be called as a function: use a group")
def call_map(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.object.map([task.requests(), task.requests()]).apply_async()
    bench.ended(result, 20)
    return {"state": result.state}


@row(CALLS, "`starmap()`", refused=r"\.(star)?map", reason="as above")
def call_starmap(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.object.starmap([(task.requests(),), (task.requests(),)]).apply_async()
    bench.ended(result, 20)
    return {"state": result.state}


@row(CALLS, "`chunks()`", refused=r"\.chunks", reason="as above")
def call_chunks(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.object.chunks([(task.requests(),), (task.requests(),)], 1).apply_async()
    bench.wait(result.ready, 20)
    return {"states": [child.state for child in result.children]}


# -- apply_async

OPTIONS = "Options of `apply_async`"


def _late(bench: Bench, results: list[Any], sent: float, due: float) -> dict[str, Any]:
    ended = [bench.ended(result) for result in results]
    began = [(bench.began(result.id) or 0) - sent for result in results]
    return {"ended": ended, "on time": [due - 0.5 <= each < due + 60 for each in began]}


@row(OPTIONS, "`countdown=`")
def countdown(bench: Bench, task: Subject) -> dict[str, Any]:
    sent = time.time()
    return _late(bench, [task.s().apply_async(countdown=3)], sent, 3)


@row(OPTIONS, "`countdown=0`")
def no_countdown(bench: Bench, task: Subject) -> dict[str, Any]:
    return _late(bench, [task.s().apply_async(countdown=0)], time.time(), 0)


@row(OPTIONS, "`eta=`: aware, naive, text, another zone")
def eta(bench: Bench, task: Subject) -> dict[str, Any]:
    sent = time.time()
    moment = datetime.fromtimestamp(sent, timezone.utc) + timedelta(seconds=5)
    west = moment.astimezone(timezone(timedelta(hours=-8)))
    ways = [moment, moment.replace(tzinfo=None), moment.isoformat(), west, west.isoformat()]
    return _late(bench, [task.s().apply_async(eta=each) for each in ways], sent, 5)


@row(OPTIONS, "`eta=` in the past")
def eta_past(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async(eta=datetime.now(timezone.utc) - timedelta(hours=1)))


@row(OPTIONS, "`expires=` before it begins: seconds, datetime, text")
def expires(bench: Bench, task: Subject) -> dict[str, Any]:
    moment = datetime.now(timezone.utc) + timedelta(seconds=1)
    results = [task.s().apply_async(countdown=3, expires=each) for each in (1, moment, moment.isoformat())]
    return {
        "ended": [bench.ended(result, 30) for result in results],
        "signals": lambda: [bench.signals(result.id, "task_prerun", *ENDS) for result in results],
    }


@row(OPTIONS, "`expires=` while it runs")
def expires_running(bench: Bench, task: Subject) -> dict[str, Any]:
    results = [task.s().apply_async(expires=seconds) for seconds in (600, 60)]
    started = task.s("slow").apply_async(expires=4)
    return {"ended": [bench.ended(result) for result in (*results, started)]}


@row(OPTIONS, "`task_id=`")
def task_id(bench: Bench, task: Subject) -> dict[str, Any]:
    chosen = f"chosen-{bench.token()}"
    result = task.s().apply_async(task_id=chosen)
    return {**bench.ended(result), "id": result.id == chosen}


@row(
    OPTIONS,
    "`task_id=` of one that was there before",
    refused="a task id belongs to one job",
    reason="a second job of that id would be paid for a second time, and take the first one's answers",
)
def task_id_twice(bench: Bench, task: Subject) -> dict[str, Any]:
    chosen = f"twice-{bench.token()}"
    bench.ended(task.s().apply_async(task_id=chosen))
    return bench.ended(task.s().apply_async(task_id=chosen))


@row(OPTIONS, "`retry=`, `retry_policy=`")
def retry_policy(bench: Bench, task: Subject) -> dict[str, Any]:
    given: list[dict[str, Any]] = [{"retry": False}, {"retry": True, "retry_policy": {"max_retries": 1}}]
    return {"ended": [bench.ended(task.s().apply_async(**each)) for each in given]}


@row(
    OPTIONS,
    "`time_limit=`",
    refused="max_wait",
    reason="a limit is for one run of a task, and a job takes many; `run_batch.delay(requests, max_wait=7200)` limits the job",
)
def time_limit(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async(time_limit=600))


@row(OPTIONS, "`soft_time_limit=`", refused="max_wait", reason="as above")
def soft_time_limit(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async(soft_time_limit=500))


@row(OPTIONS, "`queue=`: a name, a `Queue`")
def queue(bench: Bench, task: Subject) -> dict[str, Any]:
    other = f"{bench.names}-other"
    ways = [other, Queue(other, Exchange(f"{bench.names}-exchange"), routing_key=f"{bench.names}-key", max_priority=9)]
    results = [task.s().apply_async(queue=each) for each in ways]
    ended = [bench.ended(result) for result in results]
    return {"ended": ended, "where": lambda: [bench.where(result.id) for result in results]}


@row(OPTIONS, "`exchange=`, `routing_key=`")
def exchange(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(exchange=f"{bench.names}-exchange", routing_key=f"{bench.names}-key")
    return {**bench.ended(result), "where": lambda: bench.where(result.id)}


@row(OPTIONS, "`queue=` that the app does not know and nobody consumes: it waits")
def unknown_queue(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.quiet(task.s().apply_async(queue=f"{bench.names}-nobody"))


@row(OPTIONS, "`priority=`")
def priority(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(priority=6, queue=f"{bench.names}-other")
    return {**bench.ended(result), "where": lambda: bench.where(result.id)}


@row(OPTIONS, "`delivery_mode=`")
def delivery_mode(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"ended": [bench.ended(task.s().apply_async(delivery_mode=mode)) for mode in (1, "transient", 2)]}


@row(OPTIONS, "`compression=`")
def compression(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"ended": [bench.ended(task.s().apply_async(compression=name)) for name in ("zlib", "bzip2")]}


@row(OPTIONS, "`serializer=` that workers accept")
def serializer(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async(serializer="json"))


@row(
    OPTIONS,
    "`serializer=` that workers do not accept",
    refused="serializer",
    reason="no worker would accept the message, and the job would wait without end",
)
def wrong_serializer(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.quiet(task.s().apply_async(serializer="yaml"))


@row(
    OPTIONS,
    "`headers=`",
    differs={"next": [{"x_tenant": "a", "nested": {"list": [1]}}]},
    reason="what follows a job in its chain has them too: handlers that pass a tenant or a trace on ran hours ago",
)
def headers(bench: Bench, task: Subject) -> dict[str, Any]:
    token, carried = bench.token(), {"x_tenant": "a", "nested": {"list": [1]}}
    result = (task.s() | bench.after(token)).apply_async(headers=carried)
    bench.ended(result)
    return {
        "own": lambda: [line["headers"] for line in bench.records("task_prerun", id=result.parent.id)][-1:],
        "next": [line["headers"] for line in bench.ran(token)],
    }


@row(OPTIONS, "`link=`: one, several, with arguments, immutable, a chain, a group")
def link(bench: Bench, task: Subject) -> dict[str, Any]:
    tokens = [bench.token() for _ in range(7)]
    links = [
        bench.after(tokens[0]),
        bench.after(tokens[1]).clone(("mine",)),
        bench.after(tokens[2]).set(immutable=True),
        chain(bench.after(tokens[3]), bench.after(tokens[4])),
        group(bench.after(tokens[5]), bench.after(tokens[6])),
    ]
    result = task.s().apply_async(link=links)
    one = bench.token()
    single = task.s().apply_async(link=bench.after(one))
    return {
        **bench.ended(result),
        "types": [[line["types"] for line in bench.ran(token)] for token in tokens],
        "one": [bench.ended(single), [line["types"] for line in bench.ran(one)]],
        "parents": lambda: [
            [line["parent"] == result.id for line in bench.records("task_prerun", token=token)] for token in tokens[:3]
        ],
        "roots": lambda: [
            [line["root"] == result.id for line in bench.records("task_prerun", token=token)] for token in tokens
        ],
    }


@row(OPTIONS, "`link=` of one that fails is not called")
def link_of_failing(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    ended = bench.ended(task.s("refusing").apply_async(link=bench.after(token)))
    return {**ended, "linked": lambda: len(bench.records("task_prerun", token=token))}


@row(OPTIONS, "`link_error=`: with the exception, by the id, several")
def link_error(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    told = bench.app.signature("conformance.told", kwargs={"token": token})
    by_id = bench.app.signature("conformance.told_id")
    result = task.s("refusing").apply_async(link_error=[told, by_id])
    return {
        **bench.ended(result),
        "told": [(line["id"] == result.id, line["error"]) for line in bench.ran(token, signal="told")],
        "told by id": lambda: len(bench.records("task_prerun", task="conformance.told_id", parent=result.id)),
    }


@row(OPTIONS, "`link_error=` of one that ends well is not called")
def link_error_of_well(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    told = bench.app.signature("conformance.told", kwargs={"token": token})
    return {
        **bench.ended(task.s().apply_async(link_error=told)),
        "told": lambda: len(bench.records("told", token=token)),
    }


@row(OPTIONS, "`producer=`, `publisher=`, `connection=`")
def producer(bench: Bench, task: Subject) -> dict[str, Any]:
    with bench.app.producer_pool.acquire() as found:
        results = [task.s().apply_async(producer=found), task.s().apply_async(publisher=found)]
    with bench.app.connection_for_write() as connection:
        results.append(task.s().apply_async(connection=connection))
    return {"ended": [bench.ended(result) for result in results]}


@row(OPTIONS, "`add_to_parent=`")
def add_to_parent(bench: Bench, task: Subject) -> dict[str, Any]:
    found = []
    for add in (True, False):
        arguments = (task.name, "apply_async", task.requests(), {"add_to_parent": add})
        outer = bench.app.signature("conformance.caller", arguments).apply_async()
        bench.ended(outer)
        found.append([child.id == outer.result for child in outer.children or ()])
    return {"children": found}


@row(OPTIONS, "`ignore_result=True`")
def ignore_result(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = task.s().apply_async(ignore_result=True, link=bench.after(token))
    bench.ran(token)
    time.sleep(1)
    return {"state": result.state, "get": result.get(timeout=5), "ignored": result.ignored}


@row(OPTIONS, "`ignore_result=False`")
def keep_result(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async(ignore_result=False))


@row(OPTIONS, "`shadow=`")
def shadow(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(shadow="summaries")
    return {
        **bench.ended(result),
        "shown": lambda: sorted({line["shown"] for line in bench.records("task_prerun", id=result.id)}),
        "logged": lambda: f"Task summaries[{result.id}] succeeded" in (bench.folder / "worker.log").read_text(),
    }


@row(OPTIONS, "`argsrepr=`, `kwargsrepr=`")
def argsrepr(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(argsrepr="(shown)", kwargsrepr="{shown}")
    ended = bench.ended(result)

    def received() -> list[Any]:
        found = [event for event in list(bench.events) if event.get("uuid") == result.id]
        return [(event["args"], event["kwargs"]) for event in found if event["type"] == "task-received"][:1]

    return {**ended, "event": received}


@row(OPTIONS, "`reply_to=`")
def reply_to(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(reply_to="me")
    ended = bench.ended(result)
    return {**ended, "seen": lambda: [line["reply_to"] for line in bench.records("task_prerun", id=result.id)][:1]}


@row(OPTIONS, "`root_id=`, `parent_id=`")
def root_id(bench: Bench, task: Subject) -> dict[str, Any]:
    root, parent, token = bench.token(), bench.token(), bench.token()
    result = task.s().apply_async(root_id=root, parent_id=parent, link=bench.after(token))
    ended = bench.ended(result)
    return {
        **ended,
        "root": lambda: {line["root"] == root for line in bench.records("task_prerun", id=result.id)},
        "parent": lambda: {line["parent"] == parent for line in bench.records("task_prerun", id=result.id)},
        "linked": [(line["root"] == root, line["parent"] == result.id) for line in bench.ran(token)],
    }


@row(OPTIONS, "`group_id=`, `group_index=`")
def group_id(bench: Bench, task: Subject) -> dict[str, Any]:
    name = bench.token()
    result = task.s().apply_async(group_id=name)
    ended = bench.ended(result)
    return {**ended, "group": lambda: {line["group"] == name for line in bench.records("task_prerun", id=result.id)}}


@row(OPTIONS, "stamps: `signature.stamp()`")
def stamps(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    signature = task.s() | bench.after(token)
    signature.stamp(tenant="a")
    result = signature.apply_async()
    bench.ended(result)
    return {
        "own": lambda: [line["stamps"] for line in bench.records("task_prerun", id=result.parent.id)][-1:],
        "next": [line["stamps"] for line in bench.ran(token)],
    }


@row(OPTIONS, "`retries=`")
def retries(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async(retries=2))


@row(OPTIONS, "`mandatory=`, `immediate=`, `app_id=` and other options of kombu's `publish()`")
def publish(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(mandatory=True, app_id="shop", message_id="one")
    return bench.ended(result)


@row(OPTIONS, "`route_name=`")
def route_name(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(route_name="conformance.nobody")
    return bench.ended(result)


# -- canvas

CANVAS = "Canvas"


def _give(bench: Bench, value: Any) -> Any:
    return bench.app.signature("conformance.give", (value,))


@row(CANVAS, "first of a chain")
def chain_first(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = (task.s() | bench.after(token)).apply_async()
    ended = bench.ended(result)
    parent = result.parent
    return {
        **ended,
        "types": [line["types"] for line in bench.ran(token)],
        "parent": bench.outcome(parent),
        "parent id": [line["parent"] == parent.id for line in bench.ran(token)],
        "root id": [line["root"] == parent.id for line in bench.ran(token)],
        "children": lambda: [child.id == result.id for child in parent.children or ()],
        "signals": lambda: bench.signals(parent.id, *ENDS),
    }


@row(CANVAS, "middle of a chain, with the requests from the task before")
def chain_middle(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = chain(_give(bench, task.requests()), task.partial(), bench.after(token)).apply_async()
    ended = bench.ended(result)
    middle = result.parent
    return {
        **ended,
        "middle": bench.outcome(middle),
        "parent id": [line["parent"] == middle.id for line in bench.ran(token)],
        "root id": [line["root"] == middle.parent.id for line in bench.ran(token)],
        "signals": lambda: bench.signals(middle.id, *ENDS),
    }


@row(CANVAS, "last of a chain")
def chain_last(bench: Bench, task: Subject) -> dict[str, Any]:
    result = (_give(bench, task.requests()) | task.partial()).apply_async()
    ended = bench.ended(result)
    return {**ended, "signals": lambda: bench.signals(result.id, *ENDS)}


@row(CANVAS, "last of a chain, immutable, with its own requests")
def chain_immutable(bench: Bench, task: Subject) -> dict[str, Any]:
    result = (_give(bench, 1) | task.s().set(immutable=True)).apply_async()
    return bench.ended(result)


@row(CANVAS, "two in a chain")
def chain_two(bench: Bench, task: Subject) -> dict[str, Any]:
    result = chain(task.s(), task.s().set(immutable=True), task.s().set(immutable=True)).apply_async()
    ended = bench.ended(result)
    return {**ended, "parents": [bench.outcome(result.parent), bench.outcome(result.parent.parent)]}


@row(CANVAS, "one that fails in a chain ends it")
def chain_fails(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = chain(_give(bench, 1), task.s("refusing").set(immutable=True), bench.after(token)).apply_async()
    bench.ended(result.parent)
    return {
        "failing": bench.outcome(result.parent),
        "next": bench.quiet(result, 2),
        "ran": lambda: len(bench.records("task_prerun", token=token)),
    }


@row(CANVAS, "`chain.on_error()`, `link_error=` of a chain")
def chain_on_error(bench: Bench, task: Subject) -> dict[str, Any]:
    token, other = bench.token(), bench.token()
    told = bench.app.signature("conformance.told", kwargs={"token": token})
    chain(task.s("refusing"), bench.after(bench.token())).on_error(told).apply_async()
    told = bench.app.signature("conformance.told", kwargs={"token": other})
    chain(_give(bench, 1), task.s("refusing").set(immutable=True)).apply_async(link_error=told)
    return {
        "told": [line["error"] for line in bench.ran(token, signal="told")],
        "told of the second": [line["error"] for line in bench.ran(other, signal="told")],
    }


@row(CANVAS, "`link=` of a chain whose last it is")
def chain_link(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = chain(_give(bench, 1), task.s().set(immutable=True)).apply_async(link=bench.after(token))
    return {**bench.ended(result), "linked": [line["types"] for line in bench.ran(token)]}


@row(CANVAS, "`countdown=`, `queue=`, `priority=`, `expires=` of a chain")
def chain_options(bench: Bench, task: Subject) -> dict[str, Any]:
    sent, token = time.time(), bench.token()
    other = f"{bench.names}-other"
    result = chain(task.s(), bench.after(token)).apply_async(countdown=3, queue=other, priority=4, expires=900)
    first = result.parent
    return {
        **_late(bench, [first], sent, 3),
        "last": bench.ended(result),
        "first": lambda: bench.where(first.id)[:1],
        "next": lambda: [line["delivery"].get("priority") for line in bench.records("task_prerun", token=token)],
    }


@row(CANVAS, "what follows it in a chain has options of its own")
def next_options(bench: Bench, task: Subject) -> dict[str, Any]:
    token, other, begun = bench.token(), f"{bench.names}-other", time.time()
    result = (task.s() | bench.after(token).set(queue=other, priority=3, countdown=2)).apply_async()
    bench.ended(result)
    ended = [line["time"] for line in bench.records("task_success", id=result.parent.id)]
    ran = bench.ran(token)
    return {
        "key": [line["delivery"]["routing_key"].replace(bench.names, "*") for line in ran],
        "priority": [line["delivery"].get("priority") for line in ran],
        "waited": [line["time"] - (ended or [begun])[-1] > 1 for line in ran],
    }


@row(CANVAS, "what follows it and cannot be published makes it fail")
def next_unpublishable(bench: Bench, task: Subject) -> dict[str, Any]:
    last = task.partial().set(immutable=True)  # without its requests
    result = (task.s() | last).apply_async()
    return {"first": bench.ended(result.parent, 40)}


@row(CANVAS, "member of a group")
def group_member(bench: Bench, task: Subject) -> dict[str, Any]:
    result = group(task.s(), _give(bench, 1), task.s("refusing")).apply_async()
    bench.wait(result.ready)
    return {
        "members": [bench.outcome(each) for each in result.results],
        "completed": result.completed_count(),
        "failed": result.failed(),
        "group": lambda: {line["group"] == result.id for line in bench.records("task_prerun", id=result.results[0].id)},
    }


@row(CANVAS, "`GroupResult.get()`, `.save()`, `.restore()`")
def group_result(bench: Bench, task: Subject) -> dict[str, Any]:
    result = group(task.s(), task.s()).apply_async()
    result.save()
    bench.wait(result.ready)
    restored = GroupResult.restore(result.id, app=bench.app)
    return {
        "values": [task.read(each) for each in result.get(timeout=30)],
        "restored": [each.id for each in restored.results] == [each.id for each in result.results],
        "successful": restored.successful(),
    }


@row(CANVAS, "`group.skew()`")
def group_skew(bench: Bench, task: Subject) -> dict[str, Any]:
    result = group(task.s(), task.s()).skew(start=0, stop=4, step=3).apply_async()
    sent = time.time()
    bench.wait(result.ready)
    began = [(bench.began(each.id) or 0) - sent for each in result.results]
    return {"members": [bench.outcome(each) for each in result.results], "late": [each > 2 for each in began]}


@row(CANVAS, "`link=`, `link_error=` of a group")
def group_links(bench: Bench, task: Subject) -> dict[str, Any]:
    token, other = bench.token(), bench.token()
    found = group(task.s(), _give(bench, 1))
    found.link(bench.after(token))
    failing = group(task.s("refusing"), _give(bench, 1))
    failing.link_error(bench.app.signature("conformance.told", kwargs={"token": other}))
    for each in (found, failing):
        bench.wait(each.apply_async().ready)
    return {"linked": [line["types"] for line in bench.ran(token)], "told": len(bench.ran(other, signal="told"))}


@row(CANVAS, "header of a chord")
def chord_header(bench: Bench, task: Subject) -> dict[str, Any]:
    body = bench.app.signature("conformance.join", kwargs={"token": bench.token()})
    result = chord([task.s(), _give(bench, 1), task.s()])(body)
    bench.ended(result)
    return {"state": result.state, "value": result.result, "header": [bench.outcome(each) for each in result.parent]}


@row(CANVAS, "the whole header of a chord")
def chord_whole_header(bench: Bench, task: Subject) -> dict[str, Any]:
    body = bench.app.signature("conformance.join", kwargs={"token": bench.token()})
    result = chord([task.s(), task.s()])(body)
    bench.ended(result)
    return {"state": result.state, "value": result.result}


@row(CANVAS, "one that fails in the header of a chord fails its body")
def chord_header_fails(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    body = bench.app.signature("conformance.join", kwargs={"token": bench.token()})
    body.link_error(bench.app.signature("conformance.told", kwargs={"token": token}))
    result = chord([task.s("refusing"), _give(bench, 1)])(body)
    return {**bench.ended(result), "told": len(bench.ran(token, signal="told"))}


@row(CANVAS, "body of a chord")
def chord_body(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    body = task.s().set(immutable=True)
    body.link(bench.after(token))
    result = chord([_give(bench, 1), _give(bench, 2)])(body)
    ended = bench.ended(result)
    return {**ended, "linked": len(bench.ran(token)), "signals": lambda: bench.signals(result.id, *ENDS)}


@row(CANVAS, "body of a chord, with what the header gives")
def chord_body_of_header(bench: Bench, task: Subject) -> dict[str, Any]:
    each = [
        {"custom_id": f"row {number}", "params": params} for number in range(2) for params in task.requests().values()
    ]
    result = chord([_give(bench, one) for one in each])(task.partial())
    return bench.ended(result)


@row(CANVAS, "a chord body that fails, with `on_error()`")
def chord_body_fails(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    body = task.s("refusing").set(immutable=True)
    body.on_error(bench.app.signature("conformance.told", kwargs={"token": token}))
    result = chord([_give(bench, 1), _give(bench, 2)])(body)
    return {**bench.ended(result), "told": len(bench.ran(token, signal="told"))}


@row(CANVAS, "a group after it in a chain, a chain in a group, a chord in a chain")
def nested(bench: Bench, task: Subject) -> dict[str, Any]:
    tokens = [bench.token() for _ in range(4)]
    to_group = (task.s() | group(bench.after(tokens[0]), bench.after(tokens[1]))).apply_async()
    in_group = group(chain(task.s(), bench.after(tokens[2])), _give(bench, 1)).apply_async()
    body = bench.app.signature("conformance.join", kwargs={"token": tokens[3]})
    upgraded = (group(task.s(), _give(bench, 1)) | body).apply_async()
    for each in (to_group, in_group, upgraded):
        bench.wait(each.ready)
    return {
        "to group": [bench.outcome(each) for each in to_group],
        "in group": [bench.outcome(each) for each in in_group],
        "upgraded": upgraded.result,
        "types": [[line["types"] for line in bench.ran(token)] for token in tokens],
    }


@row(CANVAS, "a chain in a chord's header")
def chain_in_chord(bench: Bench, task: Subject) -> dict[str, Any]:
    body = bench.app.signature("conformance.join", kwargs={"token": bench.token()})
    header = [chain(task.s(), bench.after(bench.token())), chain(_give(bench, 1), task.s().set(immutable=True))]
    result = chord(header)(body)
    bench.ended(result)
    return {"state": result.state, "value": result.result}


@row(CANVAS, "group `|` group around it")
def groups(bench: Bench, task: Subject) -> dict[str, Any]:
    result = chain(group(_give(bench, 1), _give(bench, 2)), task.s().set(immutable=True)).apply_async()
    return bench.ended(result)


@row(CANVAS, "a signature from JSON")
def from_json(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    made = json.loads(json.dumps(dict(task.s().set(link=[dict(bench.after(token))]))))
    result = bench.app.signature(made).apply_async()
    return {**bench.ended(result), "linked": len(bench.ran(token))}


# -- results and control

RESULTS = "Results and control"


@row(RESULTS, "`get()`, `get(timeout=)`, `get(propagate=False)`")
def get(bench: Bench, task: Subject) -> dict[str, Any]:
    slow, failing = task.s("slow").apply_async(), task.s("refusing").apply_async()
    try:
        waited = slow.get(timeout=0.2)
    except CeleryTimeoutError as exc:
        waited = type(exc) is CeleryTimeoutError
    bench.ended(failing)
    try:
        raised: Any = failing.get(timeout=30)
    except Exception as exc:  # noqa: BLE001
        raised = type(exc).__name__
    return {
        "timeout": waited,
        "raised": raised,
        "not propagated": type(failing.get(timeout=5, propagate=False)).__name__,
        "value": task.read(task.s().apply_async().get(timeout=60)),
    }


@row(RESULTS, "`ready()`, `successful()`, `failed()`, `traceback`, `date_done`")
def ready(bench: Bench, task: Subject) -> dict[str, Any]:
    well, failing, slow = task.s().apply_async(), task.s("refusing").apply_async(), task.s("slow").apply_async()
    early = slow.ready()
    for each in (well, failing):
        bench.ended(each)
    return {
        "early": early,
        "found": [
            (each.ready(), each.successful(), each.failed(), each.date_done is not None) for each in (well, failing)
        ],
        "traceback": [bool(each.traceback) for each in (well, failing)],
    }


@row(
    RESULTS,
    "`AsyncResult.state` while it runs",
    differs={"state": "PROGRESS"},
    reason="a job shows its counts meanwhile, in `result.info`",
)
def state(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s("slow").apply_async()
    if not task.ends_elsewhere:
        bench.wait(lambda: bench.began(result.id))
    if task.is_ours:
        bench.wait(lambda: result.state == "PROGRESS", 20)
    return {"state": result.state}


@row(RESULTS, "`forget()`")
def forget(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    bench.ended(result)
    time.sleep(1)
    result.forget()
    time.sleep(1)
    return {"state": bench.app.AsyncResult(result.id).state}


@row(RESULTS, "`as_tuple()`, `collect()`, `children`")
def collect(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = task.s().apply_async(link=bench.after(token))
    bench.ended(result)
    bench.ran(token)
    time.sleep(1)
    with allow_join_result():
        collected = [type(value).__name__ for _, value in result.collect(timeout=30)]
    return {"collected": collected, "tuple": [type(part).__name__ for part in result.as_tuple()]}


@row(RESULTS, "`then()`")
def then(bench: Bench, task: Subject) -> dict[str, Any]:
    called: list[str] = []
    result = task.s().apply_async()
    result.then(lambda found: called.append(found.id))
    result.get(timeout=60)
    return {"called": [each == result.id for each in called]}


@row(RESULTS, "`app.AsyncResult(id)` in another process")
def async_result(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    other = bench.app.AsyncResult(result.id)
    return {"value": task.read(other.get(timeout=60)), **bench.outcome(other)}


@row(RESULTS, "`revoke()` before it begins")
def revoke_early(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(countdown=4)
    result.revoke()
    return {**bench.ended(result, 40), "signals": lambda: bench.signals(result.id, "task_prerun", *ENDS)}


def _wait_until_it_runs(bench: Bench, task: Subject, result: Any) -> None:
    """Wait until a task has begun; an ask, until its batch is made."""

    def has_batch() -> bool:
        with suppress(JobNotFound):
            return any(batch.batch_id for batch in result.job.status().batches)
        return False

    bench.wait(has_batch if task.ends_elsewhere else lambda: bench.began(result.id))


@row(
    RESULTS,
    "`revoke()` while it runs",
    differs={"state": "REVOKED", "result": "TaskRevokedError"},
    reason="a job is many messages, and those that come after a revoke are not run. Its batches continue at "
    "Anthropic; `BatchJob.cancel()` ends these too",
)
def revoke_running(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s("slow").apply_async()
    _wait_until_it_runs(bench, task, result)
    time.sleep(2)
    result.revoke()
    return bench.ended(result)


@row(RESULTS, "`revoke(terminate=True)` while it runs", only="prefork")
def revoke_terminate(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s("slow").apply_async()
    _wait_until_it_runs(bench, task, result)
    time.sleep(2)
    sent = time.monotonic()
    result.revoke(terminate=True)
    ended = bench.ended(result)
    return {
        **ended,
        "soon": time.monotonic() - sent < 12,
        "revoked": lambda: len(bench.records("task_revoked", id=result.id)),
    }


@row(RESULTS, "`revoke_by_stamped_headers()`")
def revoke_stamped(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    signature = task.s()
    signature.stamp(mark=token)
    result = signature.apply_async(countdown=4)
    time.sleep(1)
    bench.app.control.revoke_by_stamped_headers({"mark": [token]})
    return bench.ended(result, 40)


@row(RESULTS, "`GroupResult.revoke()`")
def revoke_group(bench: Bench, task: Subject) -> dict[str, Any]:
    result = group(task.s(), task.s()).apply_async(countdown=4)
    result.revoke()
    return {"members": [bench.ended(each, 40) for each in result.results]}


@row(RESULTS, "`control.rate_limit()`", env={"CONFORMANCE_ALONE": "rate limit"})
def control_rate_limit(bench: Bench, task: Subject) -> dict[str, Any]:
    bench.app.control.rate_limit(task.name, "1/s")
    time.sleep(1)
    return rate_limit(bench, task)


@row(RESULTS, "`inspect().query_task()`, `.scheduled()`: by its id")
def query_task(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(countdown=6)
    found = bench.wait(
        lambda: any((bench.app.control.inspect(timeout=1).query_task(result.id) or {"": {}}).values()), 5
    )
    return {"found": bool(found), **bench.ended(result)}


# -- signals and events

SIGNALS = "Signals and events"


@row(
    SIGNALS,
    "`before_task_publish`, `after_task_publish`: sender and id",
    differs={
        "signals": {
            **{f"{when} itself": 1 for when in ("before_task_publish", "after_task_publish")},
            **{f"{when} claude_batch_tasks.finish_job": 1 for when in ("before_task_publish", "after_task_publish")},
        }
    },
    reason="at the caller it is the same; then a worker sends the message that ends the job, which has its id",
)
def publish_signals(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    return {
        **bench.ended(result),
        "signals": lambda: bench.signals(result.id, "before_task_publish", "after_task_publish"),
    }


@row(SIGNALS, "`task_success`: once, by the task, under its id")
def success_signal(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    return {**bench.ended(result), "signals": lambda: bench.signals(result.id, *ENDS)}


@row(SIGNALS, "`task_failure`: once, by the task, under its id")
def failure_signal(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s("refusing").apply_async()
    return {**bench.ended(result), "signals": lambda: bench.signals(result.id, *ENDS)}


@row(SIGNALS, "`task_prerun`, `task_postrun`: once under its id")
def run_signals(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    return {**bench.ended(result), "signals": lambda: bench.signals(result.id, *RUNS)}


@row(SIGNALS, "`task_prerun`, `task_postrun` of one that fails: once under its id")
def run_signals_failing(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s("refusing").apply_async()
    return {**bench.ended(result), "signals": lambda: bench.signals(result.id, *RUNS)}


@row(
    SIGNALS,
    "`task_received`: once under its id",
    differs={"signals": {"task_received itself": 2}},
    reason="the message that begins a job and the one that ends it have its id, one after the other; what runs under it "
    "is the end",
)
def received_signals(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    return {**bench.ended(result), "signals": lambda: bench.signals(result.id, "task_received")}


@row(SIGNALS, "`task_prerun` runs before `link`, `task_postrun` after: in pairs on one thread")
def pairs(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)

    def order() -> bool:
        names = [line["signal"] for line in bench.records(id=result.id) if line["signal"] in RUNS]
        return names == list(RUNS) * (len(names) // 2)

    return {**ended, "in pairs": order}


@row(SIGNALS, "events `task-succeeded`, `task-failed`: once under its id")
def events(bench: Bench, task: Subject) -> dict[str, Any]:
    well, failing = task.s().apply_async(), task.s("refusing").apply_async()
    ended = [bench.ended(each) for each in (well, failing)]
    return {
        "ended": ended,
        "well": lambda: bench.happened(well.id, "task-succeeded", "task-failed", "task-retried", "task-revoked"),
        "failing": lambda: bench.happened(failing.id, "task-succeeded", "task-failed", "task-retried", "task-revoked"),
    }


@row(
    SIGNALS,
    "events `task-received`, `task-started`: once under its id",
    differs={"events": {"task-received": 2, "task-started": 2}},
    reason="one message begins a job and one ends it, as of a task that was retried",
)
def begin_events(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)
    return {**ended, "events": lambda: bench.happened(result.id, "task-received", "task-started")}


@row(SIGNALS, "events show its name, root and parent")
def event_fields(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)

    def fields() -> list[Any]:
        found = [e for e in list(bench.events) if e.get("uuid") == result.id and "name" in e]
        return [(e["name"] == task.name, e["root_id"] == result.id, e["parent_id"]) for e in found][:1]

    return {**ended, "fields": fields}


@row(
    SIGNALS,
    "log: `succeeded`, `raised unexpected`, once, by its name and id",
    differs={"lines": {"succeeded": 0, "unexpected": 1, "raised": 1}},
    reason="at `INFO` a line of this package says how a job ended and what it cost; at `DEBUG` Celery's line is there",
)
def log(bench: Bench, task: Subject) -> dict[str, Any]:
    well, failing = task.s().apply_async(), task.s("refusing").apply_async()
    ended = [bench.ended(each) for each in (well, failing)]

    def lines() -> dict[str, int]:
        text = (bench.folder / "worker.log").read_text(errors="replace")
        return {
            "succeeded": text.count(f"Task {task.name}[{well.id}] succeeded"),
            "unexpected": text.count(f"Task {task.name}[{failing.id}] raised unexpected"),
            "raised": text.count(f"[{failing.id}] raised"),
        }

    return {"ended": ended, "lines": lines}


@row(
    SIGNALS,
    "its arguments in events",
    differs={"in the event": False},
    reason="prompts never travel in messages, events and logs: how many there are is shown",
)
def shown_arguments(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)

    def in_event() -> bool:
        return any(
            "claude-haiku" in str(event.get("args")) for event in list(bench.events) if event.get("uuid") == result.id
        )

    return {**ended, "in the event": in_event}


# -- attributes of the task


TASK = "Attributes of `Task`, by `task_annotations` or a class of the project's own (`task_cls`)"

#: Settings of delivery that a project may give all its tasks.
ANY = {
    "task_annotations": {
        "*": {
            "max_retries": 0,
            "default_retry_delay": 1,
            "acks_late": False,
            "reject_on_worker_lost": False,
            "resultrepr_maxsize": 10,
            "store_errors_even_if_ignored": True,
        }
    }
}


@row(
    TASK,
    "`max_retries`, `default_retry_delay`, `resultrepr_maxsize`, `acks_late`, `reject_on_worker_lost`, `store_errors_even_if_ignored` "
    "of all tasks, by `task_annotations`",
    conf=ANY,
)
def attributes(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


def _annotated(**values: Any) -> dict[str, Any]:
    return {"task_annotations": dict.fromkeys(("conformance.plain", "claude_batch_tasks.run_batch"), values)}


#: Attributes that do not touch each other.
SEVERAL = _annotated(
    priority=3, compression="zlib", delivery_mode=1, serializer="json", send_events=False, trail=False, typing=False
)


@row(
    TASK,
    "`Task.priority`, `Task.compression`, `Task.delivery_mode`, `Task.serializer`",
    conf=SEVERAL,
    quick=True,
    by_broker=True,
)
def sending_attributes(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    return {**bench.ended(result), "where": lambda: bench.where(result.id)}


@row(
    TASK,
    "`Task.ignore_result`",
    conf=_annotated(ignore_result=True),
    differs={
        "well": {"state": "SUCCESS", "result": "completed"},
        "failing": {"state": "FAILURE", "result": "PermanentError"},
    },
    reason="`run_batch` has `ignore_result = False` itself, as its result shows how far it is; "
    "`apply_async(ignore_result=True)` is obeyed",
)
def ignored(bench: Bench, task: Subject) -> dict[str, Any]:
    token, told = bench.token(), bench.token()
    well = task.s().apply_async(link=bench.after(token))
    failing = task.s("refusing").apply_async(link_error=bench.app.signature("conformance.told", kwargs={"token": told}))
    followed = [len(bench.ran(token)), len(bench.ran(told, signal="told"))]
    time.sleep(1)
    return {"well": bench.outcome(well), "failing": bench.outcome(failing), "followed": followed}


@row(TASK, "`Task.expires`", conf=_annotated(expires=1), by_broker=True)
def task_expires(bench: Bench, task: Subject) -> dict[str, Any]:
    late, early = task.s().apply_async(countdown=4), task.s().apply_async(expires=900)
    return {"ended": [bench.ended(each, 40) for each in (late, early)]}


@row(TASK, "`Task.rate_limit`, `task_default_rate_limit`", conf=_annotated(rate_limit="1/s"))
def rate_limit(bench: Bench, task: Subject) -> dict[str, Any]:
    results = [task.s().apply_async() for _ in range(4)]
    ended = [bench.ended(each) for each in results]
    began = sorted(bench.began(each.id) or 0 for each in results)
    return {"ended": ended, "spread": began[-1] - began[0] > 2}


@row(TASK, "`Task.send_events`", conf=SEVERAL, quick=True)
def send_events(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)
    return {**ended, "events": lambda: bench.happened(result.id, "task-received", "task-succeeded")}


@row(TASK, "`Task.trail`", conf=SEVERAL, quick=True)
def trail(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    result = task.s().apply_async(link=bench.after(token))
    ended = bench.ended(result)
    bench.ran(token)
    time.sleep(1)
    return {**ended, "children": len(result.children or ())}


@row(
    TASK,
    "`Task.typing = False`",
    conf=SEVERAL,
    quick=True,
    refused="run_batch takes the requests",
    reason="the requests are stored before anything is sent, so a call without them is an error at the caller",
)
def typing(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.object.apply_async(()))


@row(
    TASK,
    "`Task.time_limit`, `Task.soft_time_limit`",
    conf=_annotated(soft_time_limit=2, time_limit=4),
    differs={"state": "SUCCESS", "result": "completed"},
    reason="a limit is for one step of a job, which comes back after it; `max_wait` limits the job",
)
def task_limits(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s("slow").apply_async())


HOOKS = (
    "before_start",
    "on_success",
    "on_failure",
    "on_retry",
    "after_return",
    "__call__",
    "apply_async",
    "run inside",
)


def _hooks(bench: Bench, task_id: str) -> dict[str, int]:
    found: dict[str, int] = {}
    for line in bench.records(id=task_id):
        if line["signal"] in HOOKS:
            found[line["signal"]] = found.get(line["signal"], 0) + 1
    return dict(sorted(found.items()))


@row(TASK, "`before_start`, `on_success`, `on_failure`, `after_return` by annotations", setup="hooks")
def hooks(bench: Bench, task: Subject) -> dict[str, Any]:
    well, failing = task.s().apply_async(), task.s("refusing").apply_async()
    ended = [bench.ended(each) for each in (well, failing)]
    return {"ended": ended, "called": lambda: [_hooks(bench, each.id) for each in (well, failing)]}


TASK_CLS = {"task_cls": "tests.conformance.setups:Base"}


@row(
    TASK,
    "a base class of the project's own: hooks, `__call__`",
    conf=TASK_CLS,
    quick=True,
    differs={
        "called": [
            {"__call__": 2, "after_return": 1, "before_start": 1, end: 1} for end in ("on_success", "on_failure")
        ]
    },
    reason="`__call__` is around what begins a job and around what ends it, and around each step between; the hooks are "
    "called once",
)
def base_class(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"derives": _derives(task), **hooks(bench, task)}


def _derives(task: Subject) -> bool:
    return any(each.__name__ == "Base" for each in type(task.object).__mro__)


@row(TASK, "a base class of the project's own: `apply_async` of it is called", conf=TASK_CLS, quick=True)
def base_apply_async(bench: Bench, task: Subject) -> dict[str, Any]:
    ways = [task.object.delay(task.requests()), task.s().apply_async(), task.object.apply_async((task.requests(),))]
    ended = [bench.ended(each) for each in ways]

    def headers() -> list[Any]:
        return [bench.records("task_prerun", id=each.id)[-1]["headers"].get("x_base") for each in ways]

    return {"ended": ended, "headers": headers}


@row(TASK, "a base class of the project's own: methods of it", conf=TASK_CLS, quick=True)
def base_methods(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.object.delay_on_commit(task.requests())
    return {"returned": result, "sent": sum(name == task.name for name, *_ in bench.app.sent_on_commit)}


@row(TASK, "`Task.shadow_name()`", conf=TASK_CLS, quick=True)
def shadow_name(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(headers={"shadowed": True})
    ended = bench.ended(result)
    return {**ended, "shown": lambda: sorted({line["shown"] for line in bench.records("task_prerun", id=result.id)})}


@row(
    TASK,
    "`Task.acks_late`, `Task.reject_on_worker_lost`: its process is killed",
    only="prefork",
    conf=_annotated(acks_late=True, reject_on_worker_lost=True),
)
def killed(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s("deadly").apply_async())


@row(
    TASK,
    "its process is killed, without `acks_late`",
    only="prefork",
    conf={"task_acks_late": False},
    differs={"state": "SUCCESS", "result": "completed"},
    reason="a job continues, and nothing of it is paid for twice",
)
def killed_early(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s("deadly").apply_async())


@row(
    TASK,
    "`Task.retry_on_worker_lost`, `task_retry_on_worker_lost`: its process is killed",
    only="prefork",
    conf=_annotated(acks_late=True, retry_on_worker_lost=True, default_retry_delay=1),
)
def killed_retry(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s("deadly").apply_async())


# -- routing


ROUTING = "Routing"


def _routed(bench: Bench, task: Subject) -> dict[str, Any]:
    token, save = bench.token(), bench.token()
    result = task.s().apply_async(link=bench.after(token))
    if task.is_ours:
        options = {"on_result": bench.after(save)}
        bench.ended(task.object.apply_async((task.requests(),), options))
    ended = bench.ended(result)
    bench.ran(token)
    return {
        **ended,
        "where": lambda: bench.where(result.id),
        "link": lambda: [line["delivery"]["routing_key"].replace(bench.names, "*") for line in bench.ran(token)],
    }


for _name, _setup in [
    ("a dict", "routes"),
    ("patterns", "pattern_routes"),
    ("a function", "router"),
    ("a list", "route_list"),
]:
    row(ROUTING, f"`task_routes`: {_name}", setup=_setup, by_broker=True, quick=_setup == "routes")(_routed)


@row(
    ROUTING,
    "`task_create_missing_queues = False`: a known queue",
    conf={"task_create_missing_queues": False},
    by_broker=True,
)
def known_queue(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(queue=f"{bench.names}-other")
    return {**bench.ended(result), "where": lambda: bench.where(result.id)}


@row(
    ROUTING,
    "`task_create_missing_queues = False`: an unknown queue is an error at the caller",
    conf={"task_create_missing_queues": False},
)
def missing_queue(bench: Bench, task: Subject) -> dict[str, Any]:
    try:
        task.s().apply_async(queue="nobody")
    except Exception as exc:  # noqa: BLE001
        return {"raised": type(exc).__name__}
    return {"raised": None}


@row(
    ROUTING,
    "`task_create_missing_queues = False`: what follows it goes to an unknown queue",
    conf={"task_create_missing_queues": False},
)
def next_missing_queue(bench: Bench, task: Subject) -> dict[str, Any]:
    result = (task.s() | bench.after(bench.token()).set(queue="nobody")).apply_async()
    return {"first": bench.ended(result.parent, 40)}


@row(
    ROUTING, "`task_default_queue`, `task_default_exchange`, `task_default_routing_key`, `task_queues`", everywhere=True
)
def default_queue(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    return {**bench.ended(result), "where": lambda: bench.where(result.id)}


SENDING = {
    "task_compression": "gzip",
    "task_publish_retry": False,
    "task_publish_retry_policy": {"max_retries": 1},
    "task_default_delivery_mode": 1,
    "task_default_priority": 5,
    "task_inherit_parent_priority": True,
    "task_queue_max_priority": 9,
}


@row(
    ROUTING,
    "`task_default_priority`, `task_queue_max_priority`, `task_compression`, `task_default_delivery_mode`, `task_publish_retry`, "
    "`task_publish_retry_policy`",
    conf=SENDING,
    by_broker=True,
)
def default_priority(bench: Bench, task: Subject) -> dict[str, Any]:
    return _routed(bench, task)


@row(ROUTING, "`task_inherit_parent_priority`", conf=SENDING)
def inherit_priority(bench: Bench, task: Subject) -> dict[str, Any]:
    token, next_token = bench.token(), bench.token()
    result = (task.s().set(link=bench.after(token)) | bench.after(next_token)).apply_async(priority=7)
    bench.ended(result)
    return {
        "linked": [line["delivery"].get("priority") for line in bench.ran(token)],
        "next": [line["delivery"].get("priority") for line in bench.ran(next_token)],
    }


@row(
    ROUTING,
    '`task_default_queue_type = "quorum"`, `task_default_exchange_type = "topic"`, with `countdown=`',
    only="rabbitmq",
    setup="quorum",
)
def quorum(bench: Bench, task: Subject) -> dict[str, Any]:
    sent = time.time()
    return {**_late(bench, [task.s().apply_async(countdown=3)], sent, 3), **standard(bench, task)}


@row(ROUTING, "`worker_direct`", conf={"worker_direct": True})
def worker_direct(bench: Bench, task: Subject) -> dict[str, Any]:
    from celery.utils.nodenames import worker_direct as direct

    result = task.s().apply_async(queue=direct(f"{bench.names}@tests"))
    return {**bench.ended(result), "where": lambda: bench.where(result.id)}


# -- the app


APP = "Configuration of the app"

SHOWN = {
    "result_extended": True,
    "task_send_sent_event": True,
    "task_track_started": True,
    "result_expires": 7200,
    "result_compression": "zlib",
}


@row(APP, "`result_extended`", conf=SHOWN, quick=True)
def result_extended(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async(queue=f"{bench.names}-other")
    ended = bench.ended(result)
    time.sleep(1)
    found = bench.app.AsyncResult(result.id)
    return {
        **ended,
        "name": found.name == task.name,
        "queue": (found.queue or "").replace(bench.names, "*"),
        "worker": (found.worker or "").replace(bench.names, "*"),
        "retries": found.retries,
    }


@row(
    APP,
    "`result_extended`: `args` and `kwargs` of the result",
    conf=SHOWN,
    quick=True,
    differs={"args": True},
    reason="prompts never travel in the result back end: a message carries the job's id",
)
def result_extended_args(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)
    time.sleep(1)
    return {**ended, "args": "messages" not in json.dumps(bench.app.AsyncResult(result.id).args, default=str)}


@row(
    APP,
    "`task_track_started`, `Task.track_started`",
    conf=SHOWN,
    quick=True,
    differs={"state": "PROGRESS"},
    reason="a job shows its counts instead of STARTED",
)
def track_started(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s("slow").apply_async()
    bench.wait(lambda: result.state != "PENDING", 30)
    bench.wait(lambda: result.state == ("PROGRESS" if task.is_ours else "STARTED"), 20)
    return {"state": result.state}


@row(
    APP,
    "`task_send_sent_event`: event `task-sent`",
    conf=SHOWN,
    quick=True,
    differs={"events": {"task-sent": 2}},
    reason="one message begins a job and one ends it, as of a task that was retried",
)
def sent_event(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)
    return {**ended, "events": lambda: bench.happened(result.id, "task-sent")}


@row(APP, "`result_expires`, `result_compression`", conf=SHOWN, quick=True)
def result_expires(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    ended = bench.ended(result)
    left = bench.app.backend.client.ttl(bench.app.backend.get_key_for_task(result.id))
    return {**ended, "left": 7000 < left <= 7200}


@row(
    APP,
    "`task_ignore_result`, `task_store_errors_even_if_ignored`",
    conf={"task_ignore_result": True, "task_store_errors_even_if_ignored": True},
    differs={"well": {"state": "SUCCESS", "result": "completed"}},
    reason="as `Task.ignore_result`",
)
def task_ignore_result(bench: Bench, task: Subject) -> dict[str, Any]:
    return ignored(bench, task)


EAGER = {"task_always_eager": True, "task_store_eager_result": True}


@row(APP, "`task_always_eager`, `task_store_eager_result`", conf=EAGER, quick=True)
def always_eager(bench: Bench, task: Subject) -> dict[str, Any]:
    result = task.s().apply_async()
    failing = task.s("refusing").apply_async()
    return {
        "well": bench.outcome(result),
        "failing": bench.outcome(failing),
        "get": task.read(result.get(disable_sync_subtasks=False)),
        "stored": bench.outcome(bench.app.AsyncResult(result.id)),
        "signals": lambda: bench.signals(result.id, *ENDS, "task_prerun", "task_postrun"),
        "type": type(result).__name__,
    }


@row(APP, "`task_always_eager`: `link`, chain, group, chord", conf=EAGER, quick=True)
def always_eager_canvas(bench: Bench, task: Subject) -> dict[str, Any]:
    token = bench.token()
    linked = task.s().apply_async(link=bench.after(token))
    chained = (task.s() | bench.after(bench.token())).apply_async()
    grouped = group(task.s(), task.s()).apply_async()
    body = bench.app.signature("conformance.join", kwargs={"token": token})
    return {
        "linked": bench.outcome(linked),
        "chained": bench.outcome(chained),
        "grouped": [bench.outcome(each) for each in grouped],
        "chord": chord([task.s(), task.s()])(body).get(disable_sync_subtasks=False),
        "ran": lambda: len(bench.records("task_prerun", token=token)),
    }


@row(APP, "`task_eager_propagates`", conf={"task_always_eager": True, "task_eager_propagates": True})
def eager_propagates(bench: Bench, task: Subject) -> dict[str, Any]:
    try:
        task.s("refusing").apply_async()
    except Exception as exc:  # noqa: BLE001
        return {"raised": type(exc).__name__}
    return {"raised": None}


def bare(bench: Bench, task: Subject) -> dict[str, Any]:
    """One that ends well and one that fails, with nothing around them."""
    well, failing = task.s().apply_async(), task.s("refusing").apply_async()
    return {"well": bench.ended(well), "failing": bench.ended(failing)}


for _name, _conf, _env in [
    (
        '`task_serializer = "pickle"` and nothing else accepted',
        {"task_serializer": "pickle", "accept_content": ["pickle"], "result_serializer": "pickle"},
        {"C_FORCE_ROOT": "1"},
    ),
    (
        '`task_serializer = "yaml"` and nothing else accepted',
        {"task_serializer": "yaml", "accept_content": ["yaml"], "result_accept_content": ["json"]},
        {},
    ),
    (
        '`task_serializer = "msgpack"`, `result_serializer = "msgpack"`',
        {"task_serializer": "msgpack", "accept_content": ["msgpack", "json"], "result_serializer": "msgpack"},
        {},
    ),
]:
    # YAML cannot carry a link of any task.
    row(APP, _name, conf=_conf, env=_env)(bare if "yaml" in _name else standard)


@row(APP, "`setup_security()`: signed messages", setup="security", env={"C_FORCE_ROOT": "1"})
def security(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(
    APP,
    "`accept_content` that has neither JSON nor `task_serializer`",
    conf={"accept_content": ["pickle"], "task_serializer": "json"},
    env={"C_FORCE_ROOT": "1"},
    refused="accept_content",
    reason="no worker would take a message of the job",
)
def accept_content(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.quiet(task.s().apply_async())


DELIVERY = {
    "task_acks_late": True,
    "task_reject_on_worker_lost": True,
    "task_acks_on_failure_or_timeout": False,
    "task_acks_on_failure": False,
    "task_acks_on_timeout": False,
    "worker_prefetch_multiplier": 1,
    "worker_deduplicate_successful_tasks": True,
    "worker_max_tasks_per_child": 20,
}


@row(
    APP,
    "`task_acks_late`, `task_reject_on_worker_lost`, `task_acks_on_failure = False`, `task_acks_on_timeout = False`, "
    "`task_acks_on_failure_or_timeout = False`, "
    "`worker_deduplicate_successful_tasks`, `worker_max_tasks_per_child`",
    conf=DELIVERY,
    by_broker=True,
)
def delivery(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(
    APP,
    "`task_time_limit`, `task_soft_time_limit`",
    conf={"task_time_limit": 4, "task_soft_time_limit": 2},
    only="prefork",
    differs={"state": "SUCCESS", "result": "completed"},
    reason="as `Task.time_limit`, `Task.soft_time_limit`",
)
def app_limits(bench: Bench, task: Subject) -> dict[str, Any]:
    return task_limits(bench, task)


@row(APP, "`task_allow_error_cb_on_chord_header`", conf={"task_allow_error_cb_on_chord_header": True})
def error_on_header(bench: Bench, task: Subject) -> dict[str, Any]:
    return chord_header_fails(bench, task)


@row(
    APP,
    "`task_protocol = 1`",
    conf={"task_protocol": 1},
    refused="task_protocol",
    reason="messages of the first protocol cannot carry what follows a task in its chain, as the steps of a job do",
)
def protocol(bench: Bench, task: Subject) -> dict[str, Any]:
    return bench.ended(task.s().apply_async())


WEST = {"timezone": "America/New_York", "enable_utc": False}


for _function, _called in [(countdown, "`countdown=`"), (eta, "`eta=`"), (expires, "`expires=`")]:
    row(
        APP,
        f"`timezone`, `enable_utc = False`: {_called}",
        conf=WEST,
    )(_function)


@row(APP, "a namespace and `config_from_object()`", setup="namespaced")
def namespace(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(APP, "`imports`, `include`, `autodiscover_tasks()`", setup="imports")
def imports(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(
    APP,
    "`broker_transport_options`: `global_keyprefix`, `visibility_timeout`, `queue_order_strategy`, `sep`",
    only="redis",
    conf={
        "broker_transport_options": {
            "global_keyprefix": "shop:",
            "visibility_timeout": 7200,
            "queue_order_strategy": "priority",
            "sep": ":",
        },
        "result_backend_transport_options": {"global_keyprefix": "results:"},
    },
)
def keyprefix(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(APP, "`broker_read_url`, `broker_write_url`", setup="two_urls")
def two_urls(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(APP, "`broker_pool_limit = 0`, `broker_heartbeat = 0`", conf={"broker_pool_limit": 0, "broker_heartbeat": 0})
def no_pool(bench: Bench, task: Subject) -> dict[str, Any]:
    return standard(bench, task)


@row(APP, "`beat_schedule` with `args` and `options`", setup="beat", options=("--beat", "--schedule=beat"))
def beat(bench: Bench, task: Subject) -> dict[str, Any]:
    return {"types": [line["types"] for line in bench.ran(f"beat-{task.name}")][:1]}


def backends(bench: Bench, task: Subject) -> dict[str, Any]:
    token, told = bench.token(), bench.token()
    well = (task.s() | bench.after(token)).apply_async()
    failing = task.s("refusing").apply_async(link_error=bench.app.signature("conformance.told", kwargs={"token": told}))
    try:
        raised: Any = failing.get(timeout=60)
    except Exception as exc:  # noqa: BLE001
        raised = type(exc).__name__
    return {
        "value": well.get(timeout=60),
        "raised": raised,
        "state": failing.state,
        "ran": [line["types"] for line in bench.ran(token)],
        "told": len(bench.ran(told, signal="told")),
    }


for _name, _url, _only in [
    ('`result_backend = "rpc://"`', "rpc://", "rabbitmq"),
    ('`result_backend = "db+sqlite://…"`', "db+sqlite:///FOLDER/results.sqlite", ""),
    ('`result_backend = "file://…"`', "file://FOLDER/results", ""),
]:
    row(APP, _name, backend=_url, only=_only)(backends)


@row(APP, "no `result_backend`", backend="", by_broker=True)
def no_backend(bench: Bench, task: Subject) -> dict[str, Any]:
    token, told = bench.token(), bench.token()
    (task.s() | bench.after(token)).apply_async()
    task.s("refusing").apply_async(link_error=bench.app.signature("conformance.told", kwargs={"token": told}))
    return {"ran": [line["types"] for line in bench.ran(token)], "told": len(bench.ran(told, signal="told"))}


#: What is not in the table, and why.
LEFT_OUT = {
    "`result_*`, `cassandra_*`, `s3_*`, `azureblockblob_*`, `gcs_*`, `couchbase_*`, `arangodb_*`, `mongodb_*`, `cosmosdbsql_*`, "
    "`elasticsearch_*`, `cache_*`, `redis_*`, `database_*` that are not in the table": "of one result back end's inside: no task sees them",
    "`worker_*` that are not in the table": "how a worker is run, for all tasks alike",
    "`broker_*` that are not in the table": "of the connection, for all messages alike; the store's own are in [Running it in production](../howto/operations.md)",
    "`beat_*` other than `beat_schedule`, `control_*`, `event_*`": "of beat, remote control and events, for all tasks alike",
    "`task_remote_tracebacks`, `task_repr_maxlevels`": "how errors and arguments are written",
    "`task_create_missing_queue_type`, `task_create_missing_queue_exchange_type`": "how a queue is declared that no setting knows, for all messages alike",
    "`apply_async(chain=, chord=)`, `retries=` above 0, `replaced_task_nesting=`, `origin=`, `now=`, `timezone=`, `task_type=`": "Celery's own, for what it sends itself",
    "`apply_async(router=, result_cls=)`": "of `send_task` alone",
    "`Task.Strategy`, `Task.Request`": "how a worker holds a message: the steps of a job have their own",
    "`Task.autoretry_for`, `Task.retry_backoff`, `Task.throws`": "of a task's own body; a job's settings are `retry_min`, `retry_max`",
    "`Task.backend`": "a back end of one task's own; `run_batch` wraps the app's",
    "`security_*`": "files of `setup_security()`, which is in the table",
}
