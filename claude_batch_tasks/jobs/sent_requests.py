"""The requests of a job as they were submitted."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgspec

from claude_batch_tasks.errors import RequestsUnknown, ResultsMissing
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.results.job_results import read_job
from claude_batch_tasks.store import ReadableStore, lost_records
from claude_batch_tasks.wire import batch_requests


def read_requests(store: ReadableStore, job_id: str) -> Iterator[dict[str, Any]]:
    """Return the requests of a job; see ``BatchJob.requests``."""
    if read_job(store, job_id).adopted:
        raise RequestsUnknown(
            f"job {job_id} was adopted: its requests were never in the store. Take them from where its batch was "
            "created; .results() has the answers, by the custom_ids of that batch"
        )
    return _read_requests(store, job_id)


def _read_requests(store: ReadableStore, job_id: str) -> Iterator[dict[str, Any]]:
    job, records, total = read_job(store, job_id), store.records.find_batches(job_id), 0
    for number, record in enumerate(records):
        count = 0
        with suppress(ResultsMissing):
            for ids, body in resubmission.read_staged(store, job_id, number):
                for custom_id, params in zip(ids, batch_requests.pick_requests(body, range(len(ids))), strict=True):
                    yield {"custom_id": custom_id, "params": msgspec.json.decode(params)}
                count += len(ids)
        total += count
        if record is not None and count != record.count:
            raise lost_records.of_requests(store, job_id, job, number, record)
    if total != job.requests and (error := lost_records.of_records(store, job_id, job, records)):
        raise error
