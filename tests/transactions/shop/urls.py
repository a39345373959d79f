"""Views of the project that submit jobs."""

from asgiref.sync import sync_to_async
from django.contrib import admin
from django.db import transaction
from django.http import HttpResponse
from django.urls import path

from claude_batch_tasks import run_batch
from tests.transactions.shop.models import Order
from tests.transactions.shop.tasks import make_params


def submit(request):
    """Submit a job with its order, and raise after that if the address says so."""
    result = run_batch.delay([{"custom_id": "a", "params": make_params()}])
    Order.objects.create(job_id=result.id)
    if "fail" in request.GET:
        raise ValueError(result.id)
    return HttpResponse(result.id)


async def submit_async(request):
    """Do the same in an asynchronous view, whose transactions are in a thread."""
    return await sync_to_async(transaction.atomic(submit))(request)


urlpatterns = [
    path("submit", submit),
    path("async", transaction.non_atomic_requests(submit_async)),
    path("admin/", admin.site.urls),
]
