"""The page on RabbitMQ, from zero."""

from __future__ import annotations

import os
from urllib.parse import urlsplit

import pytest
from kombu import Connection

from tests.docs.conftest import StartReader
from tests.docs.pages import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.latest, pytest.mark.workers, pytest.mark.timeout(600)]

RABBITMQ = os.environ.get("TEST_RABBITMQ_URL", "amqp://guest:guest@127.0.0.1:5672//")


def test_the_page_is_true_from_top_to_bottom(start_reader: StartReader) -> None:
    queue = f"summaries-{os.getpid()}"  # the broker is not ours alone
    try:
        connection = Connection(RABBITMQ, connect_timeout=3)
        connection.connect()
    except OSError as exc:
        pytest.skip(f"no RabbitMQ at {RABBITMQ} ({exc}); set TEST_RABBITMQ_URL")
    with connection:
        reader = start_reader({"guest:guest@localhost:5672": urlsplit(RABBITMQ).netloc, "summaries": queue})
        reader.read(ROOT / "docs/howto/rabbitmq.md")
        connection.default_channel.queue_delete(queue)
        connection.default_channel.exchange_delete(queue)
