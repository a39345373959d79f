from django.db import migrations, models


class Migration(migrations.Migration):
    initial = True
    dependencies = []
    operations = [
        migrations.CreateModel(
            name="Review",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
                ("sentiment", models.TextField(blank=True)),
                ("error", models.TextField(blank=True)),
                ("job_id", models.UUIDField(null=True)),
            ],
        )
    ]
