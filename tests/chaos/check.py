"""What must hold after a run: the simulator's journal and the store tell the same story, and nothing is left over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis
from celery import Celery

from claude_batch_tasks import BatchJob
from claude_batch_tasks.job import RequestResult
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Journal, PromptRecord
from claude_batch_tasks.store import open_store
from tests.chaos.schedule import Job, Schedule

OUTCOMES = ("succeeded", "errored", "expired", "canceled")


@dataclass
class Evidence:
    """What is left to look at when a run is over."""

    schedule: Schedule
    app: Celery
    redis: redis.Redis
    journal: Journal
    #: The job ids that ``run_batch.delay`` returned, by the job's number.
    ids: Mapping[int, str]
    #: Batches that another application made.
    strangers: set[str]
    #: How often each callback ran, and how often any was published.
    notes: Mapping[str, int]
    notes_published: int
    #: Kills, restarts of Redis: as many moments in which answers of the Messages API may have been lost.
    disturbances: int
    #: Messages calls at most at work at one time.
    concurrency: int
    #: Filled by the checks.
    counts: Counter[str] = field(default_factory=Counter)


def problems(seen: Evidence) -> list[str]:
    """Everything that should not be so, in words."""
    found = [*_leftovers(seen)]
    prompts = {prompt.text: prompt for prompt in seen.journal.prompts}
    for job in seen.schedule.jobs:
        if job.number in seen.ids:
            found += (f"job {job.number} ({seen.ids[job.number]}): {text}" for text in _job(seen, job, prompts))
    found += _payments(seen)
    found += _batches(seen, prompts)
    return found


def state(seen_app: Celery, job_id: str) -> str:
    """Of a job's AsyncResult."""
    return str(seen_app.AsyncResult(job_id).state)


def allowed_states(schedule: Schedule, job: Job) -> set[str]:
    """How a job's AsyncResult may end.

    SUCCESS, since every trouble of these schedules passes, or has the Messages API for a way out. Only where
    creating is refused for good and the fallback is off there is no way.
    """
    if "refused" in schedule.weather and job.options.get("fallback") == "off":
        # A create whose answer was lost may have been stored all the same.
        return {"FAILURE", "SUCCESS"}
    return {"SUCCESS"}


def _job(seen: Evidence, job: Job, prompts: dict[str, PromptRecord]) -> Iterator[str]:
    job_id = seen.ids[job.number]
    result = seen.app.AsyncResult(job_id)
    if result.state not in allowed_states(seen.schedule, job):
        yield f"its AsyncResult is {result.state}: {result.result!r}"
        return
    handle = BatchJob(job_id, seen.app)
    status = handle.status()
    if status.state != ("failed" if result.state == "FAILURE" else status.summary and status.summary["state"]):
        yield f"the AsyncResult is {result.state}, the ledger says {status.state}"
    if result.state == "FAILURE":
        return
    if dict(result.result) != status.summary:
        yield f"its result {result.result} is not the ledger's summary {status.summary}"
    rows = list(handle.results())
    wanted = {custom_id: job.prompt(seen.schedule.seed, i) for i, custom_id in enumerate(job.custom_ids)}
    got = Counter(row.custom_id for row in rows)
    if got != Counter(list(wanted)):
        yield f"rows by custom_id: {dict(got)}, of {len(wanted)} requests"
        return
    kept = _kept(seen, job_id)
    seen.counts["kept"] += len(kept)
    lost = seen.disturbances * seen.concurrency + _unanswered_messages(seen)
    if len(kept) > lost:
        yield f"{len(kept)} requests kept their outcome, where {lost} answers may have been lost: {kept}"
    for row in rows:
        prompt = prompts.get(wanted[row.custom_id])
        yield from _row(seen, job, row, wanted[row.custom_id], prompt, kept)
    tally = Counter(row.type for row in rows)
    if {name: result.result[name] for name in OUTCOMES} != {name: tally[name] for name in OUTCOMES}:
        yield f"the summary counts {result.result}, the rows {dict(tally)}"
    if job.follow:
        yield from _followed(seen, job)


def _row(
    seen: Evidence, job: Job, row: RequestResult, text: str, prompt: PromptRecord | None, kept: dict[str, str]
) -> Iterator[str]:
    """One row against what the simulator remembers of its prompt."""
    where = f"{row.custom_id!r} {row.type} ({row.source})"
    if prompt is None or not prompt.outcomes:
        # Never sent: canceled before, or refused at create and its one Messages call did not arrive.
        unsent = job.cancel_at is not None or ("refused" in seen.schedule.weather and row.custom_id in kept)
        if row.type == "succeeded" or not unsent:
            yield f"{where}: the API has never seen its prompt"
        return
    outcome = prompt.outcomes[0 if row.source == "batch" and prompt.sent_in_batches else -1]
    if row.type == "succeeded":
        if row.text != f"Echo: {text}":
            yield f"{where}: its text is {row.text!r}"
        paid = prompt.paid_batch if row.source == "batch" else prompt.paid_messages
        if (paid, prompt.paid) != (1, 1):
            yield f"{where}: paid {prompt.paid_batch} times in batches, {prompt.paid_messages} times as a message"
        return
    if prompt.paid and row.custom_id not in kept:
        yield f"{where}: its answer was paid for, and is not there"
    error = (row.error or {}).get("type")
    answered = error if row.type == "errored" else row.type
    if outcome != answered and not (row.custom_id in kept and answered in (*prompt.outcomes, "not_found_error")):
        yield f"{where}: the API said {outcome}, the row says {answered}"
    passing = outcome in ("expired", "overloaded_error", "api_error", "timeout_error", "rate_limit_error")
    if passing and row.custom_id not in kept and job.options.get("fallback") != "off" and job.cancel_at is None:
        yield f"{where}: it deserved another chance and got none"


def _kept(seen: Evidence, job_id: str) -> dict[str, str]:
    """Requests whose Messages call changed nothing, by custom_id, with the note why."""
    store = open_store(Settings.of(seen.app).store_url or "")
    kept = {}
    for number, _ in enumerate(store.batches(job_id)):
        ids = [custom_id for piece in store.custom_ids(job_id, number) for custom_id in piece]
        for place, outcome in store.outcomes(job_id, number):
            value = msgspec.json.decode(outcome)
            if "kept" in value and "canceled" not in value["kept"]:
                kept[ids[place]] = str(value["kept"])
    return kept


def _unanswered_messages(seen: Evidence) -> int:
    """Messages calls that the simulator closed without an answer, or that gave up waiting for a slow one."""
    return sum(call.status in (0, 499) for call in seen.journal.calls_to("messages"))


def _followed(seen: Evidence, job: Job) -> Iterator[str]:
    """What follows a job runs at least once: Celery promises no more of callbacks when workers die."""
    times = seen.notes.get(str(job.number), 0)
    calm = not seen.disturbances and not seen.schedule.copies and not seen.schedule.has("purge", "stop")
    if times == 0:
        wanted = sum(bool(other.follow) for other in seen.schedule.jobs)
        if seen.disturbances and seen.notes_published >= wanted:
            # Published, and lost between Redis and a worker that was killed: any Celery message may be.
            seen.counts["callbacks lost"] += 1
        else:
            yield f"its {job.follow} never ran"
    elif times > 1:
        seen.counts["callbacks repeated"] += times - 1
        if calm and "slow" not in seen.schedule.weather:
            yield f"its {job.follow} ran {times} times"


def _payments(seen: Evidence) -> Iterator[str]:
    for prompt in seen.journal.paid_twice():
        if prompt.text.startswith("stranger"):
            continue
        yield f"paid twice: {prompt.text!r}, {prompt.paid_batch} in batches, {prompt.paid_messages} as messages"
    for prompt in seen.journal.prompts:
        if prompt.sent_in_batches > 1 and not prompt.text.startswith("stranger"):
            yield f"sent in {prompt.sent_in_batches} batches: {prompt.text!r}"


def _batches(seen: Evidence, prompts: dict[str, PromptRecord]) -> Iterator[str]:
    """As many batches as the jobs need, each in the ledger under the one job it belongs to."""
    store = open_store(Settings.of(seen.app).store_url or "")
    made = {batch.id for batch in seen.journal.batches} - seen.strangers
    entered: dict[str, str] = {}
    needed = 0
    for job in seen.schedule.jobs:
        if (job_id := seen.ids.get(job.number)) is None:
            continue
        for number, batch in enumerate(store.batches(job_id)):
            if batch.batch_id is not None:
                if batch.batch_id in entered:
                    yield f"batch {batch.batch_id} belongs to two: {entered[batch.batch_id]} and {job_id}/{number}"
                entered[batch.batch_id] = f"{job_id}/{number}"
            places = range(batch.first, batch.first + batch.count)
            texts = [job.prompt(seen.schedule.seed, place) for place in places]
            needed += any(text in prompts and prompts[text].sent_in_batches for text in texts)
    if orphans := made - set(entered):
        yield f"created, and in no ledger entry: {sorted(orphans)}"
    if unknown := set(entered) - made:
        yield f"in the ledger, and not the jobs' own: {sorted(unknown)}"
    if len(made) != needed:
        yield f"{len(made)} batches were created, {needed} were needed"
    for batch_id, owner in entered.items():
        holder = store.holder(batch_id)
        if holder is None or f"{holder.job_id}/{holder.batch}" != owner:
            yield f"batch {batch_id} of {owner} is entered as {holder}'s"


def _leftovers(seen: Evidence) -> Iterator[str]:
    """Leases, staged requests, rows of given-up downloads, keys that never expire."""
    for key in sorted(seen.redis.scan_iter("claude_batch:*", count=1000)):
        name = key.decode()
        if name == "claude_batch:held":
            continue  # of all jobs
        if seen.redis.pttl(key) < 0:
            yield f"{name} never expires"
        if ":staging:" in name:
            yield f"{name} is left over"
        if ":rows:" in name:
            published = seen.redis.hget(name.partition(":rows:")[0], "published")
            if published is None or json.loads(published) != int(name.rpartition(":")[2]):
                yield f"{name} is left over; published: {published!r}"
        if seen.redis.type(key) == b"hash" and not name.endswith(":outcomes"):
            fields = [name.decode() for name in seen.redis.hkeys(key)]
            if leases := [field for field in fields if field.rpartition(":")[2] in ("owner", "until")]:
                yield f"{name} still has a lease: {leases}"
            done = seen.redis.hget(key, "done")
            if done is not None and json.loads(done) is not True:
                yield f"{name} is not done"


def unfinished(client: redis.Redis) -> dict[str, int]:
    """What is still to be done in the broker and in the index of what waits for messages."""
    sizes = {}
    for key in client.scan_iter("*", count=1000):
        name = key.decode()
        lasting = ("claude_batch:{", "claude_batch:owner", "claude_batch:account", "claude_batch:held")
        if name.startswith((*lasting, "celery-task-meta", "_kombu", "unacked_mutex")) and not name.endswith(":flights"):
            continue
        kind = client.type(key)
        if name == "unacked" or name.endswith(":flights"):
            sizes[name] = int(client.hlen(key))  # type: ignore[arg-type]
        elif name in ("unacked_index", "claude_batch:due", "claude_batch:waiting"):
            sizes[name] = int(client.zcard(key))  # type: ignore[arg-type]
        elif kind == b"list":
            sizes[name] = int(client.llen(key))  # type: ignore[arg-type]
    return {name: size for name, size in sizes.items() if size}


def as_text(value: Any) -> str:
    """One line for a report."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
