"""The progress page in a Django project: behind its login, in WSGI and in ASGI."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import pytest
from celery import Celery
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.test import Client
from django.test.utils import override_settings

from claude_batch_tasks.contrib.web import ProgressPage, snapshots
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from tests.django.conftest import Login
from tests.django.test_admin import make
from tests.web.servers import ask, open_stream, serve_asgi, serve_wsgi


@pytest.fixture(autouse=True)
def _impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshots, "_SHORTEST", 0.1)


@contextmanager
def mounted(page: ProgressPage, protect: Callable[[Any], Any]) -> Iterator[None]:
    """A project that has the page at /team/batches/."""
    from django.urls import include, path

    urls: Any = ModuleType("urls")
    urls.urlpatterns = [path("team/batches/", include(page.django_urls(protect)))]
    with override_settings(ROOT_URLCONF=urls, ALLOWED_HOSTS=["*"]):
        yield


def test_the_login_of_the_project_is_asked_for_every_address(login: Login, app: Celery) -> None:
    from django.contrib.auth.decorators import login_required

    with mounted(ProgressPage(app), login_required):
        for address in ("", "stream", "job?id=x", "progress.js"):
            answer = Client().get(f"/team/batches/{address}")
            assert answer.status_code == 302
            assert "login" in answer["Location"]
        assert "There are no jobs yet" in login().get("/team/batches/").content.decode()


def test_a_rule_is_called_with_the_request(login: Login, app: Celery) -> None:
    with mounted(ProgressPage(app, allow=lambda request: "open" in request.GET), lambda view: view):
        assert Client().get("/team/batches/").status_code == 403
        assert Client().get("/team/batches/stream").status_code == 403
        assert Client().get("/team/batches/?open").status_code == 200


@pytest.mark.parametrize("server", ["wsgi", "asgi"])
def test_the_pages_and_their_streams_work_in_a_real_server(login: Login, app: Celery, server: str) -> None:
    store = open_store(Settings.of(app))
    make(store, "some-job", state="running")
    with mounted(ProgressPage(app), lambda view: view):
        serve = serve_wsgi(WSGIHandler()) if server == "wsgi" else serve_asgi(ASGIHandler(), lifespan="off")
        with serve as host:
            url = f"{host}/team/batches"
            assert "job?id=some-job" in ask(f"{url}/").text
            assert ask(f"{url}/job?id=some-job").status == 200
            assert ask(f"{url}/job?id=not-there").status == 404
            assert ask(f"{url}/progress.css").headers["Content-Type"].startswith("text/css")
            head = ask(f"{url}/", "HEAD")
            assert (head.status, head.text) == (200, "")
            assert ask(f"{url}/stream", "HEAD").status == 200
            refused = ask(f"{url}/", "PUT")
            assert refused.status in (403, 405)  # Django itself asks for a CSRF token first
            with open_stream(f"{url}/stream?id=some-job") as events:
                assert json.loads(next(events)[1])["title"].endswith("running")
                store.jobs.update_job("some-job", state="completed", ended_at=time.time())
                assert json.loads(next(events)[1])["title"].endswith("completed")
                assert next(events)[0] == "end"
