"""An app that does not know our tasks."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("bare", broker=os.environ["CELERY_BROKER_URL"], backend=os.environ["CELERY_RESULT_BACKEND"])
app.conf.broker_connection_retry_on_startup = True
