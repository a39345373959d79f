from django.db import models


class Review(models.Model):
    """A customer's review, and what the model made of it, or why it made nothing."""

    text = models.TextField()
    sentiment = models.TextField(blank=True)
    error = models.TextField(blank=True)
    job_id = models.UUIDField(null=True)


class Question(models.Model):
    """A question that is asked by itself, and its answer."""

    text = models.TextField()
    task_id = models.UUIDField()
    answer = models.TextField(blank=True)
    error = models.TextField(blank=True)
