"""One call that submits, waits and yields; the interval is short here."""

from __future__ import annotations

import batchlane
from report import MODEL, QUESTIONS, Report, run


def main(report: Report) -> None:
    lines = [
        batchlane.BatchLine(name, f"anthropic/{MODEL}", [{"role": "user", "content": question}])
        for name, question in QUESTIONS.items()
    ]
    for line, result in batchlane.run(lines, checkpoint="job.jsonl", poll_interval=1):
        if result.error is None:
            report.answers[line.custom_id] = batchlane.answer_text(result)


run(main)
