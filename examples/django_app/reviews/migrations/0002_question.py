from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("reviews", "0001_initial")]

    operations = [
        migrations.CreateModel(
            name="Question",
            fields=[
                ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                ("text", models.TextField()),
                ("task_id", models.UUIDField()),
                ("answer", models.TextField(blank=True)),
                ("error", models.TextField(blank=True)),
            ],
        ),
    ]
