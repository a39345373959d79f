"""The project's Celery app."""

import os
from pathlib import Path

from celery import Celery
from celery.contrib.django.task import DjangoTask
from django.db import transaction

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "tests.transactions.shop.settings")


class InABlock(DjangoTask):
    """A task class that puts a transaction around every task, which fails once after it has created a batch."""

    abstract = True

    def __call__(self, *args, **kwargs):
        with transaction.atomic():
            value = super().__call__(*args, **kwargs)
            failed = Path(os.environ["FAILS_ONCE"])
            if self.name.endswith("create_batch") and not failed.exists():
                failed.touch()
                raise RuntimeError("after the step")
            return value


own = {"task_cls": InABlock} if "FAILS_ONCE" in os.environ else {}
app = Celery("shop", include=["tests.transactions.shop.tasks"], **own)
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()
app.autodiscover_tasks()
