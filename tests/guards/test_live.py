"""What this release writes is as 0.2.0 wrote it: keys, fields, messages, positions. Either goes on with the other's."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

import pytest

from tests.guards import live, redis_keys, surface
from tests.guards.live import Live, Message
from tests.guards.task_table import DONE, ENDED, NAME, POSITIONS, SECOND_TURN, STEPS, STRIDE
from tests.upgrades.monitor import WRITES, touched

pytestmark = pytest.mark.workers

#: What these jobs read only: what was staged and is put into its place, and what they do not come to.
READ_ONLY = {
    "claude_batch:held / ACCOUNT:list",
    "claude_batch:held / ACCOUNT:messages:MODEL",
    "claude_batch:held / ACCOUNT:no-batches",
    "claude_batch:{JOB}:batch:None",
    "claude_batch:{JOB}:batch:BATCH:body",
    "claude_batch:{JOB}:batch:BATCH:ids",
    "claude_batch:{JOB}:batch:BATCH:sizes",
    "claude_batch:{JOB}:history:last",
    "claude_batch:{JOB}:index",
    "claude_batch:{JOB}:index / PART",
    "claude_batch:{JOB}:job / forgotten",
    "claude_batch:{JOB}:job / lease:step_failure",
    "claude_batch:{JOB}:job / lease:step_failures",
}


#: What only ``claude-batch copy-store`` writes, and only those read that meet it.
COPIED = {"claude_batch:moved"}


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Live:
    return live.run(tmp_path_factory.mktemp("live"))


def values(commands: list[list[str]]) -> Iterator[tuple[str, str | None, str]]:
    """Each value that was written: into a field, or under a key."""
    for command, *args in commands:
        if command == "HSET":
            yield from ((args[0], name, value) for name, value in zip(args[1::2], args[2::2], strict=True))
        elif command == "RPUSH" or command == "LPUSH":
            yield from ((args[0], None, value) for value in args[1:])
        elif command == "SET":
            yield args[0], None, args[1]


def test_keys_and_fields(ran: Live) -> None:
    seen = redis_keys.see(touched(ran.commands, "claude_batch:"))
    assert seen.strange == []
    assert redis_keys.entries(later=True) - seen.entries - COPIED == set(), "of the table, and not found"


def test_keys_and_fields_are_written(ran: Live) -> None:
    written = redis_keys.see(touched((each for each in ran.commands if each[0] in WRITES), "claude_batch:"))
    assert redis_keys.entries(later=True) - written.entries - READ_ONLY - COPIED == set()


def test_values_have_their_forms(ran: Live) -> None:
    written = [*values(ran.commands)]
    assert len(written) > 1000
    assert list(redis_keys.strange_values(written)) == []


def test_the_versions_of_the_store(ran: Live) -> None:
    written = [args[-2:] for command, *args in ran.commands if command == "ZADD" and args[0] == "claude_batch:schema"]
    assert sorted(written) == [["1", "least"], ["2", "version"]]


def positions(ran: Live, job: str, key: str, field: str) -> list[int]:
    """The positions that were written for a unit of a job, in their order, without those that repeat the last."""
    name = f"claude_batch:{{{ran.jobs[job]}}}:{key}"
    found = [int(value) for at, each, value in values(ran.commands) if (at, each) == (name, field)]
    return [value for number, value in enumerate(found) if value not in found[max(number - 1, 0) : number]]


def test_positions_of_a_batch(ran: Live) -> None:
    begun = [position // STRIDE * STRIDE for position in positions(ran, "again", "batch:0", "position")]
    assert list(dict.fromkeys(begun)) == [*POSITIONS.values(), *SECOND_TURN.values(), DONE]


def test_positions_of_a_sender_and_of_a_job(ran: Live) -> None:
    lane = positions(ran, "by message", "batch:0:lanes", "0:position")
    assert lane == [*range(len(lane) - 1), DONE]
    assert positions(ran, "again", "job", "lease:position") == [0, ENDED]


def sent(ran: Live, job: str, name: str) -> list[Message]:
    """The messages of a task of ours for a job, in their order."""
    id = ran.jobs[job]
    return [each for each in ran.messages() if each.task == NAME + name and id in (*each.args, each.id)]


def test_the_message_of_a_job(ran: Live) -> None:
    id = ran.jobs["again"]
    messages = sent(ran, "again", "run_batch")  # it was sent again while no worker was there
    assert messages
    for begins in messages:
        assert (begins.queue, begins.id, begins.args, begins.kwargs) == ("celery", id, [], {"job_id": id})


def test_the_chain_of_a_batch(ran: Live) -> None:
    id = ran.jobs["again"]
    first, *_ = sent(ran, "again", "create_batch")
    assert (first.args, first.kwargs) == ([id, 0, 0, 0], {})
    *steps, end = reversed(first.chain)
    assert [(step["task"], step["args"], step["kwargs"]) for step in steps] == [
        (NAME + name, [id, 0, 0, 0], {}) for name in STEPS[1:]
    ]
    assert (end["task"], end["args"], end["options"]["task_id"]) == (NAME + "finish_job", [id], id)
    assert end["options"]["shadow"] == NAME + "run_batch"
    assert all(step["immutable"] for step in first.chain)


def test_the_numbers_in_messages(ran: Live) -> None:
    id = ran.jobs["again"]
    turns = {each.args[2] for each in sent(ran, "again", "create_batch")}
    assert turns == {0, 1}
    polls = [each.args for each in sent(ran, "again", "poll_batch")]
    assert all(args[:2] == [id, 0] and len(args) == 4 for args in polls)
    numbers = {args[3] for args in polls if args[2] == 0}
    assert numbers == set(range(len(numbers))) > {0}
    lanes = [each.args for each in sent(ran, "by message", "send_messages")]
    assert {tuple(args[:2]) for args in lanes} == {(ran.jobs["by message"], 0)}
    assert {args[2] for args in lanes} == {0, 1}
    # It is sent again where the call has to be: the batch is too new to be known everywhere.
    assert {tuple(each.args) for each in sent(ran, "canceled", "cancel_batch")} == {(ran.jobs["canceled"], 0)}
    assert {tuple(each.args) for each in sent(ran, "again", "finish_job")} == {(id,)}


def test_headers_of_messages(ran: Live) -> None:
    ours = {name for each in ran.messages() for name in each.headers if name.startswith("claude_batch")}
    assert ours == {"claude_batch_countdown", "claude_batch_delivery"}


def test_ids_of_requests_at_anthropic(ran: Live) -> None:
    sent = {re.sub("[0-9a-f]{16}", "NONCE", id) for id in ran.custom_ids if len(id) > 1}
    assert {"cbt-NONCE-0", "cbt-NONCE-1", "cbt-NONCE-1-0", "cbt-NONCE-1-1"} <= sent
    assert all(re.fullmatch(r"cbt-NONCE(-1)?-\d+", id) for id in sent)


def test_what_a_worker_tells_of_itself(ran: Live) -> None:
    [told] = ran.told.values()
    assert told.keys() >= {"version", "versions", "now", "store", "sees", "settings", "clients"}
    assert told["settings"].keys() == surface.written()["settings"].keys() - {"store_url", "client_factories"}


#: What ``result.get()`` returns.
SUMMARY = {
    *("job_id", "state", "requests", "succeeded", "errored", "expired", "canceled"),
    *("resubmitted", "fallback", "fallback_skipped", "limited", "failures", "stopped", "batch_ids", "usage"),
    *("incomplete", "repairs"),
    *("cost", "cost_by_model", "cost_unknown", "started_at", "ended_at"),
}

#: What is shown under a job's id while it runs.
PROGRESS = {
    *("state", "requests", "processing", "succeeded", "errored", "expired", "canceled"),
    *("batches", "batches_done", "batch_ids", "polls", "polls_404", "next_poll_at"),
    *("looks", "not_found", "next_look", "incomplete", "repairs"),
}


def test_summaries_and_progress(ran: Live) -> None:
    assert ran.summary.keys() == SUMMARY
    assert ran.summary["usage"].keys() >= {"input_tokens", "output_tokens"}
    key = f"celery-task-meta-{ran.jobs['again']}"
    stored = [json.loads(args[2]) for command, *args in ran.commands if command == "SETEX" and args[0] == key]
    assert {frozenset(meta["result"]) for meta in stored if meta["status"] == "PROGRESS"} == {frozenset(PROGRESS)}
    assert stored[-1]["status"] == "SUCCESS"
    assert any(command == "PUBLISH" and args[0].endswith("task.progress") for command, *args in ran.commands)


def test_events(ran: Live) -> None:
    assert len(ran.events) > 10
    assert ran.events <= surface.written()["history events"].keys()
