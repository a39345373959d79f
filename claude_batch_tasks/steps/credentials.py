"""The account of a job: a job that was started on one account is never declared absent, or started again, on another.

A job remembers a keyed hash of the credential with which its first create was sent, and the organization and workspace
that the API named in its answer. Every later answer is compared with those. What an answer *shows* can be believed.
What it does *not show* may only be invisible to this client: that proves something only where the API names the job's
own account, or where the client has the very key with which the job was started.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from claude_batch_tasks import api, errors, rules
from claude_batch_tasks.api import identity
from claude_batch_tasks.formatting import format_time
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.records import BatchRecord, JobRecord, Unit
from claude_batch_tasks.settings import Settings
from claude_batch_tasks.store import Store

log = get_logger(__name__)


class Step(Protocol):
    """The attributes of a step that this module uses; ``steps.step.Step`` has them."""

    seen: api.Account

    @property
    def store(self) -> Store: ...
    @property
    def settings(self) -> Settings: ...
    @property
    def job(self) -> JobRecord: ...
    @property
    def batch(self) -> BatchRecord: ...
    @property
    def unit(self) -> Unit: ...
    @property
    def client(self) -> api.Caller: ...
    @property
    def deadline(self) -> float | None: ...
    @property
    def where(self) -> str: ...
    def now(self) -> float: ...
    def fields(self, event: str, **details: Any) -> dict[str, Any]: ...


def make_caller(settings: Settings, job: JobRecord, answered: Callable[[api.Account], None]) -> api.Caller:
    """Return the client of a job, with the parameters that the job adds to its calls.

    Args:
        answered: is called with the account that each answer names.

    Raises:
        InvalidSettings, PermanentError: there is no such client.
    """
    client = api.get_client(job.client, settings.client_factories)
    return api.Caller(client, settings.workspace_id, settings.user_profile_id, settings.betas, answered)


def name_account(client: api.Caller, settings: Settings, job: JobRecord) -> str:
    """Return the name of the job's account in the store."""
    return api.account_name(
        client.client,
        alias=f"{job.client} {settings.client_factories.get(job.client)}",
        workspace=settings.workspace_id,
        account=api.Account(job.organization, job.workspace),
    )


def known_account(job: JobRecord, batch: BatchRecord | None) -> api.Account:
    """Return the account that the API named when the batch was created, or else the job's account."""
    if batch is None or batch.organization in (None, job.organization):
        return api.Account(job.organization, (batch and batch.workspace) or job.workspace)
    return api.Account(batch.organization, batch.workspace)


def find_difference(mine: api.Account, seen: api.Account) -> str | None:
    """Say how the account that an answer names differs from the job's; None if nothing shows a difference."""
    for what, ours, theirs in zip(("organization", "workspace"), mine, seen, strict=True):
        if ours and theirs and ours != theirs:
            return f"its {what} is {theirs}, the job's {ours}"
    return None


def compare_account(step: Step, seen: api.Account, mine: api.Account | None = None) -> None:
    """Compare the account that an answer names with the known account.

    Args:
        mine: the known account; default: that of the step's batch.

    Raises:
        AccountChanged: the answer names another account.
    """
    step.seen = seen
    if (differs := find_difference(mine or known_account(step.job, step.batch), seen)) is not None:
        raise errors.AccountChanged(_describe_change(step, differs))


def compare_with_job(step: Step, seen: api.Account) -> None:
    """Compare the account that answered a call that spends money with the job's; call this once the answer is stored.

    Raises:
        AccountChanged: the answer came from another account.
    """
    compare_account(step, seen, api.Account(step.job.organization, step.job.workspace))


def concerns_account(error: errors.BatchTasksError) -> bool:
    """Return whether everything that the account sends gets this error."""
    return isinstance(error, errors.ApiError) and rules.concerns_account(
        error.error_type, str(error), status=error.status or 0, code=error.code
    )


def learn_account(step: Step, seen: api.Account) -> None:
    """Make the account on which the API acted for the job the job's own, if the job has none yet."""
    job = step.job
    for field, value in seen._asdict().items():
        if value and getattr(job, field) is None and find_difference(known_account(job, None), seen) is None:
            setattr(job, field, step.store.jobs.set_once(step.unit.job_id, field, value))
            vars(step).pop("account", None)  # the store may have another name for it from now on


def uses_original_credential(step: Step) -> bool:
    """Return whether this client has the job's first credential; the first worker to ask sets it for the job."""
    client, job = step.client, step.job
    mine, whole = _hash_credentials(step, client)
    if job.account is None:
        job.account = step.store.jobs.set_once(step.unit.job_id, "account", mine)
        job.identity = step.store.jobs.set_once(step.unit.job_id, "identity", whole)
    return mine == job.account and job.identity in (None, whole)


def remember_credential(step: Step, seen: api.Account) -> None:
    """Remember this worker's credential: the API showed it the job's batch, so it belongs to the job's account."""
    learn_account(step, seen)
    if not uses_original_credential(step):
        log.info("job %s: uses another credential of the same account", step.where, extra=step.fields("account"))
        _store_credential(step)


def check_to_spend(step: Step) -> api.Account:
    """Ensure that money is spent only on the job's account; return the account if the API had to be asked for it.

    Raises:
        AccountChanged: the credential is another one, and the API does not say that its account is the same.
        ApiError: the API was asked for the credential's account, and did not answer.
    """
    mine = uses_original_credential(step)
    if not mine and step.job.organization is None and _nothing_exists(step):
        _store_credential(step)  # with the earlier credential nothing was created
        mine = True
    if mine and identity.has_secret(step.client.client):
        return api.Account()
    organization = step.job.organization
    if mine or organization is not None:
        seen = api.identify_account(step.client, timeout=step.settings.timeout)
        if organization in (None, seen.organization):
            return seen
    raise errors.AccountChanged(_describe_change(step, "nothing was sent on it"))


def proves_absence(step: Step) -> bool:
    """Return whether the job's account does not have what the last answer did not show."""
    mine = known_account(step.job, step.batch)
    if mine.organization is not None and step.seen == mine:
        return True
    return uses_original_credential(step) and identity.has_secret(step.client.client)


def check_unproven(step: Step, since: float, listings: int) -> str:
    """Check whether to wait longer when list calls do not show a batch but prove nothing; return the reason.

    Args:
        since: when there was last a sign of the batch, epoch seconds.
        listings: how many list calls did not show it.

    Raises:
        AccountChanged: the credential is not the job's, and the number of list calls has reached the limit.
        WaitExceeded: no batch lives that long, and the job has no limit of its own.
    """
    if listings >= step.settings.listings and not uses_original_credential(step):
        raise errors.AccountChanged(
            _describe_change(step, "a batch that it does not show may still run, and nothing was sent again")
        )
    why = (
        f"nothing shows that client {step.job.client!r} uses the account of the job (no answer names it), so a batch "
        "that it does not show may still exist, and nothing is sent again"
    )
    since = max(since, step.job.resumed_at or 0.0)
    if step.deadline is None and step.now() >= since + rules.BATCH_LIFETIME:
        raise errors.WaitExceeded(f"job {step.where} was not seen since {format_time(since)}, and {why}")
    return why


def _store_credential(step: Step) -> None:
    """Make the credential of this worker's client the job's."""
    step.job.account, step.job.identity = _hash_credentials(step, step.client)
    step.store.jobs.update_job(step.unit.job_id, account=step.job.account, identity=step.job.identity)


def _nothing_exists(step: Step) -> bool:
    """Return whether the job cannot have created anything, and sent nothing through the Messages API."""
    batches = step.store.records.read_batches(step.unit.job_id)
    return not any(batch.batch_id or batch.intent_at or batch.rounds or batch.granted for batch in batches)


def _hash_credentials(step: Step, client: api.Caller) -> tuple[str, str]:
    """Return two hashes: of the credential alone, as 0.2.0 stores it, and of everything that identifies its account."""
    nonce = step.job.nonce
    return api.hash_credential(client.client, nonce), identity.keyed_hash(client.client, nonce, client.workspace_id)


def _describe_change(step: Step, why: str) -> str:
    client = f"client {step.job.client!r}"
    if uses_original_credential(step):
        return f"job {step.where} was started on another account than {client} uses now, and {why}"
    return f"job {step.where} was started with another credential than {client} has on this worker, and {why}"
