"""The admin's pages of jobs in a real browser: the example's project, its worker, and a simulated API."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.errors import WaitExceeded
from claude_batch_tasks.simulator import Fault, Simulator
from tests.django import project
from tests.integration.rig import requests
from tests.support import wait_until

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
expect.set_options(timeout=30_000)
pytestmark = [
    pytest.mark.latest,
    pytest.mark.workers,
    pytest.mark.redis_store("what the settings of the example name"),
    pytest.mark.skipif(not project.BROWSER, reason="no chromium or google-chrome on the PATH; no page was looked at"),
]


@pytest.fixture(scope="module")
def simulator() -> Iterator[Simulator]:
    with Simulator() as running:
        yield running


@pytest.fixture(scope="module")
def site(redis_server: RedisServer, simulator: Simulator, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The project's address."""
    redis_server.client().flushall()
    with project.running(redis_server.url, simulator.url, tmp_path_factory.mktemp("project")) as url:
        yield url


@pytest.fixture(scope="module")
def caller(redis_server: RedisServer, site: str) -> Iterator[Celery]:
    """The app that jobs are submitted with."""
    app = Celery("caller", broker=redis_server.url, backend=redis_server.url, set_as_current=False)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.set_current()
    yield app
    app.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as running, project.browser(running) as started:
        yield started


@pytest.fixture
def page(browser: playwright.Browser, site: str, caller: Celery) -> Iterator[playwright.Page]:
    """A page that fails the test when a script of a job's runs, or ours does not under a strict policy."""
    context = browser.new_context(base_url=site)
    context.set_default_timeout(30_000)
    context.route(re.compile("/claude_batch/"), _strictly)
    page, wrong = context.new_page(), []
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    yield page
    context.close()
    assert wrong == []


def _strictly(route: playwright.Route) -> None:
    # The browser follows a redirect itself: a page has its own address, and brings itself up to date from there.
    answer = route.fetch(max_redirects=0)
    route.fulfill(response=answer, headers={**answer.headers, "content-security-policy": "default-src 'self'"})


def log_in(page: playwright.Page, name: str) -> None:
    page.goto("/admin/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(project.PASSWORD)
    page.get_by_role("button", name="Log in").click()


def row_of(page: playwright.Page, job_id: str) -> playwright.Locator:
    """Its row in the list of jobs."""
    page.get_by_role("link", name="Jobs").first.click()
    return page.get_by_role("row").filter(has=page.get_by_title(job_id))


def test_the_progress_of_a_job_moves_while_one_looks(page: playwright.Page, simulator: Simulator) -> None:
    simulator.reset()
    simulator.behave(processing_seconds=1.5)
    simulator.faults(Fault("retrieve", "status", status=404, calls=(1,)))
    job = run_batch.delay(requests("a", 12), max_requests_per_batch=2, max_batches_in_flight=1)
    log_in(page, "guest")
    row = row_of(page, job.id)
    address, seen = page.url, set()
    while "completed" not in (text := row.inner_text()):
        seen.add(row.get_by_role("progressbar").get_attribute("value"))
        page.wait_for_timeout(400)
    assert len(seen) > 1
    assert "12 of 12" in text
    assert page.url == address
    row.get_by_role("link").first.click()
    expect(page.get_by_text("12 succeeded, 0 errored")).to_be_visible()
    expect(page.get_by_role("row").filter(has_text="not_found")).to_have_count(6)
    expect(page.get_by_role("link", name="Cancel")).to_have_count(0)


def test_a_job_is_canceled_by_a_button(page: playwright.Page, simulator: Simulator) -> None:
    simulator.reset()
    simulator.behave(processing_seconds=60)
    job = run_batch.delay(requests("b", 4))
    log_in(page, "keeper")
    row_of(page, job.id).get_by_role("link").first.click()
    wait_until(lambda: BatchJob(job.id).status().batches[0].batch_id)
    page.get_by_role("link", name="Cancel").click()
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_text("The job is being canceled.")).to_be_visible()
    expect(page.locator(".claude-batch-state")).to_have_text("canceled")
    expect(page.get_by_role("link", name="Cancel")).to_have_count(0)
    page.get_by_role("link", name="Who did what here").click()
    expect(page.get_by_role("row").filter(has_text="keeper").filter(has_text="Cancel.")).to_be_visible()


def test_a_failed_job_goes_on_by_a_button(page: playwright.Page, simulator: Simulator) -> None:
    simulator.reset()
    simulator.behave(processing_seconds=2.5)
    job = run_batch.delay(requests("c", 4), max_wait=1)
    with pytest.raises(WaitExceeded):
        job.get(timeout=180)
    wait_until(lambda: all(batch.status == "ended" for batch in simulator.state().batches))
    log_in(page, "keeper")
    row_of(page, job.id).get_by_role("link").first.click()
    page.get_by_role("link", name="Resume").click()
    page.get_by_role("button", name="Resume the job").click()
    expect(page.get_by_text("The job continues.")).to_be_visible()
    expect(page.locator(".claude-batch-state")).to_have_text("completed")
    expect(page.get_by_role("row").filter(has_text="resumed")).to_be_visible()
    assert simulator.journal().paid_twice() == []


def test_what_a_caller_calls_things_runs_as_no_script(page: playwright.Page, simulator: Simulator) -> None:
    evil = "<script>alert(1)</script><img src=x onerror=alert(2)>"
    run_batch.apply_async(({evil: requests("d", 1)["d 0"]},), task_id=f"odd/{evil}", queue=evil)
    log_in(page, "boss")
    row_of(page, "odd/").get_by_role("link").first.click()
    expect(page.get_by_role("heading", name=f"odd/{evil}")).to_be_visible()
    page.get_by_role("link", name="Cancel").click()
    expect(page.get_by_role("button", name="Cancel the job")).to_be_visible()


def test_a_click_is_not_lost_when_the_page_is_brought_up_to_date_in_the_middle_of_it(
    page: playwright.Page, simulator: Simulator
) -> None:
    simulator.reset()
    simulator.behave(processing_seconds=60)
    job = run_batch.delay(requests("c", 2)).id
    log_in(page, "guest")
    row_of(page, job).get_by_role("link").first.hover()
    page.mouse.down()
    with page.expect_response(re.compile("live")) as answer:
        pass
    answer.value.finished()
    page.wait_for_timeout(200)
    page.mouse.up()
    expect(page.get_by_role("heading", name=job)).to_be_visible()


def test_selected_jobs_stay_selected_and_are_canceled(page: playwright.Page, simulator: Simulator) -> None:
    simulator.reset()
    simulator.behave(processing_seconds=60)
    jobs = [run_batch.delay(requests(f"e{number}", 2)).id for number in range(3)]
    log_in(page, "keeper")
    row_of(page, jobs[0])
    boxes = {job: page.locator(f"input[value='{job}']") for job in jobs}
    page.get_by_role("checkbox", name="Select all").check()
    expect(boxes[jobs[2]]).to_be_checked()
    for box in page.locator("input[name=job]").all():
        box.uncheck()
    for job in jobs[:2]:
        boxes[job].check()
    for _ in range(2):
        with page.expect_response(re.compile("live")):
            pass
    for job in jobs:
        expect(boxes[job]).to_be_checked(checked=job != jobs[2])
    page.get_by_role("button", name="Cancel selected jobs").click()
    page.get_by_role("button", name="Cancel 2 jobs").click()
    expect(page.get_by_text("2 jobs are being canceled.")).to_be_visible()
    for job in jobs[:2]:
        wait_until(lambda job=job: BatchJob(job).status().state == "canceled")
    assert BatchJob(jobs[2]).status().state in ("staged", "running")
    BatchJob(jobs[2]).cancel()


def test_who_may_nothing_finds_nothing(page: playwright.Page) -> None:
    log_in(page, "stranger")
    expect(page.get_by_text(re.compile("have permission to view or edit anything"))).to_be_visible()
