"""A run of one batch."""

from __future__ import annotations

from batchata import Batch
from report import QUESTIONS, Report, run

#: It refuses models that it does not know; this is one of the newest that it does.
MODEL = "claude-sonnet-4-20250514"


def main(report: Report) -> None:
    batch = Batch(results_dir="./output", max_parallel_batches=1, items_per_batch=len(QUESTIONS))
    batch.set_default_params(model=MODEL, max_tokens=100).add_time_limit(minutes=1)
    names = {}
    for name, question in QUESTIONS.items():
        batch.add_job(messages=[{"role": "user", "content": question}])
        names[batch.jobs[-1].id] = name
    results = batch.run().results()
    for result in results["completed"]:
        report.answers[names[result.job_id]] = result.raw_response
    report.raised += [str(result.error) for result in results["failed"] + results["cancelled"]]


run(main)
