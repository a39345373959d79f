"""The end of a batch, with its final outcomes, and the end of its job, with the summary."""

from __future__ import annotations

import logging
from typing import Any, cast

from claude_batch_tasks import errors, metrics, signals
from claude_batch_tasks.lifecycle import delivery, end_texts, job_failure
from claude_batch_tasks.lifecycle.messages_fallback import final_figures
from claude_batch_tasks.records import Summary
from claude_batch_tasks.steps import Step, job_summary
from claude_batch_tasks.store import lost_records
from claude_batch_tasks.wire import result_rows


def close_batch(step: Step) -> None:
    """Close the batch with its final outcomes, and count these as a reader will see them."""
    record = step.batch
    if not record.final:
        figures, sources = final_figures.sum_outcomes(step)
        step.update_record(final=True, **figures)
        for (outcome, source), count in sources.items():
            metrics.count("requests", count, job=step.job, outcome=outcome, source=source)
        for reason, count in record.incomplete.items():
            metrics.count("incomplete_answers", count, job=step.job, reason=metrics.reason_label(reason))
    if record.state != "failed":
        delivery.announce_results(step, range(record.count))
    step.update_record(done=True)


def end_job(step: Step, own: errors.BatchTasksError | None) -> tuple[Summary, errors.BatchTasksError | None]:
    """End the job, and let its payloads expire in time; return its summary, and the error of a job that has failed.

    A job whose outcomes do not add up to its requests is not completed.

    Args:
        own: the job's own error, if no batch failed.
    """
    job_id, had = step.unit.job_id, step.job
    if own is None and had.error is not None:  # only the text of its error is stored
        own = errors.StepFailed(had.error)
    lost_records.replace_lost_batches(step.store, job_id, had)
    batches = step.store.records.read_batches(job_id)
    written = cast("Summary | None", had.summary)
    summary = written or job_summary.summarize_job(job_id, had, batches, step.now())
    error = job_failure.explain_failure(step, batches, summary, own)
    if error is not None:
        summary["state"] = "failed"
        delivery.fail_open_asks(step, error)
    # Before the end is recorded: from then on the job may be resumed, and must not expire.
    step.store.jobs.expire_job(job_id, step.settings.result_ttl)
    text = None if error is None else str(error)
    if had.ended_at is None:  # before that is recorded: a worker that is killed in between has it reported again
        _report_end(step, summary, job_failure.name_reason(batches, own), error)
    step.store.jobs.update_job(job_id, state=summary["state"], ended_at=step.now(), summary=summary, error=text)
    if had.ended_at is None:
        metrics.count("jobs_ended", job=had, state=summary["state"])
    step.send_signal(signals.job_finished, state=summary["state"], summary=summary, error=text)
    return summary, error


def _report_end(step: Step, summary: Summary, reason: str | None, error: errors.BatchTasksError | None) -> None:
    """Say how the job has ended, in its history and in the log.

    A failed job is an error in Celery's log, as any failed task is.
    """
    text, level = end_texts.describe_end(summary, reason), logging.INFO if error is None else logging.WARNING
    if error is None and step.job.stopped is not None:  # a failed job reports this with its error
        text, level = f"{text}; nothing more was sent: {step.job.stopped}", logging.ERROR
    counts: dict[str, int] = {name: summary[name] for name in result_rows.OUTCOMES}
    details = {
        name: cast("dict[str, Any]", summary).get(name) or None for name in ("failures", "incomplete", "repairs")
    }
    details["cost"] = summary["cost"]
    name = None if error is None else type(error).__name__
    step.record_event("finished", text, level=level, state=summary["state"], counts=counts, **details, error=name)
