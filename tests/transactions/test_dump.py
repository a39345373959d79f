"""A dump of a running system is restored into another database, where its jobs go on; nothing is paid twice."""

from __future__ import annotations

import subprocess

import psycopg
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
    simulator.behave(processing_seconds=3600.0)
    restored = Project(postgres_server.make_database(), project.folder, project.env)
    dump, programs = project.folder / "dump", postgres_folder()
    with project.worker():
        running, waiting = project.run(
            """
            with transaction.atomic():
                running, waiting = run_batch.delay(REQUESTS), run_batch.apply_async((REQUESTS,), countdown=600)
            print(json.dumps([running.id, waiting.id]))
            """
        )
        wait_until(lambda: has_batch(project, running), 90)
        subprocess.run([f"{programs}/pg_dump", "--format=custom", f"--file={dump}", project.database], check=True)
    subprocess.run([f"{programs}/pg_restore", f"--dbname={restored.database}", dump], check=True)
    assert states(restored) == {running: "running", waiting: "staged"}
    restored.run(
        f"""
        from claude_batch_tasks.records import Unit
        store.schedule.wake_units([Unit({running!r}, 0), Unit({waiting!r})])
        """
    )

    def all_completed() -> bool:
        simulator.end()
        return set(states(restored).values()) == {"completed"}

    with restored.worker(1):
        wait_until(all_completed, 90)
    assert len(simulator.state().batches) == 2
    assert states(project) == {running: "running", waiting: "staged"}
    postgres_server.drop_database(restored.database)


def has_batch(project: Project, job_id: str) -> bool:
    """Return whether the store has the id of the job's batch."""
    with psycopg.connect(project.database) as connection:
        found = connection.execute(
            "SELECT record ->> 'batch_id' FROM claude_batch.records r JOIN claude_batch.jobs j ON r.job = j.id "
            "WHERE job_id = %s AND r.batch = 0",
            [job_id],
        ).fetchone()
    return bool(found and found[0] not in (None, "null"))
