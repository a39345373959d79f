"""The project's Celery app, as Celery's documentation has it for Django."""

import os

from celery import Celery

from claude_batch_tasks import transport

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "proj.settings")

transport.install()  # so that workers live through a restart of Redis
app = Celery("proj")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.set_default()  # so that every request's thread finds it
app.autodiscover_tasks()  # among them claude_batch_tasks.tasks, because of INSTALLED_APPS
