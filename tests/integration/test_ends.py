"""A job begins and ends as a plain task does: once, under its id, whatever follows it."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from celery import chain, chord, group
from celery.canvas import StampingVisitor

from claude_batch_tasks import BatchJob, errors, run_batch
from claude_batch_tasks.cli.job_texts import format_status
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Outcome, Simulator
from tests.integration.rig import HEARD, RAN, requests
from tests.support import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.workers, pytest.mark.timeout(100)]

NAME = "claude_batch_tasks."


@pytest.fixture
def project(environment: dict[str, str], tmp_path: Path, simulator: Simulator) -> Iterator[Callable[..., Worker]]:
    """``project("-c", "4", conf={...}, NAME="value")``: a worker of the project in ``ending``."""
    with ExitStack() as stack:

        def start(*options: str, conf: dict[str, Any] | None = None, **env: str) -> Worker:
            env = {**environment, "ANTHROPIC_BASE_URL": simulator.url, "ENDING_CONF": json.dumps(conf or {}), **env}
            number = len(list(tmp_path.glob("ending-*")))
            worker = Worker(
                env,
                tmp_path / f"ending-{number}.log",
                app="tests.integration.ending",
                options=options or ("--concurrency=2",),
            )
            return stack.enter_context(worker)

        yield start


def heard(app: Any, task_id: str, *names: str) -> list[tuple[str, str, str]]:
    """The signals about a task, as they came: name, task, state or exception."""
    entries = map(json.loads, app.backend.client.lrange(HEARD, 0, -1))
    return [(name, task, more) for name, task, about, _, _, more in entries if about == task_id and name in names]


BEGINS = [("prerun", NAME + "run_batch", ""), ("postrun", NAME + "run_batch", "IGNORED")]


def ends(state: str) -> list[tuple[str, str, str]]:
    """What is heard of the end of a job."""
    return [("prerun", NAME + "run_batch", ""), ("postrun", NAME + "run_batch", state)]


@pytest.mark.parametrize(
    "options", [("--concurrency=4",), ("--pool=threads", "--concurrency=8")], ids=["prefork", "threads"]
)
@pytest.mark.parametrize("way", ["succeeds", "another chance", "fails", "canceled"])
def test_one_task_at_a_time_has_the_jobs_id(
    options: tuple[str, ...], way: str, app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    """What handlers of signals keep by a task's id is that of one task: a job runs under its id when it ends."""
    outcomes = (Outcome("expired", prompt="1 of", attempts=1), Outcome("expired", prompt="2 of"))
    simulator.behave(
        cancel_seconds=1,
        processing_seconds=600 if way in ("fails", "canceled") else 1,
        outcomes=outcomes if way == "another chance" else (),
    )
    project(*options)
    jobs = [f"job{n}" for n in range(2)]
    more = {"max_wait": 3} if way == "fails" else {}
    results: list[Any] = [run_batch.delay(requests(job, 16), max_requests_per_batch=2, **more) for job in jobs]
    if way == "canceled":
        for result in results:
            wait_until(lambda result=result: BatchJob(result.id, app).status().batches[0].batch_id)
            BatchJob(result.id, app).cancel()
    for result in results:
        result.get(timeout=180, propagate=False)
    state = "FAILURE" if way == "fails" else "SUCCESS"
    for result in results:
        wait_until(lambda result=result: heard(app, result.id, "postrun"))
    assert [heard(app, result.id, "prerun", "postrun") for result in results] == 2 * [ends(state)]
    assert [heard(app, f"{result.id}-begin", "prerun", "postrun") for result in results] == 2 * [BEGINS]
    if way == "fails":
        simulator.behave(processing_seconds=0.5)
        simulator.end()
        for result in results:
            BatchJob(result.id, app).resume(max_wait=600).get(timeout=180)
            wait_until(lambda result=result: len(heard(app, result.id, "postrun")) == 2)
            assert heard(app, result.id, "prerun", "postrun")[2:] == ends("SUCCESS")


def test_the_one_message_that_ends_a_job_is_sent_again_when_it_is_lost(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=0.5)
    conf = {"task_routes": {NAME + "finish_job": "last"}}
    broker = app.backend.client
    project("-Q", "celery", conf=conf, CLAUDE_BATCH_RECOVER_AFTER="2")
    result = run_batch.delay(requests("job", 16), max_requests_per_batch=2)
    wait_until(lambda: broker.llen("last"))
    wait_until(lambda: all(batch.state == "done" for batch in BatchJob(result.id, app).status().batches))
    assert broker.llen("last") == 1
    broker.delete("last")
    wait_until(lambda: broker.llen("last"))
    project("-Q", "last", conf=conf)
    assert result.get(timeout=180)["succeeded"] == 16


#: What follows a task and cannot be sent, by what is wrong with it; of a plain task and of a job.
FOLLOWING: dict[str, Callable[[Any, Any], Any]] = {
    "next, an argument is missing": lambda app, job: chain(job, app.signature("ending.add")),
    "next, unknown queue": lambda app, job: chain(job, app.signature("ending.follow").set(queue="nowhere")),
    "group, unknown queue": lambda app, job: chain(
        job, group(app.signature("ending.follow"), app.signature("ending.follow").set(queue="nowhere"))
    ),
    "link, an argument is missing": lambda app, job: job.set(link=app.signature("ending.add")),
    "link, unknown queue": lambda app, job: job.set(link=app.signature("ending.follow").set(queue="nowhere")),
    "one of two links": lambda app, job: job.set(
        link=[app.signature("ending.follow"), app.signature("ending.follow").set(queue="nowhere")]
    ),
    "body of a chord": lambda app, job: chord([job], app.signature("ending.add")),
    "job as next": lambda app, job: chain(job, run_batch.s(requests("job", 1))),
}


def all_ends(result: Any) -> list[tuple[str, str, str]]:
    """The state and error of a result, and of those it comes after, with what is said first of all."""
    found = []
    while result is not None:
        for each in getattr(result, "results", None) or [result]:
            error = each.result if isinstance(each.result, Exception) else None
            found.append((each.state, type(error).__name__, str(error).partition(". ")[0].strip("\"'")))
        result = result.parent
    return found


def test_what_cannot_be_sent_after_a_job_is_a_failure_as_after_a_plain_task(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=0.2)
    worker = project(conf={"task_create_missing_queues": False})
    plain: dict[str, Any] = {
        what: follow(app, app.signature("ending.plain")).apply_async() for what, follow in FOLLOWING.items()
    }
    ours: dict[str, Any] = {
        what: follow(app, run_batch.s(requests("job", 2))).apply_async() for what, follow in FOLLOWING.items()
    }
    for what in FOLLOWING:
        wait_until(lambda what=what: "FAILURE" in [state for state, *_ in all_ends(ours[what])], 120)
    wait_until(lambda: [*map(all_ends, ours.values())] == [*map(all_ends, plain.values())], 10)
    firsts = {}
    for what, first in ours.items():
        while first.parent is not None:
            first = first.parent
        firsts[what] = BatchJob(getattr(first, "results", [first])[0].id, app)
    preruns = [len(heard(app, job.job_id, "prerun")) for job in firsts.values()]
    log = worker.log.read_text().splitlines()
    for what, job in firsts.items():
        status = job.status()
        assert (status.state, status.error) == ("completed", None)
        assert len(list(job.results())) == 2
        if what == "body of a chord":  # Celery tells its caller of it by itself
            continue
        said = [line for line in log if "ERROR" in line and job.job_id in line]
        assert len(said) == 1
        assert f"Job {job.job_id} is completed, and its results are stored for 7 days" in said[0]
        assert "were not sent" in (status.not_sent or "")
        assert [event.event for event in job.history()].count("not_sent") == 1
        assert heard(app, job.job_id, "success", "failure")[0][0] == "failure"
    time.sleep(3)
    assert [len(heard(app, job.job_id, "prerun")) for job in firsts.values()] == preruns == [1] * len(firsts)


def test_what_is_linked_to_a_failure_and_cannot_be_sent(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=600)
    worker = project(conf={"task_create_missing_queues": False})
    errback = app.signature("ending.told").set(queue="nowhere")
    plain = app.signature("ending.failing").apply_async(link_error=errback)
    ours = run_batch.apply_async((requests("job", 2),), {"max_wait": 0.5}, link_error=errback)
    wait_until(lambda: plain.state == ours.state == "FAILURE", 120)
    assert isinstance(ours.result, errors.WaitExceeded)
    time.sleep(8)
    assert len(heard(app, ours.id, "prerun")) == 1
    assert f"job {ours.id}: tasks linked to its failure were not sent" in worker.log.read_text()


@pytest.mark.parametrize("outage", ["OperationalError", "OSError", "RuntimeError"])
def test_what_follows_waits_for_a_broker_that_is_away(
    outage: str, app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    """The last is of a client that is not known here."""
    simulator.behave(processing_seconds=0.2)
    project(ENDING_OUTAGE=f"{outage}::3")
    result = chain(run_batch.s(requests("job", 2)), app.signature("ending.last")).apply_async()
    assert result.get(timeout=180) == "last"
    assert BatchJob(result.parent.id, app).status().not_sent is None
    wait_until(lambda: result.parent.state == "SUCCESS", 10)


def test_what_is_neither_the_brokers_fault_nor_the_messages_is_given_up(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=0.2)
    project(ENDING_OUTAGE="RuntimeError::1000", CLAUDE_BATCH_MAX_STEP_FAILURES="3")
    result = chain(run_batch.s(requests("job", 2)), app.signature("ending.last")).apply_async()
    wait_until(lambda: result.state == "FAILURE", 120)
    assert isinstance(result.result, RuntimeError)
    assert BatchJob(result.parent.id, app).status().state == "completed"


def test_a_steps_message_that_cannot_be_made_is_said_once_and_sent_when_it_can_be(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=1)
    conf = {"task_create_missing_queues": False}
    routes = {"task_routes": {NAME + "poll_batch": "nowhere"}}
    worker = project(conf={**conf, **routes})
    result = run_batch.delay(requests("job", 2))
    job = BatchJob(result.id, app)
    told = wait_until(lambda: job.status().not_sent, 30)
    assert "QueueNotFound" in told
    assert "nowhere" in told
    time.sleep(5)
    said = [line for line in worker.log.read_text().splitlines() if "ERROR" in line and result.id in line]
    assert len(said) == 1
    assert [event.event for event in job.history()].count("not_sent") == 1
    worker.stop()
    project(conf=conf)
    assert result.get(timeout=90)["succeeded"] == 2
    assert job.status().not_sent is None


def test_on_result_that_cannot_be_called_is_said_once_and_the_job_ends(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    """Its task is not known where the job was submitted, so that nobody could say so there."""
    simulator.behave(processing_seconds=0.2)
    worker = project()
    result = run_batch.delay(
        requests("job", 8), max_requests_per_batch=2, on_result=app.signature("ending.narrow", args=("own",))
    )
    assert result.get(timeout=180)["succeeded"] == 8
    job = BatchJob(result.id, app)
    assert "takes 1 positional argument" in (job.status().on_result_error or "")
    assert [event.event for event in job.history()].count("not_sent") == 1
    said = [line for line in worker.log.read_text().splitlines() if "ERROR" in line and result.id in line]
    assert len(said) == 1
    shown = "\n".join(line.text for line in format_status(job.status(), job.history()))
    assert "on_result" in shown
    assert "takes 1 positional argument" in shown


def test_calls_of_on_result_with_long_ids_are_no_larger_than_brokers_take(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=0.2)
    project()
    names = [f"{number:04} ".ljust(512, "é") for number in range(1200)]
    params = requests("job", 1)["job 0"]
    on_result = app.signature("ending.save", args=("own",)).set(queue="answers")
    result = run_batch.apply_async(
        (dict.fromkeys(names, params),), {"on_result": on_result}, headers={"tenant": "t" * 10_000}
    )
    assert result.get(timeout=90)["succeeded"] == len(names)
    messages = [json.loads(each) for each in app.backend.client.lrange("answers", 0, -1)]
    assert max(len(base64.b64encode(json.dumps(message).encode())) for message in messages) <= 262_144
    bodies = [json.loads(base64.b64decode(message["body"])) for message in messages]
    assert sorted(name for (_, ids, _), *_ in bodies for name in ids) == names
    assert BatchJob(result.id, app).status().on_result_error is None


def ran(app: Any) -> list[dict[str, Any]]:
    """The messages of the tasks that ran."""
    return [json.loads(each) for each in app.backend.client.lrange(RAN, 0, -1)]


def test_a_job_that_is_late_does_not_begin(app: Any, project: Callable[..., Worker]) -> None:
    """Neither does one whose message was lost, and is sent again; one that has begun in time goes on."""
    moment = datetime.now(timezone.utc) + timedelta(seconds=1)
    ways: dict[str, dict[str, Any]] = {
        "seconds": {"expires": 1},
        "datetime": {"expires": moment},
        "text": {"expires": moment.isoformat()},
        "naive": {"expires": moment.replace(tzinfo=None)},
        "countdown": {"expires": 3, "countdown": 6},
    }
    lost: list[Any] = [run_batch.apply_async((requests("job", 1),), **way) for way in ways.values()]
    app.backend.client.delete("celery")
    plain: list[Any] = [app.signature("ending.plain").apply_async(**way) for way in ways.values()]
    ours: list[Any] = [run_batch.apply_async((requests("job", 1),), **way) for way in ways.values()]
    time.sleep(1.5)
    project(CLAUDE_BATCH_RECOVER_AFTER="1")
    for result in [*plain, *ours, *lost]:
        wait_until(lambda result=result: result.state == "REVOKED", 40)
    assert [BatchJob(result.id, app).status().state for result in ours] == ["revoked"] * len(ours)
    assert [each["task"] for each in ran(app)] == []


def test_expires_limits_the_beginning_alone(app: Any, simulator: Simulator, project: Callable[..., Worker]) -> None:
    simulator.behave(processing_seconds=6)
    project()
    result = run_batch.apply_async((requests("job", 1),), expires=4)
    assert result.get(timeout=180)["succeeded"] == 1


@pytest.mark.parametrize("wrong", ["soon", timedelta(seconds=5), True])
def test_what_is_no_time_to_expire_at_is_refused(wrong: Any, app: Any) -> None:
    with pytest.raises(errors.InvalidSettings, match="expires"):
        run_batch.apply_async((requests("job", 1),), expires=wrong)


#: Options of ``apply_async``, which mean for a job what they mean for every task.
OPTIONS: dict[str, dict[str, Any]] = {
    "stamps": {"stamped_headers": ["tenant"], "tenant": "brewery"},
    "shadow": {"shadow": "shadowed"},
    "ignore_result": {"ignore_result": True},
    "root": {"root_id": "root", "parent_id": "parent"},
    "argsrepr": {"argsrepr": "(mine)", "kwargsrepr": "{mine}"},
    "pickle": {"serializer": "pickle"},
    "yaml": {"serializer": "yaml", "link": None},  # which cannot carry Celery's signatures
    "msgpack": {"serializer": "msgpack"},
    "compression": {"compression": "zlib"},
    "retry": {"retry": False},
    "retry_policy": {"retry_policy": {"max_retries": 1}},
    "reply_to": {"reply_to": "elsewhere"},
    "add_to_parent": {"add_to_parent": False},
    "nesting": {"replaced_task_nesting": 1},
}

#: What is told of a task's message and its result, and is to be the same.
TOLD = ("shadow", "root", "parent", "stamps", "stamped")


def test_options_of_apply_async_mean_what_they_mean_for_a_plain_task(
    app: Any, simulator: Simulator, project: Callable[..., Worker]
) -> None:
    simulator.behave(processing_seconds=0.2)
    conf = {"accept_content": ["json", "pickle", "yaml", "msgpack"], "result_extended": True}
    app.conf.accept_content = conf["accept_content"]
    worker = project("--concurrency=3", conf=conf, C_FORCE_ROOT="1")
    link = app.signature("ending.follow")
    on_result = app.signature("ending.save")
    options = {name: {"link": link, **way} for name, way in OPTIONS.items()}
    plain: dict[str, Any] = {name: app.signature("ending.plain").apply_async(**way) for name, way in options.items()}
    ours: dict[str, Any] = {
        name: run_batch.apply_async((requests("SECRET", 2),), {"on_result": on_result}, **way)
        for name, way in options.items()
    }
    ways = {
        "visitor": lambda job: stamped(chain(job.set(link=link), link), Stamps()),
        "own stamps": lambda job: stamped(job.set(link=link), mine="x"),
    }
    for name, way in ways.items():
        plain[name] = way(app.signature("ending.plain")).apply_async()
        ours[name] = way(run_batch.s(requests("SECRET", 2), on_result=on_result)).apply_async()
    for name, result in ours.items():
        first = result.parent if name == "visitor" else result
        wait_until(lambda first=first: BatchJob(first.id, app).status().state == "completed", 120)
    wait_until(lambda: len([each for each in ran(app) if each["task"] == "ending.follow"]) == 2 * len(ours), 90)
    messages = ran(app)
    for name in plain:
        pair = []
        for results in (plain, ours):
            result = results[name]
            if name != "ignore_result":
                wait_until(lambda result=result: result.state == "SUCCESS", 20)
            task_id = (result.parent if name == "visitor" else result).id
            own = [each for each in messages if each["id"] == task_id]
            linked = [each for each in messages if each["task"] == "ending.follow" and each["parent"] == task_id]
            meta = app.backend.get_task_meta(task_id)
            told = {
                about: value
                for about in TOLD
                if (value := own[-1][about]) and value not in (task_id, NAME + "run_batch")
            }
            if name not in ("root",):
                told.pop("parent", None)
            kept = [meta["status"], len(meta.get("children") or []), meta.get("stamped_headers")]
            pair.append((told, kept, [(each["stamps"], each["root"] == own[0]["root"]) for each in linked]))
            assert meta.get("name") in (None, "ending.plain", NAME + "run_batch")
        assert pair[0] == pair[1], name
    stamps = [each["stamps"] for each in messages if each["task"] == "ending.save" and each["stamps"]]
    assert sorted(map(str, stamps)) == ["{'mine': 'x'}", "{'tenant': 'brewery'}", "{'visit': 'stamp'}"]
    assert "SECRET" not in str(
        [each["argsrepr"] + each["kwargsrepr"] for each in messages if "save" not in each["task"]]
    )
    assert "prompt 1 of SECRET" not in worker.log.read_text()


class Stamps(StampingVisitor):  # type: ignore[misc]
    """Stamps each task of a canvas."""

    def on_signature(self, sig: Any, **headers: Any) -> dict[str, Any]:
        """Return the stamp."""
        return {"visit": "stamp", "stamped_headers": ["visit"]}


def stamped(signature: Any, *visitor: Any, **stamps: Any) -> Any:
    """Return a signature with stamps on it."""
    signature.stamp(*visitor, **stamps)
    return signature


def test_a_task_may_be_replaced_by_a_job(app: Any, simulator: Simulator, project: Callable[..., Worker]) -> None:
    simulator.behave(processing_seconds=0.2)
    project()
    follow = app.signature("ending.follow")
    for ours in (False, True):
        replaced = app.signature("ending.replacing", args=(ours,))
        result = replaced.clone().apply_async(link=follow)
        then = chain(replaced.clone(), follow).apply_async()
        assert result.get(timeout=180)["state"] == "completed"
        assert then.get(timeout=180) == "followed"
        linked = wait_until(
            lambda result=result: [e for e in ran(app) if e["parent"] == result.id and "follow" in e["task"]]
        )
        assert len(linked) == 1
