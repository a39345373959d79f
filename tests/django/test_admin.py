"""The admin's pages of jobs, without a worker: who may do what, what they show, and what they do when it goes wrong."""

from __future__ import annotations

import io
import re
import time
from datetime import datetime, timezone
from typing import Any

import pytest
from celery import Celery
from django.core.management import call_command
from django.test import Client

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer, free_port
from claude_batch_tasks.records import BatchRecord, HistoryEvent, JobRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store
from tests.django.conftest import Login
from tests.factories import make_batch_record
from tests.integration.rig import requests

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
    assert "cannot be taken back" in text(client, page_of(job_id, "cancel"))
    assert len(BatchJob(job_id).history()) == 1
    assert "Asked for the job to be canceled." in press(client, job_id, "cancel")
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
    assert "Nothing was done: the job is staged." in press(client, job_id, "retry")
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
    login: Login, app: Celery, store: Store, redis_url: str
) -> None:
    make(store, "some-job")
    app.conf.update(claude_batch_store_url=redis_url, broker_url=f"redis://127.0.0.1:{free_port()}/0")
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
    older = re.search(r'href="(\?state=completed&amp;before=[\d.]+)">Older', text(client, f"{JOBS}?state=completed"))
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
    make(store, job_id, error=evil, stopped=evil, queue=evil, records=[failed], state="failed")
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


def test_a_page_of_the_list_reads_little_of_each_job(login: Login, store: Store, redis_server: RedisServer) -> None:
    client = login("view")
    for number in range(30):
        make(store, f"job-{number}")
    redis_server.client().config_resetstat()
    text(client, JOBS)
    calls = sum(of["calls"] for of in redis_server.client().info("commandstats").values())
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
    assert sorted(permissions) == ["cancel_job", "retry_job", "view_job"]
    assert not [name for name in connection.introspection.table_names() if name.startswith("claude_batch")]
    call_command("makemigrations", check=True, dry_run=True, stdout=io.StringIO())
    for whole in (False, True):
        out = io.StringIO()
        call_command("dumpdata", "claude_batch", use_base_manager=whole, stdout=out)
        assert out.getvalue().strip() == "[]"


@pytest.mark.parametrize(
    ("cost", "shown"),
    [(None, "unknown"), (0, "$0"), (0.000029, "$0.000029"), (0.0123456, "$0.01235"), (1234.5, "$1,234.50")],
)
def test_costs_are_written_without_exponents(cost: float | None, shown: str) -> None:
    from claude_batch_tasks.contrib.django.templatetags.claude_batch import dollars

    assert dollars(cost) == shown
