"""Answers into rows of a model, on each database that is there."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
from django.db import connections, models
from django.db.utils import NotSupportedError

from claude_batch_tasks.records import Attempt
from claude_batch_tasks.results.reader import RequestResult

#: Databases that are tried beside SQLite.
URLS = {
    "postgresql": os.environ.get("TEST_POSTGRES_URL", "postgresql://postgres@127.0.0.1:5432/test"),
    "mysql": os.environ.get("TEST_MYSQL_URL", "mysql://root@127.0.0.1:3306/"),
}

JOB = "job-1"


def answer(custom_id: Any, text: str = "yes", type: Any = "succeeded") -> RequestResult:
    message = {"content": [{"type": "text", "text": text}], "usage": {"output_tokens": 1}}
    error = None if type == "succeeded" else {"type": "invalid_request_error", "message": text}
    return RequestResult(
        custom_id=str(custom_id), type=type, source="batch", message=message if error is None else None, error=error
    )


@pytest.fixture(scope="module")
def tables(_project: None) -> Any:
    """The models of a project."""

    class Answer(models.Model):
        custom_id = models.CharField(max_length=64, unique=True)
        text = models.TextField(default="")
        outcome = models.CharField(max_length=16, default="")
        message = models.JSONField(null=True)
        own = models.IntegerField(default=7)
        saved_at = models.DateTimeField(auto_now=True)
        made_at = models.DateTimeField(auto_now_add=True)

        class Meta:
            app_label = "tests_results"

    class OfJob(models.Model):
        job = models.CharField(max_length=64)
        custom_id = models.CharField(max_length=64)
        text = models.TextField(default="")

        class Meta:
            app_label = "tests_results"
            constraints = (models.UniqueConstraint(fields=["job", "custom_id"], name="of_job"),)

    class Loose(models.Model):
        custom_id = models.CharField(max_length=64)
        text = models.TextField(default="")

        class Meta:
            app_label = "tests_results"

    class Twice(models.Model):
        custom_id = models.CharField(max_length=64, unique=True)
        slug = models.CharField(max_length=64, unique=True)

        class Meta:
            app_label = "tests_results"

    class Tables:
        answer, of_job, loose, twice = Answer, OfJob, Loose, Twice
        all = (Answer, OfJob, Loose, Twice)

    return Tables


def settings_of(vendor: str) -> dict[str, Any]:
    url = urlsplit(URLS[vendor])
    return {
        "ENGINE": f"django.db.backends.{vendor}",
        "NAME": url.path.strip("/") or "claude_batch_tests",
        "USER": url.username or "",
        "PASSWORD": url.password or "",
        "HOST": url.hostname,
        "PORT": str(url.port or ""),
        "TIME_ZONE": None,
    }


def connect(vendor: str) -> None:
    """Make a database's alias known, if there is a server and what speaks to it."""
    if vendor == "mysql":
        driver = pytest.importorskip("pymysql")
        driver.version_info = (2, 2, 7, "final", 0)  # Django knows this driver by another name, and its versions
        driver.install_as_MySQLdb()
        url = urlsplit(URLS[vendor])
        try:
            server = driver.connect(
                host=url.hostname, port=url.port or 3306, user=url.username, password=url.password or ""
            )
        except driver.err.OperationalError as exc:
            pytest.skip(f"no MariaDB or MySQL at {URLS[vendor]} ({exc}); set TEST_MYSQL_URL")
        with contextlib.closing(server):
            server.cursor().execute("create database if not exists claude_batch_tests character set utf8mb4")
    if vendor not in connections.settings:
        connections.settings[vendor] = connections.configure_settings({"default": {}, vendor: settings_of(vendor)})[
            vendor
        ]
    try:
        connections[vendor].ensure_connection()
    except Exception as exc:  # noqa: BLE001 - whatever keeps it from answering
        pytest.skip(f"no database at {URLS[vendor]} ({exc})")


@pytest.fixture(scope="module", params=["sqlite", "postgresql", "mysql"])
def using(request: pytest.FixtureRequest, tables: Any) -> Iterator[str]:
    """The alias of a database that has the tables."""
    alias = "default" if request.param == "sqlite" else request.param
    if alias != "default":
        connect(alias)
    connection = connections[alias]

    def drop() -> None:
        with connection.schema_editor() as editor, contextlib.suppress(Exception):
            for model in tables.all:
                editor.delete_model(model)

    if alias != "default":
        drop()
    with connection.schema_editor() as editor:
        for model in tables.all:
            editor.create_model(model)
    yield alias
    drop()
    connection.close() if alias != "default" else None


@pytest.fixture(autouse=True)
def _empty(using: str, tables: Any) -> None:
    for model in tables.all:
        model.objects.using(using).all().delete()


Save = Callable[..., int]


@pytest.fixture
def save(using: str, monkeypatch: pytest.MonkeyPatch) -> Save:
    """``save(results, model, fields=..., ...)``: write these results of a job."""
    from claude_batch_tasks.contrib.django import results

    def save_these(found: Iterable[RequestResult], model: Any, **options: Any) -> int:
        class Job:
            def __init__(self, job_id: str, app: Any = None) -> None:
                assert job_id == JOB

            def results(self, ids: Any) -> Iterator[RequestResult]:
                return iter(found)

        with monkeypatch.context() as patched:
            patched.setattr(results, "BatchJob", Job)
            return results.save_results(JOB, [], model, using=using, **options)

    return save_these


FIELDS = {"text": "text", "outcome": "type", "message": "message"}


class TestRowsOfTheirOwn:
    def test_are_written_once_however_often_they_come(self, save: Save, tables: Any, using: str) -> None:
        found = [answer(n, f"answer {n}") for n in (3, 1, 2)] + [answer("4", "too long", "errored")]
        for _ in range(3):
            assert save(found, tables.answer, fields=FIELDS) == 4
        rows = tables.answer.objects.using(using).order_by("custom_id")
        assert [(row.custom_id, row.text, row.outcome, row.own) for row in rows] == [
            ("1", "answer 1", "succeeded", 7),
            ("2", "answer 2", "succeeded", 7),
            ("3", "answer 3", "succeeded", 7),
            ("4", "", "errored", 7),
        ]
        assert rows[0].message["content"][0]["text"] == "answer 1"
        assert rows[3].message is None

    def test_are_replaced_by_a_later_answer_and_nothing_else_is(self, save: Save, tables: Any, using: str) -> None:
        save([answer(1, "first")], tables.answer, fields=FIELDS)
        tables.answer.objects.using(using).update(own=8)
        before = tables.answer.objects.using(using).get()
        save([answer(1, "second"), answer(2)], tables.answer, fields={"text": "text"})
        after = tables.answer.objects.using(using).get(custom_id="1")
        assert (after.pk, after.text, after.own, after.outcome) == (before.pk, "second", 8, "succeeded")
        assert after.saved_at > before.saved_at
        assert after.made_at == before.made_at

    def test_say_what_is_not_complete_and_how_often_it_was_sent(self, save: Save, tables: Any, using: str) -> None:
        cut = Attempt(kind="first", type="succeeded", stop_reason="max_tokens", cost=0.5)
        found = replace(answer(1), incomplete="max_tokens", attempts=(cut, cut), parsed=None)
        save([found], tables.answer, fields={"outcome": "incomplete", "message": "attempts"})
        row = tables.answer.objects.using(using).get()
        assert row.outcome == "max_tokens"
        assert [(each["kind"], each["stop_reason"], each["cost"]) for each in row.message] == [
            ("first", "max_tokens", 0.5)
        ] * 2
        assert save([replace(found, parsed={"n": 1})], tables.answer, fields={"message": "parsed"}) == 1
        assert tables.answer.objects.using(using).get().message == {"n": 1}

    def test_are_many(self, save: Save, tables: Any, using: str) -> None:
        found = [answer(n, "x" * 2000) for n in range(1234)]
        assert save(iter(found), tables.answer, fields=FIELDS, batch_size=100) == 1234
        assert save(iter(found), tables.answer, fields=FIELDS) == 1234
        assert tables.answer.objects.using(using).count() == 1234

    def test_have_what_functions_make(self, save: Save, tables: Any, using: str) -> None:
        save([answer("a:1")], tables.answer, fields={"text": lambda found: found.text.upper()}, to_key=str.upper)
        save([answer("b")], tables.answer, fields=lambda found: {"text": found.custom_id * 2, "outcome": found.type})
        save([], tables.answer, fields=lambda found: {})
        rows = tables.answer.objects.using(using).order_by("custom_id")
        assert [(row.custom_id, row.text) for row in rows] == [("A:1", "YES"), ("b", "bb")]

    def test_may_be_unique_in_one_job_only(self, save: Save, tables: Any, using: str) -> None:
        tables.of_job.objects.using(using).create(job="other", custom_id="1", text="of another job")
        for _ in range(2):
            assert save([answer(1)], tables.of_job, fields={"text": "text"}, job_field="job") == 1
        rows = tables.of_job.objects.using(using).order_by("job")
        assert [(row.job, row.text) for row in rows] == [(JOB, "yes"), ("other", "of another job")]

    def test_hold_what_databases_refuse(self, save: Save, tables: Any, using: str) -> None:
        hard = "nul \x00 half \ud83d whole \U0001f600"
        result = RequestResult(
            custom_id="1", type="succeeded", source="batch", message={"content": [{"type": "text", "text": hard}]}
        )
        save([result], tables.answer, fields=FIELDS)
        row = tables.answer.objects.using(using).get()
        assert row.text == "nul \ufffd half ? whole \U0001f600" == row.message["content"][0]["text"]

    def test_are_not_written_where_nothing_says_which_is_which(self, save: Save, tables: Any, using: str) -> None:
        with pytest.raises(ValueError, match="may have several rows with the same custom_id"):
            save([answer(1)], tables.loose, fields={"text": "text"})
        with pytest.raises(ValueError, match="the same custom_id"):
            save([answer(1)], tables.of_job, fields={"text": "text"})
        assert tables.loose.objects.using(using).count() == 0

    def test_with_another_unique_field_need_a_database_that_can_tell(self, save: Save, tables: Any, using: str) -> None:
        fields = {"slug": lambda found: f"slug {found.custom_id}"}
        if using == "mysql":
            with pytest.raises(NotSupportedError, match="same slug"):
                save([answer(1)], tables.twice, fields=fields)
            return
        assert save([answer(1)], tables.twice, fields=fields) == 1

    def test_may_be_written_by_several_at_once(self, save: Save, tables: Any, using: str) -> None:
        """Two calls with the same ids, in another order."""
        if using == "default":
            pytest.skip("in memory there is one connection")
        found, failed = [answer(n) for n in range(500)], []

        def write(these: list[RequestResult]) -> None:
            try:
                from claude_batch_tasks.contrib.django import results

                table = results._Table(tables.answer, using, "custom_id", None, JOB, None)
                for _ in range(5):
                    table.write(these, results._check_sources({"text": "text"}), 500)
            except Exception as exc:  # noqa: BLE001 - any of them
                failed.append(exc)
            finally:
                connections[using].close()

        threads = [threading.Thread(target=write, args=(found[::step],)) for step in (1, -1, 1, -1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failed == []
        assert tables.answer.objects.using(using).count() == 500


class TestRowsThatExist:
    @pytest.mark.parametrize("key", ["pk", "id"])
    def test_are_updated(self, save: Save, tables: Any, using: str, key: str) -> None:
        made = [tables.answer.objects.using(using).create(custom_id=f"own {n}") for n in range(3)]
        before = made[0].saved_at
        found = [answer(row.pk, f"answer {row.pk}") for row in made[:2]]
        for _ in range(2):
            assert save(found, tables.answer, key=key, fields=FIELDS) == 2
        rows = list(tables.answer.objects.using(using).order_by("pk"))
        assert [row.text for row in rows] == [f"answer {made[0].pk}", f"answer {made[1].pk}", ""]
        assert [row.custom_id for row in rows] == ["own 0", "own 1", "own 2"]
        assert rows[0].saved_at > before
        assert rows[2].saved_at == made[2].saved_at

    def test_are_found_by_what_is_made_of_the_custom_id(self, save: Save, tables: Any, using: str) -> None:
        row = tables.answer.objects.using(using).create(custom_id="own")
        options: dict[str, Any] = {"key": "pk", "fields": {"text": "text"}}
        to_key = lambda custom_id: custom_id.removeprefix("review ")  # noqa: E731 - as projects write it
        assert save([answer(f"review {row.pk}")], tables.answer, to_key=to_key, **options) == 1
        with pytest.raises(ValueError, match=r"'review \d+' is no value of Answer.id: pass"):
            save([answer(f"review {row.pk}")], tables.answer, **options)

    def test_that_are_gone_stay_so(self, save: Save, tables: Any, using: str) -> None:
        assert save([answer(4711)], tables.answer, key="pk", fields={"text": "text"}) == 0
        assert tables.answer.objects.using(using).count() == 0


class TestWhatIsWrong:
    def test_is_said_before_anything_is_read(self, save: Save, tables: Any) -> None:
        from django.core.exceptions import FieldDoesNotExist

        for options, said in [
            ({"fields": {"text": "txt"}}, "no attribute 'txt'"),
            ({"fields": {}}, "names no field"),
            ({"fields": {"text": "text"}, "key": "custom"}, "no field named 'custom'"),
        ]:
            with pytest.raises((ValueError, FieldDoesNotExist), match=said):
                save([answer(1)], tables.answer, **options)

    def test_may_be_that_results_differ_in_their_fields(self, save: Save, tables: Any) -> None:
        with pytest.raises(ValueError, match="the same names"):
            save([answer("text"), answer("own")], tables.answer, fields=lambda found: {found.custom_id: 1})
