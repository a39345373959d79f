"""The requests of a retry, as the jobs that they come from have them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from claude_batch_tasks.errors import ResultsMissing
from claude_batch_tasks.jobs.retries.choosing import Chosen
from claude_batch_tasks.lifecycle import resubmission
from claude_batch_tasks.store import ReadableStore, lost_records
from claude_batch_tasks.wire import batch_requests


def read_requests(store: ReadableStore, chosen: Sequence[Chosen]) -> Iterator[dict[str, Any]]:
    """Yield the chosen requests as ``run_batch`` takes them.

    Raises:
        ResultsMissing: some of them are gone from the store.
    """
    for each in chosen:
        count = 0
        try:
            for request in _read_batch(store, each):
                yield request
                count += 1
        except ResultsMissing:
            count = 0
        if count != len(each.places):
            raise lost_records.of_requests(store, each.job_id, each.job, each.number, each.batch)


def _read_batch(store: ReadableStore, chosen: Chosen) -> Iterator[dict[str, Any]]:
    first = 0
    for ids, body in resubmission.read_staged(store, chosen.job_id, chosen.number):
        if at := [place for place in range(len(ids)) if first + place in chosen.places]:
            for place, params in zip(at, batch_requests.pick_requests(body, at), strict=True):
                yield {"custom_id": ids[place], "params": msgspec.json.decode(params)}
        first += len(ids)
