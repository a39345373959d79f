"""An evaluation in batch mode; the interval is short here."""

from __future__ import annotations

from inspect_ai import Task, eval as evaluate
from inspect_ai.dataset import Sample
from inspect_ai.model import BatchConfig, GenerateConfig
from inspect_ai.solver import generate
from report import MODEL, QUESTIONS, Report, run


def main(report: Report) -> None:
    [log] = evaluate(
        Task(
            dataset=[Sample(id=name, input=question) for name, question in QUESTIONS.items()],
            solver=generate(),
            config=GenerateConfig(max_tokens=100, batch=BatchConfig(size=20, send_delay=2, tick=1)),
        ),
        model=f"anthropic/{MODEL}",
        display="none",
    )
    for sample in log.samples or []:
        if sample.error is None:
            report.answers[str(sample.id)] = sample.output.completion
    if log.status != "success":
        text = log.error.traceback if log.error else f"status {log.status}"
        raise SystemExit(text.strip().splitlines()[-1].removeprefix("anthropic."))


run(main)
