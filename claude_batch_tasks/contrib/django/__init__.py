"""The Django app, with tasks, system checks and admin pages of jobs.

It needs ``"claude_batch_tasks.contrib.django"`` in ``INSTALLED_APPS``.
"""
