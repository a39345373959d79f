"""From the store to the API: the body of a create."""

from __future__ import annotations

import json
import os
import urllib.request

import anthropic
from celery import Celery

from benchmarks import material, world
from benchmarks.measure import Bench
from claude_batch_tasks import api
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.tasks import create_batch


def _prepare_job(bench: Bench, job_id: str) -> None:
    submission.submit_job(world.app(bench), job_id, material.requests(bench.records), {})
    world.store(bench).jobs.update_job(job_id, state="running", admitted=1)


def prepare(bench: Bench) -> None:
    """Stage the job that ``ours`` creates the batch of."""
    _prepare_job(bench, f"created-{bench.records}")


def prepare_signed(bench: Bench) -> None:
    """Stage that of ``signed``."""
    _prepare_job(bench, f"signed-{bench.records}")


def ours(bench: Bench) -> None:
    """``create_batch``: the body streamed from the store through the SDK's client."""
    _create(bench, world.app(bench), f"created-{bench.records}")


def signed(bench: Bench) -> None:
    """The same through ``AnthropicAWS`` with SigV4, which signs the whole body."""
    app = world.app(bench)
    os.environ["BENCHMARK_API"] = bench.api_url
    app.conf.claude_batch_client_factories = {"default": "benchmarks.create.make_signing_client"}
    _create(bench, app, f"signed-{bench.records}")


def make_signing_client() -> anthropic.Anthropic:
    """A client of Claude Platform on AWS that calls the benchmark's API."""
    url = os.environ["BENCHMARK_API"]
    return anthropic.AnthropicAWS(  # type: ignore[return-value]
        aws_access_key="AKIA", aws_secret_key="secret", aws_region="us-east-1", workspace_id="w", base_url=url
    )


def _create(bench: Bench, app: Celery, job_id: str) -> None:
    # A worker makes its client once per process.
    api.get_client("default", Settings.of(app).client_factories)
    with bench.measure():
        create_batch.apply((job_id, 0, 0, 0), throw=True)
    batch = world.store(bench).records.read_batch(job_id, 0)
    assert batch is not None
    assert batch.state == "in_progress", batch.state


def sdk(bench: Bench) -> None:
    """The SDK's own ``create`` of a list of requests."""
    client = world.client(bench)
    requests = list(material.requests(bench.records))
    with bench.measure():
        client.messages.batches.create(requests=requests)  # type: ignore[arg-type]


def dumps_and_send(bench: Bench) -> None:
    """``json.dumps`` of all the requests from the same generator, and the bytes in one POST."""
    material.text(0, 10)
    headers = {"x-api-key": world.KEY, "anthropic-version": "2023-06-01", "content-type": "application/json"}
    with bench.measure():
        body = json.dumps({"requests": list(material.requests(bench.records))}).encode()
        request = urllib.request.Request(f"{bench.api_url}/v1/messages/batches", body, headers)
        with urllib.request.urlopen(request) as response:
            response.read()
