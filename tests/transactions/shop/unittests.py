"""Tests of the project itself, for Django's test runner."""

from django.db import connection, transaction
from django.test import TestCase, TransactionTestCase

from claude_batch_tasks import BatchJob, run_batch
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import open_store
from tests.transactions.shop.celery import app
from tests.transactions.shop.models import Order
from tests.transactions.shop.tasks import make_params

REQUESTS = [{"custom_id": "a", "params": make_params()}]


def jobs():
    return list(open_store(Settings.of(app)).jobs.job_ids())


class InABlock(TestCase):
    """Each test is rolled back, with its job."""

    def test_first(self):
        assert jobs() == []
        result = run_batch.delay(REQUESTS)
        assert jobs() == [result.id]
        assert BatchJob(result.id).status().state == "staged"

    def test_second(self):
        self.test_first()


class WithCommits(TransactionTestCase):
    """Tables of models are emptied after each test; those of the store are none."""

    def test_flush_leaves_the_store_alone(self):
        with transaction.atomic():
            result = run_batch.delay(REQUESTS)
            Order.objects.create(job_id=result.id)
        self._fixture_teardown()
        assert Order.objects.count() == 0
        assert jobs() == [result.id]
        BatchJob(result.id).delete()
        assert jobs() == []

    def test_tables_are_those_of_the_test_database(self):
        assert connection.settings_dict["NAME"].startswith("test_")
        assert open_store(Settings.of(app)).schema.is_current()
