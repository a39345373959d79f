"""The migration of the store's tables, for projects whose store is in their own database."""

from __future__ import annotations

from django.db import migrations

from claude_batch_tasks.contrib.django.store_tables import MigrateStore


class Migration(migrations.Migration):
    """The migration of the first version of the tables."""

    dependencies = (("claude_batch", "0002_download_job"),)
    operations = (MigrateStore(1),)
