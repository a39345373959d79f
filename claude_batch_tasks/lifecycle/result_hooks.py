"""``on_result``: the application's own task, called with the ids of requests whose outcome is final."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from celery import Celery
from celery.canvas import Signature, _chain, chord, group, maybe_signature
from kombu import serialization
from kombu.exceptions import OperationalError
from kombu.utils import json as kombu_json

from claude_batch_tasks import errors
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.results import reader
from claude_batch_tasks.steps import message_chain, message_headers, publishing, routing

if TYPE_CHECKING:  # it needs the SDK, which takes a second to import
    from claude_batch_tasks.steps.step import Step

log = get_logger(__name__)

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


def encode_hook(signature: Any) -> str | None:
    """Encode a signature in the form in which it is stored with the job; return None if there is none.

    Raises:
        InvalidSettings: the value is no signature, or holds what JSON cannot carry.
    """
    if signature is None:
        return None
    if not isinstance(signature, Mapping) or not isinstance(signature.get("task"), str):
        raise InvalidSettings(
            "run_batch option on_result must be the signature of a task, such as save_answers.s(), "
            f"not {type(signature).__name__}"
        )
    try:
        text = kombu_json.dumps(dict(signature))
        json.loads(text)
    except (TypeError, ValueError) as exc:
        raise InvalidSettings(f"run_batch option on_result holds what JSON cannot carry: {exc}") from None
    return text


def check_hook(app: Celery, signature: Any) -> None:
    """Check that a job's ``on_result`` can be called, if the app knows its task.

    Args:
        signature: a signature that ``encode_hook`` accepts.

    Raises:
        InvalidSettings: the task takes other arguments.
    """
    if signature is None:
        return
    for call in _first_tasks(Signature.from_dict(dict(signature), app=app)):
        task: Any = app.tasks.get(call.task)
        if not getattr(task, "typing", False) or not hasattr(task, "__header__"):
            continue
        args, kwargs, _ = call._merge(("job_id", ["custom_id"]), {}, {})
        try:
            task.__header__(*args, **kwargs)
        except TypeError as exc:
            own = ["job_id", "custom_ids", *map(_shorten_value, call.args), *(f"{name}=..." for name in call.kwargs)]
            way = "with its own arguments alone, as .si() has it" if call.immutable else f"as ({', '.join(own)})"
            raise InvalidSettings(
                f"run_batch option on_result: {call.task} is called {way}, and {exc}. Nothing was stored or sent"
            ) from None


def _first_tasks(signature: Any) -> Iterator[Any]:
    """Yield the tasks of a signature that receive the arguments of the call."""
    if isinstance(signature, (_chain, group, chord)):
        tasks = signature.tasks
        for task in list(tasks)[:1] if isinstance(signature, _chain) else tasks:
            yield from _first_tasks(maybe_signature(task, app=signature.app))
    else:
        yield signature


def _shorten_value(value: Any) -> str:
    text = repr(value)
    return text if len(text) < 40 else "..."


def announce_results(step: Step, places: Iterable[int]) -> None:
    """Call the job's ``on_result`` with the ids of those of the batch's requests that were not announced yet.

    Args:
        places: the positions of requests whose outcome is final.

    Raises:
        TransientError: the broker does not take the messages; those that it took are not repeated.
        JobNotFound: the job is gone.
        ResultsMissing: its custom_ids are gone.
    """
    if step.job.on_result is None or step.job.on_result_error is not None:
        return
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    bits = step.store.results.read_announced(job_id, batch)
    if new := [place for place in places if not _is_set(bits, place)]:
        _call_with(step, job_id, batch, new)


def _call_with(step: Step, job_id: str, batch: int, new: list[int]) -> None:
    call, route = _make_call(step)
    names = reader.load_custom_ids(step.store, job_id, step.job, batch, step.batch)
    for ids, size in _cut_chunks([names[place] for place in new], _make_meter(step.task.app, call, job_id)):
        if size > MOST:
            what = f"with one custom_id of {len(ids[0]):,} characters its message has some {size:,} bytes"
            _give_up(step, f"{what}, and {MOST:,} is the most")
            return
        chunk, new = new[: len(ids)], new[len(ids) :]
        try:
            # Our arguments come before those of the signature, as Celery calls linked tasks.
            with publishing.bounded_options(step.task.app, {}) as options:
                call.clone(args=(job_id, ids)).apply_async(**route, **options)
        except Exception as exc:
            if not isinstance(exc, OperationalError) and step.task.request.is_eager:
                # The task ran here; how it ends does not concern the job.
                log.exception("job %s: on_result failed", step.where, extra=step.fields("on_result"))
                continue
            _check_outage(step, exc)
            return
        step.store.results.mark_announced(job_id, batch, chunk)
        log.info("job %s: on_result called with %d ids", step.where, len(ids), extra=step.fields("on_result"))


def _make_call(step: Step) -> tuple[Any, dict[str, Any]]:
    """Return the signature with what the job's messages carry, and the options that send it where they go."""
    app = step.task.app
    call = Signature.from_dict(json.loads(step.job.on_result or "{}"), app=app)
    route = routing.follow_unless_routed(app, step.job, str(call.task), call.options)
    own = dict(call.options)
    if carried := {**message_headers.headers_of(step.job), **(own.get("headers") or {})}:
        call.set(headers=carried)
    if not own.get("stamped_headers"):
        call.set(**message_chain.stamp_options(step.job))
    return call, route


def _check_outage(step: Step, exc: Exception) -> None:
    """Stop calling ``on_result`` if its message cannot be sent however often that is tried.

    Raises:
        TransientError: it may be sent later.
    """
    outage = publishing.is_outage(step.task.app, exc)
    if outage or (outage is None and step.batch.failures < step.settings.max_step_failures):
        # Any error that the broker's client raises.
        raise errors.TransientError(f"on_result was not called: {type(exc).__name__}") from None
    _give_up(step, f"{type(exc).__name__}: {exc}")


def _give_up(step: Step, reason: str) -> None:
    """Stop calling the job's ``on_result``, and report that once."""
    task = json.loads(step.job.on_result or "{}").get("task")
    text = (
        f"{step.unit}: on_result ({task}) cannot be called: {reason}. It is not called again for this job, which goes "
        f"on. Its outcomes are kept: BatchJob({step.unit.job_id!r}).results()"
    )
    step.job.on_result_error = step.store.jobs.set_once(step.unit.job_id, "on_result_error", text)
    if step.job.on_result_error == text:  # otherwise another batch reported it before
        step.record_event("not_sent", text.removeprefix(f"{step.unit}: "), level=logging.ERROR)


def _cut_chunks(custom_ids: list[str], measure: Callable[[list[str]], int]) -> Iterator[tuple[list[str], int]]:
    """Yield as many ids as one call takes, at least one, with the size of its message in bytes."""
    begin = 0
    while chunk := custom_ids[begin : begin + CHUNK]:
        while (size := measure(chunk)) > MOST and len(chunk) > 1:
            chunk = chunk[: max(len(chunk) * MOST * 9 // (size * 10), 1)]
        yield chunk, size
        begin += len(chunk)


def _make_meter(app: Celery, call: Any, job_id: str) -> Callable[[list[str]], int]:
    """Return a function that computes the most bytes that the message of a call with given ids has at a broker."""
    task: Any = app.tasks.get(call.task)
    own = dict(call.options)
    serializer = own.get("serializer") or getattr(task, "serializer", None) or app.conf.task_serializer
    # Tasks that follow the call are sent in its message, with its arguments.
    embedded = json.loads(kombu_json.dumps(dict(call))) if len(own.keys() & _LINKS) or call.subtask_type else {}
    # Twice: Sentry repeats its headers.
    headers = 2 * len(kombu_json.dumps(own.get("headers") or {}).encode()) + _ENVELOPE

    def measure_message(custom_ids: list[str]) -> int:
        body = [(job_id, custom_ids, *call.args), call.kwargs, embedded]
        _, _, data = serialization.dumps(body, serializer)
        return _base64_size(_base64_size(len(data)) + headers)

    return measure_message


def _base64_size(size: int) -> int:
    return (size + 2) // 3 * 4


def _is_set(bits: bytes, place: int) -> bool:
    return place // 8 < len(bits) and bool(bits[place // 8] >> (7 - place % 8) & 1)
