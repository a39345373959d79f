"""The loop of the SDK's documentation, with its default retries; then the other calls of batches."""

from __future__ import annotations

import time

import anthropic
from report import MODEL, REQUESTS, Report, run


def main(report: Report) -> None:
    with anthropic.Anthropic() as client:
        params = {**REQUESTS[0]["params"], "messages": [{"role": "user", "content": "Whole?"}]}
        report.messages.append(client.messages.create(**params).content[0].text)
        with client.messages.stream(**params | {"messages": [{"role": "user", "content": "Streamed?"}]}) as stream:
            report.messages.append(stream.get_final_text())
        assert client.messages.count_tokens(model=MODEL, messages=params["messages"]).input_tokens > 0
        assert client.models.retrieve(MODEL).id in [model.id for model in client.models.list()]
        batch = client.messages.batches.create(requests=REQUESTS)
        while client.messages.batches.retrieve(batch.id).processing_status != "ended":
            time.sleep(1)
        for row in client.messages.batches.results(batch.id):
            if row.result.type == "succeeded":
                report.answers[row.custom_id] = row.result.message.content[0].text
        assert [each.id for each in client.messages.batches.list(limit=1)] == [batch.id]
        assert client.messages.batches.delete(batch.id).id == batch.id
        other = client.messages.batches.create(requests=REQUESTS[:1])
        client.messages.batches.cancel(other.id)
        assert client.messages.batches.retrieve(other.id).processing_status in ("canceling", "ended")


run(main)
