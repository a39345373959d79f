"""The keys of the store in Redis, and the fields in them: the one map of them, for Python and for Lua.

Workers of several releases share them: none may get another name, type or form. Words in capitals stand for what
differs. ``JOB`` is in braces, a Redis Cluster's hash tag. What expires "with its job" does so from the moment the job
is over; what "never" does is made smaller by those who use it.

====================================  ======  ==================================================  ================
key after claude_batch:               type    what                                                expires
====================================  ======  ==================================================  ================
{JOB}:job                             hash    ``JobRecord``, its lease (``lease:``), its          with its job
                                              history's ``forgotten``, and ``money``: there is
                                              that key
{JOB}:index                           hash    part of the custom_ids to its entries               with its job
{JOB}:history                         list    ``HistoryEvent``, the first                         with its job
{JOB}:history:last                    list    ``HistoryEvent``, the last                          with its job
{JOB}:money                           hash    what was spent and reserved, and by each batch's    with its job
                                              generation
{JOB}:delivered                       string  a bit for each request with which ``on_result``      with its job
                                              ended well
{JOB}:undelivered                     string  likewise: with which it failed permanently             with its job
{JOB}:delivered:parts                 string  likewise: with which one of its tasks ended well,   with its job
                                              those of the second task behind those of the first
{JOB}:staging:NONCE:index             hash    as ``index``, before there is a job                 after a day
{JOB}:staging:NONCE:BATCH:body        list    as ``body``, likewise                               after a day
{JOB}:staging:NONCE:BATCH:ids         list    as ``ids``, likewise                                after a day
{JOB}:staging:NONCE:BATCH:sizes       list    as ``sizes``, likewise                              after a day
{JOB}:batch:BATCH                     hash    ``BatchRecord``, its lease, and ``flights``: the    with its job
                                              key it is listed under while it waits
{JOB}:batch:BATCH:body                list    its requests, in chunks                             with its job
{JOB}:batch:BATCH:ids                 list    their custom_ids, in the same chunks                with its job
{JOB}:batch:BATCH:sizes               list    how many requests each chunk has                    with its job
{JOB}:batch:BATCH:rows:ATTEMPT        list    a download's rows, in chunks                        with its job; a
                                                                                                  day, unpublished
{JOB}:batch:BATCH:rows:ATTEMPT:TOKEN  list    those that are fetched again                        after a day
{JOB}:batch:BATCH:pieces:ATTEMPT      string  in which chunk each row is, 32-bit integers         with its job
{JOB}:batch:BATCH:eligible:ATTEMPT    string  which rows are eligible, likewise                   with its job
{JOB}:batch:BATCH:again:ATTEMPT       string  which are in the next smaller batch, likewise       with its job, or
                                                                                                  after 90 days
{JOB}:batch:BATCH:index:ATTEMPT       hash    as the job's, where that has none                   with its job
{JOB}:batch:BATCH:lanes               hash    ``LaneRecord`` and lease of each sender, ``LANE:``  with its job
{JOB}:batch:BATCH:to_send             zset    position of a request by when it is due             with its job
{JOB}:batch:BATCH:sent                hash    position to sender and what is reserved, ``LANE     with its job
                                              MOST``
{JOB}:batch:BATCH:refused             hash    position to how often it was refused                with its job
{JOB}:batch:BATCH:outcomes            hash    position to outcome of the Messages API             with its job
{JOB}:batch:BATCH:announced           string  a bit for each request of which ``on_result``       with its job
                                              knows
{JOB}:batch:BATCH:given_up            set     positions whose answers count as lost               with its job
{JOB}:pool                            hash    ``record``: the ``PoolRecord`` that it was opened   with its job
                                              with; what has changed since; ``key``: what its
                                              asks have in common
{JOB}:pool:asks                       list    its asks: a line of JSON, and the params; empty:    with its job
                                              withdrawn
{JOB}:pool:ended                      string  a bit for each request of the job whose ask has     with its job
                                              ended
schema                                zset    ``version`` and ``least``; see ``schema``           never
identity                              string  what no other store has; made when first asked for  never
moved                                 string  ``Mark``: its jobs are in another store, or are       never
                                              being copied into it
jobs                                  zset    all jobs by when they were submitted                never
due                                   zset    units by when a message should act, or a lease      never
                                              ends
waiting                               zset    those whose message is made when it is due          never
held                                  zset    names of calls by until when none is to be made     never
late                                  string  seconds by which messages were late lately          after 2 minutes
deleted:JOB                           string  somebody deleted that job                           after a day
pools                                 zset    pools that are not sealed yet, by when they were    never
                                              opened
pools:due                             zset    those that are to be sealed, by when that is due    never
pools:open                            hash    what asks have in common to the pool that takes     never
                                              them
ask:ASK                               hash    ``AskPlace``, with an encrypted canvas until it     as it is set; after
                                              has ended, ``budget``: the key of the cost that it  90 days before its
                                              reserves, and ``withdrawn``                         end
cost:SECONDS:START:POOL               string  what all asks of a pool's name have reserved and    after the window
                                              spent in a window of time
owner:BATCH_ID                        string  the unit whose batch of Anthropic's it is           after 30 days
census                                string  figures over all jobs                               as it is set
census:fresh                          string  that they are young enough                          as it is set
restore                               zset    jobs to fetch something of again, by when it was    never
                                              asked
workers                               zset    names of the workers that run, by until when they count as    never
                                              such
worker:WORKER                         string  ``WorkerPresence``                                  after a minute
first:QUESTION                        string  somebody was the first to ask                       as it is set
doctor:TOKEN                          string  what ``doctor`` tries commands on                   at once
account:ACCOUNT:flights               hash    unit to ``Flight``: batches whose poll waits        never
account:ACCOUNT:asked                 hash    of each queue who is to make a list call            after an hour
                                              (``QUEUE:``)
account:ACCOUNT:listing               string  who makes a list call now                           as it is set
account:ACCOUNT:listed                hash    batch id to what it showed, ``taken_at``,           after a day
                                              ``since``
account:ACCOUNT:failed                string  list calls that failed in a row                     after 30 days
account:ACCOUNT:past                  list    requests and seconds of past batches, in JSON       after 30 days
past:KIND                             list    likewise of past batches of a kind, of all accounts: a   after 30 days
                                              model and the digits of the number of requests
pace:ACCOUNT:messages:MODEL           hash    a rate limit: what was sent, is left and allowed    after an hour
pace:ACCOUNT:messages:MODEL:calls     zset    calls in flight, by until when they count as such   after an hour
====================================  ======  ==================================================  ================
"""

from __future__ import annotations

from typing import Final

from claude_batch_tasks.pool_records import AskPlace, PoolRecord
from claude_batch_tasks.records import BatchRecord, Flight, JobRecord, LaneRecord, Unit
from claude_batch_tasks.rules import RATE_LIMITS
from claude_batch_tasks.store.places import (
    ASK_PREFIX as ASK_PREFIX,
    PREFIX as PREFIX,
    ask_key as ask_key,
    attempt_key as attempt_key,
    batch_key as batch_key,
    index_key as index_key,
    of_job as of_job,
)
from claude_batch_tasks.store.record_encoding import stored_names as stored_names

# -- keys of all jobs

SCHEMA: Final = f"{PREFIX}:schema"
IDENTITY: Final = f"{PREFIX}:identity"
MOVED: Final = f"{PREFIX}:moved"
JOBS: Final = f"{PREFIX}:jobs"
DUE: Final = f"{PREFIX}:due"
WAITING: Final = f"{PREFIX}:waiting"
HELD: Final = f"{PREFIX}:held"
LATE: Final = f"{PREFIX}:late"
RESTORE: Final = f"{PREFIX}:restore"
CENSUS: Final = f"{PREFIX}:census"
CENSUS_FRESH: Final = f"{PREFIX}:census:fresh"
WORKERS: Final = f"{PREFIX}:workers"
POOLS: Final = f"{PREFIX}:pools"
POOLS_DUE: Final = f"{PREFIX}:pools:due"
POOLS_OPEN: Final = f"{PREFIX}:pools:open"

#: What the keys of pools and jobs begin with, that of an ask, and that of what a pool's name has spent.
POOL_PREFIX: Final = f"{PREFIX}:{{"
COST_PREFIX: Final = f"{PREFIX}:cost:"

#: The channel on which ends of asks are reported.
ENDED_CHANNEL: Final = f"{PREFIX}:asks:ended"

# -- names in keys

#: The lists a batch is staged as.
STAGED = ("body", "ids", "sizes")

#: What one download leaves: the rows, in which chunk each is, which are eligible, its custom_ids, and which are in the
#: next smaller batch.
FETCHED = ("rows", "pieces", "eligible", "index", "again")

#: What sending requests through the Messages API leaves: those that wait, were sent, how often each was refused, of
#: which ``on_result`` knows, whose answers count as lost.
SENDING = ("to_send", "sent", "refused", "announced", "given_up")


#: What is kept of an account.
FLIGHTS, LISTING, LISTED, ASKED, FAILED, PAST = "flights", "listing", "listed", "asked", "failed", "past"


def job_key(job_id: str) -> str:
    """Return the hash of a job's record."""
    return of_job(job_id, "job")


def job_of(key: str) -> str:
    """Return the job whose record's key it is."""
    return key.removeprefix(f"{PREFIX}:{{").removesuffix("}:job")


def money_key(job_id: str) -> str:
    """Return the hash of what a job has spent."""
    return of_job(job_id, "money")


def history_keys(job_id: str) -> tuple[str, str]:
    """Return the lists of a job's history: its beginning, its end."""
    return of_job(job_id, "history"), of_job(job_id, "history", "last")


def delivery_keys(job_id: str) -> tuple[str, str, str]:
    """Return what became of calls of ``on_result``: with which requests it ended well, failed, or did so in part."""
    return of_job(job_id, "delivered"), of_job(job_id, "undelivered"), of_job(job_id, "delivered", "parts")


def pool_keys(job_id: str) -> tuple[str, str, str]:
    """Return the hash of the pool that a job was made of, the list of its asks, and which of them have ended."""
    return of_job(job_id, "pool"), of_job(job_id, "pool", "asks"), of_job(job_id, "pool", "ended")


def staging_key(job_id: str, nonce: str, batch: int, name: str) -> str:
    """Return one of the lists a batch is staged as, before there is a job."""
    return of_job(job_id, "staging", nonce, batch, name)


def staging_index_key(job_id: str, nonce: str) -> str:
    """Return the hash of custom_ids that are staged."""
    return of_job(job_id, "staging", nonce, "index")


def unit_key(unit: Unit) -> tuple[str, str]:
    """Return the hash a unit is stored in, and what its fields begin with there."""
    if unit.batch is None:
        return job_key(unit.job_id), LEASE_PREFIX
    if unit.lane is None:
        return batch_key(unit.job_id, unit.batch), ""
    return batch_key(unit.job_id, unit.batch, "lanes"), f"{unit.lane}:"


def standing_key(unit: Unit) -> str:
    """Return the hash without which a unit is gone: its own, but a sender's fields come into being with its lease."""
    return unit_key(unit)[0] if unit.lane is None else job_key(unit.job_id)


def deleted_key(job_id: str) -> str:
    """Return what says that somebody deleted a job."""
    return f"{PREFIX}:deleted:{job_id}"


def owner_key(batch_id: str) -> str:
    """Return what says whose a batch id is."""
    return f"{PREFIX}:owner:{batch_id}"


def first_key(name: str) -> str:
    """Return what says that somebody was the first to ask something."""
    return f"{PREFIX}:first:{name}"


def worker_key(hostname: str) -> str:
    """Return what says that a worker runs."""
    return f"{PREFIX}:worker:{hostname}"


def account_key(account: str, name: str) -> str:
    """Return one of the keys of an account."""
    return f"{PREFIX}:account:{account}:{name}"


def past_key(kind: str) -> str:
    """Return the list of past batches of a kind."""
    return f"{PREFIX}:past:{kind}"


def pace_keys(pace: str) -> tuple[str, str]:
    """Return where a rate limit of Messages calls is stored, and where those in flight are."""
    return f"{PREFIX}:pace:{pace}", f"{PREFIX}:pace:{pace}:calls"


# -- members and values that are put together

#: Digits of a request's position where positions are sorted as texts.
_DIGITS = 7


def position_field(place: int) -> str:
    """Return what hashes and sets call a request's position."""
    return str(place).zfill(_DIGITS)


def member(unit: Unit) -> str:
    """Return what an index calls a unit. The job id comes last: it is the caller's, and may hold anything."""
    return ":".join("" if part is None else str(part) for part in (unit.batch, unit.lane, unit.job_id))


def unit_of(name: str) -> Unit:
    """Return the unit that an index calls so."""
    batch, lane, job_id = name.split(":", 2)
    return Unit(job_id, int(batch) if batch else None, int(lane) if lane else None)


def call_member(unit: Unit, place: int) -> str:
    """Return what the calls in flight call one."""
    return f"{unit.batch}:{place}:{unit.job_id}"


def turn_field(unit: Unit, turn: int) -> str:
    """Return the field of a batch's reservation in the hash of its job's money."""
    return f"{unit.batch}:{turn}"


def taken_field(retry: int) -> str:
    """Return the field of a batch's hash that says which of its requests a retry took, by the retry's number."""
    return f"{TAKEN_PREFIX}{retry}"


# -- fields

#: What the fields begin with that say which requests of a batch were taken by which retry.
TAKEN_PREFIX = "retry:"

#: What the fields of a job's own lease begin with.
LEASE_PREFIX = "lease:"

POSITION, MISSED, FORGOTTEN, SUBMITTED_AT, STATE = "position", "missed", "forgotten", "submitted_at", "state"
TAKEN_AT, SINCE = "taken_at", "since"


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


#: What a lease leaves in the hash of what it is for, behind the unit's prefix.
LEASE = {
    "ends": "until",
    **_same("position", "owner", "resent", "resent_at", "missed", "step_failures", "step_failure", "flights"),
}

#: Fields of a pool's record that change while it takes asks; its hash has each by itself.
POOL_LIVE = ("state", "count", "withdrawn", "size", "opened_at", "due_at", "deadline")

#: The fields of each hash by what Python and Lua call them; those of a record are its own, and some that only scripts
#: know.
FIELDS: dict[str, dict[str, str]] = {
    "JOB": {**stored_names(JobRecord), **_same("forgotten", "money")},
    "JOB_LEASE": {name: LEASE_PREFIX + stored for name, stored in LEASE.items()},
    "BATCH": {**stored_names(BatchRecord), "flights": LEASE["flights"]},
    "LANE": stored_names(LaneRecord),
    "LEASE": LEASE,
    "POOL": {
        **{name: stored_names(PoolRecord)[name] for name in POOL_LIVE},
        **_same("record", "key", "sealing", "sent", "failures"),
    },
    "PLACE": {**stored_names(AskPlace), **_same("budget", "withdrawn")},
    #: ``spent`` and ``reserved`` behind one of the prefixes: of all the job may spend, or of the Messages API's share.
    "MONEY": {"all": "", "fallback": "fallback_", **_same("spent", "reserved", "begun")},
    #: ``limit`` and ``left`` are followed by the name of a limit.
    "PACE": {
        "limit": "limit:",
        "left": "left:",
        **_same("sent", "input", "output", "synced", "at", "allowed", "cut_at", "in_a_row", "usual_output"),
    },
    "LIMIT": {name.replace("-", "_"): name for name in RATE_LIMITS},
    #: Behind the queue.
    "ASKED": {"member": ":member", "at": ":at", "in_vain": ":in_vain"},
}

#: The first line of an ask in the list of its pool, an array in JSON; its params follow.
ASK_HEAD = ("id", "size", "expires_at")

#: The places in an array that a value is packed as; Lua counts from one.
PLACES: dict[str, dict[str, int]] = {
    "FLIGHT": {name: number for number, name in enumerate(Flight.__struct_fields__, 1)},
    "ASK_HEAD": {name: number for number, name in enumerate(ASK_HEAD, 1)},
}

#: Parts of keys, and patterns of texts that are put together, as Lua has them.
PARTS: dict[str, dict[str, str]] = {
    "KEY": {
        "before_waiting": f"^(.*){WAITING.removeprefix(PREFIX)}$",
        "before_flights": f"^(.*):{FLIGHTS}$",
        "before_job_id": ":{",
        "job": "}:job",
        "batch": "}:batch:",
        "asked": f":{ASKED}",
        "listing": f":{LISTING}",
    },
    #: Behind a pool's id.
    "POOL_KEY": {"hash": "}:pool", "asks": "}:pool:asks"},
    #: Behind a number of seconds and the first second of a window: what a cost limit is of.
    "WINDOW": {"start": ":%.0f:"},
    #: Behind the number of a sender.
    "LANE_LEASE": {"owner": f":{LEASE['owner']}"},
    #: Names of calls behind an account's.
    "CALL": {"list": ":list"},
    "UNIT": {"of_batch": "^(%d+)::(.*)$"},
    #: The field of a batch that says which of its requests a retry took.
    "RETRY": {"taken": f"^{TAKEN_PREFIX}"},
    #: A request that was sent: its sender and what is reserved for it.
    "SENT": {"lane": "^%d+", "most": " (%d+)$"},
    #: What a batch's turn has cost, once it is known; before, its field has the number that is reserved.
    "SETTLED": {"word": "settled ", "cost": "^settled (%d+)$"},
    #: How much of a rate limit was sent by a moment: requests, input and output.
    "MARK": {"totals": "^(%S+) (%S+) (%S+)$"},
}
