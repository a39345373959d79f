"""The runner of its documentation, with a schema; the interval is short here."""

from __future__ import annotations

from report import MODEL, QUESTIONS, Report, run
from steadybatch import Request, Runner
from steadybatch.providers.anthropic_batch import AnthropicBatch

SCHEMA = {
    "type": "object",
    "properties": {"sentiment": {"type": "string", "enum": ["negative", "neutral", "positive"]}},
    "required": ["sentiment"],
    "additionalProperties": False,
}


def main(report: Report) -> None:
    requests = [
        Request(key=name, messages=[{"role": "user", "content": question}]) for name, question in QUESTIONS.items()
    ]
    runner = Runner(AnthropicBatch(), MODEL, response_schema=SCHEMA, checkpoint="job.sqlite", poll_every=1)
    for result in runner.run(requests).results:
        if result.data is not None:
            report.answers[result.key] = result.data["sentiment"]
        else:
            report.raised.append(f"{result.outcome.value}: {getattr(result, 'error', '')}")


run(main)
