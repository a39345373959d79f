"""A Django project in this process, with a database in memory, for what needs no worker and no browser."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import django
import pytest
from celery import Celery
from django.conf import settings
from django.core.management import call_command
from django.test import Client
from django.test.utils import setup_test_environment, teardown_test_environment


@pytest.fixture(scope="session")
def _project() -> Iterator[None]:
    settings.configure(
        ALLOWED_HOSTS=["testserver"],
        DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
        INSTALLED_APPS=[
            "claude_batch_tasks.contrib.django",
            "django.contrib.admin",
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "django.contrib.messages",
            "django.contrib.sessions",
            "django.contrib.staticfiles",
        ],
        MIDDLEWARE=[
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.middleware.csrf.CsrfViewMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        PASSWORD_HASHERS=["django.contrib.auth.hashers.MD5PasswordHasher"],
        ROOT_URLCONF="tests.django.urls",
        SECRET_KEY="tests",
        STATIC_URL="static/",
        TEMPLATES=[
            {
                "BACKEND": "django.template.backends.django.DjangoTemplates",
                "APP_DIRS": True,
                "OPTIONS": {
                    "context_processors": [
                        "django.template.context_processors.request",
                        "django.contrib.auth.context_processors.auth",
                        "django.contrib.messages.context_processors.messages",
                    ]
                },
            }
        ],
        USE_TZ=True,
    )
    django.setup()
    setup_test_environment()
    call_command("migrate", verbosity=0)
    yield
    teardown_test_environment()


Login = Callable[..., Client]


@pytest.fixture
def login(_project: None, app: Celery) -> Iterator[Login]:
    """``login("view", "cancel")``: a browser of somebody on the staff who has these permissions for jobs."""
    from django.contrib.auth.models import Permission, User

    def make(*may: str, enforce_csrf_checks: bool = False) -> Client:
        user = User.objects.create_user("somebody", is_staff=True)
        user.user_permissions.set(Permission.objects.filter(codename__in=[f"{each}_job" for each in may]))
        client = Client(enforce_csrf_checks=enforce_csrf_checks)
        client.force_login(user)
        return client

    yield make
    User.objects.all().delete()
