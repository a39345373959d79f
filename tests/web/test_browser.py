"""The progress page in a real browser: it updates itself, under its own strict policy, on a phone, in the dark."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery

from claude_batch_tasks.contrib.web import ProgressPage, snapshots
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store
from tests.django import project
from tests.factories import make_batch_record
from tests.web.servers import serve_asgi, serve_wsgi
from tests.web.test_progress_page import make

playwright = pytest.importorskip("playwright.sync_api")
expect = playwright.expect
pytestmark = [
    pytest.mark.latest,
    pytest.mark.skipif(not project.BROWSER, reason="no chromium or google-chrome on the PATH; no page was looked at"),
]

LONG = "a-name-without-any-space-" * 12


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as running, project.browser(running) as started:
        yield started


@pytest.fixture
def store(app: Celery) -> Store:
    return open_store(Settings.of(app))


@pytest.fixture(params=["asgi", "wsgi", "wsgi without threads for streams"])
def url(request: pytest.FixtureRequest, app: Celery, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(snapshots, "_SHORTEST", 0.1)
    page = ProgressPage(app, max_streams=0 if "without" in request.param else 2)
    with serve_asgi(page.asgi) if request.param == "asgi" else serve_wsgi(page.wsgi) as url:
        yield url


@pytest.fixture
def page(browser: playwright.Browser, url: str) -> Iterator[playwright.Page]:
    with_phone: dict[str, Any] = {"viewport": {"width": 390, "height": 844}, "color_scheme": "dark"}
    context = browser.new_context(base_url=url, **with_phone)
    page, wrong = context.new_page(), []
    page.on("dialog", lambda dialog: wrong.append(dialog.message))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
    page.route(re.compile("favicon"), lambda route: route.fulfill(status=204))
    yield page
    context.close()
    assert wrong == []


def test_a_page_updates_itself_until_the_job_ends(page: playwright.Page, store: Store) -> None:
    evil = "<img src=x onerror=alert(1)>"
    make(store, "some-job", requests=4, records=[make_batch_record(batch_id=evil)])
    page.goto("/")
    page.get_by_role("link", name="some-job").click()
    expect(page.locator(".pill")).to_have_text("running")
    expect(page.get_by_text(evil)).to_be_visible()
    store.jobs.update_job("some-job", state="completed", ended_at=time.time(), error=evil)
    expect(page.locator(".pill")).to_have_text("completed", timeout=20_000)
    expect(page).to_have_title(re.compile("completed"))
    expect(page.locator("#trouble")).to_be_hidden()


def test_a_new_job_comes_to_the_list(page: playwright.Page, store: Store) -> None:
    page.goto("/")
    expect(page.get_by_text("There are no jobs yet")).to_be_visible()
    make(store, "new-job")
    expect(page.get_by_role("link", name="new-job")).to_be_visible(timeout=20_000)


def test_a_phone_shows_all_of_it(page: playwright.Page, store: Store) -> None:
    make(store, LONG, error=LONG, state="failed", ended_at=1.0, records=[make_batch_record(batch_id=LONG)])
    for address in ("/", f"/job?id={LONG}"):
        page.goto(address)
        wide = page.evaluate("document.documentElement.scrollWidth")
        assert wide <= 390
        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert dark == "rgb(18, 22, 28)"


def test_a_store_that_goes_away_leaves_the_page_as_it_was_and_says_so(
    browser: playwright.Browser, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_SHORTEST", 0.1)
    with serve_asgi(ProgressPage(app).asgi) as url, browser.new_page() as page:
        with RedisServer() as server:
            app.conf.claude_batch_store_url = server.url
            make(open_store(Settings.of(app)), "some-job")
            page.goto(f"{url}/job?id=some-job")
            expect(page.locator(".pill")).to_have_text("running")
        expect(page.get_by_text("The store of the jobs does not answer")).to_be_visible(timeout=20_000)
        expect(page.locator(".pill")).to_have_text("running")


def test_without_javascript_a_page_is_loaded_again(
    browser: playwright.Browser, app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    from claude_batch_tasks.contrib.web import document

    monkeypatch.setattr(document, "_RELOAD", 1)
    monkeypatch.setattr(snapshots, "_SHORTEST", 0.1)
    store = open_store(Settings.of(app))
    make(store, "some-job")
    with serve_wsgi(ProgressPage(app).wsgi) as url:
        context = browser.new_context(java_script_enabled=False)
        page = context.new_page()
        page.goto(f"{url}/job?id=some-job")
        store.jobs.update_job("some-job", state="completed", ended_at=time.time())
        expect(page.locator(".pill")).to_have_text("completed", timeout=20_000)
        context.close()
