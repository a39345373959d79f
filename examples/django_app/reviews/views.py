"""Reviews go in by a form, one batch job judges all that are new, and their rows get the answers."""

import uuid
from collections.abc import Iterator

from django.db import transaction
from django.db.models import QuerySet
from django.http import Http404, HttpRequest, HttpResponse, JsonResponse
from django.shortcuts import redirect, render
from django.views.decorators.http import require_POST

from claude_batch_tasks import BatchJob, errors, run_batch
from reviews.models import Review
from reviews.tasks import save_answers


def index(request: HttpRequest) -> HttpResponse:
    if request.method == "POST":
        lines = filter(None, map(str.strip, request.POST.get("texts", "").splitlines()))
        job_id = uuid.uuid4()
        if not Review.objects.bulk_create(Review(text=line, job_id=job_id) for line in lines):
            return render(request, "reviews/index.html", {"error": "There is no text."}, status=400)
        # After the commit: before it, a worker could be done with rows that nobody else can see yet. The job's id is
        # in the rows already, so that a job can be found, or handed over again, whatever happens from here on; robust:
        # an error is logged, and the job's page offers to try again.
        transaction.on_commit(lambda: submit(job_id), robust=True)
        return redirect("job", job_id=job_id)
    return render(request, "reviews/index.html")


def submit(job_id: uuid.UUID) -> None:
    """As ``run_batch.delay(requests, on_result=...)``, under an id of our own: the same job is never run twice."""
    run_batch.apply_async((requests(job_id),), {"on_result": save_answers.s()}, task_id=str(job_id))


@require_POST
def resubmit(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    transaction.on_commit(lambda: submit(job_id), robust=True)
    return redirect("job", job_id=job_id)


def job(request: HttpRequest, job_id: uuid.UUID) -> HttpResponse:
    reviews = Review.objects.filter(job_id=job_id).order_by("pk")
    if not reviews.exists():
        raise Http404(f"no reviews of a job {job_id}")
    context = {"job_id": job_id, "reviews": reviews}
    # The rows have the answers; the package's own store forgets them after ``result_ttl``.
    try:
        context["job"] = BatchJob(str(job_id)).status()
    except (errors.JobNotFound, errors.StoreUnavailable) as exc:
        context["missing"] = exc if unanswered(job_id).exists() else None
    return render(request, "reviews/job.html", context)


def status(request: HttpRequest, job_id: uuid.UUID) -> JsonResponse:
    try:
        found = BatchJob(str(job_id)).status()
    except errors.JobNotFound as exc:
        raise Http404(str(exc)) from None
    return JsonResponse(
        {
            "state": found.state,
            "requests": found.requests,
            "done": found.done,
            "delivered": found.delivered,
            "delivery_failures": found.delivery_failures,
            "polls": found.polls,
            "polls_404": found.polls_404,
            "next_poll_at": found.next_poll_at,
        }
    )


def unanswered(job_id: uuid.UUID) -> QuerySet[Review]:
    return Review.objects.filter(job_id=job_id, sentiment="", error="")


def requests(job_id: uuid.UUID) -> Iterator[dict]:
    """The reviews as Anthropic's API spells requests; the custom_id finds the row again."""
    for review in unanswered(job_id).iterator():
        prompt = f"Is this review positive or negative? One word. Review: {review.text}"
        yield {
            "custom_id": str(review.pk),
            "params": {
                "model": "claude-haiku-4-5",
                "max_tokens": 100,
                "messages": [{"role": "user", "content": prompt}],
            },
        }
