"""The tasks that workers call with answers: of a job while it still runs, and of single questions."""

from celery import shared_task

from claude_batch_tasks.contrib.django.results import save_results
from reviews.models import Question, Review


@shared_task
def save_answers(job_id: str, custom_ids: list[str]) -> None:
    """Write answers into their rows. A worker may call this twice with the same ids: the rows are the same then."""
    save_results(job_id, custom_ids, Review, key="pk", fields={"sentiment": "text", "error": why_not})


def why_not(result) -> str:
    return "" if result.type == "succeeded" else result.error_message or result.type


@shared_task
def save_answer(answer, question_id: int) -> None:
    """Write the answer to a question into its row; ``answer`` behaves as a ``RequestResult``."""
    Question.objects.filter(pk=question_id).update(answer=answer.text)


@shared_task
def save_opinions(answers: list, question_id: int) -> None:
    """Write several answers to a question into its row: the body of a chord."""
    Question.objects.filter(pk=question_id).update(answer=" / ".join(answer.text for answer in answers))


@shared_task
def save_error(request, exc: Exception, traceback, question_id: int) -> None:
    """Write why there is no answer: an errback, as Celery calls it."""
    Question.objects.filter(pk=question_id).update(error=str(exc))
