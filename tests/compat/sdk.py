"""Drive the simulator with the official SDK, sync and async, at whatever version is installed.

    PYTHONPATH=. python tests/compat/sdk.py             # about 45 s
    PYTHONPATH=. python tests/compat/sdk.py --quick     # without the report's timeline in real time

Run it once with `anthropic==0.96.0` and once with the latest. Each step prints what was seen; the exit status is 0
where everything was as it should be.
"""

from __future__ import annotations

import argparse
import asyncio
import platform
import time
from collections.abc import Callable
from typing import Any

import anthropic

from claude_batch_tasks.simulator import Behaviour, Scenario, Simulator

REQUESTS: Any = [
    {
        "custom_id": f"question-{n}",
        "params": {
            "model": "claude-haiku-4-5",
            "max_tokens": 100,
            "messages": [{"role": "user", "content": f"Question {n}?"}],
        },
    }
    for n in range(20)
]
EXPECTED = {f"question-{n}": f"Echo: Question {n}?" for n in range(20)}
SLOW = Scenario("slow", behaviour=Behaviour(processing_seconds=60.0, cancel_seconds=0.0))


def sync_job(simulator: Simulator) -> None:
    """Every endpoint once."""
    with anthropic.Anthropic(base_url=simulator.url, api_key="sync", max_retries=0) as client:
        batches = client.messages.batches
        batch = batches.create(requests=REQUESTS)
        while batches.retrieve(batch.id).processing_status != "ended":
            time.sleep(0.2)
        assert {r.custom_id: text(r.result) for r in batches.results(batch.id)} == EXPECTED
        assert [b.id for b in batches.list(limit=1)] == [batch.id]
        assert batches.delete(batch.id).id == batch.id

        simulator.reset(SLOW)
        batch = batches.create(requests=REQUESTS)
        batches.cancel(batch.id)
        assert batches.retrieve(batch.id).request_counts.canceled == len(REQUESTS)
        assert {r.result.type for r in batches.results(batch.id)} == {"canceled"}

        message = client.messages.create(**REQUESTS[0]["params"])
        assert text_of(message) == EXPECTED["question-0"]
        with client.messages.stream(**REQUESTS[1]["params"]) as stream:
            assert text_of(stream.get_final_message()) == EXPECTED["question-1"]


async def async_job(simulator: Simulator) -> None:
    """The same with the asynchronous client."""
    async with anthropic.AsyncAnthropic(base_url=simulator.url, api_key="async", max_retries=0) as client:
        batches = client.messages.batches
        batch = await batches.create(requests=REQUESTS)
        while (await batches.retrieve(batch.id)).processing_status != "ended":
            await asyncio.sleep(0.2)
        assert {r.custom_id: text(r.result) async for r in await batches.results(batch.id)} == EXPECTED
        assert [b.id async for b in batches.list(limit=1)] == [batch.id]
        assert (await batches.delete(batch.id)).id == batch.id

        simulator.reset(SLOW)
        batch = await batches.create(requests=REQUESTS)
        await batches.cancel(batch.id)
        assert {r.result.type async for r in await batches.results(batch.id)} == {"canceled"}

        message = await client.messages.create(**REQUESTS[0]["params"])
        assert text_of(message) == EXPECTED["question-0"]
        async with client.messages.stream(**REQUESTS[1]["params"]) as stream:
            assert text_of(await stream.get_final_message()) == EXPECTED["question-1"]


def plain_loop_on_the_report(simulator: Simulator) -> None:
    """The SDK's documented loop, with its default retries, started again after each 404 where it stopped."""
    batch_id = ""
    with anthropic.Anthropic(base_url=simulator.url, api_key="plain") as client:
        crashes = []
        while True:
            try:
                batch_id = batch_id or client.messages.batches.create(requests=REQUESTS).id
                while client.messages.batches.retrieve(batch_id).processing_status != "ended":
                    time.sleep(1)
                results = {r.custom_id: text(r.result) for r in client.messages.batches.results(batch_id)}
                break
            except anthropic.NotFoundError:
                last = simulator.journal(prompts=False).calls[-1]
                crashes.append(last.endpoint)
                print(f"      crashed: {last.endpoint} 404 ({', '.join(last.faults)})")
                time.sleep(1)
    assert results == EXPECTED
    assert {"create", "retrieve", "results"} <= set(crashes)


def text_of(message: Any) -> str:
    return str(message.content[0].text)


def text(result: Any) -> str:
    return text_of(result.message)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="without the report's timeline in real time")
    quick = parser.parse_args().quick
    print(f"anthropic {anthropic.__version__}, Python {platform.python_version()}")
    with Simulator() as simulator:
        steps: list[tuple[str, str, Callable[[], None]]] = [
            ("sync", "healthy", lambda: sync_job(simulator)),
            ("async", "healthy", lambda: asyncio.run(async_job(simulator))),
            ("sync, unfriendly but legal answers", "unfriendly", lambda: friendly_enough(simulator)),
        ]
        if not quick:
            steps.append(("plain loop on issue 1432", "issue-1432", lambda: plain_loop_on_the_report(simulator)))
        for name, scenario, step in steps:
            simulator.reset(scenario)
            start = time.monotonic()
            step()
            totals = simulator.journal(prompts=False).totals
            print(f"  ok  {name}: {time.monotonic() - start:.1f} s, {totals.calls} calls")


def friendly_enough(simulator: Simulator) -> None:
    """The SDK itself cannot read blank lines; all the rest it reads."""
    simulator.behave(results={"newline": "\n", "gzip": True, "final_newline": False, "unknown_fields": True})
    with anthropic.Anthropic(base_url=simulator.url, api_key="k", max_retries=0) as client:
        batch = client.messages.batches.create(requests=REQUESTS)
        simulator.end(batch.id)
        results = {r.custom_id: r.result for r in client.messages.batches.results(batch.id)}
    answers: Any = {name: result for name, result in results.items() if result.type == "succeeded"}
    assert {name: result.message.content[1].text for name, result in answers.items()} == EXPECTED


if __name__ == "__main__":
    main()
