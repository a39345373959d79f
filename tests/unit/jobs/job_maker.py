"""Jobs with outcomes, made without a worker."""

from __future__ import annotations

import json
from typing import Any

from celery import Celery

from claude_batch_tasks import BatchJob
from claude_batch_tasks.lifecycle import resubmission, submission
from claude_batch_tasks.records import Unit
from claude_batch_tasks.store import Store
from claude_batch_tasks.wire.batch_requests import wire_id
from claude_batch_tasks.wire.completeness import Completeness
from tests.factories import make_params

JOB = "job-1"

SUCCEEDED = {"type": "succeeded", "message": {"content": [{"type": "text", "text": "hi"}]}}
REFUSED = {"type": "succeeded", "message": {"stop_reason": "refusal", "content": []}}
CUT = {"type": "succeeded", "message": {"stop_reason": "max_tokens", "content": [{"type": "text", "text": "h"}]}}
ODD = {"type": "succeeded", "message": {"stop_reason": "out_of_patience", "content": []}}
EXPIRED = {"type": "expired"}

Results = list[dict[str, Any]]


def errored(kind: str | None, text: str = "it failed") -> dict[str, Any]:
    return {"type": "errored", "error": {"type": "error", "error": {"type": kind, "message": text}}}


#: Three batches with all kinds of outcomes.
MIXED = (
    [SUCCEEDED, EXPIRED, errored("invalid_request_error", "max_tokens"), SUCCEEDED],
    [errored("overloaded_error"), errored("invalid_request_error", "other"), {"type": "canceled"}, EXPIRED],
    [errored("invalid_request_error"), errored(None)],
)

#: Two batches with answers of all kinds, complete and not.
ANSWERS = [[SUCCEEDED, REFUSED, CUT, EXPIRED], [ODD, CUT, SUCCEEDED]]


class Maker:
    """Makes jobs and ends them."""

    def __init__(self, app: Celery, store: Store) -> None:
        self._app, self._store = app, store

    def make(self, *batches: Results, job_id: str = JOB, **options: Any) -> BatchJob:
        """Make a job that has ended with these outcomes, whose custom_ids are BATCH-PLACE, as ``0-1``."""
        ids = [f"{number}-{place}" for number, results in enumerate(batches) for place in range(len(results))]
        requests = [{"custom_id": each, "params": make_params(f"prompt {each}")} for each in ids]
        submission.submit_job(
            self._app, job_id, requests, {"max_requests_per_batch": max(map(len, batches)), **options}
        )
        self.finish(job_id, *batches)
        return BatchJob(job_id, self._app)

    def finish(self, job_id: str, *batches: Results | None) -> None:
        """Publish the outcomes of a job's batches, in the order of its requests; None: the batch still runs."""
        for number, results in enumerate(batches):
            if results is not None:
                self._finish_batch(job_id, number, results)
        if None not in batches:
            now = self._store.now()
            self._store.jobs.update_job(job_id, state="completed", started_at=now, ended_at=now)

    def _finish_batch(self, job_id: str, number: int, results: Results) -> None:
        job, record, unit = (
            self._store.jobs.read_job(job_id),
            self._store.records.read_batch(job_id, number),
            Unit(job_id, number),
        )
        assert job is not None
        assert record is not None
        assert len(results) == record.count
        lines = [
            json.dumps({"custom_id": wire_id(job.nonce, record.first + place), "result": result}).encode()
            for place, result in reversed(list(enumerate(results)))
        ]
        self._store.leases.acquire_lease(unit, 0, "test", 60)
        seen, record.attempt = Completeness(job.nonce, record.first, record.count), 1
        self._store.results.write_rows(job_id, number, 1, seen.keep_rows([b"\n".join(lines)]))
        known = {"pieces": seen.pieces.tobytes(), "eligible_places": seen.judged.eligible.tobytes()}
        changes = {"state": "fetched", "final": True, "done": True, "attempt": 1}
        merged = resubmission.merge_rows(record, seen)
        assert self._store.results.publish_rows(unit, "test", 1, **known, **changes, **merged)
