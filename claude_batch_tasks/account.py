"""Whose account a job is on: a job begun on one is never taken for absent, or begun again, on another.

A job remembers a keyed hash of the credential its first create was sent with, and the organization the API named. With
the same credential everything is as it was. With another one (a rotated key, a wrong environment) what is *seen* can
be believed, what is *not seen* cannot: it may only be out of this credential's sight.
"""

from __future__ import annotations

import logging

from claude_batch_tasks import api, errors
from claude_batch_tasks.step import Step

log = logging.getLogger(__name__)


def same(step: Step) -> bool:
    """Whether this worker's client has the job's own credential; the first to ask makes it the job's own."""
    mine = api.credential(step.client, step.job.nonce)
    if step.job.account is None:
        step.job.account = step.store.settle(step.unit.job_id, "account", mine)
    return mine == step.job.account


def proven(step: Step, organization: str | None) -> None:
    """The API has shown this worker the job's batch, so its credential is one of the job's account."""
    if organization and organization != step.job.organization:
        step.store.update_job(step.unit.job_id, organization=organization)
        step.job.organization = organization
    if not same(step):
        log.info("%s: another credential of the same account", step.where, extra=step.fields("account"))
        step.job.account = api.credential(step.client, step.job.nonce)
        step.store.update_job(step.unit.job_id, account=step.job.account)


def check_to_spend(step: Step) -> None:
    """Nothing is sent on another account than the job's.

    Raises:
        AccountChanged: the credential is another, and the API does not say that its organization is the same.
    """
    if not same(step) and not _same_organization(step):
        raise errors.AccountChanged(_what(step, "nothing was sent on it"))


def check_absence(step: Step) -> None:
    """What this worker's client does not see may be taken for absent.

    Raises:
        AccountChanged: it may as well be on another account.
    """
    if not same(step):
        raise errors.AccountChanged(_what(step, "what it does not show may still run, and nothing was sent again"))


def check_other(step: Step, organization: str | None) -> None:
    """An answer that shows nothing comes from the job's organization, or may.

    Raises:
        AccountChanged: it comes from another one.
    """
    known = step.job.organization
    if known and organization and organization != known and not same(step):
        raise errors.AccountChanged(_what(step, f"its organization is {organization}, the job's {known}"))


def _same_organization(step: Step) -> bool:
    known = step.job.organization
    return known is not None and api.organization(step.client, timeout=step.settings.timeout) == known


def _what(step: Step, why: str) -> str:
    return (
        f"{step.where} was begun with another credential than client {step.job.client!r} has on this worker, and {why}"
    )
