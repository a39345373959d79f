"""What is seen of answers that are not complete, and of repairs: in exports, failures, history, metrics, retries."""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import pytest
from celery import Celery

from claude_batch_tasks import BatchJob, metrics, run_batch
from claude_batch_tasks.lifecycle import closing
from claude_batch_tasks.metrics import Instruments
from claude_batch_tasks.testing import ClaudeBatch
from tests.factories import make_params


@pytest.fixture
def claude_batch_app() -> Celery:
    app = Celery("shop", broker="redis://127.0.0.1:1", backend="redis://127.0.0.1:1", set_as_current=False)
    app.loader.import_task_module("claude_batch_tasks.tasks")
    app.conf.update(claude_batch_retry_min=0.01, claude_batch_poll_min=0.01)
    app.set_current()
    return app


@pytest.fixture(autouse=True)
def answers(claude_batch: ClaudeBatch) -> None:
    """An answer to a request each: refused for good, cut once, refused by one model, good, and one that expires."""
    claude_batch.refuse(custom_id="refused")
    claude_batch.answer("So far", stop_reason="max_tokens", custom_id="cut", attempt=1)
    claude_batch.refuse("Well,", custom_id="moved", model="claude-haiku-4-5")
    claude_batch.expire(custom_id="expired")


NAMES = ("refused", "cut", "moved", "good", "expired")
OPTIONS: Any = {"refusal_model": "claude-opus-4-5", "max_tokens_limit": 64, "retries": 1, "fallback": "off"}


def run(**options: Any) -> BatchJob:
    return BatchJob(run_batch.delay({name: make_params(name) for name in NAMES}, **options).id)


class Memory(Instruments):
    def __init__(self) -> None:
        self.counted: Counter[tuple[str, str]] = Counter()

    def count(self, metric: Any, amount: float, labels: Any) -> None:
        self.counted[metric.name, labels.get("reason") or labels.get("kind") or ""] += int(amount)

    def observe(self, metric: Any, value: float, labels: Any) -> None:
        pass


@pytest.fixture
def counted() -> Iterator[Counter[tuple[str, str]]]:
    memory = Memory()
    metrics.use_instruments([memory])
    yield memory.counted
    metrics.use_instruments([])


def test_a_repaired_job_counts_what_is_left_and_what_was_repaired(counted: Counter[tuple[str, str]]) -> None:
    job = run(**OPTIONS)
    status, summary = job.status(), job.status().summary
    assert summary is not None
    assert summary["incomplete"] == status.incomplete == {"refusal": 1}
    assert summary["repairs"] == status.repairs == {"refusal_model": 2, "max_tokens": 1}
    assert (summary["succeeded"], summary["expired"]) == (4, 1)
    assert counted["incomplete_answers", "refusal"] == 1
    assert (counted["repairs", "refusal_model"], counted["repairs", "max_tokens"]) == (2, 1)
    store: Any = job._store
    batch = store.records.read_batch(job.job_id, 0)
    batch.final, batch.state = False, "failed"  # it is resumed, and ends again
    resumed: Any = SimpleNamespace(batch=batch, job=store.jobs.read_job(job.job_id), update_record=Mock())
    closing.close_batch(resumed)
    assert (counted["repairs", "refusal_model"], counted["repairs", "max_tokens"]) == (2, 1)


def test_without_options_nothing_but_the_resubmission_is_sent_again(claude_batch: ClaudeBatch) -> None:
    job = run(retries=1, fallback="off")
    assert job.status().incomplete == {"refusal": 2, "max_tokens": 1}
    assert job.status().repairs == {}
    assert Counter(each.custom_id for each in claude_batch.requests) == {
        name: 1 + (name == "expired") for name in NAMES
    }


def test_its_failures_have_what_is_left_with_an_example() -> None:
    job = run(**OPTIONS)
    assert {each.custom_id: (each.type, each.incomplete) for each in job.failures()} == {
        "refused": ("succeeded", "refusal"),
        "expired": ("expired", None),
    }
    assert [(each.type, each.example) for each in job.status().failures] == [
        ("expired", "expired"),
        ("refusal", "refused"),
    ]


def test_its_end_says_so_first_in_its_history() -> None:
    job = run(**OPTIONS)
    end = job.history()[-1]
    assert end.event == "finished"
    assert end.text.startswith("completed, 1 answer is incomplete (1 refusal); 4 succeeded, 1 expired; 3 repairs (")
    assert end.details["incomplete"] == {"refusal": 1}
    assert end.details["repairs"] == {"refusal_model": 2, "max_tokens": 1}


def test_its_exports_have_the_number_of_attempts_and_each_of_them() -> None:
    job, table, lines = run(**OPTIONS), io.StringIO(), io.BytesIO()
    job.export(table, "csv")
    rows = {row["custom_id"]: row for row in csv.DictReader(io.StringIO(table.getvalue()))}
    assert {name: int(row["attempts"]) for name, row in rows.items()} == {
        "refused": 2,
        "cut": 2,
        "moved": 2,
        "good": 1,
        "expired": 2,
    }
    assert (rows["moved"]["incomplete"], rows["refused"]["incomplete"]) == ("", "refusal")
    job.export(lines, "jsonl")
    found = {line["custom_id"]: line for line in map(json.loads, lines.getvalue().splitlines())}
    assert list(found["good"]) == ["custom_id", "source", "result"]
    assert [each["kind"] for each in found["cut"]["attempts"]] == ["first", "max_tokens"]
    assert list(found["refused"]) == ["custom_id", "source", "result", "incomplete", "attempts"]
    assert set(found["refused"]["result"]) == {"type", "message"}


def test_its_retry_takes_failures_alone_and_is_read_with_it(claude_batch: ClaudeBatch) -> None:
    job = run(**OPTIONS)
    claude_batch.answer("at last", stop_reason="max_tokens", custom_id="expired")
    again = BatchJob(job.retry_failed(max_tokens_limit=None).id).status()
    assert (again.requests, again.incomplete) == (1, {"max_tokens": 1})
    read = {each.custom_id: each.incomplete for each in job.results(with_retries=True)}
    assert {name: reason for name, reason in read.items() if reason} == {"refused": "refusal", "expired": "max_tokens"}
