"""Metrics: every metric as data, and the two functions with which steps report what happens.

Values go to the instruments of this process, which a worker makes from ``claude_batch_instruments``; by default there
are none. Gauges, the present values, are read from the store instead: see ``instruments.gauges``.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Literal, NamedTuple, get_args

from celery import Celery

from claude_batch_tasks import rules
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchState, IncompleteReason, JobRecord, JobState, RepairKind

log = get_logger(__name__)

PREFIX = "claude_batch_"

_CALL = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0)
_POOL = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0, 3_000.0, 10_000.0, 30_000.0, 100_000.0)
_BATCH = (60.0, 300.0, 900.0, 1800.0, 3600.0, 7200.0, 14_400.0, 28_800.0, 43_200.0, 86_400.0)


_ENDPOINTS = get_args(rules.Endpoint)
_REASONS = get_args(IncompleteReason)
_SOURCES = ("batch", "resubmitted", "messages")
#: The states of pools that are no jobs yet.
POOL_STATES = ("open", "closed", "parked")
#: The reason of answers with a stop reason that this release does not know.
_OTHER = "other"


class Metric(NamedTuple):
    """One metric. Its unit is a part of its name, as in Prometheus: ``seconds``, ``dollars`` (US), else a count."""

    name: str
    """Without our prefix, and without what a back end appends."""
    kind: Literal["counter", "histogram", "gauge"]
    help: str
    labels: Mapping[str, tuple[str, ...]] = {}
    """The possible values of each label; empty: the API decides what they are."""
    buckets: tuple[float, ...] = ()
    """Upper bounds of a histogram's buckets."""
    of_job: bool = False
    """Whether it is about a job, whose label it carries where the setting ``metrics_job_label`` says so."""

    @property
    def full_name(self) -> str:
        """The name in OpenTelemetry."""
        return PREFIX + self.name

    @property
    def exposed_name(self) -> str:
        """The name in Prometheus; for a histogram, the part before ``_bucket``, ``_sum`` and ``_count``."""
        return self.full_name + ("_total" if self.kind == "counter" else "")

    @property
    def unit(self) -> str:
        """``seconds``, ``dollars``, or empty for a plain count."""
        last = self.name.rpartition("_")[2]
        return last if last in ("seconds", "dollars") else ""

    def all_labels(self) -> list[dict[str, str]]:
        """Return each combination of labels that may occur; an empty list if the values of a label are not known."""
        combinations = itertools.product(*self.labels.values())
        return [dict(zip(self.labels, combination, strict=True)) for combination in combinations]


#: All metrics by name.
METRICS: Mapping[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric(
            "api_seconds",
            "histogram",
            "Duration of calls of Anthropic's API, until the answer has arrived (result files, streamed messages: "
            "until it begins); `status`: the HTTP status, or `none`: no answer, or a broken one",
            {"endpoint": _ENDPOINTS, "status": ()},
            _CALL,
        ),
        Metric(
            "account_answers",
            "counter",
            "Answers, by the organization and workspace that they name; `none`: they name none",
            {"organization": (), "workspace": ()},
        ),
        Metric("not_found", "counter", "Answers with status 404", {"endpoint": _ENDPOINTS}),
        Metric(
            "broken_answers",
            "counter",
            "Answers that were cut off, or ended in an error, after they had begun",
            {"endpoint": ("results", "messages")},
        ),
        Metric(
            "looks",
            "counter",
            "Polls of batches: `retrieve`, one call for each; `list`, all batches that one list call showed",
            {"how": ("retrieve", "list")},
        ),
        Metric(
            "orphan_searches",
            "counter",
            "Searches for the batch of an unanswered create; `found`: `batch` (recovered), `nothing` or `doubtful` (a "
            "batch that may be another's; the search continues after both), `given_up` (counts as never created)",
            {"found": ("batch", "nothing", "doubtful", "given_up")},
        ),
        Metric("batch_seconds", "histogram", "Duration of batches at Anthropic", buckets=_BATCH),
        Metric(
            "downloads",
            "counter",
            "Result files read to their end; `incomplete`: rows are missing, or the counts differ from the batch's own",
            {"result": ("complete", "incomplete")},
        ),
        Metric("smaller_batches", "counter", "Smaller batches started, of requests with a temporary error"),
        Metric(
            "requests",
            "counter",
            "Requests with a final outcome, counted when the whole batch is final; `source`: where the outcome came "
            "from",
            {"outcome": ("succeeded", "errored", "canceled", "expired"), "source": _SOURCES},
            of_job=True,
        ),
        Metric(
            "incomplete_answers",
            "counter",
            "Answers that are not complete, counted when the whole batch is final; `other`: a stop reason that this "
            "release does not know, so that nobody knows whether they are complete",
            {"reason": (*_REASONS, _OTHER)},
            of_job=True,
        ),
        Metric(
            "repairs",
            "counter",
            "Requests sent again in a smaller batch because their answers were not complete, counted when the "
            "results of that batch are saved",
            {"kind": get_args(RepairKind)},
            of_job=True,
        ),
        Metric(
            "cost_dollars",
            "counter",
            "Cost of answers in US dollars, where the price is known; `messages`: the fallback",
            {"source": _SOURCES},
            of_job=True,
        ),
        Metric(
            "saved_dollars",
            "counter",
            "How much more the answers of batches would have cost through the Messages API, in US dollars, where the "
            "price is known; `how`: whether they were asked for one at a time (`ask`)",
            {"how": ("ask", "job")},
            of_job=True,
        ),
        Metric("pool_size", "histogram", "Asks in a pool when it became a job", buckets=_POOL),
        Metric("lost_messages", "counter", "Celery messages that the broker lost, and that were sent again"),
        Metric(
            "jobs_ended",
            "counter",
            "Jobs that ended",
            {"state": ("completed", "canceled", "failed", "revoked")},
            of_job=True,
        ),
        Metric(
            "jobs",
            "gauge",
            "Jobs in the store; ended jobs stay for `result_ttl`",
            {"state": get_args(JobState)},
        ),
        Metric("batches", "gauge", "Batches of jobs that have not ended", {"state": get_args(BatchState)}),
        Metric("oldest_batch_seconds", "gauge", "Age of the oldest batch in flight at Anthropic; 0: none is in flight"),
        Metric(
            "unseen_seconds",
            "gauge",
            "The longest time since the API last showed a batch in flight; 0: none is in flight",
        ),
        Metric(
            "results_left_seconds",
            "gauge",
            "The shortest time until Anthropic deletes results that a running job has not fetched (29 days after the "
            "batch was created); missing: there are none",
        ),
        Metric(
            "asks_waiting",
            "gauge",
            "Asks without an answer; `where`: in a `pool` that is no job yet, or in a `job` that runs",
            {"where": ("pool", "job")},
        ),
        Metric(
            "pools",
            "gauge",
            "Pools of asks that are no job yet; `parked`: they wait until another pool of theirs was tried",
            {"state": POOL_STATES},
        ),
        Metric("oldest_ask_seconds", "gauge", "Age of the oldest ask in a pool that is no job yet; 0: none is"),
        Metric(
            "overdue_pool_seconds",
            "gauge",
            "The longest time for which a pool has been due to become a job, and is none; 0: none is due",
        ),
        Metric("overdue_units", "gauge", "Steps that are due and that no worker has started"),
        Metric("overdue_seconds", "gauge", "The longest time for which such a step has been due; 0: none is"),
    )
}


class Reading(NamedTuple):
    """The present value of a gauge."""

    metric: Metric
    labels: Mapping[str, str]
    value: float


class Instruments(ABC):
    """The receiver of a process's metrics; the base of classes that ``claude_batch_instruments`` names.

    An instance is made in a worker's main process before its pool is, and pool processes have copies of it. It may read
    gauges at any time, in any process: ``census.readings(self.app)``.
    """

    def __init__(self, app: Celery, *, forks: bool) -> None:
        """Keep the app, and in ``forks`` whether the pool's processes are forked from this one (prefork)."""
        self.app = app
        self.forks = forks

    @abstractmethod
    def count(self, metric: Metric, amount: float, labels: Mapping[str, str]) -> None:
        """Add to a counter. May be called from any thread."""

    @abstractmethod
    def observe(self, metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        """Add a value to a histogram. May be called from any thread."""

    def begin(self) -> None:  # noqa: B027 - most have nothing to do
        """Start work in the worker's main process, once its pool exists."""

    def forked(self) -> None:  # noqa: B027
        """Start work in a new process of the pool."""

    def end(self) -> None:  # noqa: B027
        """Finish work, because the worker has ended."""


#: The name of the label that has a job's label, and its value for jobs without one.
JOB_LABEL, NO_LABEL = "label", "none"

_instruments: tuple[Instruments, ...] = ()
#: The metrics as this process reports them.
_reported = METRICS
_logged: set[type] = set()


def use_instruments(instruments: Iterable[Instruments]) -> None:
    """Send what happens in this process to these instruments only."""
    global _instruments
    _instruments = tuple(instruments)


def use_job_label(used: bool) -> None:
    """Have the metrics that are about a job carry its label, or not; to be called before instruments are made."""
    global _reported
    labels = {JOB_LABEL: ()} if used else {}
    _reported = {
        name: metric._replace(labels={**metric.labels, **labels}) if metric.of_job else metric
        for name, metric in METRICS.items()
    }


def reports_job_label() -> bool:
    """Return whether metrics carry the labels of jobs."""
    return any(JOB_LABEL in metric.labels for metric in _reported.values())


def reported_metrics() -> Mapping[str, Metric]:
    """Return all metrics by name, each with the labels that it has in this process."""
    return _reported


def in_use() -> tuple[Instruments, ...]:
    """Return the instruments of this process."""
    return _instruments


def count(name: str, amount: float = 1, *, job: JobRecord | None = None, **labels: str) -> None:
    """Add to the counter of that name. Never raises.

    Args:
        job: the record of the job that it is about, if that is known.
    """
    for instruments in _instruments:
        try:
            metric = _reported[name]
            own = {JOB_LABEL: (job and job.label) or NO_LABEL} if JOB_LABEL in metric.labels else {}
            instruments.count(metric, amount, {**labels, **own})
        except Exception:  # noqa: BLE001 - a figure is a courtesy
            _log_failure(instruments)


def reason_label(reason: str) -> str:
    """Return what metrics call the reason why an answer is not complete: stop reasons that are not known are one."""
    return reason if reason in _REASONS else _OTHER


def observe(name: str, value: float, **labels: str) -> None:
    """Add a value to the histogram of that name. Never raises."""
    for instruments in _instruments:
        try:
            instruments.observe(_reported[name], value, labels)
        except Exception:  # noqa: BLE001 - a figure is a courtesy
            _log_failure(instruments)


def _log_failure(instruments: Instruments) -> None:
    if (kind := type(instruments)) not in _logged:
        _logged.add(kind)
        log.exception("metrics: %s.%s failed; figures are missing. This is logged once", kind.__module__, kind.__name__)
