"""The migration that makes Django create the permissions; it creates no table."""

from __future__ import annotations

from django.db import migrations, models


class Migration(migrations.Migration):
    """The migration of the permissions."""

    initial = True
    dependencies = ()
    operations = (
        migrations.CreateModel(
            name="Job",
            fields=[("id", models.CharField(max_length=255, primary_key=True, serialize=False))],
            options={
                "permissions": (("cancel_job", "Can cancel job"), ("retry_job", "Can retry job")),
                "managed": False,
                "base_manager_name": "objects",
                "default_permissions": ("view",),
            },
        ),
    )
