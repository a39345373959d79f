"""The submission of a job's requests: into the store, before anything is sent."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from typing import Any, Protocol

from celery import Celery

from claude_batch_tasks import outputs
from claude_batch_tasks.errors import (
    BatchTasksError,
    InvalidRequests,
    InvalidSettings,
    StoreUnavailable,
)
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle import delivery, resubmission
from claude_batch_tasks.pricing import request_bounds
from claude_batch_tasks.pricing.prices import Prices
from claude_batch_tasks.records import DEFAULTS, BatchRecord, JobRecord, Unit
from claude_batch_tasks.settings import Settings, check_label, check_metadata
from claude_batch_tasks.store import HasJobs, HasPayloads, ReadableStore, history, open_store
from claude_batch_tasks.wire import batch_requests


class _Stageable(HasJobs, HasPayloads, Protocol):
    """What it takes to stage the requests of a job."""


class Staging:
    """The requests of a job that does not exist yet, in the store.

    Args:
        settings: those of the job.
        job_id: the id that the job is to have.
        output: the type of its answers, which its requests are made to ask for, as ``describe_output`` describes it.
    """

    def __init__(
        self, store: _Stageable, settings: Settings, job_id: str, output: Mapping[str, Any] | None = None
    ) -> None:
        self._store, self._settings, self._job_id = store, settings, job_id
        self._prepare = outputs.make_preparation(output, settings.refusal_model or ())
        self.nonce = secrets.token_hex(8)
        #: The batches into which the requests were divided.
        self.batches: list[BatchRecord] = []
        self._models: set[str] = set()

    @property
    def total(self) -> int:
        """The number of requests."""
        return sum(batch.count for batch in self.batches)

    @property
    def models(self) -> int:
        """The number of models that they are for."""
        return len(self._models)

    @property
    def model(self) -> str | None:
        """The model that they are for; None: they are for several."""
        return next(iter(self._models)) if len(self._models) == 1 else None

    def stage_requests(self, requests: batch_requests.Requests) -> None:
        """Check the requests and put them into the store.

        Raises:
            InvalidRequests: the text says what is wrong with them.
            StoreUnavailable: the store does not answer.
        """
        settings, index = self._settings, batch_requests.Index()
        unknown: Counter[str] = Counter()
        pieces = batch_requests.cut_batches(
            requests,
            nonce=self.nonce,
            index=index,
            max_requests=settings.max_requests_per_batch,
            max_bytes=settings.max_bytes_per_batch,
            models=self._models,
            prepare=self._prepare,
        )
        prices = None if settings.max_cost is None else settings.price_list
        self._store.payloads.stage_requests(
            self._job_id, self.nonce, _record_batches(pieces, self.batches, prices, unknown)
        )
        if settings.max_cost is not None:
            _check_cost(self.batches, settings.max_cost, request_bounds.describe_unknown(unknown))
        self._store.payloads.stage_index(self._job_id, self.nonce, index.list_parts())

    def discard_requests(self) -> None:
        """Remove the requests; those that the store does not remove now expire."""
        with suppress(StoreUnavailable):
            self._store.payloads.discard_staged(self._job_id, self.nonce, len(self.batches))

    def find_job(self) -> JobRecord | None:
        """Return the job that was made of the requests; None: it was not made."""
        made = self._store.jobs.read_job(self._job_id)
        return made if made is not None and made.nonce == self.nonce else None


def submit_job(
    app: Celery,
    job_id: str,
    requests: batch_requests.Requests,
    options: Mapping[str, Any],
    *,
    canvas: str = "{}",
    queue: str | None = None,
    route: str | None = None,
    headers: str | None = None,
    delay: float = 0,
    expires_at: float | None = None,
    pool: str | None = None,
    answer_by: float | None = None,
    direct: bool = False,
) -> JobRecord:
    """Store a job's requests; nothing is sent yet.

    After any error nothing is left behind, unless the job is that of a pool: then it may be there.

    Args:
        job_id: the task id of its ``run_batch``.
        options: the job's own settings, and ``client``, the alias of the account, ``label``, ``metadata``, ``output``
            and ``check``.
        canvas: what follows it in the caller's Celery canvas, as ``message_chain.encode_canvas`` encodes it.
        queue: the name of the queue for its messages.
        route: the full route of its messages, as ``routing.encode_route`` encodes it.
        headers: the headers of its messages beside Celery's own, as ``message_headers.encode_headers`` encodes them.
        delay: seconds until the job is to start.
        expires_at: when it is too late for it to start, epoch seconds.
        pool: the name of the pool of asks that it is made of.
        answer_by: when its answers are wanted, epoch seconds.
        direct: whether its requests go through the Messages API at once.

    Raises:
        InvalidRequests, InvalidSettings: the text says what is wrong with them.
        BatchTasksError: there is already a job with that id.
        StoreUnavailable: the store does not answer.
    """
    options = dict(options)
    alias = options.pop("client", "default")
    label, metadata = check_label(options.pop("label", None)), options.pop("metadata", None)
    metadata = check_metadata(metadata)
    output = outputs.describe_output(options.pop("output", None), options.pop("check", None))
    called = options.pop("on_result", None)
    on_result = delivery.encode_hook(called)
    delivery.check_hook(app, called)
    settings = Settings.of(app)
    if options.get("deadline") is not None:
        options["deadline"] = seconds_until(options["deadline"], lambda: open_store(settings).now())
    settings = settings.override(options)
    settings.check_client(alias)
    check_reask(output, options)
    store = open_store(settings)
    staging = Staging(store, settings, job_id, output)
    try:
        staging.stage_requests(requests)
        if "refusal_model" in options:
            check_refusal_model(settings, staging.model)
        job = JobRecord(
            nonce=staging.nonce,
            requests=staging.total,
            batches=len(staging.batches),
            models=staging.models,
            model=staging.model,
            client=alias,
            queue=queue,
            route=route,
            headers=headers,
            options=options,
            canvas=canvas,
            on_result=on_result,
            submitted_at=store.now(),
            expires_at=expires_at,
            defaults=DEFAULTS,
            label=label,
            metadata=metadata,
            output=output,
            pool=pool,
            answer_by=answer_by,
            direct=direct,
        )
        if not store.jobs.create_job(job_id, job, staging.batches, settings.result_ttl + delay):
            raise BatchTasksError(
                f"there is already a job {job_id}; a task id belongs to one job. This call stored and sent nothing"
            )
    except BaseException:
        staging.discard_requests()
        with suppress(StoreUnavailable):
            # Only the answer was lost. The job of a pool stays: what is stored of its asks would go with it.
            if pool is None and staging.find_job() is not None:
                store.storage.delete_job(job_id)
        raise
    total, batches = staging.total, len(staging.batches)
    details = {"requests": total, "batches": batches, "client": alias, "queue": queue, "label": label}
    history.note(
        store,
        Unit(job_id),
        "submitted",
        f"submitted: {format_count(total, 'request')} in {format_count(batches, 'batch')}",
        job=job,
        **details,
        metadata=metadata or None,
    )
    return job


def check_reask(output: Mapping[str, Any] | None, options: Mapping[str, Any]) -> None:
    """Refuse to ask again for answers whose type is not known.

    Args:
        output: the type of the job's answers.

    Raises:
        InvalidSettings: the options have ``reask``, and the job has no such type.
    """
    if output is None and options.get("reask"):
        raise InvalidSettings(
            "run_batch option reask needs output=, the type that answers must fit. Nothing was stored or sent"
        )


def check_refusal_model(settings: Settings, model: str | None) -> None:
    """Refuse to send refused requests to the model that refused them.

    A setting for all jobs may name the model of some of them.

    Raises:
        InvalidSettings: that is what the job's own option says.
    """
    if model is not None and (named := settings.find_refusal_model(model)) is not None:
        raise InvalidSettings(
            f"run_batch option refusal_model names {named}, the model of all requests of the job, which would refuse "
            "them again: name another one. Nothing was stored or sent"
        )


def _record_batches(
    pieces: Iterable[batch_requests.Piece], batches: list[BatchRecord], prices: Prices | None, unknown: Counter[str]
) -> Iterator[batch_requests.Piece]:
    """Yield the chunks while recording the batches that they form, with the budget that these need at the prices.

    Args:
        unknown: collects the parts whose size is not known.
    """
    for piece in pieces:
        if piece.batch == len(batches):
            first = batches[-1].first + batches[-1].count if batches else 0
            batches.append(BatchRecord(first=first, count=0, body_bytes=sum(map(len, batch_requests.ENVELOPE)) - 1))
        batch = batches[-1]
        if prices is not None:
            found = request_bounds.batch_need(batch_requests.params_of(piece.body), prices)
            if not isinstance(found, request_bounds.BatchNeed):
                number, (field, why) = found
                index, custom_id = batch.first + batch.count + number, piece.custom_ids[number]
                raise InvalidRequests(
                    f"max_cost cannot be guaranteed: {why}, or leave max_cost out (requests[{index}].{field}, "
                    f"custom_id {custom_id!r}). Nothing was stored or sent",
                    [[index, custom_id, field, why]],
                )
            batch.least, batch.most = (batch.least or 0) + found.input, (batch.most or 0) + found.most
            unknown.update(found.unknown)
        batch.count += len(piece.custom_ids)
        batch.body_bytes += len(piece.body) + 1
        yield piece


def _check_cost(batches: list[BatchRecord], max_cost: float, unknown: str) -> None:
    """Refuse a job whose input alone may cost more than its limit.

    Args:
        unknown: the parts whose size is not known.
    """
    least, most = (sum(getattr(batch, name) or 0 for batch in batches) / 1e9 for name in ("least", "most"))
    if least <= max_cost:
        return
    text = f"the input alone costs about ${least:,.4g}, more than max_cost (${max_cost:,.4g})"
    if unknown:
        text = (
            f"the input alone may cost ${least:,.4g}, more than max_cost (${max_cost:,.4g}): {unknown}, and each "
            "counts as much as fits into the model's context window. Send text in place of them, or raise max_cost"
        )
    raise InvalidRequests(f"{text}; up to ${most:,.4g} with the longest answers. Nothing was stored or sent")


def seconds_until(deadline: Any, now: Callable[[], float]) -> Any:
    """Convert a deadline that is a moment into the seconds that are left; return other values unchanged.

    Raises:
        InvalidSettings: the deadline has no time zone.
    """
    if isinstance(deadline, str):
        with suppress(ValueError):
            deadline = datetime.fromisoformat(deadline.replace("Z", "+00:00"))
    if isinstance(deadline, timedelta):
        return deadline.total_seconds()
    if not isinstance(deadline, datetime):
        return deadline
    if deadline.tzinfo is None:
        raise InvalidSettings(f"run_batch option deadline must have a time zone, not {deadline!r}")
    return max(deadline.timestamp() - now(), 0.0)


def read_body(store: ReadableStore, job_id: str, job: JobRecord, batch: int, record: BatchRecord) -> Iterator[bytes]:
    """Yield the body of a batch's create in chunks; its length is in the batch's record."""
    pieces = (
        resubmission.read_chunks(store, job_id, job, batch, record)
        if record.rounds
        else store.payloads.read_bodies(job_id, batch)
    )
    yield batch_requests.ENVELOPE[0]
    for number, piece in enumerate(pieces):
        if number:
            yield b","
        yield piece
    yield batch_requests.ENVELOPE[1]
