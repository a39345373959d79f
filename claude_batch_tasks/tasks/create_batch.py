"""The task ``create_batch``, which creates the batch at Anthropic, once."""

from __future__ import annotations

import logging

from celery.exceptions import Ignore

from claude_batch_tasks import api, errors, rules, signals
from claude_batch_tasks.api import body_limits
from claude_batch_tasks.formatting import format_count
from claude_batch_tasks.lifecycle import (
    gateway_errors,
    not_found,
    polling,
    reconciliation,
    record_repair,
    resubmission,
    submission,
)
from claude_batch_tasks.pricing import request_bounds, spending
from claude_batch_tasks.steps import credentials
from claude_batch_tasks.steps.decisions import Decision, Done, Fail, Wait
from claude_batch_tasks.steps.message_chain import NAME
from claude_batch_tasks.steps.step import LeaseLost, Step
from claude_batch_tasks.steps.task_classes import job_task
from claude_batch_tasks.store import lost_records
from claude_batch_tasks.tasks.in_flight import InFlightTask
from claude_batch_tasks.wire import result_rows


class CreateBatch(InFlightTask):
    """The task ``create_batch``: the first poll comes a while after it."""

    abstract = True
    rank = 0

    def failed(self, error: errors.BatchTasksError) -> str:
        """Handle a batch that cannot be created, without harm to what the job already has.

        A refusal that all creates of the account meet stops the job; its outcomes are kept, and it can be resumed.
        """
        step, refused = self.step, _concerns_account(error)
        smaller = bool(step.batch.rounds)
        if isinstance(error, errors.BatchesUnsupported) and error.status is not None and step.batch.intent_at is None:
            return self._give_up_batches(error)
        if step.batch.intent_at is not None or not (smaller or refused):
            return super().failed(error)
        try:
            if refused or isinstance(error, errors.AccountChanged):
                step.stop(str(error))
            if not smaller:
                return super().failed(error)
            step.record(state="unsent")
            step.note("unsent", f"not created: {error}", level=logging.WARNING)
        except LeaseLost:
            raise Ignore("taken over") from None
        except errors.StoreUnavailable as exc:
            self.retry_later(exc)
        return f"unsent: {error}"

    def _give_up_batches(self, error: errors.BatchesUnsupported) -> str:
        try:
            gateway_errors.remember_gateway(self.step)
            decided = not_found.handle_missing_batch(self.step, "unsent", error)
            return super().failed(error) if isinstance(decided, Fail) else str(decided.value)
        except LeaseLost:
            raise Ignore("taken over") from None
        except errors.StoreUnavailable as exc:
            self.retry_later(exc)

    def pause(self) -> float:
        """Return the seconds until the first scheduled poll; 0 if there is no batch to poll."""
        return (
            max(polling.next_poll_at(self.step) - self.step.now(), 0) if self.step.batch.state == "in_progress" else 0.0
        )


def _concerns_account(error: errors.BatchTasksError) -> bool:
    return isinstance(error, errors.ApiError) and rules.concerns_account(
        error.error_type, str(error), status=error.status or 0, code=error.code
    )


@job_task(base=CreateBatch, name=NAME + "create_batch")
def create_batch(self: CreateBatch, job_id: str, batch: int, turn: int = 0, seq: int = 0) -> Decision:
    """Create the batch at Anthropic, once: write the intent first, and search for the batch after an unclear answer."""
    step, record = self.step, self.step.batch
    if record.state not in ("staged", "creating"):
        return Done(f"nothing to create: {record.state}")
    if (early := self.wait_until_due()) is not None:
        return early
    # However long a job's first message was in a queue, the job is started. A batch that had to wait longer need not
    # be.
    waited = record.due_at or record.intent_at or batch >= step.settings.max_batches_in_flight
    if record.intent_at is not None and reconciliation.reconcile_create(step):
        return Done(f"adopted {record.batch_id}")
    if step.job.cancel_requested or (record.rounds and step.job.stopped):
        outcome = {} if record.rounds else {"outcome": {"type": "canceled"}, "counts": {"canceled": record.count}}
        step.record(state="unsent", **outcome)
        return Done(f"not created: the job is {'canceled' if step.job.cancel_requested else 'stopped'}")
    if step.job.stopped is not None and step.job.stopped.startswith("create:"):
        return Fail(errors.PermanentError(step.job.stopped))  # the account refused another batch of the job
    if waited:
        step.check_deadline()
    gateway_errors.check_gateway(step)
    seen = credentials.check_to_spend(step)
    record_repair.repair_records(step)
    if step.store.records.missing_keys(job_id, batch, ("body", "ids")):
        # Before anything is sent: answers whose custom_ids are gone would be useless.
        return Fail(lost_records.of_requests(step.store, job_id, step.job, batch, record))
    if (unpaid := _check_budget(step)) is not None:
        return unpaid
    step.pace.check("create")
    client = step.client
    step.record(
        state="creating",
        intent_at=step.now(),
        unanswered_at=None,
        ambiguous_at=None,
        create_looks=0,
        unidentified=0,
        organization=seen.organization,
        workspace=seen.workspace,
    )
    try:
        body = step.while_held(submission.whole_body(step.store, job_id, step.job, batch, record))
        with step.pace.observing("create"), body_limits.confirmed(step.confirm_lease):
            created = api.create(client, body, record.smaller_bytes if record.rounds else record.body_bytes)
    except errors.AmbiguousError as exc:
        # The batch may be stored on the account that this answer came from.
        named = {"organization": exc.organization, "workspace": exc.workspace} if exc.organization else {}
        step.record(unanswered_at=step.now(), ambiguous_at=step.now(), **named, **reconciliation.refusal_of(step, exc))
        credentials.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        raise errors.CreateUnresolved(f"{exc}; searching for what it may have created", exc.retry_after) from None
    except errors.NotFoundError as exc:
        step.record(
            state="staged",
            intent_at=None,
            organization=None,
            workspace=None,
            create_not_found=record.create_not_found + 1,
            not_found=record.not_found + 1,
        )
        credentials.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        step.tell(signals.not_found_seen, batch_id=None, endpoint="create", request_id=exc.request_id)
        if record.create_not_found >= step.settings.create_not_found_limit:
            gateway_errors.check_listing(step)
            return not_found.handle_missing_batch(step, "unsent", errors.CreateNotFound(*exc.args))
        raise
    except errors.ResultsMissing:
        step.record(state="staged", intent_at=None, organization=None, workspace=None)
        raise
    except (errors.TransientError, errors.PermanentError) as exc:
        step.record(state="staged", intent_at=None, organization=None, workspace=None)
        credentials.compare_with_job(step, api.Account(exc.organization, exc.workspace))
        if isinstance(exc, errors.TransientError) and exc.status != 401 and _concerns_account(exc):
            # It does not pass while anybody waits: a spend limit comes as 429. After a 401, another token is requested.
            raise errors.PermanentError(*exc.args) from None
        raise
    created.ahead = reconciliation.api_ahead(step, created)
    reconciliation.record_created(step, created)
    step.pace.observe_answer(created.hold)
    told = {"requests": record.sending, "round": len(record.rounds)}
    step.note("created", f"created, {format_count(record.sending, 'request')}", **told, **created.call)
    credentials.compare_with_job(step, created.account)
    credentials.remember_credential(step, created.account)
    return Done(f"created {created.id}, {record.sending} requests")


def _check_budget(step: Step) -> Done | Wait | None:
    """Return None if the batch may be paid for; if not, its requests keep their outcomes, or end as errored.

    It waits while the cost of the batches that are running must be known first.
    """
    record, limit = step.batch, step.settings.max_cost
    if limit is None:
        return None
    note, answer = f"the rest of max_cost (${limit:,.4g}) does not cover its input", "no"
    if record.least is None or record.most is None:
        params = resubmission.read_params_left(step.store, step.unit.job_id, step.unit.batch or 0, record)
        found = request_bounds.batch_need(params, step.settings.price_list)
        if isinstance(found, request_bounds.BatchNeed):
            step.record(least=found.input, most=found.most)
        else:
            note = f"max_cost cannot be kept: {found[1].why}"
    if record.least is not None and record.most is not None:
        answer = step.store.budget.reserve_cost(
            step.unit, len(record.rounds), record.least, record.most, spending.to_nano_dollars(limit)
        )
    if answer == "wait":
        pause = 2 * step.settings.poll_min
        return Wait("waiting for what the job's other batches cost (max_cost)", pause, spread=0.25, tried=False)
    if answer == "lost":
        note = "what the job has spent is gone from the store, so max_cost cannot be kept"
    if answer in ("no", "lost"):
        step.note("unsent", f"not created: {note}", level=logging.WARNING)
        outcome = {
            "outcome": result_rows.errored_row("budget_exceeded", note, None),
            "counts": {"errored": record.count},
        }
        step.record(state="unsent", note=note, **({} if record.rounds else outcome))
    return None if answer == "yes" else Done("no money is left for it")
