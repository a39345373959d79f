"""An agent: half of the questions whole, the others streamed."""

from __future__ import annotations

from pydantic_ai import Agent
from report import MODEL, QUESTIONS, Report, run


async def main(report: Report) -> None:
    agent = Agent(f"anthropic:{MODEL}")
    for n, (name, question) in enumerate(QUESTIONS.items()):
        if n % 2:
            async with agent.run_stream(question) as stream:
                report.answers[name] = await stream.get_output()
        else:
            report.answers[name] = (await agent.run(question)).output


run(main)
