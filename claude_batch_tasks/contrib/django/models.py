"""The model that Django's permissions and admin need; jobs live in the store, and not in the database."""

from __future__ import annotations

from typing import Any

from django.db import models


class _Nothing(models.Manager):
    """A manager that finds nothing and does not ask the database: there is no table."""

    def get_queryset(self) -> Any:
        return super().get_queryset().none()


class Job(models.Model):
    """A job, known by its id; the model has no table."""

    id = models.CharField(primary_key=True, max_length=255)

    objects = _Nothing()

    class Meta:
        managed = False
        base_manager_name = "objects"
        default_permissions = ("view",)
        permissions = (
            ("cancel_job", "Can cancel job"),
            ("retry_job", "Can retry job"),
            ("download_job", "Can download results of job"),
        )

    def __str__(self) -> str:
        return str(self.id)
