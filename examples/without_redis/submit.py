"""Submits one job and one ask, and prints the answers."""

from __future__ import annotations

from claude_batch_tasks import BatchJob, ask, run_batch


def params(text: str) -> dict[str, object]:
    """The params of a request, as the API spells them."""
    return {"model": "claude-haiku-4-5", "max_tokens": 64, "messages": [{"role": "user", "content": text}]}


job = run_batch.delay({f"greeting-{number}": params(f"Hello {number}") for number in range(3)})
single = ask.delay(params("Hello again"))

print(job.get(timeout=90_000)["state"])
for number in range(3):
    print(BatchJob(job.id).result(f"greeting-{number}").text)
print(single.get(timeout=90_000).text)
