"""What is declared for type checkers is what there is: options, Celery's options, the summary."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import textwrap
from datetime import datetime, timedelta
from typing import Any, get_args

import msgspec
import pytest
from celery import Celery, Task
from celery.app.amqp import AMQP
from kombu import Producer
from typing_extensions import get_type_hints

from claude_batch_tasks import JobOptions, JobStatus, Summary
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import BatchRecord, JobRecord
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.settings.job_options import JobSettings
from claude_batch_tasks.steps import job_summary
from claude_batch_tasks.tasks.call_types import NamedArguments, SendOptions
from claude_batch_tasks.wire import result_rows, token_usage

#: What a job may be given beside what the setting of that name is.
MORE = {"deadline": {datetime, timedelta, str}, "betas": {list[str], str}, "refusal_model": {list[str], str}}

#: What Celery and kombu send of themselves, or take from nobody who calls ``apply_async``.
INTERNAL = {
    *("args", "kwargs", "task_id", "name", "body", "chain", "chord", "callbacks", "errbacks", "create_sent_event"),
    *("now", "timezone", "origin", "replaced_task_nesting", "router", "result_cls", "task_type"),
    *("content_type", "content_encoding", "declare", "expiration"),
}


def kinds(hint: Any) -> set[Any]:
    """Return the types of a union; one type alone is a union of itself."""
    return set(get_args(hint)) if type(None) in get_args(hint) or "|" in str(hint) else {hint}


def test_options_are_the_settings_of_a_job() -> None:
    declared, settings = get_type_hints(JobSettings), get_type_hints(Settings)
    per_job = [field.name for field in dataclasses.fields(Settings) if field.metadata["per_job"]]
    assert list(declared) == per_job
    assert {name: kinds(hint) for name, hint in declared.items()} == {
        name: kinds(settings[name]) | MORE.get(name, set()) for name in per_job
    }
    assert JobSettings.__required_keys__ == frozenset()


def test_options_beside_settings_are_those_that_a_submission_reads() -> None:
    tree = ast.parse(textwrap.dedent(inspect.getsource(submission.submit_job)))
    read = {
        node.args[0].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and ast.unparse(node.func) == "options.pop"
        and isinstance(node.args[0], ast.Constant)
    }
    assert read == get_type_hints(JobOptions).keys() - get_type_hints(JobSettings).keys()
    assert JobOptions.__required_keys__ == frozenset()
    assert NamedArguments.__required_keys__ == {"requests"}


@pytest.mark.latest
def test_celerys_options_are_those_of_celery() -> None:
    functions = (Task.apply_async, Celery.send_task, AMQP.as_task_v2, Producer.publish)
    taken = {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is parameter.POSITIONAL_OR_KEYWORD and name != "self"
    }
    # Those that Celery has in its **options, and one of AMQP's properties.
    taken |= {"ignore_result", "queue", "app_id"}
    refused = {"time_limit", "soft_time_limit"}
    assert set(SendOptions.__annotations__) == taken - INTERNAL - refused


BATCH = BatchRecord(
    first=0,
    count=2,
    body_bytes=1,
    batch_id="msgbatch_1",
    published=1,
    done=True,
    final=True,
    counts={"succeeded": 2},
    usage={"input_tokens": 5},
    costs={"known": "0.25", "unknown": None},
)


@pytest.mark.parametrize("batches", [[], [BATCH]])
def test_a_summary_is_what_is_declared(batches: list[BatchRecord]) -> None:
    job = JobRecord(nonce="n", requests=2, batches=len(batches), submitted_at=1.0)
    made = job_summary.summarize_job("j", job, batches, 60.0)
    assert msgspec.convert(made, Summary, strict=True) == made  # no key is missing, too many, or of another type
    assert list(made["usage"]) == list(token_usage.USAGE)
    assert set(result_rows.OUTCOMES) < made.keys()
    assert msgspec.convert(msgspec.to_builtins(made), Summary) == made


def test_a_status_can_be_read_back_from_json() -> None:
    job = JobRecord(nonce="n", requests=2, batches=1, submitted_at=1.0)
    moment = datetime.fromisoformat("2026-01-01T00:00:00+00:00")
    counts: dict[str, int] = dict.fromkeys(result_rows.OUTCOMES, 0)
    status = JobStatus(
        **counts,
        job_id="j",
        state="completed",
        phase="completed",
        requests=2,
        processing=0,
        batches=(),
        polls=0,
        polls_404=0,
        resubmitted=0,
        fallback=0,
        fallback_skipped=0,
        stopped=None,
        cost=None,
        cost_by_model={},
        next_poll_at=None,
        submitted_at=moment,
        started_at=moment,
        ended_at=moment,
        error=None,
        summary=job_summary.summarize_job("j", job, [BATCH], 60.0),
    )
    assert msgspec.json.decode(msgspec.json.encode(status), type=JobStatus) == status


@pytest.mark.latest
def test_pydantic_and_so_fastapi_takes_them() -> None:
    pydantic = pytest.importorskip("pydantic")
    job = JobRecord(nonce="n", requests=2, batches=1, submitted_at=1.0)
    made = job_summary.summarize_job("j", job, [BATCH], 60.0)
    assert pydantic.TypeAdapter(Summary).validate_python(made) == made
    options = pydantic.TypeAdapter(JobOptions)
    assert options.validate_python({"fallback": "off", "retries": 1}) == {"fallback": "off", "retries": 1}
    with pytest.raises(pydantic.ValidationError):
        options.validate_python({"fallback": "of"})
