"""Settings of the project, which come from the environment of a test."""

import json
import os
from urllib.parse import urlsplit

from tests.support import FAST

exec(os.environ.get("FIRST", ""))

_url = urlsplit(os.environ["DATABASE"])

SECRET_KEY = "tests"
USE_TZ = True
ROOT_URLCONF = "tests.transactions.shop.urls"
ALLOWED_HOSTS = ["*"]
DEFAULT_AUTO_FIELD = "django.db.models.AutoField"
INSTALLED_APPS = [
    "django.contrib.contenttypes",
    "django.contrib.auth",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.admin",
    *json.loads(os.environ.get("MORE_APPS", "[]")),
    "claude_batch_tasks.contrib.django",
    "tests.transactions.shop.apps.ShopConfig",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
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
]
STATIC_URL = "static/"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "HOST": _url.hostname,
        "PORT": _url.port,
        "USER": _url.username,
        "NAME": _url.path[1:],
        **json.loads(os.environ.get("OPTIONS_OF_DATABASE", "{}")),
    },
    "files": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"},
}
DATABASE_ROUTERS = json.loads(os.environ.get("ROUTERS", "[]"))
CELERY_BROKER_URL = os.environ.get("BROKER", "redis://127.0.0.1:1/0")
CELERY_RESULT_BACKEND = os.environ.get("BACKEND", "cache+memory://")
CELERY_BROKER_CONNECTION_RETRY_ON_STARTUP = True
CELERY_RESULT_EXPIRES = 7 * 86_400
globals().update({f"CELERY_{name}": value for name, value in FAST.items()})
globals().update({f"CELERY_{name.upper()}": value for name, value in json.loads(os.environ.get("CONF", "{}")).items()})
CELERY_CLAUDE_BATCH_STORE_URL = os.environ.get("STORE_URL", "django://default")
