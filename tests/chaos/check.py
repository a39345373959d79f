"""What must hold after a run: the simulator's journal and the store tell the same story, and nothing is left over."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
import redis
from celery import Celery

from claude_batch_tasks import BatchJob
from claude_batch_tasks.pricing import request_bounds
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import BatchRecord
from claude_batch_tasks.results.reader import RequestResult
from claude_batch_tasks.results.stored.messages_outcomes import Kept
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import Journal, PromptRecord
from claude_batch_tasks.store import open_store_at
from tests.chaos.ledgers import Ledger
from tests.chaos.schedule import MODEL, PRICES, Job, Schedule, params

OUTCOMES = ("succeeded", "errored", "expired", "canceled")

#: Outcomes that deserve another chance.
PASSING = ("expired", "overloaded_error", "api_error", "timeout_error", "rate_limit_error")

#: Nano-dollars in a dollar.
NANO = 1_000_000_000


@dataclass
class Evidence:
    """What is left to look at when a run is over."""

    schedule: Schedule
    app: Celery
    ledger: Ledger
    journal: Journal
    #: The job ids that ``run_batch.delay`` returned, by the job's number.
    ids: Mapping[int, str]
    #: All jobs: those of the schedule, and those that pools of asks became.
    jobs: Sequence[Job]
    #: Batches that another application made.
    strangers: set[str]
    #: How often each callback ran, and how often any was published.
    notes: Mapping[str, int]
    notes_published: int
    #: Kills, restarts of Redis: as many moments in which answers of the Messages API may have been lost.
    disturbances: int
    #: Messages calls at most at work at one time.
    concurrency: int
    #: The custom_ids that each job's ``on_result`` was called with, and what their outcomes were then.
    told: Mapping[int, list[tuple[str, ...]]]
    #: Of each ask that was revoked, by its number: whether it will never be sent, as far as its caller was told.
    revoked: Mapping[int, bool | None]
    #: What the tasks that follow asks have heard, by the ask's number, and how many of them were published.
    heard: Mapping[int, list[str]]
    heard_published: int
    #: Filled by the checks.
    counts: Counter[str] = field(default_factory=Counter)


def problems(seen: Evidence) -> list[str]:
    """Everything that should not be so, in words."""
    found = [*_leftovers(seen)]
    prompts = {prompt.text: prompt for prompt in seen.journal.prompts}
    for job in seen.jobs:
        if job.number in seen.ids:
            found += (f"job {job.number} ({seen.ids[job.number]}): {text}" for text in _job(seen, job, prompts))
    found += _payments(seen)
    found += _chances(seen, prompts)
    found += _batches(seen, prompts)
    return found


def state(seen_app: Celery, job_id: str) -> str:
    """Of a job's AsyncResult."""
    return str(seen_app.AsyncResult(job_id).state)


def allowed_states(schedule: Schedule, job: Job) -> set[str]:
    """How a job's AsyncResult may end.

    SUCCESS, since every trouble of these schedules passes, or has the Messages API for a way out. Only where
    creating is refused for good and the fallback is off there is no way, nor for an ask that no create may have.
    """
    if job.may_be_refused or ("refused" in schedule.weather and job.options.get("fallback") == "off"):
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
    # Where a worker of the last release wrote the summary, what failed by type is known from the records alone.
    summary = {**(status.summary or {})}
    if "failures" not in result.result:
        summary.pop("failures", None)
    if dict(result.result) != summary:
        yield f"its result {result.result} is not the ledger's summary {status.summary}"
    rows = list(handle.results())
    wanted = {custom_id: job.prompt(seen.schedule.seed, i) for i, custom_id in enumerate(job.custom_ids)}
    got = Counter(row.custom_id for row in rows)
    if got != Counter(list(wanted)):
        yield f"rows by custom_id: {dict(got)}, of {len(wanted)} requests"
        return
    kept = _kept(seen, job_id)
    yield from _kept_for_a_reason(seen, job, kept, status.stopped)
    for row in rows:
        prompt = prompts.get(wanted[row.custom_id])
        yield from _row(seen, job, row, wanted[row.custom_id], prompt, kept)
    yield from _summed_up(job, rows, result.result)
    yield from _money(seen, job, job_id, result.result)
    if job.told:
        yield from _told(seen, job, rows)
    if job.follow:
        yield from _followed(seen, job)


def _kept_for_a_reason(seen: Evidence, job: Job, kept: dict[str, Kept], stopped: str | None) -> Iterator[str]:
    """Requests whose Messages call changed nothing, or was not made."""
    if stopped is not None and "unpaid" not in seen.schedule.weather:
        yield f"it was stopped: {stopped}"
    lost = {custom_id for custom_id, value in kept.items() if "lost" in value.kept or "billed" in value.kept}
    seen.counts["kept"] += len(lost)
    most = seen.disturbances * seen.concurrency + _unanswered_messages(seen)
    if len(lost) > most:
        yield f"{len(lost)} requests kept their outcome, where {most} answers may have been lost: {kept}"
    for custom_id, value in kept.items():
        if custom_id in lost:
            continue
        why = {
            "no longer covers it": "max_fallback_cost" in job.options or "max_cost" in job.options,
            "does not cover its input": "max_cost" in job.options,
            "refused": bool({"fallback", "lossy", "limited"} & set(seen.schedule.weather)),
            "messages: ": stopped is not None,
        }
        seen.counts["not sent"] += 1
        if not any(words in value.kept and possible for words, possible in why.items()):
            yield f"{custom_id!r} was not sent: {value.kept}"


def _summed_up(job: Job, rows: list[RequestResult], summary: Mapping[str, Any]) -> Iterator[str]:
    """The summary counts what a reader sees, and what it cost."""
    tally, sources = Counter(row.type for row in rows), Counter(row.source for row in rows)
    wanted: dict[str, Any] = {name: tally[name] for name in OUTCOMES}
    wanted |= {"resubmitted": sources["resubmitted"], "fallback": sources["messages"]}
    if {name: summary[name] for name in wanted} != wanted:
        yield f"the summary counts {summary}, the rows {wanted}"
    cost = 0.0
    for what, price in (("input_tokens", PRICES["input_mtok"]), ("output_tokens", PRICES["output_mtok"])):
        used = Counter[bool]()
        for row in rows:
            used[row.source == "messages"] += (row.usage or {}).get(what, 0)
        if summary["usage"][what] != used.total():
            yield f"the summary has {summary['usage'][what]} {what}, the rows {used.total()}"
        cost += (used[True] + used[False] / 2) * price / 1_000_000
    if summary["cost"] is None or abs(summary["cost"] - cost) > 1 / NANO:
        yield f"the summary says that it cost {summary['cost']}, the rows say {cost}"


def _money(seen: Evidence, job: Job, job_id: str, summary: Mapping[str, Any]) -> Iterator[str]:
    """Nothing stays reserved, and no more is spent than what was left and the one thing that may go beyond it."""
    money = seen.ledger.read_money(job_id)
    if left := {name: value for name, value in money.items() if name.endswith("reserved") and value}:
        yield f"still reserved: {left}"
    needs = [
        request_bounds.budget_need(params(job.prompt(seen.schedule.seed, place)), Prices({MODEL: PRICES}), batch=False)
        for place in range(job.requests)
    ]
    message = max(float(need.most) for need in needs if isinstance(need, request_bounds.Need))
    size = min(job.requests, int(job.options.get("max_requests_per_batch", job.requests)))
    for option, pool, more in (
        ("max_fallback_cost", "fallback_", message),
        ("max_cost", "", max(message, size * message / 2)),
    ):
        if (limit := job.options.get(option)) is None:
            continue
        spent = money.get(f"{pool}spent", 0) / NANO
        if spent > limit + more:
            yield f"{spent} of {option} {limit} spent"
        if option == "max_cost" and summary["cost"] > spent + 1 / NANO:
            yield f"it cost {summary['cost']}, and {spent} is written down"


def _told(seen: Evidence, job: Job, rows: list[RequestResult]) -> Iterator[str]:
    """``on_result`` is called with every request once, at least, and what it finds then is how it ends."""
    final = {row.custom_id: f"{row.type} ({row.source})" for row in rows}
    times = Counter(custom_id for custom_id, _ in seen.told[job.number])
    for custom_id, said in seen.told[job.number]:
        if final.get(custom_id) != said:
            yield f"{custom_id!r} was told of as {said}, and is {final.get(custom_id)}"
    if missing := set(final) - set(times):
        if seen.disturbances:
            # Published, and lost between Redis and a worker that was killed: any Celery message may be.
            seen.counts["results not told of"] += len(missing)
        else:
            yield f"not told of: {sorted(missing)}"
    repeated = {custom_id: number for custom_id, number in times.items() if number > 1}
    seen.counts["results told of again"] += len(repeated)
    if repeated and is_calm(seen):
        yield f"told of more than once: {repeated}"


def _row(
    seen: Evidence, job: Job, row: RequestResult, text: str, prompt: PromptRecord | None, kept: dict[str, Kept]
) -> Iterator[str]:
    """One row against what the simulator remembers of its prompt."""
    where = f"{row.custom_id!r} {row.type} ({row.source})"
    error = (row.error or {}).get("type")
    if prompt is None or not prompt.outcomes:
        # Never sent: canceled before, no money for it, or refused at create and its one Messages call did not arrive.
        unsent = (
            job.cancel_at is not None
            or (error == "budget_exceeded" and "max_cost" in job.options)
            or (
                ("refused" in seen.schedule.weather or job.direct or job.hurried)
                and (row.custom_id in kept or (row.note and _may_end(seen, job)))
            )
        )
        if row.type == "succeeded" or not unsent:
            yield f"{where}: the API has never seen its prompt"
        return
    batches = prompt.sent_in_batches
    if row.source == "resubmitted" and batches < 2:
        yield f"{where}: it was sent in {batches} batches"
    # The last batch has the last word, where there is one whose results were fetched.
    outcome = prompt.outcomes[-1 if row.source == "messages" or not batches else batches - 1]
    if row.type == "succeeded":
        if row.text != f"Echo: {text}":
            yield f"{where}: its text is {row.text!r}"
        paid = prompt.paid_messages if row.source == "messages" else prompt.paid_batch
        if (paid, prompt.paid) != (1, 1):
            yield f"{where}: paid {prompt.paid_batch} times in batches, {prompt.paid_messages} times as a message"
        return
    if prompt.paid and row.custom_id not in kept:
        yield f"{where}: its answer was paid for, and is not there"
    answered = error if row.type == "errored" else row.type
    if outcome != answered and not (row.custom_id in kept and answered in (*prompt.outcomes, "not_found_error")):
        yield f"{where}: the API said {outcome}, the row says {answered}"
    if outcome in PASSING and job.options.get("fallback") != "off" and job.cancel_at is None:
        if row.custom_id not in kept and not _may_end(seen, job):
            yield f"{where}: it deserved another chance and got none"
        if row.note is None:
            yield f"{where}: nothing says why it got no other chance"


def _may_end(seen: Evidence, job: Job) -> bool:
    """Whether there may be no money for another chance."""
    return job.limited or "unpaid" in seen.schedule.weather


def _kept(seen: Evidence, job_id: str) -> dict[str, Kept]:
    """Requests whose Messages call changed nothing, by custom_id, and why."""
    store = open_store_at(Settings.of(seen.app).store_url or "")
    kept = {}
    for number, _ in enumerate(store.records.read_batches(job_id)):
        ids = [custom_id for piece in store.payloads.read_custom_ids(job_id, number) for custom_id in piece]
        for place, outcome in store.results.read_outcomes(job_id, number):
            if "kept" in msgspec.json.decode(outcome):
                kept[ids[place]] = msgspec.json.decode(outcome, type=Kept)
    return kept


def _unanswered_messages(seen: Evidence) -> int:
    """Messages calls that the simulator closed without an answer, or that gave up waiting for a slow one."""
    return sum(call.status in (0, 499) for call in seen.journal.calls_to("messages"))


def _followed(seen: Evidence, job: Job) -> Iterator[str]:
    """What follows a job runs at least once: Celery promises no more of callbacks when workers die."""
    times = seen.notes.get(str(job.number), 0)
    if times == 0:
        wanted = sum(bool(other.follow) for other in seen.schedule.jobs)
        if seen.disturbances and seen.notes_published >= wanted:
            # Published, and lost between Redis and a worker that was killed: any Celery message may be.
            seen.counts["callbacks lost"] += 1
        else:
            yield f"its {job.follow} never ran"
    elif times > 1:
        seen.counts["callbacks repeated"] += times - 1
        if is_calm(seen):
            yield f"its {job.follow} ran {times} times"


def is_calm(seen: Evidence) -> bool:
    """Whether no message may have come twice."""
    rough = seen.disturbances or seen.schedule.copies or seen.schedule.has("purge", "stop")
    return not rough and "slow" not in seen.schedule.weather


def _payments(seen: Evidence) -> Iterator[str]:
    for prompt in seen.journal.paid_twice():
        if prompt.text.startswith("stranger"):
            continue
        yield f"paid twice: {prompt.text!r}, {prompt.paid_batch} in batches, {prompt.paid_messages} as messages"


def _chances(seen: Evidence, prompts: dict[str, PromptRecord]) -> Iterator[str]:
    """What was sent again had come to nothing, for a cause that passes; in smaller batches first."""
    for job in seen.jobs:
        for place in range(job.requests):
            prompt = prompts.get(job.prompt(seen.schedule.seed, place))
            if prompt is None:
                continue
            batches, where = prompt.sent_in_batches, f"{prompt.text!r} ({', '.join(prompt.outcomes)})"
            seen.counts["sent in smaller batches"] += max(batches - 1, 0)
            seen.counts["sent as messages"] += bool(prompt.sent_as_messages)
            if batches > 1 + job.retries:
                yield f"{where}: sent in {batches} batches, with retries={job.retries}"
            if any(outcome not in PASSING for outcome in prompt.outcomes[: batches - 1]):
                yield f"{where}: sent in {batches} batches"
            if not prompt.sent_as_messages:
                continue
            if batches and prompt.outcomes[batches - 1] not in (*PASSING, *["canceled"] * job.hurried):
                yield f"{where}: sent as a message after {batches} batches"
            barred = job.options.get("fallback") == "off" or job.options.get("max_fallback_cost") == 0.0
            if barred and not job.direct:
                yield f"{where}: sent as a message, with {job.options}"
            whole = "refused" not in seen.schedule.weather and not {"max_cost", "deadline"} & job.options.keys()
            if whole and not (job.direct or job.hurried) and batches != 1 + job.retries:
                yield f"{where}: sent as a message after {batches} batches, with retries={job.retries}"
        limit = job.options.get("max_fallback_requests")
        texts = {job.prompt(seen.schedule.seed, place) for place in range(job.requests)}
        sent = sum(text in prompts and bool(prompts[text].sent_as_messages) for text in texts)
        if limit is not None and sent > limit:
            yield f"job {job.number}: {sent} requests were sent as messages, of at most {limit}"


def _batches(seen: Evidence, prompts: dict[str, PromptRecord]) -> Iterator[str]:
    """As many batches as the jobs need, each in the ledger under the one job it belongs to."""
    store = open_store_at(Settings.of(seen.app).store_url or "")
    made = {batch.id: batch for batch in seen.journal.batches if batch.id not in seen.strangers}
    entered: dict[str, str] = {}
    needed = 0
    for job in seen.jobs:
        if (job_id := seen.ids.get(job.number)) is None:
            continue
        for number, batch in enumerate(store.records.read_batches(job_id)):
            ids = [round_id for round_id in (*(r.batch_id for r in batch.rounds), batch.batch_id) if round_id]
            for batch_id in ids:
                if batch_id in entered:
                    yield f"batch {batch_id} belongs to two: {entered[batch_id]} and {job_id}/{number}"
                entered[batch_id] = f"{job_id}/{number}"
            places = range(batch.first, batch.first + batch.count)
            texts = [job.prompt(seen.schedule.seed, place) for place in places]
            needed += max(prompts[text].sent_in_batches if text in prompts else 0 for text in texts)
            if set(ids) <= made.keys():
                found = _one_after_another(job, batch, [made[batch_id] for batch_id in ids])
                yield from (f"{job_id}/{number}: {text}" for text in found)
    if orphans := made.keys() - set(entered):
        yield f"created, and in no ledger entry: {sorted(orphans)}"
    if unknown := set(entered) - made.keys():
        yield f"in the ledger, and not the jobs' own: {sorted(unknown)}"
    if len(made) != needed:
        yield f"{len(made)} batches were created, {needed} were needed"
    for batch_id, owner in entered.items():
        holder = store.batch_ids.find_owner(batch_id)
        if holder is None or f"{holder.job_id}/{holder.batch}" != owner:
            yield f"batch {batch_id} of {owner} is entered as {holder}'s"


def _one_after_another(job: Job, batch: BatchRecord, made: list[Any]) -> Iterator[str]:
    """Each smaller batch is made of what was left of the one before, when that had ended."""
    if "deadline" in job.options and len(made) > 1:
        yield f"{len(made)} batches, where the second would come too late"
    for past, first, second in zip(batch.rounds, made, made[1:], strict=False):
        if second.requests != past.sent:
            yield f"{second.requests} requests in {second.id}, {past.sent} of {first.id} were to be sent again"
        if second.created_at < first.ended_at:
            yield f"{second.id} was created before {first.id} had ended"


def _leftovers(seen: Evidence) -> Iterator[str]:
    """Leases, staged requests, rows of given-up downloads, keys that never expire."""
    submitted = {seen.ids[job.number] for job in seen.schedule.jobs if job.number in seen.ids}
    yield from seen.ledger.find_leftovers(submitted, disturbed=bool(seen.disturbances))


def unfinished(client: redis.Redis, ledger: Ledger) -> dict[str, int]:
    """What is still to be done in the broker and in the schedule of the store."""
    sizes = ledger.count_unfinished()
    for key in client.scan_iter("*", count=1000):
        name = key.decode()
        if name.startswith(("claude_batch:", "celery-task-meta", "_kombu", "unacked_mutex")):
            continue
        if name.endswith(".pidbox"):
            continue  # of a worker that is no more
        if name == "unacked":
            sizes[name] = int(client.hlen(key))  # type: ignore[arg-type]
        elif name == "unacked_index":
            sizes[name] = int(client.zcard(key))  # type: ignore[arg-type]
        elif client.type(key) == b"list":
            sizes[name] = int(client.llen(key))  # type: ignore[arg-type]
    return {name: size for name, size in sizes.items() if size}


def as_text(value: Any) -> str:
    """One line for a report."""
    return json.dumps(msgspec.to_builtins(value), ensure_ascii=False)
