"""The migration of the permission to download results; it changes no table, because there is none."""

from __future__ import annotations

from django.db import migrations


class Migration(migrations.Migration):
    """The migration of the permission."""

    dependencies = (("claude_batch", "0001_initial"),)
    operations = (
        migrations.AlterModelOptions(
            name="job",
            options={
                "permissions": (
                    ("cancel_job", "Can cancel job"),
                    ("retry_job", "Can retry job"),
                    ("download_job", "Can download results of job"),
                ),
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
            },
        ),
    )
