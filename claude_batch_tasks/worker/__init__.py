"""The work of a worker besides its tasks: checks at its start, due and lost messages, and revoked jobs."""

from __future__ import annotations

from celery import Celery, _state, signals

from claude_batch_tasks import instruments
from claude_batch_tasks.checks import silent_broker
from claude_batch_tasks.lifecycle.pools import ask_events
from claude_batch_tasks.worker import confirmations, ended_tasks, log_lines, periodic_work, start_checks


def connect_signals() -> None:
    """Connect the functions of this package to Celery's signals.

    In a process that is not a worker, Celery never calls them.
    """
    signals.worker_init.connect(start_checks.check_settings)
    # not worker_init, which comes before the worker's log is set up
    signals.celeryd_after_setup.connect(start_checks.check_store)
    signals.celeryd_after_setup.connect(start_checks.check_servers)
    signals.celeryd_after_setup.connect(ask_events.remember_events)
    signals.worker_process_init.connect(start_checks.check_clients_of_pool)
    signals.worker_process_init.connect(log_lines.leave_out_repeated)  # for a pool that is spawned, not forked
    instruments.connect_signals()
    signals.task_revoked.connect(ended_tasks.end_revoked_job)
    signals.task_postrun.connect(ended_tasks.release_frames)
    confirmations.connect_signals()
    # As shared_task does it: for apps that are made later, and for apps that already exist.
    _state.connect_on_app_finalize(_add_steps)
    for app in _state._get_active_apps():  # type: ignore[attr-defined]
        if app.finalized:
            _add_steps(app)


def _add_steps(app: Celery) -> None:
    app.steps["worker"].add(periodic_work.WhatIsDue)
    app.steps["consumer"].add(silent_broker.NoticeSilence)
