"""A dump of a running system is restored into another database, where its jobs go on; nothing is paid twice."""

from __future__ import annotations

import subprocess

import pytest

from claude_batch_tasks.simulator import Simulator
from tests.postgres_server import PostgresServer, postgres_folder
from tests.support import wait_until
from tests.transactions.rig import Project
from tests.transactions.test_submission import states


@pytest.mark.workers
def test_jobs_go_on_where_a_dump_is_restored(
    served_project: tuple[Project, Simulator], postgres_server: PostgresServer
) -> None:
    project, simulator = served_project
    simulator.behave(processing_seconds=20.0)
    restored = Project(postgres_server.make_database(), project.folder, project.env)
    dump, programs = project.folder / "dump", postgres_folder()
    with project.worker():
        submit = "with transaction.atomic(): result = run_batch.delay(REQUESTS)\nprint(json.dumps(result.id))"
        job_id = project.run(submit)
        wait_until(lambda: states(project)[job_id] == "running" and len(simulator.state().batches) == 1, 60)
        # Its batch id was recorded before this one's was.
        late = "with transaction.atomic(): result = run_batch.apply_async((REQUESTS,), countdown=15)"
        waiting = project.run(f"{late}\nprint(json.dumps(result.id))")
        wait_until(lambda: project.run(f"print(json.dumps(store.records.read_batch({job_id!r}, 0).batch_id))"), 60)
        subprocess.run([f"{programs}/pg_dump", "--format=custom", f"--file={dump}", project.database], check=True)
    subprocess.run([f"{programs}/pg_restore", f"--dbname={restored.database}", dump], check=True)
    assert states(restored) == {job_id: "running", waiting: "staged"}
    with restored.worker(1):
        wait_until(lambda: set(states(restored).values()) == {"completed"}, 120)
    assert len(simulator.state().batches) == 2
    postgres_server.drop_database(restored.database)
