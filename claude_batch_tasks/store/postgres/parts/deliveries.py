"""What became of the calls of a job's ``on_result``, in PostgreSQL."""

from __future__ import annotations

from claude_batch_tasks import rules
from claude_batch_tasks.records import DeliveryCounts
from claude_batch_tasks.store.interface.results import Recorded, Runs
from claude_batch_tasks.store.postgres.connection import Part, answering
from claude_batch_tasks.store.postgres.encoding import split_runs


class PostgresDeliveries(Part):
    """``interface.Deliveries`` on a PostgreSQL server."""

    queries = "deliveries"

    @answering
    def record_delivered(self, job_id: str, runs: Runs, part: int = 0, parts: int = 1) -> Recorded | None:
        return self._record(job_id, "delivered", runs, part=part, parts=parts)

    @answering
    def record_failed(self, job_id: str, runs: Runs, reason: str) -> Recorded | None:
        return self._record(job_id, "failed", runs, reason)

    @answering
    def record_call(self, job_id: str, runs: Runs, parts: int = 1) -> None:
        self._record(job_id, "called", runs, parts=parts)

    @answering
    def note_activity(self, job_id: str) -> None:
        self._record(job_id, "active", ())

    @answering
    def read_delivered(self, job_id: str) -> bytes:
        return bytes(self._connection.call("read_bits", job_id, -1, "delivered")).rstrip(b"\0")

    @answering
    def count_deliveries(self, job_id: str, batches: int) -> DeliveryCounts:
        found = dict(self._fetch("count_deliveries", job_id=job_id, batches=batches))
        called, delivered, failed = (int(found.get(name, 0)) for name in ("announced", "delivered", "undelivered"))
        # A call may end before it is recorded that it was made.
        return DeliveryCounts(max(called, delivered + failed), delivered, failed)

    def _record(
        self, job_id: str, what: str, runs: Runs, reason: str = "", *, part: int = 0, parts: int = 1
    ) -> Recorded | None:
        args = [job_id, what, *split_runs(runs), reason, part, parts, rules.DELIVERY_REASONS]
        changed, complete, new_reason = self._connection.call_row("record_delivery", *args)
        return None if changed is None else Recorded(changed, complete, new_reason)
