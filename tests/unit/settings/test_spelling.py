"""How settings are spelled where an app reads them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from celery import Celery
from celery.app.defaults import SETTING_KEYS

from claude_batch_tasks.settings import NAMES
from claude_batch_tasks.settings.spelling import in_its_words, read_configured, spell_setting


@pytest.mark.parametrize("namespace", [None, "CELERY", "QUEUE"])
def test_celery_reads_what_a_message_tells_users_of_django_to_write(
    namespace: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("CELERY_BROKER_URL", "CELERY_RESULT_BACKEND", "CELERY_BROKER_READ_URL", "CELERY_BROKER_WRITE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name in sorted(SETTING_KEYS):
        with Celery("spelled", set_as_current=False) as app:
            app.config_from_object(SimpleNamespace(INSTALLED_APPS=[]), namespace=namespace)
            key = spell_setting(app, name)
        assert key.isupper()
        with Celery("reads", set_as_current=False) as app:
            app.config_from_object(SimpleNamespace(INSTALLED_APPS=[], **{key: "value"}), namespace=namespace)
            assert app.conf[name] == "value", key
    for name in NAMES:
        with Celery("reads", set_as_current=False) as app:
            key = spell_setting(app, f"claude_batch_{name}")
            app.config_from_object(SimpleNamespace(INSTALLED_APPS=[], **{key: "value"}), namespace=namespace)
            assert read_configured(app)[name].value == "value"


def test_a_text_is_put_into_the_words_of_an_app() -> None:
    text = "result_expires = 60 or claude_batch_max_cost; claude_batch_tasks.transport, app.conf.result_expires"
    with Celery("plain", set_as_current=False) as app:
        assert in_its_words(app, text, NAMES) == text
        app.config_from_object(SimpleNamespace(INSTALLED_APPS=[]), namespace="CELERY")
        assert in_its_words(app, text, NAMES) == (
            "CELERY_RESULT_EXPIRES = 60 or CELERY_CLAUDE_BATCH_MAX_COST; claude_batch_tasks.transport, "
            "app.conf.result_expires"
        )
