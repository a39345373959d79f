"""The calls of a job's ``on_result``: which custom_ids go into one, and how its message is sent."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from celery import Celery
from celery.canvas import Signature
from kombu import serialization
from kombu.utils import json as kombu_json

from claude_batch_tasks.lifecycle.delivery import tracking
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.results.stored import sent_ids
from claude_batch_tasks.steps import message_chain, message_headers, publishing, routing
from claude_batch_tasks.store import HasDeliveries, HasResults, ReadableStore
from claude_batch_tasks.wire.positions import find_runs

#: Ids in one call: with custom_ids of usual length about twenty kilobytes.
CHUNK = 1000

#: The most bytes of one call's message as a broker gets it: the limit of SQS. Its transport encodes as base64 twice,
#: body and all.
MOST = 262_144

#: The bytes of a message beside its body and the job's headers: Celery's own headers, with two texts of the arguments
#: (1 KB each), and the broker's properties.
_ENVELOPE = 6_144

#: Options of a signature that are sent in its message.
_LINKS = {"link", "link_error", "chain", "chord"}


class CallableStore(ReadableStore, HasDeliveries, HasResults, Protocol):
    """What it takes to call ``on_result``, and to record that."""


class Call(NamedTuple):
    """One call, which is not sent yet."""

    batch: int
    places: list[int]
    """The positions of its requests in the batch."""
    runs: list[tuple[int, int]]
    """Their positions in the job, as runs."""
    custom_ids: list[str]
    size: int
    """The most bytes that its message has at a broker."""


class Hook:
    """The ``on_result`` of a job."""

    def __init__(self, app: Celery, store: CallableStore, job_id: str, job: JobRecord) -> None:
        self._app, self._store, self._job_id, self._job = app, store, job_id, job
        self._signature: dict[str, Any] = json.loads(job.on_result or "{}")
        self.task = str(self._signature.get("task"))
        """The name of its task, or of its kind of canvas."""
        self.parts = tracking.count_ends(self._signature)
        """How many of its tasks must end well for a delivery."""

    def make_calls(self, batch: int, record: BatchRecord, places: Sequence[int]) -> Iterator[Call]:
        """Yield the calls with the requests at these positions in a batch.

        Raises:
            JobNotFound: the job is gone.
            ResultsMissing: the batch's custom_ids are gone.
        """
        names = sent_ids.load_custom_ids(self._store, self._job_id, self._job, batch, record)
        places, begin = sorted(places), 0
        custom_ids = [names[place] for place in places]
        for ids, size in cut_chunks(custom_ids, make_meter(self._app, self._make_signature([]), self._job_id)):
            chunk = places[begin : begin + len(ids)]
            begin += len(ids)
            yield Call(batch, chunk, find_runs(record.first + place for place in chunk), ids, size)

    def send_call(self, call: Call) -> None:
        """Send the message of a call, in bounded time; whatever keeps it from being sent is raised."""
        signature = self._make_signature(call.runs)
        route = routing.follow_unless_routed(self._app, self._job, str(signature.task), signature.options)
        # Our arguments come before those of the signature, as Celery calls linked tasks.
        with publishing.bounded_options(self._app, {}) as options:
            signature.apply_async((self._job_id, call.custom_ids), **route, **options)

    def mark_called(self, call: Call) -> None:
        """Record that the message of a call was sent."""
        self._store.results.mark_announced(self._job_id, call.batch, call.places)

    def clear_outcome(self, call: Call) -> None:
        """Record, before its message is sent, that what earlier calls with the same requests ended in is void."""
        self._store.deliveries.record_call(self._job_id, call.runs, self.parts)

    def _make_signature(self, runs: Sequence[tuple[int, int]]) -> Any:
        """Return the signature with what the job's messages carry, and the header of a call with these requests."""
        made, number = json.loads(self._job.on_result or "{}"), 0
        own = made.get("options") or {}
        # Celery puts the headers of a canvas in the place of those of its tasks.
        carried = {**message_headers.headers_of(self._job), **(own.pop("headers", None) or {})}
        for task, last in tracking.walk_tasks(made):
            part = number if last else tracking.BEFORE_END
            number += last
            header = {tracking.HEADER: tracking.encode_header(self._job_id, runs, part, self.parts)}
            options = task.setdefault("options", {})
            options["headers"] = {**carried, **(options.get("headers") or {}), **header}
        call: Any = Signature.from_dict(made, app=self._app)
        if not own.get("stamped_headers"):
            call.set(**message_chain.stamp_options(self._job))
        return call


def cut_chunks(custom_ids: list[str], measure: Callable[[list[str]], int]) -> Iterator[tuple[list[str], int]]:
    """Yield as many ids as one call takes, at least one, with the size of its message in bytes."""
    begin = 0
    while chunk := custom_ids[begin : begin + CHUNK]:
        while (size := measure(chunk)) > MOST and len(chunk) > 1:
            chunk = chunk[: max(len(chunk) * MOST * 9 // (size * 10), 1)]
        yield chunk, size
        begin += len(chunk)


def make_meter(app: Celery, call: Any, job_id: str) -> Callable[[list[str]], int]:
    """Return a function that computes the most bytes that the message of a call with given ids has at a broker.

    Args:
        call: the signature; the header of ours in it may be empty.
    """
    task: Any = app.tasks.get(call.task)
    own = dict(call.options)
    serializer = own.get("serializer") or getattr(task, "serializer", None) or app.conf.task_serializer
    plain = json.loads(kombu_json.dumps(dict(call)))
    tasks = [task for task, _ in tracking.walk_tasks(plain)]
    # Tasks that follow the call are sent in its message, with its arguments.
    embedded = plain if len(own.keys() & _LINKS) or call.subtask_type else {}
    # Twice: Sentry repeats its headers.
    headers = 2 * max((_headers_size(task) for task in tasks), default=0) + _ENVELOPE
    # The header of ours in the tasks that are embedded.
    headers += tracking.LONGEST * len(tasks) if embedded else 0

    def measure_message(custom_ids: list[str]) -> int:
        body = [(job_id, custom_ids, *call.args), call.kwargs, embedded]
        _, _, data = serialization.dumps(body, serializer)
        return _base64_size(_base64_size(len(data)) + headers)

    return measure_message


def _headers_size(task: Mapping[str, Any]) -> int:
    headers = (task.get("options") or {}).get("headers") or {}
    return len(kombu_json.dumps(headers).encode()) + tracking.LONGEST


def _base64_size(size: int) -> int:
    return (size + 2) // 3 * 4
