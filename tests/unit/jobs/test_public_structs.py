"""What applications get can be written as JSON, returned by tasks and web frameworks, and shown in notebooks."""

from __future__ import annotations

import json
from html.parser import HTMLParser
from typing import Any

import pydantic
import pytest
from celery import Celery
from fastapi import FastAPI
from fastapi.testclient import TestClient
from kombu.utils import json as kombu_json

from claude_batch_tasks import BatchJob, Estimate, HistoryEvent, JobStatus, RequestResult, estimate
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.records import PublicStruct

JOB = "job-1"


@pytest.fixture
def found(app: Celery, make_request: Any, redis_url: str) -> dict[str, PublicStruct]:
    requests = [make_request("a"), make_request("<b>")]
    submission.submit_job(app, JOB, requests, {})
    job = BatchJob(JOB, app)
    message = {"content": [{"type": "text", "text": "\ud800"}], "usage": {"input_tokens": 1 << 70}}
    return {
        "status": job.status(),
        "event": job.history()[0],
        "estimate": estimate(requests),
        "result": RequestResult(custom_id="a", type="succeeded", source="batch", message=message, raw=b"\xff{"),
    }


TYPES = {"status": JobStatus, "event": HistoryEvent, "estimate": Estimate, "result": RequestResult}


@pytest.mark.parametrize("name", TYPES)
def test_is_json(found: dict[str, PublicStruct], name: str) -> None:
    value = found[name]
    plain = value.asdict()
    assert json.loads(json.dumps(plain)).keys() == plain.keys()
    assert set(plain) >= set(value.keys())
    assert json.loads(kombu_json.dumps({"returned": value})) == {"returned": json.loads(json.dumps(plain))}
    assert dict(value).keys() == set(value.keys())
    with pytest.raises(KeyError):
        value["no such field"]


@pytest.mark.parametrize("name", TYPES)
def test_is_a_field_of_a_pydantic_model(found: dict[str, PublicStruct], name: str) -> None:
    model: Any = pydantic.create_model("Model", value=(TYPES[name], ...))
    made = model(value=found[name])
    assert made.value is found[name]
    assert made.model_dump() == {"value": found[name].asdict()}
    with pytest.raises(pydantic.ValidationError):
        model(value="something else")
    with pytest.raises(pydantic.ValidationError):
        model.model_validate_json('{"value": {"none": 1}}')
    fields = model.model_json_schema()["properties"]["value"]["properties"]
    assert set(fields) >= set(found[name].keys())
    if name != "result":  # its text is half of a surrogate pair, which pydantic does not write
        assert model.model_validate_json(made.model_dump_json()) == made


def test_is_returned_by_fastapi(found: dict[str, PublicStruct]) -> None:
    app = FastAPI()
    for name in TYPES.keys() - {"result"}:
        app.get(f"/plain/{name}")(lambda name=name: found[name])
        app.get(f"/typed/{name}", response_model=list[TYPES[name]])(lambda name=name: [found[name]])
    client = TestClient(app)
    for name in TYPES.keys() - {"result"}:
        assert client.get(f"/plain/{name}").json().keys() >= set(found[name].keys())
        assert client.get(f"/typed/{name}").json() == [json.loads(json.dumps(found[name].asdict()))]
    assert client.get("/openapi.json").status_code == 200


class _Text(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.texts: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_is_a_table_in_a_notebook(found: dict[str, PublicStruct]) -> None:
    status: Any = found["status"]
    shown = _Text()
    shown.feed(JobStatus(**{**dict(status), "error": "no <script>alert(1)</script>"})._repr_html_())
    assert set(shown.tags) == {"table", "caption", "tr", "th", "td"}
    assert {"Job job-1", "Phase", "queued", "no <script>alert(1)</script>", "Cost", "$0.00"} <= set(shown.texts)
    shown = _Text()
    shown.feed(found["estimate"]._repr_html_())  # type: ignore[attr-defined]
    assert {"Estimate", "Requests", "2", "Cost"} <= set(shown.texts)
