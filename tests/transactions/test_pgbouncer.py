"""Jobs through PgBouncer in transaction mode, which gives each transaction another connection to the server."""

from __future__ import annotations

import pytest

from claude_batch_tasks.simulator import Simulator
from tests.postgres_server import PgBouncer
from tests.transactions.rig import Project
from tests.transactions.test_submission import states


@pytest.mark.workers
@pytest.mark.parametrize("store", ["django", "url"])
def test_a_job_runs(served_project: tuple[Project, Simulator], pgbouncer: PgBouncer, store: str) -> None:
    project, simulator = served_project
    direct, project.database = project.database, pgbouncer.url_of(project.database)
    project.env["STORE_URL"] = "django://default" if store == "django" else project.database
    with project.worker() as worker:
        job_ids = project.run(
            """
            with transaction.atomic():
                inside = run_batch.delay(REQUESTS)
            outside = run_batch.delay(REQUESTS)
            answer = ask.delay(make_params())
            assert inside.get(timeout=60)["succeeded"] == outside.get(timeout=60)["succeeded"] == 1
            assert answer.get(timeout=60).type == "succeeded"
            print(json.dumps([inside.id, outside.id]))
            """
        )
    project.database = direct
    assert {job_id: states(project)[job_id] for job_id in job_ids} == dict.fromkeys(job_ids, "completed")
    assert len(simulator.state().batches) == 3
    assert "prepared statement" not in worker.log.read_text()
    assert "Traceback" not in worker.log.read_text()
