"""What accepts and judges the rows of a batch when they are downloaded, for the first time or again."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress

from claude_batch_tasks import rules
from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.lifecycle.resubmission.positions import nonce_of_round, positions_carried, positions_in_batch
from claude_batch_tasks.lifecycle.resubmission.sent_requests import find_sendings, read_params
from claude_batch_tasks.records import BatchRecord, JobRecord, RepairOptions
from claude_batch_tasks.results.stored.messages_outcomes import open_answers
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import HasPayloads, ReadableStore
from claude_batch_tasks.wire import repairs
from claude_batch_tasks.wire.completeness import AdoptedCompleteness, Completeness
from claude_batch_tasks.wire.judgement import Judgement
from claude_batch_tasks.wire.stored_rows import Origin

#: The most bytes of a batch's body beside the params of a request: its wire id, and what is around them.
_FRAME = 100


def find_options(job: JobRecord, settings: Settings) -> RepairOptions | None:
    """Return what a job allows to be sent again in batches; None: its requests are not known."""
    if job.adopted:
        return None
    return RepairOptions(
        retries=settings.retries,
        refusal_models=list(settings.refusal_model or ()),
        max_tokens_limit=settings.max_tokens_limit,
        continue_paused=settings.continue_paused,
        reask=settings.reask,
        long_output=any(beta.startswith(rules.LONG_OUTPUT) for beta in settings.betas),
        max_bytes=settings.max_bytes_per_batch,
    )


def expect_rows(
    store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord, settings: Settings
) -> Completeness:
    """Return what accepts the rows of the batch that is at Anthropic."""
    return _expect(store, job_id, job, batch, record, settings, find_options(job, settings))


def expect_rows_again(
    store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord, settings: Settings, round_: int
) -> Completeness:
    """Return what accepts the rows of a round that were downloaded before: it judges them as it did then."""
    rounds = record.rounds
    past = rounds[round_] if round_ < len(rounds) else record
    then = BatchRecord(first=record.first, count=record.count, body_bytes=0, rounds=rounds[:round_])
    then.batch_id, then.created_at = past.batch_id, past.created_at
    then.cut_short = record.cut_short and past is record  # no batch follows one that was cut short
    return _expect(store, job_id, job, batch, then, settings, None if past.again is None else past.again.options)


def _expect(
    store: ReadableStore,
    job_id: str,
    job: JobRecord,
    batch: int,
    record: BatchRecord,
    settings: Settings,
    options: RepairOptions | None,
) -> Completeness:
    prices, at = settings.price_list, record.created_at
    places = positions_in_batch(store, job_id, batch, record) if record.rounds else None
    sendings = find_sendings(store, job_id, job, batch, record, places, prices) if places is not None else None
    answers = open_answers(job)
    judgement = Judgement(
        options,
        None if answers is None else answers.find_problem,
        round_=len(record.rounds),
        cut_short=record.cut_short,
        sendings=sendings,
        origin=Origin(record.batch_id, prices, at),
    )
    judgement.notice = None if answers is None else answers.notice
    if places is not None:
        judgement.eligible.extend(positions_carried(store, job_id, batch, record, places))
        past = record.rounds[-1]
        judgement.open.update(+(Counter(past.open) - Counter(past.sent_outcomes)))
    accepts = AdoptedCompleteness if job.adopted else Completeness
    nonce = nonce_of_round(job, record)
    return accepts(nonce, record.first, record.count, places=places, prices=prices, at=at, judgement=judgement)


def complete_choice(store: HasPayloads, job_id: str, batch: int, record: BatchRecord, seen: Completeness) -> None:
    """Choose what is in the next batch where that depends on params: cut answers, and how much fits into it."""
    again = seen.judged.sent_again
    if again is None:
        return
    with suppress(ResultsMissing):  # of requests that are gone, the cut answers stay
        _resend_cut(store, job_id, batch, seen.judged, again.options)
    with suppress(ResultsMissing):  # the batch cannot be created anyway
        _fit_batch(store, job_id, batch, record, seen.judged, again.options.max_bytes)


def _resend_cut(store: HasPayloads, job_id: str, batch: int, judged: Judgement, options: RepairOptions) -> None:
    """Have those cut answers' requests sent again for which there are more tokens."""
    order = _order_places(judged.cut)
    sent = read_params(store, job_id, batch, array("I", (judged.cut[number] for number in order))) if order else ()
    for params, number in zip(sent, order, strict=False):
        times, moved = judged.count_cuts(number)
        model = options.refusal_models[moved - 1] if 0 < moved <= len(options.refusal_models) else None
        if repairs.can_raise_tokens(params, model, times, options):
            judged.resend_cut(number)


def _fit_batch(
    store: HasPayloads, job_id: str, batch: int, record: BatchRecord, judged: Judgement, limit: int | None
) -> None:
    """Leave repairs out of the next batch that would make it too large; what is not repaired always fits."""
    again, growths = judged.again, judged.growths
    grown = sum(growths)
    if not grown or limit is None or record.body_bytes + len(again) * _FRAME + grown <= limit:
        return
    order, sizes = _order_places(again), array("Q", bytes(8 * len(again)))
    sent = read_params(store, job_id, batch, array("I", (again[number] for number in order)))
    for params, number in zip(sent, order, strict=True):
        sizes[number] = _FRAME + len(params) + growths[number]
    room = limit - sum(size for size, growth in zip(sizes, growths, strict=True) if not growth)
    left = bytearray(len(again))
    for number in order:
        if growths[number]:
            left[number] = sizes[number] > room
            room -= 0 if left[number] else sizes[number]
    judged.leave_out(left)


def _order_places(places: array[int]) -> array[int]:
    """Return the indexes of positions in their order; this needs four bytes for each request up to the last one."""
    numbers = array("I", bytes(4 * (max(places, default=-1) + 1)))
    for number, place in enumerate(places, 1):
        numbers[place] = number
    return array("I", (number - 1 for number in numbers if number))


def stored_index(seen: Completeness) -> Iterator[tuple[int, bytes]]:
    """Yield the parts of the index of the custom_ids of a batch that was created elsewhere; none of another."""
    if isinstance(seen, AdoptedCompleteness):
        yield from seen.index.list_parts()
