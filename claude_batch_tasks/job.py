"""What applications hold: BatchJob, JobStatus, RequestResult; and the handing over of a job's requests."""

from __future__ import annotations

import secrets
import time
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import datetime, timezone
from typing import Any, Literal

import msgspec
from celery import Celery

from claude_batch_tasks import line
from claude_batch_tasks import requests as wire
from claude_batch_tasks import results as rows
from claude_batch_tasks.errors import BatchTasksError, InvalidSettings, JobNotFound, RequestNotFound, StoreUnavailable
from claude_batch_tasks.settings import Settings, configured_app
from claude_batch_tasks.store import BatchRecord, JobRecord, JobState, Store, open_store

_ENDED = ("completed", "canceled", "failed", "revoked")


class RequestResult(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one request."""

    custom_id: str
    """The id you gave it."""
    type: Literal["succeeded", "errored", "expired", "canceled"]
    source: Literal["batch", "resubmitted", "messages"]
    """Where the outcome comes from: the batch, a smaller one after it, or the Messages API."""
    message: dict[str, Any] | None = None
    """Anthropic's message, as its API spells it; only if it succeeded."""
    error: dict[str, Any] | None = None
    """``{"type", "message"}`` and, where known, ``"request_id"``; only if it errored."""

    @property
    def usage(self) -> dict[str, Any] | None:
        """The message's token counts."""
        return (self.message or {}).get("usage")

    @property
    def text(self) -> str:
        """The message's text blocks, joined; empty if there is no message."""
        blocks = (self.message or {}).get("content")
        texts = [
            block.get("text")
            for block in (blocks if isinstance(blocks, list) else ())
            if isinstance(block, dict) and block.get("type") == "text"
        ]
        return "".join(text for text in texts if isinstance(text, str))


class BatchStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One batch of a job, as last seen."""

    batch_id: str | None
    state: str
    requests: int
    looks: int
    not_found: int
    next_look: datetime | None
    error: str | None


class JobStatus(msgspec.Struct, frozen=True, kw_only=True):
    """How far a job is. The outcome counts stay zero until a whole batch has ended: so Anthropic counts."""

    job_id: str
    state: JobState
    requests: int
    processing: int
    succeeded: int
    errored: int
    expired: int
    canceled: int
    batches: tuple[BatchStatus, ...]
    looks: int
    not_found: int
    """404s the API gave for this job's batches so far."""
    next_look: datetime | None
    submitted_at: datetime
    started_at: datetime | None
    ended_at: datetime | None
    error: str | None
    summary: dict[str, Any] | None
    """What ``result.get()`` returns, once the job has ended."""

    @property
    def done(self) -> int:
        """Requests that have an outcome."""
        return self.requests - self.processing


class BatchJob:
    """A job in the store, by the id that ``run_batch.delay()`` returned. Needs no worker and no API key.

    Args:
        job_id: the id of the AsyncResult.
        app: the Celery app whose settings say where the store is; default: the current one.

    Every method raises ``JobNotFound`` if the store has no such job, ``StoreUnavailable`` if it does not answer.
    """

    def __init__(self, job_id: str, app: Celery | None = None) -> None:
        self.job_id = job_id
        self._app = app or configured_app()
        url = Settings.of(self._app).store_url
        assert url is not None
        self._store = open_store(url)

    def __repr__(self) -> str:
        return f"BatchJob({self.job_id!r})"

    def status(self) -> JobStatus:
        """How far the job is, from the store alone."""
        job = self._job()
        batches = self._store.batches(self.job_id)
        counts = tally(batches)
        ended = job.state in _ENDED
        return JobStatus(
            job_id=self.job_id,
            state=job.state,
            requests=job.requests,
            processing=0 if ended else max(job.requests - sum(counts.values()), 0),
            **{name: counts[name] for name in rows.OUTCOMES},
            batches=tuple(
                BatchStatus(
                    batch_id=batch.batch_id,
                    state="done" if batch.done and batch.state == "fetched" else batch.state,
                    requests=batch.count,
                    looks=batch.looks,
                    not_found=batch.not_found,
                    next_look=None if batch.done else _moment(batch.due_at),
                    error=str(batch.error[1][0]) if batch.error else None,
                )
                for batch in batches
            ),
            looks=sum(batch.looks for batch in batches),
            not_found=sum(batch.not_found for batch in batches),
            next_look=_moment(next_look(batches)),
            submitted_at=datetime.fromtimestamp(job.submitted_at, timezone.utc),
            started_at=_moment(job.started_at),
            ended_at=_moment(job.ended_at),
            error=job.error,
            summary=job.summary,
        )

    def results(self) -> Iterator[RequestResult]:
        """Each request's outcome, in constant memory, in the order in which they were stored.

        While the job runs: of the batches that are finished. Safe to call at any time and from anywhere.
        """
        job = self._job()
        for number, batch in enumerate(self._store.batches(self.job_id)):
            if batch.done:
                yield from read(self._store, self.job_id, job, number, batch)

    def result(self, custom_id: str) -> RequestResult:
        """One request's outcome.

        Raises:
            RequestNotFound: the job has no such request, or it has no outcome (yet).
        """
        job = self._job()
        for number, batch in enumerate(self._store.batches(self.job_id)):
            place = 0
            for ids in self._store.custom_ids(self.job_id, number):
                if custom_id in ids:
                    found = batch.done and self._find(job, number, batch, place + ids.index(custom_id), custom_id)
                    if not found:
                        raise RequestNotFound(f"request {custom_id!r} of job {self.job_id} has no outcome yet")
                    return found
                place += len(ids)
        raise RequestNotFound(f"job {self.job_id} has no request {custom_id!r}")

    def requests(self) -> Iterator[dict[str, Any]]:
        """The requests as they were handed over, as ``run_batch`` takes them; for submitting them again."""
        self._job()
        for number, _ in enumerate(self._store.batches(self.job_id)):
            pieces = zip(
                self._store.custom_ids(self.job_id, number), self._store.bodies(self.job_id, number), strict=True
            )
            for ids, body in pieces:
                for custom_id, params in zip(ids, wire.pick(body, range(len(ids))), strict=True):
                    yield {"custom_id": custom_id, "params": msgspec.json.decode(params)}

    def cancel(self) -> None:
        """Ask for the job to be canceled: what Anthropic has processed keeps its results, the rest ends as canceled.

        Returns at once; a worker asks Anthropic. The job's AsyncResult then ends with a summary whose ``state`` is
        ``canceled``. A job that has ended already is left as it is.
        """
        from claude_batch_tasks.tasks import cancel_batch

        job = self._job()
        if job.state in _ENDED:
            return
        self._store.update_job(self.job_id, cancel_requested=True)
        task = self._app.tasks[cancel_batch.name]
        for number in range(job.batches):
            task.apply_async((self.job_id, number), **line.routed(job.queue))

    def _job(self) -> JobRecord:
        if (job := self._store.job(self.job_id)) is None:
            raise JobNotFound(
                f"no job {self.job_id} in the store: it was never submitted there, or its record has expired"
            )
        return job

    def _find(
        self, job: JobRecord, number: int, batch: BatchRecord, place: int, custom_id: str
    ) -> RequestResult | None:
        outcome = self._store.outcome(self.job_id, number, place)
        if outcome and (result := _from_outcome(custom_id, outcome)):
            return result
        if batch.published is not None:
            wanted = wire.wire_id(job.nonce, batch.first + place)
            # Hardly anybody writes an id with escapes; only if this one is not found as it is, every line is decoded.
            for needle in (f'"{wanted}"'.encode(), b""):
                for piece in self._store.results(self.job_id, number, batch.published):
                    for line in piece.split(b"\n") if needle in piece else ():
                        if needle in line and rows.row(line).custom_id == wanted:
                            return _from_line(custom_id, line)
        return _from_default(custom_id, batch)


def submit(
    app: Celery,
    job_id: str,
    requests: Iterable[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]],
    options: Mapping[str, Any],
    *,
    canvas: str = "{}",
    queue: str | None = None,
    delay: float = 0,
) -> JobRecord:
    """Put a job's requests into the store; nothing is sent yet. On any error nothing stays behind.

    Args:
        job_id: the task id of its ``run_batch``.
        options: the job's own settings, and ``client``, the alias of the account.
        canvas: what follows it in the caller's Celery canvas, as ``line.canvas`` encodes it.
        queue: the queue the steps are to follow.
        delay: seconds until the job is to start.

    Raises:
        InvalidRequests, InvalidSettings: what is wrong with them.
        BatchTasksError: there is a job of that id already.
        StoreUnavailable: the store does not answer.
    """
    options = dict(options)
    alias = options.pop("client", "default")
    settings = Settings.of(app).override(options)
    if alias not in settings.client_factories:
        known = ", ".join(sorted(settings.client_factories))
        raise InvalidSettings(f"client {alias!r} is not in claude_batch_client_factories; known: {known}")
    assert settings.store_url is not None
    store = open_store(settings.store_url)
    nonce = secrets.token_hex(8)
    batches: list[BatchRecord] = []
    envelope = sum(map(len, wire.ENVELOPE))
    total = 0
    try:
        for piece in wire.cut(
            requests,
            nonce=nonce,
            max_requests=settings.max_requests_per_batch,
            max_bytes=settings.max_bytes_per_batch,
        ):
            if piece.batch == len(batches):
                batches.append(BatchRecord(first=total, count=0, body_bytes=envelope - 1))
            batch = batches[-1]
            batch.count += len(piece.custom_ids)
            batch.body_bytes += len(piece.body) + 1
            total += len(piece.custom_ids)
            store.append(job_id, nonce, piece.batch, piece.custom_ids, piece.body)
        job = JobRecord(
            nonce=nonce,
            requests=total,
            batches=len(batches),
            client=alias,
            queue=queue,
            options=options,
            canvas=canvas,
            submitted_at=time.time(),
        )
        if not store.create_job(job_id, job, batches, settings.result_ttl + delay):
            raise BatchTasksError(f"there is a job {job_id} already; a task id stands for one job")
    except BaseException:
        # If the store does not answer now either, what is staged expires.
        with suppress(StoreUnavailable):
            store.discard(job_id, nonce, len(batches))
        raise
    return job


def body(store: Store, job_id: str, batch: int) -> Iterator[bytes]:
    """The body of a batch's create, in pieces; as long as its record's ``body_bytes`` says."""
    yield wire.ENVELOPE[0]
    for number, piece in enumerate(store.bodies(job_id, batch)):
        if number:
            yield b","
        yield piece
    yield wire.ENVELOPE[1]


def read(store: Store, job_id: str, job: JobRecord, number: int, batch: BatchRecord) -> Iterator[RequestResult]:
    """One batch's outcomes: those from the Messages API, then the rows they do not replace."""
    ids = _Ids(store.custom_ids(job_id, number))
    replaced = set()
    for place, outcome in store.outcomes(job_id, number):
        if place not in replaced and (result := _from_outcome(ids[place], outcome)):
            replaced.add(place)
            yield result
    if batch.published is not None:
        for piece in store.results(job_id, number, batch.published):
            for line in piece.split(b"\n"):
                index = wire.index_of(job.nonce, rows.row(line).custom_id)
                assert index is not None
                if index - batch.first not in replaced:
                    yield _from_line(ids[index - batch.first], line)
    else:
        for place in range(batch.count):
            if place not in replaced and (result := _from_default(ids[place], batch)):
                yield result


def kept_outcome(note: str) -> bytes:
    """The stored form of a Messages API try that changed nothing: the request keeps the outcome it had."""
    return msgspec.json.encode({"kept": note})


def message_outcome(message: bytes) -> bytes:
    """The stored form of an answer of the Messages API."""
    return b'{"type":"succeeded","message":%s}' % message


def error_outcome(error: Mapping[str, Any]) -> bytes:
    """The stored form of a refusal of the Messages API."""
    return msgspec.json.encode({"type": "errored", "error": error})


def tally(batches: Sequence[BatchRecord]) -> Counter[str]:
    """How many requests ended how, over batches."""
    counts: Counter[str] = Counter()
    for batch in batches:
        counts.update({name: batch.counts.get(name, 0) for name in rows.OUTCOMES})
    return counts


def next_look(batches: Sequence[BatchRecord]) -> float | None:
    """When the earliest look at a batch still running is due, in epoch seconds."""
    return min((b.due_at for b in batches if b.due_at is not None and not b.done), default=None)


def progress(job: JobRecord, batches: Sequence[BatchRecord]) -> dict[str, Any]:
    """The meta shown under the job's id while it runs: counts and ids, never a prompt."""
    counts = tally(batches)
    due = _moment(next_look(batches))
    return {
        "state": "running",
        "requests": job.requests,
        "processing": max(job.requests - sum(counts.values()), 0),
        **{name: counts[name] for name in rows.OUTCOMES},
        "batches": job.batches,
        "batches_done": sum(batch.done for batch in batches),
        "batch_ids": [batch.batch_id for batch in batches if batch.batch_id],
        "looks": sum(batch.looks for batch in batches),
        "not_found": sum(batch.not_found for batch in batches),
        "next_look": due.isoformat() if due else None,
    }


def summarize(job_id: str, job: JobRecord, batches: Sequence[BatchRecord], ended_at: float) -> dict[str, Any]:
    """The summary of an ended job: a small dict of JSON's types; times are ISO 8601 in UTC."""
    counts = tally(batches)
    usage: Counter[str] = Counter(dict.fromkeys(rows.USAGE, 0))
    for batch in batches:
        usage.update(batch.usage)
    failed = any(batch.error for batch in batches)
    started, ended = _moment(job.started_at), _moment(ended_at)
    return {
        "job_id": job_id,
        "state": "failed" if failed else "canceled" if job.cancel_requested else "completed",
        "requests": job.requests,
        **{name: counts[name] for name in rows.OUTCOMES},
        "resubmitted": 0,
        "fallback": sum(batch.answered for batch in batches),
        "fallback_skipped": sum(batch.skipped for batch in batches),
        "batch_ids": [batch.batch_id for batch in batches if batch.batch_id],
        "usage": dict(usage),
        "cost": None,
        "started_at": started.isoformat() if started else None,
        "ended_at": ended.isoformat() if ended else None,
    }


class _Ids:
    """A batch's custom_ids by position: the bytes of all of them and where each ends, not one object each."""

    def __init__(self, pieces: Iterable[list[str]]) -> None:
        self._text = bytearray()
        self._ends = array("Q", [0])
        for ids in pieces:
            for custom_id in ids:
                self._text += custom_id.encode()
                self._ends.append(len(self._text))

    def __getitem__(self, place: int) -> str:
        return self._text[self._ends[place] : self._ends[place + 1]].decode()


def _from_line(custom_id: str, line: bytes) -> RequestResult:
    result = rows.parse(line)["result"]
    kind = rows.row(line)
    error = rows.error_of(result)
    if not kind.known:
        error = {"type": kind.error_type, "message": f"a result of type {result['type']!r}", "result": result}
    return RequestResult(
        custom_id=custom_id,
        type=kind.type,  # type: ignore[arg-type]
        source="batch",
        message=result.get("message") if kind.type == "succeeded" else None,
        error=error if kind.type == "errored" else None,
    )


def _from_outcome(custom_id: str, outcome: bytes) -> RequestResult | None:
    value = rows.parse(outcome)
    if "kept" in value:
        return None
    return RequestResult(
        custom_id=custom_id,
        type=value["type"],
        source="messages",
        message=value.get("message"),
        error=value.get("error"),
    )


def _from_default(custom_id: str, batch: BatchRecord) -> RequestResult | None:
    if batch.outcome is None:
        return None
    return RequestResult(
        custom_id=custom_id, type=batch.outcome["type"], source="batch", error=batch.outcome.get("error")
    )


def _moment(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, timezone.utc)
