"""Workers that are still to be replaced, on a store that a newer release has made its own."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import Worker
from claude_batch_tasks.simulator import Simulator
from tests.chaos.ledgers import Ledger
from tests.integration.rig import requests
from tests.support import wait_until

pytestmark = pytest.mark.workers


@pytest.mark.every_store
def test_one_does_not_start_and_what_another_is_sent_waits(
    app: Celery, start_worker: Callable[..., Worker], ledger: Ledger
) -> None:
    with Simulator() as simulator:
        worker = start_worker(simulator.url)
        BatchJob("a caller that has begun before", app)._store.check_schema()
        ledger.make_newer(True)
        with pytest.raises(RuntimeError, match=r"claude_batch_tasks: the store at .* was written by a newer release"):
            start_worker(simulator.url)

        result = run_batch.delay(requests("job", 2))
        wait_until(lambda: worker.log.read_text().count("was written by a newer release") >= 3)
        assert simulator.journal().calls == []
        ledger.make_newer(False)  # as if a worker of the newer release were here
        assert result.get(timeout=180)["succeeded"] == 2
        worker.stop(kill=True)
