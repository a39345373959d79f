"""The loop of the SDK's documentation, asynchronous, with its default retries; then the other calls of batches."""

from __future__ import annotations

import asyncio

import anthropic
from report import MODEL, REQUESTS, Report, run


async def main(report: Report) -> None:
    async with anthropic.AsyncAnthropic() as client:
        params = {**REQUESTS[0]["params"], "messages": [{"role": "user", "content": "Whole?"}]}
        report.messages.append((await client.messages.create(**params)).content[0].text)
        params["messages"] = [{"role": "user", "content": "Streamed?"}]
        async with client.messages.stream(**params) as stream:
            report.messages.append(await stream.get_final_text())
        assert (await client.messages.count_tokens(model=MODEL, messages=params["messages"])).input_tokens > 0
        assert (await client.models.retrieve(MODEL)).id in [model.id async for model in client.models.list()]
        batch = await client.messages.batches.create(requests=REQUESTS)
        while (await client.messages.batches.retrieve(batch.id)).processing_status != "ended":
            await asyncio.sleep(1)
        async for row in await client.messages.batches.results(batch.id):
            if row.result.type == "succeeded":
                report.answers[row.custom_id] = row.result.message.content[0].text
        assert [each.id async for each in client.messages.batches.list(limit=1)] == [batch.id]
        assert (await client.messages.batches.delete(batch.id)).id == batch.id
        other = await client.messages.batches.create(requests=REQUESTS[:1])
        await client.messages.batches.cancel(other.id)
        assert (await client.messages.batches.retrieve(other.id)).processing_status in ("canceling", "ended")


run(main)
