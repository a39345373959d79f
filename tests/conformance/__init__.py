"""Celery's contract: every option of it, for a plain task and for ``run_batch`` side by side."""
