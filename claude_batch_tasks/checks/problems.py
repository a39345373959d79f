"""The problems that a set-up may have: all that workers warn of and that ``doctor`` finds, as data.

Each says what is wrong, what that leads to, and the setting or command that fixes it. The ids never change: people
search for them, and Django's ``SILENCED_SYSTEM_CHECKS`` names them.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any, NamedTuple


class Finding(NamedTuple):
    """The result of a check: a problem, or the statement that all is well.

    ``id``: the problem's id, such as ``claude_batch.W004``; empty if all is well. ``level``: ``logging.ERROR``,
    ``logging.WARNING``, or ``logging.INFO`` if all is well. ``text``: what is wrong, and what that leads to. ``hint``:
    what to do.
    """

    id: str
    level: int
    text: str
    hint: str = ""

    @property
    def status(self) -> str:
        """The level as a word: ``ok``, ``warning`` or ``error``."""
        return "ok" if self.level < logging.WARNING else "warning" if self.level < logging.ERROR else "error"

    @property
    def template(self) -> str:
        """The template of its log line, one for each problem: error trackers group lines by it."""
        return f"claude_batch_tasks: %s ({self.id})"

    def __str__(self) -> str:
        return f"{self.text}. {self.hint}" if self.hint else self.text


class Problem(NamedTuple):
    """A kind of finding; text and hint have names in braces for what differs between its findings."""

    number: str
    text: str
    hint: str

    @property
    def id(self) -> str:
        """The problem's id, spelled like the ids of Django's checks."""
        return f"claude_batch.{self.number}"

    @property
    def level(self) -> int:
        """The level of ``logging``: ``ERROR`` if the number begins with E, else ``WARNING``."""
        return logging.ERROR if self.number.startswith("E") else logging.WARNING

    def found(self, **values: Any) -> Finding:
        """Return the finding, with values for the names in text and hint."""
        return Finding(self.id, self.level, self.text.format_map(values), self.hint.format_map(values))


def ok(text: str) -> Finding:
    """Return a finding that says that something is right."""
    return Finding("", logging.INFO, text)


# -- settings: checked without asking any server

INVALID_SETTINGS = Problem(
    "E001",
    "{error}: workers refuse to start, and nothing can be submitted",
    "Correct that setting; docs/reference/settings.md has the table of settings",
)
NO_SUCH_FACTORY = Problem(
    "E002",
    "the client factory {factory!r} of {alias!r} cannot be used ({error}): jobs of that client fail",
    "claude_batch_client_factories = {{{alias!r}: 'package.module.function'}}, and the package installed where workers "
    "run",
)
NO_BATCHES = Problem(
    "E004",
    "{error}: jobs of the client {alias!r} fail before anything is created",
    "A factory in claude_batch_client_factories that returns anthropic.Anthropic, AnthropicAWS or AnthropicGoogleCloud",
)
VISIBILITY_TIMEOUT_IS_NO_NUMBER = Problem(
    "E003",
    "visibility_timeout is {value!r}, and must be a number of seconds: the worker will not run",
    "broker_transport_options = {{'visibility_timeout': 2400}}",
)
SHORT_VISIBILITY_TIMEOUT = Problem(
    "W004",
    "visibility_timeout is {seconds:g} s: a step that takes longer (a large create or download may take minutes) is "
    "delivered again while it runs. The second copy ends, and nothing is sent or paid twice; your own tasks may run "
    "twice",
    "broker_transport_options = {{'visibility_timeout': 2400}}",
)
ENDED_BY_RESTARTS = Problem(
    "W005",
    "a worker exits when its Redis broker refuses writes for a while (it is full, or a replica) and, with Celery 5.7, "
    "when Redis restarts; a silent connection blocks it. The messages that it had received are delivered again after "
    "the visibility_timeout",
    "Next to Celery(...): claude_batch_tasks.transport.install()",
)
KILLED_STEPS = Problem(
    "W006",
    "when the connection to the broker is lost, the running steps of jobs are killed and run again, the batch of a "
    "killed create has to be searched for, and a job's result may be REVOKED for a while",
    "worker_cancel_long_running_tasks_on_connection_loss = False",
)
PREFETCH = Problem(
    "W007",
    "each process of a worker prefetches {share}: they wait behind one long download while other workers are idle",
    "worker_prefetch_multiplier = 1",
)
RESULTS_EXPIRE = Problem(
    "W008",
    "results expire after {hours:g} h, and a batch may take 24 h: a get() that begins later than that after a job's "
    "end never returns",
    "result_expires = 604800",
)
NOT_ACCEPTED = Problem(
    "W009", "{setting} = {used!r} is not accepted by the workers: they discard the messages", "{fix}"
)
PICKLE = Problem(
    "W010",
    "pickle lets everybody who can write to the broker or the result back end run code in workers",
    "task_serializer = result_serializer = 'json', accept_content = ['json']",
)
EARLY_ACKNOWLEDGED = Problem(
    "W011",
    "{tasks} acknowledged before the work is done: when a worker dies, its jobs stop until their messages are found "
    "lost",
    "Leave acks_late and reject_on_worker_lost out of task_annotations, or set both to True",
)
TIME_LIMITS = Problem(
    "W012",
    "{tasks} stopped after {seconds:g} s. A large create or download may take minutes, any step a minute or two: the "
    "step is started again and again, and the batch of a stopped create is searched for",
    "task_annotations = {right!r}",
)
NO_RESULTS = Problem(
    "W013",
    "the result back end is disabled: jobs run, but result.get() and result.state fail, and no progress is shown; use "
    "BatchJob(id).status()",
    "result_backend = 'redis://...'",
)
RPC_RESULTS = Problem(
    "W014",
    "the result back end is rpc://, which sends a result only to the process that sent the job, and loses it when that "
    "process ends; a batch may take 24 h",
    "result_backend = 'redis://...'",
)
EAGER = Problem(
    "W015",
    "task_always_eager is set: a job runs inside .delay(), which returns when its batches have ended, after up to 24 h",
    "task_always_eager = False outside of tests",
)
QUORUM_UNDETECTED = Problem(
    "E016",
    "the queues are quorum queues, and worker_detect_quorum_queues is off: RabbitMQ refuses the worker's global QoS, "
    "and the worker does not consume",
    "worker_detect_quorum_queues = True",
)
LOCAL_BROKER = Problem(
    "W017",
    "the broker is {transport}, which no other process can reach: only a worker in this process receives jobs",
    "broker_url = 'redis://...' or 'amqp://...'",
)
SILENCE = Problem(
    "W019",
    "if a connection to the {role} falls silent (a NAT timeout, a paused machine), this is noticed only after {time}",
    "{setting}",
)
UNUSABLE_URL = Problem(
    "E018",
    "the {role} cannot be used: {error}",
    "Correct {setting}, or install the package that it needs: pip install 'celery[...]' (redis, sqlalchemy, sqs, ...)",
)
NOT_IN_FORCE = Problem(
    "E020",
    "{key} in {place} is not in force: {why}, and {name} is {value}. Workers refuse to start",
    "{fix}",
)
LOOKS_LIKE_OURS = Problem(
    "W021",
    "{key} in {place} looks like a setting of claude_batch_tasks and is not in force: {why}, and {name} is {value}",
    "{fix}, or rename it if it is for something else",
)
NO_SERIALIZER = Problem(
    "E022",
    "accept_content = {accepted!r} has neither 'json' nor task_serializer = {used!r}: no worker would accept a job's "
    "messages, and run_batch refuses every call",
    "accept_content = {right!r}",
)
OLD_PROTOCOL = Problem(
    "E023",
    "messages of task_protocol = 1 cannot carry the steps of a job: run_batch refuses every call",
    "task_protocol = 2, Celery's default",
)

NO_SCHEME = Problem(
    "W024",
    "the broker's URL has no scheme: Celery reads it as the name of a RabbitMQ host",
    "broker_url = '{right}'",
)
NO_BROKER_URL = Problem(
    "W025",
    "no broker URL is configured: Celery uses {broker}",
    "broker_url = 'redis://host:6379/0', or amqp://user:password@host// for a RabbitMQ",
)

# -- servers

NO_ANSWER = Problem(
    "E101",
    "{server} does not answer ({why}): {leads}",
    "{fix}",
)
REFUSED_PASSWORD = Problem(
    "E102",
    "{server} refuses the user or the password: {leads}",
    "{setting} = '{scheme}://user:password@host:port/...', with a user that the server knows",
)
NOT_PERMITTED = Problem(
    "E103",
    "{server} does not permit its user to run {commands}: steps fail and are retried until it does",
    "{fix}",
)
READ_ONLY = Problem(
    "E104",
    "{server} is a read-only replica: {leads}",
    "Put the primary's address into {setting}",
)
FULL = Problem(
    "E105",
    "{server} is out of memory ({used} of {limit}) and refuses writes: {leads}",
    "CONFIG SET maxmemory to more, or delete ended jobs (a smaller claude_batch_result_ttl for later ones)",
)
EVICTS_ALL = Problem(
    "E106",
    "{server} evicts ({policy}): {when}, it drops {loss}",
    "In its redis.conf: maxmemory-policy noeviction",
)
EVICTS_SOME = Problem(
    "W107",
    "{server} evicts ({policy}): {when}, it drops keys that have an expiry, and with them possibly {loss}",
    "In its redis.conf: maxmemory-policy noeviction",
)
NO_APPEND_ONLY_FILE = Problem(
    "W108",
    "{server} has no append-only file: a restart loses {loss}",
    "In its redis.conf: appendonly yes",
)
NEARLY_FULL = Problem(
    "W109",
    "{server} has used {used} of {limit} of its memory: when it is full, jobs can neither be submitted nor continue",
    "CONFIG SET maxmemory to more, or delete ended jobs (a smaller claude_batch_result_ttl for later ones)",
)
OLD_SERVER = Problem(
    "E110",
    "{server} is version {version}, and the store needs {least} or newer: steps fail on commands that it does not know",
    "Upgrade it to {fix}",
)
CLUSTER = Problem(
    "E111",
    "{server} is a node of a cluster, which refuses commands on several jobs at once (CROSSSLOT)",
    "Use a Redis that is not a cluster: claude_batch_store_url",
)
REFUSES_WRITES = Problem(
    "E112",
    "{server} refuses writes ({error}): {leads}",
    "See that server's log; a full disk is the usual cause",
)
SERVER_CLOCK = Problem(
    "W113",
    "the clock of {server} is {seconds:,.0f} s {direction} this machine's: Celery's countdowns and the times in logs "
    "are wrong by as much",
    "Synchronize both clocks by NTP: timedatectl set-ntp true",
)
NO_DATABASE = Problem(
    "E114",
    "{server} has no database {database}: {leads}",
    "Correct the part after the last / in {setting}, or create it: databases in redis.conf, rabbitmqctl add_vhost",
)
OTHER_PREFIX = Problem(
    "W115",
    "{server} has unfinished jobs whose keys begin with {theirs!r}, and this app's begin with {ours!r}: its workers do "
    "not run them. Their data stays in the store",
    "If they are this app's: claude_batch_store_prefix = {theirs!r}; if they are another app's, nothing",
)

NOT_MIGRATED = Problem(
    "E116",
    "{server}: {error}",
    "As a user who may create schemas in the database, or who owns this one: claude-batch migrate",
)
UNSAFE_COMMITS = Problem(
    "W117",
    "{server} confirms what is not on its disk yet ({name} = {value}): a crash loses {loss}",
    "{fix}",
)
NO_AUTOVACUUM = Problem(
    "W118",
    "{server} does not vacuum {tables} by itself: what was deleted keeps its place, the store grows and gets slower",
    "ALTER SYSTEM SET autovacuum = on; for one table: ALTER TABLE ... RESET (autovacuum_enabled)",
)
FEW_CONNECTIONS = Problem(
    "W119",
    "{server} has {used} of {limit} connections in use: processes that get none wait, as in an outage",
    "More max_connections in its postgresql.conf, or a PgBouncer in front of it, whose address goes into {setting}",
)
OBJECT_STORE = Problem(
    "E120",
    "{error}: jobs can neither be submitted nor continue",
    "See claude_batch_payload_url, the credentials in the environment, and their permissions in "
    "docs/howto/payloads_elsewhere.md",
)

# -- workers

NO_WORKER = Problem(
    "E201",
    "no worker answers: jobs wait in the queue until one starts",
    "celery -A {app} worker, with the same broker_url; if one runs, it uses another broker, or its "
    "worker_enable_remote_control is off",
)
NO_TASKS = Problem(
    "E202",
    "{worker} does not know the tasks of this package: it discards the messages of jobs that it receives",
    "Celery(..., include=['claude_batch_tasks.tasks']); in Django 'claude_batch_tasks' in INSTALLED_APPS and "
    "app.autodiscover_tasks(); then restart it",
)
NO_CONSUMER = Problem(
    "E203",
    "no worker consumes the queue {queue!r}, to which {tasks} sent: jobs wait there. Workers consume {consumed}",
    "celery -A {app} worker -Q {queue}, or change task_routes or task_default_queue",
)
OTHER_VERSION = Problem(
    "W204",
    "{worker} runs claude-batch-tasks {theirs}, this is {ours}",
    "Install the same version everywhere, and restart workers",
)
OTHER_STORE = Problem(
    "E205",
    "{worker} uses another store ({theirs}) than this process ({ours}): it does not find this process's jobs",
    "The same claude_batch_store_url for workers and callers",
)
OTHER_SETTINGS = Problem(
    "W206",
    "{worker} has other settings than this process: {differences}. Steps use the settings of the worker",
    "Load the same configuration everywhere, and restart workers",
)
UNKNOWN_CLIENT = Problem(
    "E207",
    "{worker} does not know the client {alias!r}: jobs of that client fail on it",
    "The same claude_batch_client_factories for workers and callers",
)
SILENT_WORKER = Problem(
    "W208",
    "{worker} knows the tasks of this package, but does not report its version and settings: it runs an older release, "
    "or is busy",
    "Install the same version everywhere, and restart workers",
)
WORKER_CLOCK = Problem(
    "W209",
    "the clock of {worker} is {seconds:,.0f} s {direction} this machine's: Celery's countdowns and the times in logs "
    "are wrong by as much",
    "Synchronize both clocks by NTP: timedatectl set-ntp true",
)
STORELESS_WORKER = Problem(
    "E210",
    "{worker} cannot reach its store ({theirs}): its steps are retried until it can",
    "Make the address in claude_batch_store_url reachable for it",
)

NOBODY_SEALS = Problem(
    "E211",
    "the pool {pool!r} has {asks}, waiting for up to {age}, and no worker listens on its queue {queue!r}: nobody is "
    "there to make a job of it",
    "celery -A {app} worker -Q {queue}",
)
LATE_POOLS = Problem(
    "W212",
    "the pool {pool!r} with {asks} has been due for {late}, and no worker made a job of it. Workers that listen on its "
    "queue {queue!r}: {workers}",
    "Read the logs of these workers for 'no job was made': they cannot import its output=, for instance. Install this "
    "release on all workers and restart them: those before 0.3 know nothing of pools. If they are busy, start more: "
    "celery -A {app} worker -Q {queue}",
)

# -- Anthropic

BAD_KEY = Problem(
    "E301",
    "client {alias!r}: the API does not accept the key (401): every job of that client fails at its create",
    "A key that exists and is not disabled, from https://platform.claude.com/settings/keys: ANTHROPIC_API_KEY in the "
    "environment of workers",
)
FORBIDDEN = Problem(
    "E302",
    "client {alias!r}: the key may not use Message Batches (403): every job of that client fails at its create",
    "A key of a workspace that may: https://platform.claude.com/settings/keys",
)
NO_SUCH_PATH = Problem(
    "E303",
    "client {alias!r}: {host} answers 404 to a list call: there is no Message Batches API at this address, or "
    "this is one of the API's temporary 404s",
    "Run doctor again; if the problem stays, correct ANTHROPIC_BASE_URL (or the factory's base_url): without /v1 at "
    "its end, and for a gateway one that forwards /v1/messages/batches",
)
REDIRECTED = Problem(
    "E304",
    "client {alias!r}: {host} redirects to {location} ({status}). Redirects are not followed, so that the key is sent "
    "to no other host: every job of that client fails",
    "Set ANTHROPIC_BASE_URL (or the factory's base_url) to the address that answers",
)
NOT_THE_API = Problem(
    "E305",
    "client {alias!r}: {host} answers with {kind} (status {status}), not with the API's JSON: a proxy, a login page or "
    "a wrong address, and jobs of that client fail or wait",
    "Correct ANTHROPIC_BASE_URL (or the factory's base_url), or let the proxy allow api.anthropic.com",
)
REFUSED_BY_PROXY = Problem(
    "E306",
    "client {alias!r}: the proxy on the way to {host} refuses ({why}): jobs of that client wait",
    "Correct HTTPS_PROXY, or put the host into NO_PROXY",
)
TLS = Problem(
    "E307",
    "client {alias!r}: no TLS connection with {host} ({why}): jobs of that client wait",
    "If a proxy reads the traffic, SSL_CERT_FILE=<its certificate authority>; for an address without TLS, http:// in "
    "ANTHROPIC_BASE_URL",
)
NO_SUCH_HOST = Problem(
    "E308",
    "client {alias!r}: the name {host} cannot be resolved: jobs of that client wait",
    "Correct ANTHROPIC_BASE_URL (or the factory's base_url), or this machine's DNS; behind a proxy set HTTPS_PROXY",
)
NOBODY_THERE = Problem(
    "E309",
    "client {alias!r}: {host} cannot be reached ({why}): jobs of that client wait",
    "Correct ANTHROPIC_BASE_URL (or the factory's base_url), or allow it in the firewall; behind a proxy set "
    "HTTPS_PROXY",
)
FACTORY_FAILS = Problem(
    "W314",
    "{error}: in a worker, jobs of the client {alias!r} would fail. A process that only submits needs no client",
    "Run doctor where workers run, or give this process what the factory reads",
)
BUSY_API = Problem(
    "W310",
    "client {alias!r}: the API answers {status} at present: steps are retried until it passes",
    "Nothing, if it is temporary; see https://status.claude.com",
)
REFUSED = Problem(
    "E311",
    "client {alias!r}: the API refuses ({why}): jobs of that client fail",
    "Correct what the answer says, then run `claude-batch doctor` again",
)
CLOCK = Problem(
    "E312",
    "this machine's clock is {seconds:,.0f} s {direction} the API's, more than claude_batch_clock_skew: a worker of "
    "release 0.2 may pay twice here, and Celery's countdowns and the times in logs are wrong by as much",
    "timedatectl set-ntp true",
)
CLOCK_DRIFTS = Problem(
    "W313",
    "this machine's clock is {seconds:,.0f} s {direction} the API's: Celery's countdowns and the times in logs "
    "are wrong by as much",
    "timedatectl set-ntp true",
)

UNIDENTIFIED = Problem(
    "W315",
    "client {alias!r} ({kind}) has no key of its own, and {host} does not say which account it uses: if list calls do "
    "not show a batch, its requests are never sent again, because it may be on another account",
    "Let the gateway forward the headers anthropic-organization-id and anthropic-workspace-id, or use a key",
)

MALFORMED_KEY = Problem(
    "E316",
    "{error}: every job of that client fails before anything is sent",
    "Set it again where workers run, exactly as the Console shows it: without quotation marks, spaces or line breaks. "
    "A variable that is not used must be unset, not empty",
)
CANNOT_SEND = Problem(
    "E317",
    "client {alias!r}: a call cannot be sent ({why}): its address does not begin with https:// or http://, or a key, a "
    "token or a header has a forbidden character. Jobs of that client fail",
    "Begin ANTHROPIC_BASE_URL, or base_url in the client's factory, with https://. Remove spaces, line breaks and "
    "quotation marks from it, from default_headers and from tokens",
)
NO_BATCH_ROUTES = Problem(
    "E318",
    "client {alias!r}: {host} answers {status} to a list call, and answers other paths: it is a gateway without "
    "Message Batches. Jobs of that client fail at their create, or are sent through the Messages API at full price "
    "where fallback allows it",
    "Let the gateway forward /v1/messages/batches and all paths below it to api.anthropic.com, or give the client "
    "base_url='https://api.anthropic.com' in its factory",
)

UNCHECKED = Problem(
    "W901",
    "the {what} could not be checked: {error}",
    "If the problem stays, correct the setting that the check reads, or report it",
)


def list_problems() -> Iterator[Problem]:
    """Yield all problems, in the order of this module."""
    yield from (value for value in globals().values() if isinstance(value, Problem))
