"""Settings of the ready-made app, ``celery -A claude_batch_tasks.app worker``, when it is started in this folder.

Everything is read from the environment: CELERY_BROKER_URL, CELERY_RESULT_BACKEND and CLAUDE_BATCH_* (see the README).
Whatever is assigned below that line has the last word.
"""

from claude_batch_tasks.settings import configuration

globals().update(configuration())

# task_routes = {"claude_batch_tasks.*": {"queue": "claude"}}
