"""``on_result``: the application's own task, called with the ids of requests whose outcome is final."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any

from celery.canvas import Signature
from kombu.exceptions import OperationalError
from kombu.utils import json as kombu_json

from claude_batch_tasks import errors, publishing, reading
from claude_batch_tasks.errors import InvalidSettings

if TYPE_CHECKING:  # it needs the SDK, which takes a second to import
    from claude_batch_tasks.step import Step

log = logging.getLogger(__name__)

#: Ids in one call: with custom_ids of usual length some twenty kilobytes.
CHUNK = 1000


def encoded(signature: Any) -> str | None:
    """A signature as it is stored with the job; None if there is none.

    Raises:
        InvalidSettings: it is no signature, or holds what JSON cannot carry.
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


def announce(step: Step, places: Iterable[int]) -> None:
    """Call the job's ``on_result`` with the ids of those of the batch's requests that it was not called with yet.

    Args:
        places: positions of requests whose outcome is final.

    Raises:
        TransientError: the broker does not take the messages; those that it did take are not repeated.
        JobNotFound: the job is gone.
        ResultsMissing: its custom_ids are.
    """
    if step.job.on_result is None:
        return
    job_id, batch = step.unit.job_id, step.unit.batch or 0
    bits = step.store.announced(job_id, batch)
    new = (place for place in places if not _is_set(bits, place))
    call = Signature.from_dict(json.loads(step.job.on_result), app=step.task.app)
    names: Any = None
    while chunk := list(islice(new, CHUNK)):
        names = names or reading.names(step.store, job_id, step.job, batch, step.batch)
        ids = [names[place] for place in chunk]
        try:
            # Before what the signature has of its own, as Celery calls what is linked.
            with publishing.bounded(step.task.app, {}) as options:
                call.clone(args=(job_id, ids)).apply_async(**options)
        except Exception as exc:
            if not isinstance(exc, OperationalError) and step.task.request.is_eager:
                # It ran here, and how it ends is its own affair.
                log.exception("%s: on_result failed", step.where, extra=step.fields("on_result"))
                continue
            # Whatever the broker's client raises.
            raise errors.TransientError(f"on_result was not called: {type(exc).__name__}") from None
        step.store.announce(job_id, batch, chunk)
        log.info("%s: on_result called with %d ids", step.where, len(ids), extra=step.fields("on_result"))


def _is_set(bits: bytes, place: int) -> bool:
    return place // 8 < len(bits) and bool(bits[place // 8] >> (7 - place % 8) & 1)
