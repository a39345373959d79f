"""The admin's pages of jobs, without a worker: who may do what, what they show, and what they do when it goes wrong."""

from __future__ import annotations

import asyncio
import csv
import io
import json
import re
import time
from datetime import datetime, timezone
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from celery import Celery
from django.core.management import call_command
from django.test import Client

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.contrib.django import actions
from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.records import BatchRecord, HistoryEvent, JobRecord, WorkerPresence
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store
from claude_batch_tasks.testing.claude_batch import ClaudeBatch
from tests.django.conftest import Login
from tests.factories import make_batch_record
from tests.integration.rig import requests
from tests.unit.checks.test_pools import add_asks

JOBS = "/admin/claude_batch/job/"


def submit(count: int = 3, **how: Any) -> str:
    """A job that no worker has begun."""
    return str(run_batch.apply_async((requests("nobody's", count),), **how).id)


def page_of(job_id: str, view: str = "change") -> str:
    return f"{JOBS}{job_id}/{view}/"


def text(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200, answer.status_code
    return str(answer.content.decode())


def press(client: Client, job_id: str, button: str) -> str:
    """Confirm what a button does; the page on which that ends."""
    return str(client.post(page_of(job_id, button), follow=True).content.decode())


@pytest.fixture
def store(app: Celery) -> Store:
    return open_store(Settings.of(app))


def make(store: Store, job_id: str, **record: Any) -> None:
    """A job as it stands in the store."""
    batches = record.pop("records", [BatchRecord(first=0, count=1, body_bytes=9)])
    job = JobRecord(nonce="x", requests=1, batches=len(batches), **{"submitted_at": time.time(), **record})
    assert store.jobs.create_job(job_id, job, batches, 3600, staged=False)


def test_who_is_not_logged_in_is_asked_to(login: Login) -> None:
    answer = Client().get(JOBS)
    assert answer.status_code == 302
    assert "/admin/login/" in answer["Location"]


def test_who_may_nothing_sees_nothing(login: Login) -> None:
    client, job_id = login(), submit()
    for address in (JOBS, page_of(job_id), page_of(job_id, "history"), page_of(job_id, "cancel")):
        assert client.get(address).status_code == 403
    assert "Claude batches" not in text(client, "/admin/")


def test_who_may_only_look_finds_no_buttons_and_cannot_press_them(login: Login) -> None:
    client, job_id = login("view"), submit()
    assert job_id in text(client, JOBS)
    page = text(client, page_of(job_id))
    assert "0 of 3" in page
    assert "../cancel/" not in page
    for button in ("cancel", "retry"):
        assert client.post(page_of(job_id, button)).status_code == 403
    assert BatchJob(job_id).status().state == "staged"
    assert [event.event for event in BatchJob(job_id).history()] == ["submitted"]


def test_to_be_allowed_to_cancel_is_not_to_be_allowed_to_retry(login: Login, store: Store) -> None:
    make(store, "failed-job", state="failed", error="it failed", ended_at=time.time())
    client = login("view", "cancel")
    assert "../retry/" not in text(client, page_of("failed-job"))
    assert client.post(page_of("failed-job", "retry")).status_code == 403


def test_cancel_asks_first_and_is_written_down(login: Login) -> None:
    client, job_id = login("view", "cancel"), submit()
    assert "../cancel/" in text(client, page_of(job_id))
    assert "cannot be undone" in text(client, page_of(job_id, "cancel"))
    assert len(BatchJob(job_id).history()) == 1
    assert "The job is being canceled." in press(client, job_id, "cancel")
    assert BatchJob(job_id).history()[-1].event == "cancel"
    who = text(client, page_of(job_id, "history"))
    assert "somebody" in who
    assert "Cancel." in who
    assert page_of(job_id) in text(client, "/admin/")


def test_a_post_from_elsewhere_is_refused(login: Login) -> None:
    client, job_id = login("view", "cancel", enforce_csrf_checks=True), submit()
    assert client.post(page_of(job_id, "cancel")).status_code == 403
    assert len(BatchJob(job_id).history()) == 1


def test_what_cannot_be_done_is_said_so(login: Login, store: Store) -> None:
    client, job_id = login("view", "cancel", "retry"), submit()
    assert "Nothing was done: the job is queued." in press(client, job_id, "retry")
    make(store, "done-job", state="completed", ended_at=time.time())
    assert "Nothing was done: the job is completed." in press(client, "done-job", "cancel")
    assert "../cancel/" not in text(client, page_of("done-job"))
    # Of its two batches one has expired.
    make(store, "old-job", state="failed", records=[], ended_at=time.time())
    store.jobs.update_job("old-job", batches=2)
    assert "cannot be resumed: some of what it needs has expired" in press(client, "old-job", "retry")


def test_a_job_that_is_gone_is_said_to_be(login: Login) -> None:
    client = login("view", "cancel")
    assert "no job not-there in the store" in text(client, page_of("not-there"))
    assert "No job not-there in the store" in press(client, "not-there", "cancel")


def test_a_store_that_is_away_is_said_to_be(login: Login, app: Celery) -> None:
    client = login("view", "cancel")
    app.conf.claude_batch_store_url = f"redis://:secret@127.0.0.1:{free_port()}/0"
    for address in (JOBS, page_of("some-job")):
        assert "errornote" in text(client, address)
        assert "secret" not in text(client, address)
    assert 'class="error"' in press(client, "some-job", "cancel")


def test_settings_that_make_no_sense_are_said_to(login: Login, app: Celery) -> None:
    app.conf.claude_batch_poll_min = -1
    assert "claude_batch_poll_min must be" in text(login("view"), JOBS)


def test_a_broker_that_is_away_does_not_keep_a_job_from_being_canceled(
    login: Login, app: Celery, store: Store, store_url: str
) -> None:
    make(store, "some-job")
    app.conf.update(claude_batch_store_url=store_url, broker_url=f"redis://127.0.0.1:{free_port()}/0")
    assert "The broker does not answer." in press(login("view", "cancel"), "some-job", "cancel")
    assert BatchJob("some-job").history()[-1].event == "cancel"


def test_the_pages_of_the_list_have_every_job_once_the_newest_first(login: Login, store: Store) -> None:
    client, now = login("view"), time.time()
    for number in range(60):
        make(store, f"job-{number:02}", submitted_at=now - number / 10_000)
    address, pages = JOBS, []
    while address:
        page = text(client, address)
        pages.append(re.findall(r"/(job-\d+)/change/", page))
        older = re.search(r'href="(\?before=[\d.]+)">Older', page)
        address = JOBS + older[1] if older else ""
    assert [len(page) for page in pages] == [25, 25, 10]
    assert [name for page in pages for name in page] == [f"job-{number:02}" for number in range(60)]


def test_the_list_shows_jobs_of_one_state(login: Login, store: Store) -> None:
    client = login("view")
    for number in range(30):
        make(store, f"done-{number}", state="completed", ended_at=time.time())
    make(store, "failed-job", state="failed", submitted_at=time.time() - 60)
    page = text(client, f"{JOBS}?state=failed")
    assert re.findall(r"/([\w-]+)/change/", page) == ["failed-job"]
    older = re.search(r'href="(\?phase=completed&amp;before=[\d.]+)">Older', text(client, f"{JOBS}?state=completed"))
    assert older
    assert text(client, JOBS + older[1].replace("&amp;", "&")).count("/change/") == 5
    assert "There is no revoked job" in text(client, f"{JOBS}?state=revoked")


@pytest.mark.parametrize(
    "address", ["?state=nonsense", "?before=nonsense", "?before=nan", "?before=1e99", "?before=-1"]
)
def test_an_address_that_makes_no_sense_is_no_error(login: Login, address: str) -> None:
    text(login("view"), JOBS + address)


def test_nothing_of_a_job_is_taken_for_html(login: Login, store: Store) -> None:
    client, evil = login("view", "cancel"), "<script>alert(1)</script>"
    job_id = f"a/b {evil}_2F?#"
    failed = make_batch_record(batch_id=evil, error=["StepFailed", [evil]])
    make(
        store,
        job_id,
        error=evil,
        stopped=evil,
        queue=evil,
        label=evil,
        metadata={evil: evil},
        records=[failed],
        state="failed",
    )
    store.history.append_event(
        job_id, HistoryEvent(at=datetime.now(timezone.utc), event=evil, batch=1, text=evil, details={})
    )
    page = text(client, JOBS)
    assert evil not in page
    address = re.search(r'href="([^"]+)/change/"', page)
    assert address
    for view in ("change", "history", "cancel"):
        answer = client.get(f"{address[1]}/{view}/", follow=True)
        assert answer.status_code == 200
        assert evil not in answer.content.decode()
        assert "&lt;script&gt;alert(1)" in answer.content.decode()


def test_a_job_of_many_batches_is_shown_in_pages(login: Login, store: Store) -> None:
    client = login("view")
    many = [make_batch_record(first=n, batch_id=f"msgbatch_{n}") for n in range(2_000)]
    make(store, "large", state="running", records=many)
    page = text(client, page_of("large"))
    assert page.count("msgbatch_") == 100
    assert "1 to 100 of 2000" in page
    assert "msgbatch_1999" in text(client, page_of("large") + "?batches=20")


@pytest.mark.redis_store("the commands that it counts")
def test_a_page_of_the_list_reads_little_of_each_job(login: Login, store: Store, redis_server: RedisServer) -> None:
    client = login("view")
    for number in range(30):
        make(store, f"job-{number}")
    redis_server.client().config_resetstat()
    text(client, JOBS)
    found = redis_server.client().info("commandstats")
    # What a script calls is counted by itself.
    calls = sum(of["calls"] for name, of in found.items() if name != "cmdstat_evalsha")
    assert calls < 200


def test_what_a_page_fetches_anew_is_the_part_that_changes(login: Login) -> None:
    client, job_id = login("view"), submit()
    for address in (JOBS, page_of(job_id)):
        part = text(client, f"{address}?live")
        assert job_id in part
        assert "data-live" in part
        assert "<html" not in part
        assert 'style="' not in part
        assert "<script" not in part


def test_what_does_not_change_is_no_part(login: Login) -> None:
    assert "<html" in text(login("view", "cancel"), f"{page_of(submit(), 'cancel')}?live")


def test_there_is_no_table_and_nothing_to_migrate(login: Login) -> None:
    from django.contrib.auth.models import Permission
    from django.db import connection

    permissions = Permission.objects.filter(content_type__app_label="claude_batch").values_list("codename", flat=True)
    assert sorted(permissions) == ["cancel_job", "download_job", "retry_job", "view_job"]
    assert not [name for name in connection.introspection.table_names() if name.startswith("claude_batch")]
    call_command("makemigrations", check=True, dry_run=True, stdout=io.StringIO())
    for whole in (False, True):
        out = io.StringIO()
        call_command("dumpdata", "claude_batch", use_base_manager=whole, stdout=out)
        assert out.getvalue().strip() == "[]"


def found_in(page: str) -> list[str]:
    return re.findall(r"/([\w-]+)/change/", page)


def test_jobs_are_searched_by_the_beginning_of_their_id(login: Login, store: Store) -> None:
    client = login("view")
    make(store, "abc-1", state="completed", ended_at=time.time())
    make(store, "abd-2", state="failed", ended_at=time.time())
    make(store, "xab-3")
    assert found_in(text(client, f"{JOBS}?q=ab")) == ["abd-2", "abc-1"]
    assert found_in(text(client, f"{JOBS}?q=ab&phase=failed")) == ["abd-2"]
    assert "that matches" in text(client, f"{JOBS}?q=nothing")


def test_jobs_are_found_by_their_label_and_phase(login: Login, store: Store) -> None:
    client = login("view")
    make(store, "one", label="Nightly <reviews>", metadata={"team": "<b>search"}, state="running")
    make(store, "two", label="nightly")
    make(store, "three", state="running")
    assert found_in(text(client, f"{JOBS}?q=nightly")) == ["two", "one"]
    assert found_in(text(client, f"{JOBS}?phase=queued")) == ["two"]
    page = text(client, f"{JOBS}?q=review")
    [address] = re.findall(r'class="claude-batch-label" href="([^"]+)"', page)
    assert "Nightly &lt;reviews&gt;" in page
    page = text(client, JOBS + address)
    assert found_in(page) == ["one"]
    assert "<reviews>" not in page
    job = text(client, page_of("one"))
    assert "&lt;b&gt;search" in job
    assert "<b>search" not in job


def test_several_jobs_are_canceled_after_a_confirmation_and_each_is_written_down(login: Login, store: Store) -> None:
    client, jobs = login("view", "cancel"), [submit(), submit(), submit()]
    make(store, "done-job", state="completed", ended_at=time.time())
    page = text(client, JOBS)
    assert sorted(re.findall(r'name="job" value="([^"]+)"', page)) == sorted(jobs)  # those that have not ended
    chosen = {"job": [*jobs[:2], "done-job", "not-there"]}
    confirmation = client.get(f"{JOBS}cancel-jobs/", chosen).content.decode()
    assert "Cancel 2 jobs" in confirmation
    assert "2 of the selected jobs cannot be canceled" in confirmation
    assert len(BatchJob(jobs[0]).history()) == 1
    assert "2 jobs are being canceled." in client.post(f"{JOBS}cancel-jobs/", chosen, follow=True).content.decode()
    assert [BatchJob(job).history()[-1].event for job in jobs] == ["cancel", "cancel", "submitted"]
    assert "Cancel." in text(client, page_of(jobs[1], "history"))
    assert "Select jobs that have not ended." in client.get(f"{JOBS}cancel-jobs/", follow=True).content.decode()


def test_who_may_only_look_cannot_cancel_several(login: Login) -> None:
    client, job_id = login("view", "retry"), submit()
    assert "cancel-jobs" not in text(client, JOBS).replace('action="cancel-jobs/"', "")
    assert 'name="job"' not in text(client, JOBS)
    for method in (client.get, client.post):
        assert method(f"{JOBS}cancel-jobs/", {"job": job_id}).status_code == 403
    assert len(BatchJob(job_id).history()) == 1


def test_a_broker_that_is_away_does_not_keep_several_jobs_from_being_canceled(
    login: Login, app: Celery, store: Store, store_url: str
) -> None:
    for name in ("one", "two"):
        make(store, name)
    app.conf.update(claude_batch_store_url=store_url, broker_url=f"redis://127.0.0.1:{free_port()}/0")
    page = login("view", "cancel").post(f"{JOBS}cancel-jobs/", {"job": ["one", "two"]}, follow=True).content.decode()
    assert page.count("The broker does not answer.") == 1
    assert [BatchJob(name).history()[-1].event for name in ("one", "two")] == ["cancel", "cancel"]


def test_workers_that_run_are_named(login: Login, store: Store) -> None:
    client = login("view")
    assert "No worker has reported" in text(client, JOBS)
    at = datetime.now(timezone.utc)
    evil = "<script>celery@web-1"
    shown = WorkerPresence(hostname=evil, queues=("nightly", "claude"), version="0.3", started_at=at, last_seen=at)
    store.presence.report_worker(shown, 60)
    page = text(client, JOBS)
    assert "&lt;script&gt;celery@web-1</strong> on nightly, claude" in page


def test_asks_that_wait_in_pools_are_shown(login: Login, store: Store) -> None:
    client = login("view")
    assert "Asks that are not in a job yet" not in text(client, JOBS)
    add_asks(store, "<b>reviews", 2, queue="nightly")
    page = text(client, JOBS)
    assert "Asks that are not in a job yet" in page
    assert '<th scope="row">&lt;b&gt;reviews</th>' in page
    assert '<td data-name="Asks">2</td>' in page
    assert 'nightly <span class="claude-batch-error">no worker</span>' in page


def test_a_pool_whose_queue_is_not_known_is_not_said_to_have_no_worker(
    login: Login, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = login("view")
    add_asks(store, "reviews", 2)
    monkeypatch.setattr("claude_batch_tasks.checks.pools.find_queue", lambda *_: None)
    assert '<td data-name="Queue">?</td>' in text(client, JOBS)


def run_with_failures(claude_batch: ClaudeBatch) -> str:
    """A job that has ended, with two answers and one failure."""
    claude_batch.answer("an answer")
    claude_batch.error("invalid_request_error", "too long", custom_id="nobody's 1")
    return submit()


@pytest.mark.parametrize("file", ["results", "failures"])
@pytest.mark.parametrize("format", ["csv", "jsonl"])
def test_a_download_has_every_row_and_is_written_down(
    login: Login, claude_batch: ClaudeBatch, file: str, format: str
) -> None:
    client, job_id = login("view", "download"), run_with_failures(claude_batch)
    assert f'href="../{file}.{format}"' in text(client, page_of(job_id))
    answer = client.get(f"{JOBS}{job_id}/{file}.{format}")
    assert answer.status_code == 200
    assert f'filename="{file}-{job_id[:8]}.{format}"' in answer["Content-Disposition"]
    assert answer.streaming
    content = b"".join(answer.streaming_content).decode()
    rows = (
        list(csv.DictReader(io.StringIO(content))) if format == "csv" else list(map(json.loads, content.splitlines()))
    )
    expected = ["nobody's 1"] if file == "failures" else ["nobody's 0", "nobody's 1", "nobody's 2"]
    assert sorted(row["custom_id"] for row in rows) == expected
    assert ("an answer" in content) == (file == "results")
    assert f"Downloaded {file} ({format})." in text(client, page_of(job_id, "history"))


def test_a_download_of_many_rows_has_one_header(
    login: Login, claude_batch: ClaudeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from claude_batch_tasks.contrib.django import downloads

    monkeypatch.setattr(downloads, "_GROUP", 2)
    claude_batch.answer("one\r\nof two lines")
    client, job_id = login("view", "download"), submit(7)
    rows = list(csv.reader(io.StringIO(b"".join(client.get(f"{JOBS}{job_id}/results.csv")).decode(), newline="")))
    assert len(rows) == 8
    assert sorted(row[0] for row in rows[1:]) == [f"nobody's {number}" for number in range(7)]


def test_answers_are_downloaded_only_by_who_may(login: Login, claude_batch: ClaudeBatch) -> None:
    client, job_id = login("view", "cancel", "retry"), run_with_failures(claude_batch)
    page = text(client, page_of(job_id))
    assert "results.csv" not in page
    assert "an answer" not in page
    for file in ("results.csv", "failures.jsonl", "nothing.csv", "results.exe"):
        assert client.get(f"{JOBS}{job_id}/{file}").status_code == 403


def test_failures_are_shown_by_type_with_an_example(
    login: Login, claude_batch: ClaudeBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    from claude_batch_tasks.contrib.django.admin import JobAdmin

    client, job_id = login("view"), run_with_failures(claude_batch)
    assert 'title="1 invalid_request_error"' in text(client, JOBS)
    page = text(client, page_of(job_id))
    for shown in ("Failures", "invalid_request_error", "too long", "nobody&#x27;s 1"):
        assert shown in page
    monkeypatch.setattr(JobAdmin, "show_custom_ids", False)
    page = text(client, page_of(job_id))
    assert "too long" in page
    assert "nobody&#x27;s 1" not in page


def test_answers_that_are_not_complete_are_shown_and_not_retried(login: Login, claude_batch: ClaudeBatch) -> None:
    claude_batch.refuse("a secret", custom_id="nobody's 1")
    claude_batch.answer("another secret", stop_reason="max_tokens", custom_id="nobody's 2")
    client, job_id = login("view", "retry", "download"), submit()
    said = "2 answers are incomplete (1 max_tokens, 1 refusal)"
    assert said in text(client, JOBS).replace("1 refusal, 1 max_tokens", "1 max_tokens, 1 refusal")
    page = text(client, page_of(job_id)).replace("1 refusal, 1 max_tokens", "1 max_tokens, 1 refusal")
    for shown in (said, "the model refused to answer", "nobody&#x27;s 1", 'href="../failures.csv"'):
        assert shown in page
    assert "secret" not in page
    assert "../retry_failed/" not in page
    content = b"".join(client.get(f"{JOBS}{job_id}/failures.csv").streaming_content).decode()
    rows = {row["custom_id"]: row["incomplete"] for row in csv.DictReader(io.StringIO(content))}
    assert rows == {"nobody's 1": "refusal", "nobody's 2": "max_tokens"}


def test_failed_requests_are_retried_by_type_after_a_confirmation(login: Login, claude_batch: ClaudeBatch) -> None:
    claude_batch.error("invalid_request_error", "too long", custom_id="nobody's 1", times=1)
    claude_batch.expire(custom_id="nobody's 2", times=1)
    client, job_id = login("view", "retry"), str(run_batch.delay(requests("nobody's", 4), retries=0, fallback="off").id)
    assert "../retry_failed/" in text(client, page_of(job_id))
    confirmation = text(client, page_of(job_id, "retry_failed"))
    assert "2 can be sent again" in confirmation
    assert "billed once" in confirmation
    assert sorted(re.findall(r'name="choice" value="([^"]+)" checked', confirmation)) == [
        "expired",
        "invalid_request_error",
    ]
    assert "choose at least one type" in press(client, job_id, "retry_failed")
    assert BatchJob(job_id).status().retries == ()
    done = client.post(page_of(job_id, "retry_failed"), {"choice": ["expired"]}, follow=True).content.decode()
    [retry] = BatchJob(job_id).status().retries
    assert f"Job {retry} sends them again." in done
    assert f"/{retry}/change/" in done
    assert [result.custom_id for result in BatchJob(retry).results()] == ["nobody's 2"]
    assert f"/{job_id}/change/" in text(client, page_of(retry))
    confirmation = text(client, page_of(job_id, "retry_failed"))
    assert "1 can be sent again" in confirmation
    assert re.findall(r'name="choice" value="([^"]+)" checked', confirmation) == ["invalid_request_error"]
    client.post(page_of(job_id, "retry_failed"), {"choice": ["invalid_request_error"]})
    assert (
        "has no failed request of these types"
        in client.get(page_of(job_id, "retry_failed"), follow=True).content.decode()
    )


def test_who_may_only_look_cannot_retry(login: Login, claude_batch: ClaudeBatch) -> None:
    client, job_id = login("view", "cancel", "download"), run_with_failures(claude_batch)
    assert "../retry_failed/" not in text(client, page_of(job_id))
    assert client.post(page_of(job_id, "retry_failed"), {"choice": ["invalid_request_error"]}).status_code == 403
    assert BatchJob(job_id).status().retries == ()


def test_a_download_that_cannot_be_made_says_why(login: Login, store: Store) -> None:
    client = login("view", "download")
    assert client.get(f"{JOBS}some-job/results.exe").status_code == 404
    assert client.get(f"{JOBS}some-job/nothing.csv").status_code == 404
    answer = client.get(f"{JOBS}not-there/results.csv", follow=True)
    assert "no job not-there in the store" in answer.content.decode()


def test_under_asgi_a_download_is_not_collected_in_memory(login: Login, claude_batch: ClaudeBatch) -> None:
    from claude_batch_tasks.contrib.django import downloads

    job_id = run_with_failures(claude_batch)
    response = downloads.make_download(SimpleNamespace(scope={}), job_id, "results", "csv")  # type: ignore[arg-type]
    assert response.is_async

    async def read() -> bytes:
        return b"".join([chunk async for chunk in response.streaming_content])

    assert asyncio.run(read()).count(b"nobody's") == 3


def test_answers_that_were_not_delivered_are_delivered_again(
    login: Login, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    client, calls = login("view", "retry"), []
    make(store, "some-job", state="completed", ended_at=time.time())
    assert "Deliver again" not in text(client, page_of("some-job"))
    assert "Nothing was done" in press(client, "some-job", "redeliver")
    undelivered = msgspec.structs.replace(BatchJob("some-job").status(), announced=5, delivered=2, delivery_failures=2)
    monkeypatch.setattr(BatchJob, "status", lambda self: undelivered)
    monkeypatch.setitem(
        actions.ACTIONS, "redeliver", actions.ACTIONS["redeliver"]._replace(do=lambda job, _: calls.append(job.id) or 3)
    )
    assert "../redeliver/" in text(client, page_of("some-job"))
    assert "custom_ids of 3 requests" in text(client, page_of("some-job", "redeliver"))
    assert "called again for 3 requests" in press(client, "some-job", "redeliver")
    assert calls == ["some-job"]


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(None, "unknown"), (0, "$0"), (0.000029, "$0.000029"), (0.0123456, "$0.01235"), (1234.5, "$1,234.50")],
)
def test_costs_are_written_without_exponents(cost: float | None, shown: str) -> None:
    from claude_batch_tasks.contrib.figures import format_dollars

    assert format_dollars(cost) == shown
