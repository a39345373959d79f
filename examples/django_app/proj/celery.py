"""The project's Celery app, as Celery's documentation has it for Django."""

import os

from celery import Celery

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()  # so that every request's thread finds it
app.autodiscover_tasks()  # among them claude_batch_tasks.tasks, because it is in INSTALLED_APPS
