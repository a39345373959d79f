"""Tasks, system checks and an admin page of jobs: ``"claude_batch_tasks.contrib.django"`` in ``INSTALLED_APPS``."""
