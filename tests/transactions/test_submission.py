"""A job that is submitted in a transaction: commit makes it, a rollback leaves nothing, whatever happens in between."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator

import psycopg
import pytest

from claude_batch_tasks.simulator import Simulator
from tests.support import wait_until
from tests.transactions.rig import Project

Served = tuple[Project, Simulator]


def states(project: Project) -> dict[str, str]:
    """Return the state of each job in the store."""
    with psycopg.connect(project.database) as connection:
        rows = connection.execute(
            "SELECT job_id, record ->> 'state' FROM claude_batch.jobs JOIN claude_batch.records r ON r.job = jobs.id "
            "WHERE created AND r.batch = -1"
        ).fetchall()
    return {job_id: json.loads(state) for job_id, state in rows}


class TestWithoutWorkers:
    """No broker answers either: a commit needs none."""

    def test_a_rollback_leaves_no_row(self, project: Project) -> None:
        found = project.run(
            """
            try:
                with transaction.atomic():
                    result = run_batch.apply_async((REQUESTS,), {"label": "x"}, countdown=5, priority=3)
                    state = [result.state, BatchJob(result.id).status().state]
                    raise ValueError("after it")
            except ValueError:
                print(json.dumps(state))
            """
        )
        assert found == ["PENDING", "staged"]
        assert project.count_rows() == {}

    def test_a_savepoint_s_rollback_takes_only_its_own_job(self, project: Project) -> None:
        outer, inner = project.run(
            """
            with transaction.atomic():
                outer = run_batch.delay(REQUESTS)
                try:
                    with transaction.atomic():
                        inner = run_batch.delay(REQUESTS)
                        raise ValueError
                except ValueError:
                    pass
            print(json.dumps([outer.id, inner.id]))
            """
        )
        assert states(project) == {outer: "staged"}
        assert inner != outer

    def test_refused_requests_leave_the_block_usable_and_nothing_behind(self, project: Project) -> None:
        project.run(
            """
            with transaction.atomic():
                try:
                    run_batch.delay([*REQUESTS, {"custom_id": "b", "params": {}}])
                except errors.InvalidRequests:
                    Order.objects.create(job_id="x")
            assert Order.objects.count() == 1
            """
        )
        assert project.count_rows() == {}

    def test_an_id_that_is_taken_is_refused_inside(self, project: Project) -> None:
        project.run(
            """
            with transaction.atomic():
                run_batch.apply_async((REQUESTS,), task_id="one")
            with transaction.atomic():
                try:
                    run_batch.apply_async((REQUESTS,), task_id="one")
                except errors.BatchTasksError as exc:
                    assert "already a job one" in str(exc), exc
                run_batch.apply_async((REQUESTS,), task_id="two")
            """
        )
        assert states(project) == {"one": "staged", "two": "staged"}

    def test_a_process_that_is_killed_before_its_commit_leaves_nothing(self, project: Project) -> None:
        process = project.start(
            """
            with transaction.atomic():
                run_batch.delay(REQUESTS)
                print("inserted", flush=True)
                sys.stdin.read()
            """
        )
        assert process.stdout is not None
        assert process.stdout.readline() == "inserted\n"
        process.send_signal(signal.SIGKILL)
        process.communicate()
        wait_until(lambda: project.count_rows() == {}, 20)

    def test_waiting_for_it_inside_is_refused(self, project: Project) -> None:
        said = project.run(
            """
            said = []
            with transaction.atomic():
                for result in (run_batch.delay(REQUESTS), ask.delay(make_params())):
                    try:
                        result.get(timeout=60)
                    except errors.BatchTasksError as exc:
                        said.append(str(exc))
            print(json.dumps(said))
            """
        )
        assert len(said) == 2
        assert all("Call get() after the commit" in each for each in said)

    def test_options_of_the_message_are_recorded(self, project: Project) -> None:
        found = project.run(
            """
            from celery.signals import before_task_publish
            @before_task_publish.connect
            def trace(headers=None, **_):
                headers["traceparent"] = "00-1"
            with transaction.atomic():
                result = run_batch.apply_async(
                    (REQUESTS,), queue="slow", priority=7, headers={"tenant": "t"}, link=follow.s(),
                    link_error=follow.si({"succeeded": 0}), expires=600, stamped_headers=["stamp"], stamp="s",
                    countdown=50,
                )
            from claude_batch_tasks.records import Unit
            from claude_batch_tasks.steps import message_chain
            job = store.jobs.read_job(result.id)
            options = message_chain.make_first_message(app, job, result.id).options
            [due] = store.schedule.due_times([Unit(result.id)])
            print(json.dumps([
                options["queue"], options["priority"], options["headers"],
                options["link"]["task"].rpartition(".")[2], len(options["link_error"]) > 0,
                options["stamp"], "expires" in options, 45 < due - store.now() < 51, store.schedule.take_due(10)[0],
            ]))
            """
        )
        headers = {"tenant": "t", "traceparent": "00-1"}
        assert found == ["slow", 7, headers, "follow", True, "s", True, True, []]

    @pytest.mark.parametrize("action", ["job.cancel()", "job.delete()"])
    def test_what_is_done_to_a_job_is_undone_by_a_rollback(self, project: Project, action: str) -> None:
        before, after, at_last = project.run(
            f"""
            with transaction.atomic():
                job = BatchJob(run_batch.delay(REQUESTS).id)
            def look():
                found = store.jobs.read_job(job.id)
                return found and [found.state, found.cancel_requested]
            before = look()
            with transaction.atomic():
                {action}
                assert look() != before
                transaction.set_rollback(True)
            after = look()
            with transaction.atomic():
                {action}
            print(json.dumps([before, after, look()]))
            """
        )
        assert before == after != at_last


@pytest.mark.workers
class TestWithWorkers:
    @pytest.fixture
    def served(self, served_project: Served) -> Iterator[Served]:
        project, _ = served_project
        with project.worker():
            yield served_project

    def test_the_committed_jobs_run_of_many_transactions_at_once(self, served: Served) -> None:
        project, simulator = served
        committed = project.run(
            """
            import threading
            committed, lock = [], threading.Lock()
            def submit(number):
                try:
                    with transaction.atomic():
                        result = run_batch.delay(REQUESTS)
                        Order.objects.create(job_id=result.id)
                        if number % 2:
                            raise ValueError
                    with lock:
                        committed.append(result.id)
                except ValueError:
                    pass
                finally:
                    connections.close_all()
            threads = [threading.Thread(target=submit, args=[number]) for number in range(100)]
            for begin in range(0, 100, 20):
                for each in threads[begin : begin + 20]:
                    each.start()
                for each in threads[begin : begin + 20]:
                    each.join()
            assert set(Order.objects.values_list("job_id", flat=True)) == set(committed)
            print(json.dumps(committed))
            """
        )
        assert len(committed) == 50
        wait_until(lambda: set(states(project).values()) == {"completed"}, 120)
        assert set(states(project)) == set(committed)
        assert len(simulator.state().batches) == 50

    def test_a_commit_wakes_the_workers(self, served: Served) -> None:
        project, _ = served
        job_id, took = project.run(
            """
            import time
            with transaction.atomic():
                result = run_batch.delay(REQUESTS)
                time.sleep(2)
                early = BatchJob(result.id).status().state
            committed = time.monotonic()
            while store.jobs.read_job(result.id).state == "staged":
                assert time.monotonic() - committed < 30
                time.sleep(0.02)
            took = time.monotonic() - committed
            assert early == "staged"
            assert result.get(timeout=60)["succeeded"] == 1
            print(json.dumps([result.id, took]))
            """
        )
        assert states(project) == {job_id: "completed"}
        assert took < 5, "seconds from the commit to the job's start"

    def test_a_chain_goes_on_from_it(self, served: Served) -> None:
        project, _ = served
        found = project.run(
            """
            from celery import chain, chord, group
            with transaction.atomic():
                chained = chain(run_batch.s(REQUESTS), follow.s()).delay()
                grouped = group(run_batch.s(REQUESTS), run_batch.s(REQUESTS)).delay()
            print(json.dumps([chained.get(timeout=60), [each["succeeded"] for each in grouped.get(timeout=60)]]))
            """
        )
        assert found == [1, [1, 1]]

    def test_a_worker_s_own_task_may_submit_in_a_block(self, served: Served) -> None:
        project, _ = served
        job_id = project.run(
            """
            failed = submit_in_block.delay(fail=True)
            failed.get(timeout=60, propagate=False)
            result = submit_in_block.delay(fail=False)
            job_id = result.get(timeout=60)
            assert run_batch.AsyncResult(job_id).get(timeout=60)["succeeded"] == 1
            assert Order.objects.count() == 1
            print(json.dumps(job_id))
            """
        )
        assert states(project) == {job_id: "completed"}

    def test_views_submit_in_the_transaction_of_their_request(self, served: Served) -> None:
        project, _ = served
        project.env["OPTIONS_OF_DATABASE"] = '{"ATOMIC_REQUESTS": true}'
        job_ids = project.run(
            """
            import asyncio
            from django.test import AsyncClient, Client
            client = Client(raise_request_exception=False)
            assert client.get("/submit?fail=1").status_code == 500
            job_ids = [client.get("/submit").content.decode()]
            async def ask_view():
                client = AsyncClient(raise_request_exception=False)
                assert (await client.get("/async?fail=1")).status_code == 500
                return (await client.get("/async")).content.decode()
            job_ids.append(asyncio.run(ask_view()))
            for job_id in job_ids:
                assert run_batch.AsyncResult(job_id).get(timeout=60)["succeeded"] == 1
            print(json.dumps(job_ids))
            """
        )
        assert set(states(project)) == set(job_ids)

    def test_on_commit_sends_one_message_as_before(self, served: Served) -> None:
        project, simulator = served
        project.run(
            """
            with transaction.atomic():
                run_batch.delay_on_commit(REQUESTS)
                assert list(store.jobs.job_ids()) == []
            [job_id] = store.jobs.job_ids()
            assert run_batch.AsyncResult(job_id).get(timeout=60)["succeeded"] == 1
            """
        )
        assert len(states(project)) == 1
        assert len(simulator.state().batches) == 1

    def test_a_connection_of_the_caller_takes_job_and_ask_along(self, served: Served) -> None:
        project, _ = served
        project.env["STORE_URL"] = project.database
        found = project.run(
            """
            import psycopg
            with psycopg.connect(os.environ["DATABASE"]) as mine:
                lost = run_batch.using(mine).delay(REQUESTS)
                mine.rollback()
                job = run_batch.using(mine).delay(REQUESTS)
                answer = ask.using(mine).delay(make_params())
                mine.execute("INSERT INTO shop_order (job_id) VALUES (%s)", [job.id])
                mine.commit()
            succeeded, kind = job.get(timeout=60)["succeeded"], answer.get(timeout=60).type
            print(json.dumps([succeeded, kind, Order.objects.get().job_id == job.id]))
            """
        )
        assert found == [1, "succeeded", True]
        assert len(states(project)) == 2  # that of the ask's pool, too


@pytest.mark.workers
def test_a_step_is_no_part_of_a_transaction_of_its_task_class(served_project: Served) -> None:
    """Else a rollback would take back that a batch was created, and it would be created, and paid, again."""
    project, simulator = served_project
    failed = project.folder / "failed"
    project.env["FAILS_ONCE"] = str(failed)
    with project.worker() as worker:
        job_id = project.run("print(json.dumps(run_batch.delay(REQUESTS).id))")
        wait_until(lambda: states(project)[job_id] == "completed", 90)
    assert failed.exists()
    assert "after the step" in worker.log.read_text()
    assert len(simulator.state().batches) == 1
