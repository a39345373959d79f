"""What users need to know of each error: what happened, what is stored, what was paid, what to do.

``docs/reference/errors.md`` is made of this table, and ``tests/errors`` provokes each of them. The texts of the
exceptions have the values: numbers, ids, names.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from claude_batch_tasks.checks.problems import Problem, list_problems


class Entry(NamedTuple):
    """What users need to know of an error."""

    happened: str
    stored: str
    paid: str
    todo: str


_NOTHING = "Nothing."
_UNCHANGED = "All that was stored is unchanged."
_GOES_ON = "All of the job."
_NEXT_TRY = "Nothing for this try, or it is searched for before anything is sent again."

#: Errors of a call: they are raised where the application calls this package.
OF_CALLS: dict[str, Entry] = {
    "InvalidSettings": Entry(
        "A setting or a job option is unknown, or its value is not valid.",
        "Nothing was stored by this call.",
        _NOTHING,
        "Correct what the text names. A worker with such a setting does not start.",
    ),
    "InvalidRequests": Entry(
        "Some requests cannot be sent as they are. `problems` has the first 20: index, custom_id, field, reason.",
        "Nothing was stored by this call.",
        _NOTHING,
        "Correct the requests and call again: all requests of the job, since none was accepted.",
    ),
    "RequestFailed": Entry(
        "An ask has no answer: it errored, expired or was canceled, or the job of its pool failed (`outcome` is then "
        "None).",
        "Its outcome, as `result.job.result(result.id)` returns it, and the answers of all others.",
        "Nothing for an ask that errored, expired or was canceled. If the job failed, what its text says.",
        "Do what the text says. If the API refused the params, correct them and ask again; if the job failed, "
        "`result.job.resume()` sends only what was never sent.",
    ),
    "BudgetSpent": Entry(
        "The asks of a pool's name may cost no more in this window of time (`ask_max_cost`).",
        _UNCHANGED + " The ask was not stored.",
        "Nothing by this call.",
        "Ask again when the next window begins, which the text names, or allow more with `ask_max_cost`.",
    ),
    "BrokerUnavailable": Entry(
        "The broker did not take the message of a job.",
        "The text says it. Usually nothing: the requests were removed. If the store did not answer either, the job may "
        "exist.",
        "Nothing, if the text says that the job does not exist. Else a worker may run it.",
        "Start the broker or correct its URL, then call again. If the text says that it is not known whether the job "
        "exists: `BatchJob(job_id).cancel()` first.",
    ),
    "StoreUnavailable": Entry(
        "The store did not answer. It never means that a job does not exist.",
        "All that was stored before is unchanged. Of a job that was being submitted, nothing stays: what was written "
        "of it expires.",
        "Nothing by this call.",
        "Call again when the store answers. Jobs that run wait, and continue by themselves.",
    ),
    "StoreTooNew": Entry(
        "A newer release uses the store in a way that this release does not know.",
        f"{_UNCHANGED} Nothing was read.",
        _NOTHING,
        "Install the newer release here too. Jobs wait for a worker of that release.",
    ),
    "StoreNotMigrated": Entry(
        "The tables of a store in PostgreSQL are not there, or an earlier release has made them.",
        f"{_UNCHANGED} Nothing was read.",
        _NOTHING,
        "Run `claude-batch migrate` (with Django: `manage.py migrate`). Jobs wait, and continue by themselves.",
    ),
    "StoreMoved": Entry(
        "`claude-batch copy-store` has moved the jobs of this store to another one, or is copying jobs into it.",
        f"{_UNCHANGED} Nothing was read.",
        _NOTHING,
        "Set `claude_batch_store_url` to the store that the text names. If the copy was interrupted, run `claude-batch "
        "copy-store` again.",
    ),
    "KeyMissing": Entry(
        "Stored data is encrypted with a key that this process does not have.",
        _UNCHANGED,
        _NOTHING,
        "Give this process the same `claude_batch_encryption_key` as the others; several keys are allowed. Steps wait "
        "for a worker that has it.",
    ),
    "JobNotFound": Entry(
        "The store has no job of that id: it was never submitted there, is a pool of asks still, has expired or was "
        "deleted, or this process uses another store.",
        "Nothing under this id. Batches that the job had created keep their results at Anthropic for 29 days.",
        "What the job's batches had processed, if it ran.",
        "Check the id and `claude_batch_store_url`. If the job ran: `adopt(batch_id)` fetches the results of its "
        "batches; submitting again pays again.",
    ),
    "AmbiguousJobId": Entry(
        "The ids of several jobs begin with the characters that were given. `candidates` has some of them.",
        f"{_UNCHANGED} Nothing was done to any of these jobs.",
        "Nothing by this call.",
        "Write more characters of the id.",
    ),
    "RequestNotFound": Entry(
        "The job has no request of that custom_id, or the request has no outcome yet.",
        _GOES_ON,
        "What the job has paid so far; nothing by this call.",
        "Check the custom_id. If the job runs, call again when it has ended.",
    ),
    "JobRunning": Entry(
        "The job has not ended, and the call would take away what its steps need.",
        f"{_GOES_ON} Nothing was removed.",
        "What the job has paid so far; nothing by this call.",
        "Wait for its end, or `cancel()` it and call again when it has ended.",
    ),
    "JobNotResumable": Entry(
        "The job cannot be resumed: it runs, has all its outcomes, or what it needs has expired.",
        "What the text says; the call changed nothing.",
        "Nothing by this call.",
        "If it runs, wait. If something has expired, submit only the requests that have no outcome in `.results()`.",
    ),
    "NotDeliverable": Entry(
        "Answers cannot be handed over again: the job has no `on_result`, or it cannot be called.",
        "All answers.",
        "Nothing by this call.",
        "Read `BatchJob(job_id).results()`, or correct what the text names and call again.",
    ),
    "NothingToRetry": Entry(
        "`retry_failed()` found no request that may be sent again: none failed in such a way, or a retry has them.",
        "The outcomes of the job and of its retries.",
        "Nothing by this call.",
        "Read `BatchJob(job_id).results(with_retries=True)`. The text names the retries that run, and jobs to resume.",
    ),
    "RequestsUnknown": Entry(
        "The job was adopted: its batch was created elsewhere, and its requests were never here.",
        "The results of the batch, if it has ended; not its requests.",
        "What the batch costs; nothing by this call.",
        "Take the requests from where the batch was created. `.results()` has the answers.",
    ),
    "PayloadDamaged": Entry(
        "Stored prompts or answers were changed, or moved from another job's place.",
        "What is damaged, as it is; the rest is unchanged.",
        "What the job has paid so far; nothing by this call.",
        "Find out who writes to the store, and put back the value from a backup. Without one, the answers of the last "
        "29 days can be downloaded in the Console, free of charge.",
    ),
}

#: Errors with which a job ends. The text of each says what is stored and what to do for that job.
OF_JOBS: dict[str, Entry] = {
    "PermanentError": Entry(
        "The API, or something in front of it, refused a call for a permanent reason: the request, "
        "the key, credit, a limit of the account.",
        "All requests, and the outcomes that were fetched.",
        "What Anthropic processed before. The refused call costs nothing.",
        "Do what the text says: it depends on what was paid. Mostly: correct the cause, then `BatchJob(job_id)"
        ".resume()`, which sends only what was never sent.",
    ),
    "BatchesUnsupported": Entry(
        "The client is of a platform or behind a gateway without Message Batches.",
        "All requests.",
        "Nothing was created with this client.",
        "Give the client a factory or a `base_url` with Message Batches, then `.resume()`.",
    ),
    "CreateNotFound": Entry(
        "Every create was answered with 404.",
        "All requests.",
        "Nothing: nothing was created.",
        "`.resume()` tries again; `.resume(fallback='messages')` sends the requests through the Messages API, at full "
        "price.",
    ),
    "CreateUnconfirmed": Entry(
        "A create was not answered, its batch was not found, and `on_unresolved_create` is `fail`.",
        "All requests.",
        "Perhaps the batch, if Anthropic created it: see the Console.",
        "`.resume()` searches again. If the Console does not show the batch: "
        "`.resume(on_unresolved_create='resubmit')`.",
    ),
    "AccountChanged": Entry(
        "The client of a worker is on another account than the job.",
        "All of the job.",
        "What the job paid on its own account. Nothing was sent on the other account.",
        "Give the workers the credential of the job's account, then `.resume()`.",
    ),
    "BatchLost": Entry(
        "The batch answers 404 and several complete list calls do not show it, or it is older than 29 days.",
        "All requests, and the outcomes of the other batches.",
        "What Anthropic had processed of the batch.",
        "If the Console shows the batch: `.resume()`. Submitting its requests again may pay a second time.",
    ),
    "BatchArchived": Entry(
        "The batch exists, and its results are no longer available.",
        "All requests, and the outcomes of the other batches.",
        "What Anthropic had processed of the batch.",
        "`.resume()` continues with other batches. Submitting the requests of this one again pays a second time.",
    ),
    "WaitExceeded": Entry(
        "The job waited longer than `max_wait`.",
        "All of the job. Its batches were not canceled: their results stay at Anthropic for 29 days.",
        "What Anthropic processes, now or later.",
        "`.resume()`, with a larger `max_wait` if needed: it polls what exists and creates nothing twice.",
    ),
    "ResultsMissing": Entry(
        "Less is there than the job's record counts: the result file or the store lacks some of it.",
        "Everything else. `missing` is the number of requests, `keys` are the keys that are gone.",
        "What Anthropic processed.",
        "`.resume()` fetches again, free of charge, what Anthropic still has.",
    ),
    "StepFailed": Entry(
        "A step was interrupted `max_step_failures` times in a row: an exception, a time limit, a killed worker.",
        "All of the job.",
        "What was created before; nothing is sent again.",
        "The worker's log has the traceback. Correct the cause, then `.resume()`.",
    ),
}

#: Errors that pass by themselves: they appear as the reason of a retry, in logs, history and Flower. A caller in eager
#: mode may get one of them.
OF_RETRIES: dict[str, Entry] = {
    "TransientError": Entry(
        "A call failed for a reason that passes: 408, 409, 425, 429, 5xx, no connection, a time-out, a short answer.",
        _GOES_ON,
        _NEXT_TRY,
        "Nothing: the step is retried. If it stays, `claude-batch doctor anthropic`.",
    ),
    "NotFoundError": Entry(
        "The API answered 404, which it also does for batches that exist.",
        _GOES_ON,
        "What the batch costs; the 404 costs nothing.",
        "Nothing: the step is retried until it is certain that the batch is lost.",
    ),
    "AmbiguousError": Entry(
        "A create or a call of the Messages API was not answered clearly: it may have been executed.",
        _GOES_ON,
        "Perhaps this call.",
        "Nothing: a create is searched for before it is sent again, and a call of the Messages API is not sent again.",
    ),
    "CreateUnresolved": Entry(
        "A create may have been executed; the account is searched for its batch.",
        _GOES_ON,
        "Perhaps the batch; it is not created a second time while the search continues.",
        "Nothing. `create_settle`, `listings` and `on_unresolved_create` say how the search ends.",
    ),
    "ResultsIncomplete": Entry(
        "The result file is short, broken, or does not add up to the batch's counts.",
        "All of the job; the incomplete file is not used.",
        "What the batch costs; downloads cost nothing.",
        "Nothing: the file is downloaded again, up to `results_limit` times.",
    ),
    "RateLimited": Entry(
        "No calls are made for a while, because Anthropic asked for fewer or its list calls fail.",
        _GOES_ON,
        "Nothing by waiting.",
        "Nothing: the step continues after the pause.",
    ),
    "ListCallRunning": Entry(
        "Another task lists the account's batches right now, for this one too.",
        _GOES_ON,
        "Nothing by waiting.",
        "Nothing.",
    ),
    "Waiting": Entry(
        "The step waits for what the text names: a poll, a countdown.",
        _GOES_ON,
        "Nothing by waiting.",
        "Nothing.",
    ),
}

#: Bases, which are caught and not raised, and names that result back ends of 0.2.0 hold.
BASES = {
    "BatchTasksError": "all errors of this package; raised itself if a task id or a batch belongs to another job",
    "ApiError": "errors of Anthropic's API",
    "Retryable": "errors that pass by themselves",
    "BatchInProgress": "a reason of 0.2.0 for a retry: the batch runs",
    "FallbackInProgress": "a reason of 0.2.0 for a retry: requests are on their way through the Messages API",
    "NotDue": "a reason of 0.2.0 for a retry: the message came early",
    "SendingPaused": "a reason of 0.2.0 for a retry: a sender has released its worker",
}

ENTRIES = {**OF_CALLS, **OF_JOBS, **OF_RETRIES}

#: What is stored and paid if a problem of a part is found, by the first digit of its number.
_STORED_OF_PARTS = {
    "0": ("Jobs in the store are unchanged.", "Nothing by the problem itself."),
    "1": ("What the server has taken; jobs continue when it answers.", "Nothing twice: steps wait."),
    "2": ("Jobs wait in the store and in the queue.", "Nothing while they wait."),
    "3": ("All requests; jobs that fail can be resumed.", "Nothing by refused calls."),
    "9": ("The check changed nothing.", "Nothing."),
}

#: Where a problem differs from its part.
_STORED: dict[str, tuple[str, str]] = {
    "W004": ("Jobs are unchanged by copies of their messages.", "Nothing twice by jobs; your own tasks may run twice."),
    "W008": ("Results of jobs in the store, for `claude_batch_result_ttl`.", "What the jobs cost."),
    "E106": ("Only what the server has not dropped.", "What the jobs cost; `adopt()` fetches their batches' results."),
    "W107": ("Only what the server has not dropped.", "What the jobs cost; `adopt()` fetches their batches' results."),
    "W108": ("Until the server restarts.", "What the jobs cost; `adopt()` fetches their batches' results."),
    "E211": ("All asks, until a worker makes a job of them.", "Nothing while they wait."),
    "W212": ("All asks, until a worker makes a job of them.", "Nothing while they wait."),
    "E202": ("The job; its message is sent again when it is overdue.", "Nothing while it waits."),
    "E312": ("Jobs are unchanged.", "A worker of 0.2 may pay twice; a newer one does not."),
    "E318": (
        "All requests; jobs that fail can be resumed.",
        "The Messages API at full price, where fallback allows it.",
    ),
}


def explain_problem(problem: Problem) -> Entry:
    """Return the entry of a problem that workers warn of and doctor finds; names in braces stand for values."""
    stored, paid = _STORED.get(problem.number, _STORED_OF_PARTS[problem.number[1]])
    return Entry(problem.text, stored, paid, problem.hint)


def list_entries() -> Iterator[tuple[str, Entry]]:
    """Yield the name or id of each error and each problem, with its entry."""
    yield from ENTRIES.items()
    for problem in list_problems():
        yield problem.id, explain_problem(problem)
