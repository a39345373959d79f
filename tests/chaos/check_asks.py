"""What must hold of asks after a run. The jobs that their pools became are checked as all others are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal

import msgspec
from celery import Celery

from claude_batch_tasks import BatchJob
from claude_batch_tasks.errors import JobNotFound, RequestFailed, RequestNotFound
from claude_batch_tasks.pool_records import AskPlace
from claude_batch_tasks.results.reader import RequestResult
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.simulator import PromptRecord
from claude_batch_tasks.store import Store, open_store_at
from tests.chaos.asks import ASK, POISONOUS, Asked
from tests.chaos.check import NANO, Evidence, is_calm
from tests.chaos.schedule import MODEL, PRICES, Job, Schedule

#: What the back end says of an ask, by what the store says.
_STATES = {"succeeded": "SUCCESS", "failed": "FAILURE", "revoked": "REVOKED"}

#: Numbers of the jobs of pools begin here.
_FIRST = 1000

#: Seconds in the window of a cost limit.
_WINDOW = 86_400.0


@dataclass(frozen=True)
class PoolJob(Job):
    """The job that a pool became."""

    seed: int = 0
    asks: tuple[Asked, ...] = ()
    """Those that are in it, in the order of its requests."""

    @property
    def custom_ids(self) -> list[str]:
        return [each.id(self.seed) for each in self.asks]

    def prompt(self, seed: int, index: int) -> str:
        return self.asks[index].prompt(seed)

    @property
    def may_be_refused(self) -> bool:
        return len(self.asks) == 1 and self.asks[0].poisonous


def find_pool_jobs(app: Celery, schedule: Schedule) -> dict[str, PoolJob]:
    """Return the jobs that asks are in, by their ids."""
    store, members = _open_store(app), dict[str, list[tuple[int, Asked]]]()
    for each, place in zip(schedule.asks, _read_places(store, schedule), strict=True):
        if place is not None and place.state != "revoked":
            members.setdefault(place.job_id, []).append((place.position, each))
    found = {}
    for job_id, placed in members.items():
        if (job := store.jobs.read_job(job_id)) is not None:
            asks = tuple(each for _, each in sorted(placed, key=lambda one: one[0]))
            found[job_id] = PoolJob(
                _FIRST + len(found),
                len(asks),
                0.0,
                job.options,
                direct=job.direct,
                hurried=job.answer_by is not None,
                seed=schedule.seed,
                asks=asks,
            )
    return found


def problems(seen: Evidence) -> list[str]:
    """Everything about asks that should not be so, in words."""
    store, seed, found = _open_store(seen.app), seen.schedule.seed, list[str]()
    prompts = {prompt.text: prompt for prompt in seen.journal.prompts}
    spent: dict[str, int] = {}
    for each, place in zip(seen.schedule.asks, _read_places(store, seen.schedule), strict=True):
        name = f"ask {each.number} ({each.id(seed)})"
        if place is None:
            found.append(f"{name}: the store does not know it")
            continue
        row = _read_row(seen, each, place)
        found += (f"{name}: {text}" for text in _ask(seen, each, place, row, prompts.get(each.prompt(seed))))
        if "ask_max_cost" in each.options:
            attempts = row.attempts if row is not None else ()
            cost = round(sum(attempt.cost or 0.0 for attempt in attempts) * NANO)
            spent[each.options["pool"]] = spent.get(each.options["pool"], 0) + cost
    for pool, cost in spent.items():
        if (reserved := store.asks.read_cost(pool, _WINDOW)) != cost:
            found.append(f"{reserved} nano-dollars are reserved for the asks of {pool!r}, which have cost {cost}")
    found += (f"pool {job_id} waits: {pool}" for job_id, pool in store.pools.list_pools())
    found += _invoice(seen)
    return found


def _open_store(app: Celery) -> Store:
    return open_store_at(Settings.of(app).store_url or "")


def _read_places(store: Store, schedule: Schedule) -> list[AskPlace | None]:
    return store.asks.read_places([each.id(schedule.seed) for each in schedule.asks])


def _read_row(seen: Evidence, each: Asked, place: AskPlace) -> RequestResult | None:
    try:
        return BatchJob(place.job_id, seen.app).result(each.id(seen.schedule.seed))
    except (RequestNotFound, JobNotFound):
        return None


def _ask(
    seen: Evidence, each: Asked, place: AskPlace, row: RequestResult | None, prompt: PromptRecord | None
) -> Iterator[str]:
    """One ask against its row, and what the simulator remembers of its prompt."""
    ask_id, text = each.id(seen.schedule.seed), each.prompt(seen.schedule.seed)
    result = seen.app.tasks[ASK].AsyncResult(ask_id)
    state, told = _STATES.get(place.state, "PENDING"), str(seen.app.AsyncResult(ask_id).state)
    seen.counts[f"asks {state}"] += 1
    if told != state and not (state == "REVOKED" and seen.disturbances):  # there its AsyncResult asks the store
        yield f"its result is {told}, the store has {place.state}"
    if result.state != state:
        yield f"its AsyncResult is {result.state}, the store has {place.state}"
    revoked = seen.revoked.get(each.number)
    if state == "REVOKED":
        if "expires" not in each.sending and (each.revoke_at is None or revoked is False):
            yield "nobody has revoked it"
        if prompt is not None:
            yield f"it was sent: {prompt.outcomes}"
    elif revoked:
        yield f"it was revoked, and is {state}"
    elif state == "SUCCESS":
        if (got := result.get(timeout=10).text) != f"Echo: {text}":
            yield f"its text is {got!r}"
        if prompt is None or prompt.paid != 1:
            yield f"it was paid {prompt.paid if prompt else 0} times"
    else:
        yield from _failed(seen, each, result.result, row, prompt)
    yield from _followed(seen, each, {"SUCCESS": f"Echo: {text}", "FAILURE": "(failed)"}.get(state))


def _failed(
    seen: Evidence, each: Asked, error: object, row: RequestResult | None, prompt: PromptRecord | None
) -> Iterator[str]:
    if not isinstance(error, RequestFailed):
        yield f"it ended with {error!r}"
    if row is not None:
        if row.type == "succeeded":
            yield "it has failed, and its answer is there"
        return  # compared with what the simulator remembers where its job is
    if prompt is not None and prompt.paid:
        yield "its answer was paid for, and its job has failed"
    refused = "refused" in seen.schedule.weather and each.options.get("fallback") == "off"
    if not refused and not (each.poisonous and POISONOUS in str(error)):
        yield f"it should not fail: {error}"


def _followed(seen: Evidence, each: Asked, wanted: str | None) -> Iterator[str]:
    """What follows an ask runs as after any task: at least once, and with its answer."""
    if not each.follow:
        return
    heard = seen.heard.get(each.number, [])
    if wrong := set(heard) - {wanted}:
        yield f"its {each.follow} got {wrong}, not {wanted!r}"
    if wanted is not None and not heard:
        followed = sum(bool(one.follow) and seen.revoked.get(one.number) is None for one in seen.schedule.asks)
        if seen.disturbances and seen.heard_published >= followed:
            seen.counts["callbacks lost"] += 1
        else:
            yield f"its {each.follow} never ran"
    if len(heard) > 1:
        seen.counts["callbacks repeated"] += len(heard) - 1
        if is_calm(seen):
            yield f"its {each.follow} ran {len(heard)} times"


def _invoice(seen: Evidence) -> Iterator[str]:
    """The jobs have cost what is charged, where all that was charged is theirs and is known to them."""
    if seen.strangers or seen.counts["kept"] or "refused" in seen.schedule.weather:
        return
    charged = seen.journal.invoice.cost({MODEL: (PRICES["input_mtok"], PRICES["output_mtok"])})
    summaries = [BatchJob(job_id, seen.app).status().summary or {} for job_id in seen.ids.values()]
    summed = sum((Decimal(str(summary.get("cost") or 0)) for summary in summaries), Decimal())
    if abs(charged - summed) > Decimal(len(summaries)) / NANO:
        costs = msgspec.json.encode([summary.get("cost") for summary in summaries]).decode()
        yield f"{charged} dollars are charged, the jobs have cost {summed}: {costs}"
