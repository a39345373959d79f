"""The task that workers call with answers, while the job still runs."""

from celery import shared_task

from claude_batch_tasks.contrib.django.results import save_results
from reviews.models import Review


@shared_task
def save_answers(job_id: str, custom_ids: list[str]) -> None:
    """Write answers into their rows. A worker may call this twice with the same ids: the rows are the same then."""
    save_results(job_id, custom_ids, Review, key="pk", fields={"sentiment": "text", "error": why_not})


def why_not(result) -> str:
    return "" if result.type == "succeeded" else result.error_message or result.type
