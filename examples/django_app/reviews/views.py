"""Reviews go in by a form, one batch job judges all that are new, and their rows get the answers."""

import uuid

from django.db import transaction
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render

from claude_batch_tasks import BatchJob, errors, run_batch
from reviews.models import Review


def index(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        lines = filter(None, map(str.strip, request.POST.get("texts", "").splitlines()))
        job_id = uuid.uuid4()
        reviews = Review.objects.bulk_create(Review(text=line, job_id=job_id) for line in lines)
        if not reviews:
            return render(request, "reviews/index.html", {"error": "There is no text."}, status=400)
        # After the commit: before it, a worker could be done with rows that nobody else can see yet.
        transaction.on_commit(lambda: run_batch.apply_async((map(judge, reviews),), task_id=str(job_id)))
        return redirect("job", job_id=job_id)
    return render(request, "reviews/index.html")


def job(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    found = find(job_id)
    for result in found.results():
        if result.type == "succeeded":
            Review.objects.filter(pk=result.custom_id, sentiment="").update(sentiment=result.text)
    context = {"job": found.status(), "reviews": Review.objects.filter(job_id=job_id).order_by("pk")}
    return render(request, "reviews/job.html", context)


def status(request: HttpRequest, job_id: uuid.UUID) -> JsonResponse:
    found = find(job_id).status()
    return JsonResponse(
        {
            "state": found.state,
            "requests": found.requests,
            "done": found.done,
            "looks": found.looks,
            "not_found": found.not_found,
            "next_look": found.next_look,
        }
    )


def find(job_id: uuid.UUID) -> BatchJob:
    found = BatchJob(str(job_id))
    try:
        found.status()
    except errors.JobNotFound as exc:
        raise Http404(str(exc)) from None
    return found


def judge(review: Review) -> dict:
    """One request, as Anthropic's API spells it; the custom_id finds the row again."""
    prompt = f"Is this review positive or negative? One word. Review: {review.text}"
    return {
        "custom_id": str(review.pk),
        "params": {
            "model": "claude-haiku-4-5",
            "max_tokens": 16,
            "messages": [{"role": "user", "content": prompt}],
        },
    }
