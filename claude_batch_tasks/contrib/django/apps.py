"""The configuration of the Django app."""

from __future__ import annotations

from django.apps import AppConfig
from django.core.checks import register
from django.db.models.signals import post_migrate

from claude_batch_tasks.contrib.django import checks, store_tables


class ClaudeBatchConfig(AppConfig):
    """The app's configuration; its label is ``claude_batch``, so permissions are named ``claude_batch.view_job``."""

    name = "claude_batch_tasks.contrib.django"
    label = "claude_batch"
    verbose_name = "Claude batches"

    def ready(self) -> None:
        register(checks.of_settings, checks.TAG)
        register(checks.of_servers, checks.TAG, deploy=True)
        post_migrate.connect(store_tables.catch_up, sender=self)
