"""What happens to jobs, as signals of Celery's kind, sent in the worker in which it happens.

>>> from claude_batch_tasks.signals import job_finished
>>> @job_finished.connect
... def done(sender, job_id, summary, **_): ...

Each is sent at least once: a worker that dies in the middle of a step has its step done again. ``sender`` is the task.
A receiver that raises is logged, and disturbs nothing else. Connect them where workers import it (in Django:
``ready()``), and take ``**_``, since later releases may send more arguments.
"""

from __future__ import annotations

from celery.utils.dispatch import Signal

#: A batch was created, or one whose create was not answered was found: ``job_id``, ``batch`` (its index in the
#: job, from 0), ``number`` (from 1, as people are shown it), ``batch_id``, ``requests``, ``round`` (0, or which of the
#: smaller ones after it).
batch_created = Signal(
    name="batch_created", providing_args=["job_id", "batch", "number", "batch_id", "requests", "round"]
)

#: A poll saw that it has ended: ``job_id``, ``batch``, ``number``, ``batch_id``, ``counts`` (Anthropic's, by outcome),
#: ``round``.
batch_ended = Signal(name="batch_ended", providing_args=["job_id", "batch", "number", "batch_id", "counts", "round"])

#: Anthropic answered 404: ``job_id``, ``batch``, ``number``, ``batch_id`` (None on create), ``endpoint`` (``create``,
#: ``retrieve``, ``results`` or ``messages``), ``request_id``.
not_found_seen = Signal(
    name="not_found_seen", providing_args=["job_id", "batch", "number", "batch_id", "endpoint", "request_id"]
)

#: The results of a batch are complete and can be read: ``job_id``, ``batch``, ``number``, ``batch_id``, ``counts``
#: (by outcome), ``round``. Those that are to be sent again are not final yet; see ``on_result`` for those that are.
results_published = Signal(
    name="results_published", providing_args=["job_id", "batch", "number", "batch_id", "counts", "round"]
)

#: A job has ended: ``job_id``, ``state`` (``completed``, ``canceled`` or ``failed``), ``summary``, ``error`` (a text,
#: or None).
job_finished = Signal(name="job_finished", providing_args=["job_id", "state", "summary", "error"])
