"""A Django project whose store is in its own database."""

from tests.transactions.shop.celery import app as celery_app

__all__ = ["celery_app"]
