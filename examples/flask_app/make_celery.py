"""What the worker is started with: ``celery -A make_celery worker``."""

from app import create_app

celery_app = create_app().extensions["celery"]
