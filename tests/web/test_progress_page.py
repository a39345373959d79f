"""The progress page over real HTTP: in WSGI and ASGI servers, mounted below a path, behind a rule who may see it."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from typing import Any
from urllib.parse import quote, urljoin

import pytest
from celery import Celery
from fastapi import FastAPI
from flask import Flask, request
from msgspec.structs import replace
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.contrib import job_pages
from claude_batch_tasks.contrib.web import ProgressPage, snapshots, streams
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.records import BatchRecord, HistoryEvent, JobRecord, Progress
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store, open_store
from claude_batch_tasks.testing.claude_batch import ClaudeBatch
from tests.factories import make_batch_record, make_params
from tests.support import wait_until
from tests.web.servers import ask, open_stream, serve_asgi, serve_wsgi

Serve = Callable[[ProgressPage], Any]


def in_wsgi(page: ProgressPage) -> Any:
    return serve_wsgi(page.wsgi)


def in_asgi(page: ProgressPage) -> Any:
    return serve_asgi(page.asgi)


@contextmanager
def in_flask(page: ProgressPage) -> Iterator[str]:
    flask = Flask("team")
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, {"/team/batches": page.wsgi})  # type: ignore[method-assign]
    with serve_wsgi(flask) as url:
        yield f"{url}/team/batches"


@contextmanager
def in_a_folder_with_an_odd_name(page: ProgressPage) -> Iterator[str]:
    flask = Flask("team")
    flask.wsgi_app = DispatcherMiddleware(flask.wsgi_app, {"/b\u00c3\u00a4 t": page.wsgi})  # type: ignore[method-assign]
    with serve_wsgi(flask) as url:
        yield f"{url}/b%C3%A4%20t"


@contextmanager
def in_flask_views(page: ProgressPage) -> Iterator[str]:
    flask = Flask("team")
    flask.register_blueprint(page.flask_blueprint(lambda view: view), url_prefix="/team/batches")
    with serve_wsgi(flask) as url:
        yield f"{url}/team/batches"


@contextmanager
def in_fastapi(page: ProgressPage) -> Iterator[str]:
    fastapi = FastAPI()
    fastapi.mount("/team/batches", page.asgi)
    with serve_asgi(fastapi) as url:
        yield f"{url}/team/batches"


@contextmanager
def behind_a_proxy(page: ProgressPage) -> Iterator[str]:
    """The proxy takes /api away from the path, and the server knows it."""
    fastapi = FastAPI()
    fastapi.mount("/batches", page.asgi)
    with serve_asgi(fastapi, root_path="/api") as url:
        yield f"{url}/batches"


@contextmanager
def behind_another_proxy(page: ProgressPage) -> Iterator[str]:
    """The same, where the application knows it, and leaves the path without it."""
    fastapi = FastAPI()
    fastapi.mount("/batches", page.asgi)

    async def with_root(scope: Any, receive: Any, send: Any) -> None:
        await fastapi({**scope, "root_path": "/api"}, receive, send)

    with serve_asgi(with_root) as url:
        yield f"{url}/batches"


SERVERS = [in_wsgi, in_asgi, in_flask, in_flask_views, in_fastapi, behind_a_proxy, behind_another_proxy]


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_SHORTEST", 0.1)
    monkeypatch.setattr(streams, "_SILENCE", 0.3)


@pytest.fixture
def store(app: Celery) -> Store:
    return open_store(Settings.of(app))


@pytest.fixture(params=SERVERS)
def url(request: pytest.FixtureRequest, app: Celery) -> Iterator[str]:
    """The address at which the page is mounted, without a slash."""
    with request.param(ProgressPage(app)) as url:
        yield url


def make(store: Store, job_id: str, **record: Any) -> None:
    """A job as it stands in the store."""
    batches = record.pop("records", [BatchRecord(first=0, count=1, body_bytes=9)])
    fields = {"nonce": "x", "requests": 1, "submitted_at": time.time(), "state": "running", **record}
    assert store.jobs.create_job(job_id, JobRecord(batches=len(batches), **fields), batches, 3600, staged=False)


def test_the_list_and_a_job_are_shown_wherever_the_page_is_mounted(url: str, store: Store) -> None:
    make(store, "6f1a4c0e-1111", records=[make_batch_record(batch_id="msgbatch_01")])
    page = ask(f"{url}/")
    assert page.status == 200
    [link] = re.findall(r'href="(job\?[^"]+)"', page.text)
    job = ask(f"{url}/{link}")
    assert job.status == 200
    assert "msgbatch_01" in job.text
    for kind, name in re.findall(r'(?:href|src)="((progress\.\w+)\?[^"]+)"', job.text):
        file = ask(f"{url}/{kind}")
        assert file.status == 200
        assert ("css" in file.headers["Content-Type"]) == name.endswith("css")
    [stream] = re.findall(r'data-stream="([^"]+)"', job.text)
    with open_stream(f"{url}/{stream}") as events:
        name, data = next(events)
    assert name == "page"
    assert "msgbatch_01" in json.loads(data)["content"]


def test_every_link_is_relative_and_nothing_is_loaded_from_elsewhere(url: str, store: Store) -> None:
    make(store, "some-job")
    for address in ("/", "/job?id=some-job"):
        links = re.findall(r'(?:href|src|action|data-stream)="([^"]*)"', ask(url + address).text)
        assert links
        assert not [link for link in links if link.startswith("/") or "//" in link]


@pytest.mark.parametrize(
    "serve", [in_wsgi, in_asgi, in_flask, in_flask_views, in_fastapi, in_a_folder_with_an_odd_name]
)
def test_the_address_without_a_slash_leads_to_the_page(serve: Serve, app: Celery) -> None:
    with serve(ProgressPage(app)) as url:
        assert "There are no jobs yet" in ask(url).text
        assert "No job matches" in ask(f"{url}?q=nothing").text


def test_what_is_asked_for_wrongly_is_said_so(url: str, store: Store) -> None:
    make(store, "some-job")
    for address in ("/nothing", "/job", "/job?id=", "/static/progress.css", "/../progress.py", "/job/some-job"):
        assert ask(url + address).status == 404
    gone = ask(f"{url}/job?id=not-there")
    assert gone.status == 404
    assert "There is no job not-there" in gone.text
    for method in ("POST", "PUT", "DELETE", "OPTIONS"):
        refused = ask(f"{url}/job?id=some-job", method)
        assert refused.status == 405 or (refused.status == 200 and method == "OPTIONS")  # Flask answers OPTIONS itself
        assert {each.strip() for each in refused.headers["Allow"].split(",")} - {"OPTIONS"} == {"GET", "HEAD"}


def test_a_head_has_the_headers_of_a_get_and_no_body(url: str, store: Store) -> None:
    make(store, "some-job")
    for address in ("/", "/job?id=some-job", "/progress.js", "/nothing"):
        there, head = ask(url + address), ask(url + address, "HEAD")
        assert (head.status, head.text) == (there.status, "")
        for name in ("Content-Type", "Content-Length", "Cache-Control"):
            assert head.headers[name] == there.headers[name]
    stream = ask(f"{url}/stream", "HEAD")
    assert (stream.status, stream.text) == (200, "")


def test_a_strict_policy_is_said_and_kept(url: str, store: Store) -> None:
    make(store, "some-job", state="failed", error="it failed")
    for address in ("/", "/job?id=some-job"):
        page = ask(url + address)
        assert "default-src 'none'" in page.headers["Content-Security-Policy"]
        assert page.headers["Cache-Control"] == "no-store"
        assert " style=" not in page.text
        assert "<style" not in page.text
        assert not re.search(r"<script(?! src=)|\son\w+=|javascript:", page.text)


@pytest.mark.parametrize("serve", [in_wsgi, in_asgi])
def test_nothing_of_a_job_is_taken_for_html(serve: Serve, app: Celery, store: Store) -> None:
    evil = "<script>alert(1)</script>\"'&\r\n\n"
    job_id = f"a/b ..{evil}?#%2F"
    failed = make_batch_record(batch_id=evil, error=["StepFailed", [evil]])
    make(
        store,
        job_id,
        error=evil,
        stopped=evil,
        not_sent=evil,
        on_result_error=evil,
        records=[failed],
        state="failed",
        ended_at=1.0,
    )
    store.history.append_event(
        job_id, HistoryEvent(at=datetime.now(timezone.utc), event=evil, batch=0, text=evil, details={})
    )
    with serve(ProgressPage(app, heading=evil)) as url:
        page = ask(f"{url}/?q={quote('<script>')}").text
        assert "<script>" not in page
        page = ask(f"{url}/").text
        assert "<script>" not in page
        [link] = re.findall(r'href="(job\?[^"]+)"', page)
        job = ask(f"{url}/{link.replace('&amp;', '&')}")
        assert job.status == 200
        assert "<script>" not in job.text
        assert "&lt;script&gt;alert(1)" in job.text
        with open_stream(f"{url}/stream?{link.partition('?')[2]}") as events:
            told = list(events)
        gone = ask(f"{url}/job?id=%ED%A0%BD{quote(evil)}")  # half a surrogate pair before it
        assert gone.status == 404
        assert "<script>" not in gone.text
    assert [name for name, _ in told] == ["page", "end"]
    assert json.loads(told[0][1])["content"] in job.text


@pytest.mark.parametrize(
    "query",
    ["before=nonsense", "before=nan", "before=1e99", "before=-1", "phase=nonsense", "q=%ff", "q=%00", "=", "&&"],
)
def test_an_address_that_makes_no_sense_is_no_error(app: Celery, store: Store, query: str) -> None:
    make(store, "some-job")
    with in_wsgi(ProgressPage(app)) as url:
        assert ask(f"{url}/?{query}").status == 200
        assert ask(f"{url}/job?id=some-job&batches=%FF&history=-3&{query}").status == 200


def test_jobs_are_searched_by_the_beginning_of_their_id_and_by_phase(app: Celery, store: Store) -> None:
    make(store, "abc-1", state="completed", ended_at=time.time())
    make(store, "abd-2", state="failed", ended_at=time.time())
    make(store, "xab-3")

    def found(query: str) -> list[str]:
        return re.findall(r'href="job\?id=([^"]+)"', ask(f"{url}/?{query}").text)

    with in_wsgi(ProgressPage(app)) as url:
        assert found("q=ab") == ["abd-2", "abc-1"]
        assert found("q=abc") == ["abc-1"]
        assert found("phase=failed") == ["abd-2"]
        assert found("q=ab&phase=completed") == ["abc-1"]
        assert found("q=b-3") == []


def test_jobs_are_found_by_their_label(app: Celery, store: Store) -> None:
    make(store, "one", label="Nightly reviews", metadata={"team": "search"})
    make(store, "two")
    with in_wsgi(ProgressPage(app)) as url:
        page = ask(f"{url}/?q=night").text
        assert "Nightly reviews" in page
        assert re.findall(r'href="job\?id=([^"]+)"', page) == ["one"]
        job = ask(f"{url}/job?id=one").text
        assert "<h1>Nightly reviews " in job
        assert "search" in job


def test_the_first_characters_of_an_id_show_a_job(app: Celery, store: Store) -> None:
    for job_id in ("6f1a4c0e-1", "6f1a4c0e-2", "7abc0000-3"):
        make(store, job_id)
    with in_wsgi(ProgressPage(app)) as url:
        assert "7abc0000-3" in ask(f"{url}/job?id=7abc").text
        several = ask(f"{url}/job?id=6f1a4c0e")
        assert several.status == 404
        assert re.findall(r'href="job\?id=([^"]+)"', several.text) == ["6f1a4c0e-1", "6f1a4c0e-2"]


def test_the_pages_of_the_list_have_every_job_once_the_newest_first(app: Celery, store: Store) -> None:
    now = time.time()
    for number in range(60):
        make(store, f"job-{number:02}", submitted_at=now - number / 10_000)
    pages, address = [], "./?q=job"
    with in_wsgi(ProgressPage(app)) as url:
        while address:
            page = ask(urljoin(f"{url}/", address)).text
            pages.append(re.findall(r'href="job\?id=(job-\d+)"', page))
            older = re.search(r'href="([^"]+)">Older', page)
            address = older[1].replace("&amp;", "&") if older else ""
    assert [len(page) for page in pages] == [25, 25, 10]
    assert [name for page in pages for name in page] == [f"job-{number:02}" for number in range(60)]


def test_a_search_through_many_jobs_ends_and_goes_on_from_there(
    app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_pages, "SEARCHED", 10)
    now = time.time()
    for number in range(15):
        make(store, f"job-{number:02}", submitted_at=now - number)
    with in_wsgi(ProgressPage(app)) as url:
        page = ask(f"{url}/?q=job-14").text
        assert "jobs were searched" in page
        [older] = re.findall(r'href="([^"]+)">Older', page)
        assert "job?id=job-14" in ask(urljoin(f"{url}/", older.replace("&amp;", "&"))).text


def test_an_estimate_is_shown_as_one(app: Celery, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    make(store, "some-job", requests=200)
    read = job_pages.read_status
    for measured, shown in ((False, "0 of 200, about 42 %"), (True, "0 of 200<")):
        text = "about 42 %, by the time that 12 similar batches took"
        progress = Progress(fraction=0.42, measured=measured, text=text)
        found = replace(read(store, "some-job", store.jobs.read_job("some-job")), progress=progress)
        monkeypatch.setattr(job_pages, "read_status", lambda *_, found=found: found)
        monkeypatch.setattr(BatchJob, "status", lambda _, found=found: found)
        with in_wsgi(ProgressPage(app)) as url:
            rows, job = ask(f"{url}/").text, ask(f"{url}/job?id=some-job").text
        assert shown in rows
        assert f'<p class="quiet">{text}' in job
        for page in (rows, job):
            assert 'value="420"' in page
            assert (" estimated" in page) != measured


def test_a_job_of_many_batches_is_shown_in_pages_numbered_from_one(app: Celery, store: Store) -> None:
    many = [make_batch_record(first=n, batch_id=f"msgbatch_{n}.") for n in range(100)]
    make(store, "large", records=many)
    with in_wsgi(ProgressPage(app)) as url:
        page = ask(f"{url}/job?id=large").text
        assert page.count("msgbatch_") == 25
        assert "1 to 25 of 100" in page
        assert 'data-name="No.">1<' in page
        [after] = re.findall(r'href="([^"]+)">Next', page)
        assert "msgbatch_25." in ask(f"{url}/{after.replace('&amp;', '&')}").text


@pytest.mark.parametrize("serve", [in_wsgi, in_asgi, in_flask, in_flask_views, in_fastapi])
def test_a_page_is_told_what_happens_until_the_job_ends(serve: Serve, app: Celery, store: Store) -> None:
    make(store, "some-job", requests=4)
    with serve(ProgressPage(app)) as url, open_stream(f"{url}/stream?id=some-job") as events:
        assert json.loads(next(events)[1])["title"].endswith("running")
        store.jobs.update_job("some-job", state="completed", ended_at=time.time())
        assert json.loads(next(events)[1])["title"].endswith("completed")
        assert next(events)[0] == "end"
        assert list(events) == []


def test_a_job_that_has_ended_is_not_live(app: Celery, store: Store) -> None:
    make(store, "done", state="completed", ended_at=time.time())
    make(store, "busy")
    with in_wsgi(ProgressPage(app)) as url:
        for job_id, live in (("done", False), ("busy", True)):
            page = ask(f"{url}/job?id={job_id}").text
            assert ("data-stream" in page) == live
            assert ('http-equiv="refresh"' in page) == live  # without JavaScript


@pytest.mark.parametrize("serve", [in_wsgi, in_asgi])
def test_who_is_not_allowed_is_refused(serve: Serve, app: Celery) -> None:
    def allow(request: Any) -> bool:
        headers = dict(request.get("headers", ()))
        return b"let me in" in (headers.get(b"x-team"), request.get("HTTP_X_TEAM", "").encode())

    with serve(ProgressPage(app, allow=allow)) as url:
        for address in ("/", "/stream", "/job?id=x", "/progress.js"):
            assert ask(url + address).status == 403
        assert ask(f"{url}/", headers={"X-Team": "let me in"}).status == 200


def test_flasks_own_login_is_asked_for_every_address(app: Celery) -> None:
    def login_required(view: Any) -> Any:
        return lambda **names: view(**names) if request.authorization else ("log in first", 401)

    flask = Flask("team")
    flask.register_blueprint(ProgressPage(app).flask_blueprint(login_required), url_prefix="/batches")
    with serve_wsgi(flask) as url:
        for address in ("", "stream", "job?id=x", "progress.js"):
            assert ask(f"{url}/batches/{address}").status == 401
        assert ask(f"{url}/batches/", headers={"Authorization": "Basic bWU6bWU="}).status == 200


def test_a_rule_may_be_async_in_asgi(app: Celery) -> None:
    async def allow(scope: Any) -> bool:
        return bool(scope["query_string"] == b"q=let-me-in")

    with in_asgi(ProgressPage(app, allow=allow)) as url:
        assert ask(f"{url}/").status == 403
        assert ask(f"{url}/?q=let-me-in").status == 200


class _Rule:
    """A rule that is async, and does not look like it."""

    async def __call__(self, request: Any) -> bool:
        return False


@pytest.mark.filterwarnings("ignore:coroutine .* was never awaited")
def test_what_an_async_rule_says_counts_and_not_that_it_is_something(app: Celery) -> None:
    with in_asgi(ProgressPage(app, allow=_Rule())) as url:
        assert ask(f"{url}/").status == 403
    with pytest.raises(TypeError, match="asgi"):
        ProgressPage(app, allow=_Rule()).wsgi({"REQUEST_METHOD": "GET"}, lambda *_: None)


@pytest.mark.parametrize("serve", [in_wsgi, in_asgi])
def test_a_store_that_is_away_is_said_to_be_and_a_stream_lives_on(serve: Serve, app: Celery) -> None:
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer())
        app.conf.claude_batch_store_url = server.url
        make(open_store(Settings.of(app)), "some-job")
        with serve(ProgressPage(app)) as url, open_stream(f"{url}/stream?id=some-job") as events:
            assert next(events)[0] == "page"
            stack.close()
            name, text = next(events)
            assert name == "trouble"
            assert "does not answer" in text
            page = ask(f"{url}/job?id=some-job")
            assert page.status == 503
            assert "does not answer" in page.text
            assert "127.0.0.1" not in page.text
            assert "data-stream" in page.text


def test_failures_are_shown_by_type_with_an_example_which_can_be_hidden(app: Celery, claude_batch: ClaudeBatch) -> None:
    claude_batch.answer("a secret answer")
    claude_batch.error("invalid_request_error", "too long", custom_id="patient 1")
    job = run_batch.delay({f"patient {number}": make_params("a secret prompt") for number in range(3)})
    for shown in (True, False):
        with in_wsgi(ProgressPage(app, show_custom_ids=shown)) as url:
            page = ask(f"{url}/job?id={job.id}").text
            assert "invalid_request_error" in page
            assert "too long" in page
            assert ("patient 1" in page) == shown
            assert "secret" not in page


def test_answers_that_are_not_complete_are_shown(app: Celery, claude_batch: ClaudeBatch) -> None:
    claude_batch.refuse("a secret", custom_id="patient 1")
    job = run_batch.delay({f"patient {number}": make_params("a prompt") for number in range(3)})
    with in_wsgi(ProgressPage(app)) as url:
        for page in (ask(f"{url}/").text, ask(f"{url}/job?id={job.id}").text):
            assert "1 answer is incomplete (1 refusal)" in page
        assert "the model refused to answer" in page
        assert "patient 1" in page
        assert "secret" not in page


def test_settings_that_make_no_sense_are_no_stack_trace(app: Celery) -> None:
    app.conf.claude_batch_poll_min = -1
    with in_wsgi(ProgressPage(app)) as url:
        page = ask(f"{url}/")
        assert page.status == 503
        assert "The log of the web server says why" in page.text


@pytest.mark.parametrize("serve", [in_wsgi, in_asgi])
def test_many_who_view_the_same_read_the_store_as_often_as_one(
    serve: Serve, app: Celery, store: Store, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(snapshots, "_SHORTEST", 0.5)
    monkeypatch.setattr(snapshots, "_REST", 0)  # a busy machine reads slowly, and would rest for longer than the test
    make(store, "some-job")

    def count_reads() -> int:
        return int(redis_server.client().info("commandstats")["cmdstat_hgetall"]["calls"])

    clients = len(redis_server.client().client_list())
    with serve(ProgressPage(app, max_streams=30)) as url, ExitStack() as stack:
        events = [stack.enter_context(open_stream(f"{url}/stream?id=some-job")) for _ in range(20)]
        for each in events:
            assert next(each)[0] == "page"
        before, begun = count_reads(), time.monotonic()
        clients = len(redis_server.client().client_list()) - clients
        wait_until(lambda: count_reads() - before >= 4)
        read = count_reads() - before
        rounds = (time.monotonic() - begun) / 0.5 + 2
    assert read <= 6 * rounds  # a few calls a read, and each half a second one read for all
    assert clients < 10  # and not one for each


def test_a_stream_whose_client_is_gone_ends(app: Celery, store: Store) -> None:
    make(store, "some-job")
    page = ProgressPage(app, max_streams=1)
    for serve in (in_wsgi, in_asgi):
        with serve(page) as url, open_stream(f"{url}/stream?id=some-job") as events:
            next(events)
    with in_wsgi(page) as url:
        with open_stream(f"{url}/stream?id=some-job") as events:
            next(events)
        wait_until(page._places.take_place, 20)
        page._places.release_place()


def test_where_no_thread_is_left_for_streams_a_browser_asks_again(app: Celery, store: Store) -> None:
    make(store, "some-job")
    for threads, places in ((True, 0), (False, 5)):
        with serve_wsgi(ProgressPage(app, max_streams=places).wsgi, threads=threads) as url:
            text = ask(f"{url}/stream?id=some-job").text  # ends by itself
        assert text.startswith("retry: 3000\n")
        assert "event: page\n" in text
        assert "event: end" not in text


def test_a_page_that_was_used_before_a_fork_works_after_it(app: Celery, store: Store) -> None:
    page = snapshots.Snapshots(lambda view: snapshots.Snapshot("title", "content"))  # type: ignore[arg-type]
    page.ask_view(snapshots.View()).result(10)
    page._pid -= 1
    page._lock.acquire()  # as a fork may find it
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(page.ask_view(snapshots.View()).result(10)), daemon=True)
    thread.start()
    thread.join(10)
    assert found
