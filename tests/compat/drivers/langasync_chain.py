"""A chain of LangChain's, submitted; the poller waits for it. The interval comes from the environment."""

from __future__ import annotations

import os

os.environ["LANGASYNC_BATCH_POLL_INTERVAL"] = "1"

from langasync import BatchPoller, batch_chain
from langchain_anthropic import ChatAnthropic
from langchain_core.prompts import ChatPromptTemplate
from report import MODEL, QUESTIONS, Report, describe, run


async def main(report: Report) -> None:
    chain = ChatPromptTemplate.from_messages([("user", "{question}")]) | ChatAnthropic(model=MODEL, max_tokens=100)
    await batch_chain(chain).submit([{"question": question} for question in QUESTIONS.values()])
    async for job in BatchPoller().wait_all():
        print(job.status_info)
        # Its results have no ids: they are in the order of what was submitted.
        for name, result in zip(QUESTIONS, job.results or []):  # noqa: B905
            if isinstance(result, Exception):
                report.raised.append(describe(result))
            else:
                report.answers[name] = result.content


run(main)
