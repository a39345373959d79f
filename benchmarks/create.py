"""From the store to the API: the body of a create."""

from __future__ import annotations

import json
import urllib.request

from benchmarks import material, world
from benchmarks.measure import Bench
from claude_batch_tasks import api
from claude_batch_tasks.lifecycle import submission
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store_at
from claude_batch_tasks.tasks import create_batch


def _job_id(bench: Bench) -> str:
    return f"created-{bench.records}"


def prepare(bench: Bench) -> None:
    """Stage the job that ``ours`` creates the batch of."""
    submission.submit_job(world.app(bench), _job_id(bench), material.requests(bench.records), {})
    open_store_at(bench.redis_url).jobs.update_job(_job_id(bench), state="running", admitted=1)


def ours(bench: Bench) -> None:
    """``create_batch``: the body streamed from the store through the SDK's client."""
    # A worker makes its client once per process.
    api.get_client("default", Settings.of(world.app(bench)).client_factories)
    with bench.measure():
        create_batch.apply((_job_id(bench), 0, 0, 0), throw=True)
    batch = open_store_at(bench.redis_url).records.read_batch(_job_id(bench), 0)
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
