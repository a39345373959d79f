"""What the project saves beside its jobs."""

from django.db import models


class Order(models.Model):
    """An order, with the job that judges it."""

    job_id = models.CharField(max_length=64)
