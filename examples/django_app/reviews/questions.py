"""Questions that are asked one at a time; those of all web processes become one batch."""

import uuid

from celery import chain, chord
from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect, render

from claude_batch_tasks import AskResult, ask, errors
from reviews.models import Question
from reviews.tasks import save_answer, save_error, save_opinions

PEOPLE = ("a lawyer", "an engineer", "a child")


def questions(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        how = HOW[request.POST["how"]]
        for line in filter(None, map(str.strip, request.POST["texts"].splitlines())):
            how(Question.objects.create(text=line, task_id=uuid.uuid4()))
        return redirect("questions")
    rows = [(question, read_state(question)) for question in Question.objects.order_by("pk")]
    return render(request, "reviews/questions.html", {"rows": rows, "how": HOW})


def params(text: str) -> dict:
    return {"model": "claude-haiku-4-5", "max_tokens": 100, "messages": [{"role": "user", "content": text}]}


def ask_alone(question: Question) -> None:
    """Ask after the commit, under an id that is in the row already: the page reads the answer by it."""
    ask.apply_async_on_commit((params(question.text),), task_id=str(question.task_id))


def ask_and_save(question: Question) -> None:
    """Ask, and let the next task of a chain write the answer into the row."""
    steps = chain(ask.s(params(question.text)), save_answer.s(question.pk)).on_error(save_error.s(question.pk))
    transaction.on_commit(steps.delay)


def ask_several(question: Question) -> None:
    """Ask several times, and let the body of a chord write all answers into the row."""
    asked = [ask.s(params(f"Answer as {someone}: {question.text}")) for someone in PEOPLE]
    steps = chord(asked, save_opinions.s(question.pk).on_error(save_error.s(question.pk)))
    transaction.on_commit(steps.delay)


HOW = {"alone": ask_alone, "chain": ask_and_save, "chord": ask_several}


def read_state(question: Question) -> str:
    """Return the answer to a question that no task writes into its row, or how far it is."""
    if question.answer or question.error:
        return ""
    result = AskResult(str(question.task_id))
    try:
        return result.get(timeout=5).text if result.successful() else result.state
    except errors.RequestFailed as exc:
        return str(exc)
