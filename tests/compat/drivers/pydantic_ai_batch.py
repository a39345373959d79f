"""pydantic-ai's function for a list of requests; its intervals are short here."""

from __future__ import annotations

from datetime import timedelta

from pydantic_ai import ModelRequest
from pydantic_ai.direct import model_request_batch
from pydantic_ai.models.batch import BatchRequest
from report import MODEL, QUESTIONS, Report, describe, run


async def main(report: Report) -> None:
    responses = await model_request_batch(
        f"anthropic:{MODEL}",
        [
            BatchRequest(custom_id=name, messages=[ModelRequest.user_text_prompt(question)])
            for name, question in QUESTIONS.items()
        ],
        poll_interval=timedelta(seconds=1),
        max_poll_interval=timedelta(seconds=2),
    )
    for name, response in zip(QUESTIONS, responses, strict=True):
        if isinstance(response, Exception):
            report.raised.append(describe(response))
        else:
            report.answers[name] = response.text


run(main)
