"""The servers that an app uses as store, broker and result back end, and findings about what each says of itself."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from celery import Celery

from claude_batch_tasks.checks import connections, problems
from claude_batch_tasks.checks.problems import Finding, Problem
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.records import ServerProblem, ServerReport
from claude_batch_tasks.settings import Settings, redis_reports, redis_urls, store_urls
from claude_batch_tasks.store import open_store

#: The setting that has the address of each role.
SETTINGS = {"store": "claude_batch_store_url", "broker": "broker_url", "result back end": "result_backend"}

#: What it leads to that a store or a broker cannot be written to.
STALLED = "jobs can neither be submitted nor continue"

#: What it leads to that a server cannot be used, by its first role.
LEADS = {"store": STALLED, "broker": STALLED, "result back end": "result.get() and result.state fail"}

LOSSES = {
    "store": "the ledger, prompts and results of jobs: they end without results, or their batches are not found again",
    "broker": "waiting messages: their jobs stop until the messages are found lost",
    "result back end": "the results of ended jobs: result.get() never returns",
}

#: The problems of a server that cannot be asked at all.
UNREACHABLE = ("NO_ANSWER", "REFUSED_PASSWORD", "NO_DATABASE")

#: Words in the error text of a failed connection, the cause, and what to do.
_CAUSES = (
    (
        ("no master found",),  # first, since the text goes on with options such as socket_timeout
        "its Sentinels do not answer, or know no master of that name",
        "Start them, or correct {setting} and master_name",
    ),
    (("refused",), "no server listens there", "Start it, or correct {setting}"),
    (
        ("name or service", "name resolution", "nodename", "getaddrinfo", "no address associated"),
        "its name cannot be resolved",
        "Correct the host in {setting}",
    ),
    (
        ("ssl", "certificate", "tls"),
        "TLS: {error}",
        "rediss:// (amqps://) in {setting} if that speaks TLS, redis:// (amqp://) if not; ssl_ca_certs=<file> for "
        "your own certificate authority; for a PostgreSQL its sslmode and sslrootcert",
    ),
    (
        ("timeout", "timed out", "unreachable", "no route"),
        "no answer in time",
        "Allow it in the firewall, or correct {setting}",
    ),
    (
        ("closed", "reset", "aborted", "broken pipe"),
        "it closes the connection",
        "rediss:// (amqps://) in {setting} if the server speaks TLS; else see that server's log",
    ),
    (
        ("permission denied",),
        "its user has too few rights: {error}",
        "Grant them; or, if {setting} is a database, create its tables as a user who may, and grant the use of them",
    ),
    (("loading", "starting up"), "it still reads its data", "Wait, and run doctor again"),
    (("",), "{error}", "See that server's log, and {setting}"),
)


class Server(NamedTuple):
    """A server that the app uses, with its URL for each role: ``store``, ``broker`` or ``result back end``.

    It is the store's server, or a Redis.
    """

    urls: dict[str, str]

    @property
    def roles(self) -> list[str]:
        """The roles in which the app uses the server."""
        return list(self.urls)

    @property
    def url(self) -> str:
        """The first of the server's URLs; they differ at most in the database."""
        return next(iter(self.urls.values()))

    @property
    def name(self) -> str:
        """The server's name in findings, without a password."""
        *others, last = self.roles
        before = f"{', '.join(others)} and " if others else ""
        return f"the {before}{last}'s {store_urls.store_product(self.url)} ({store_urls.store_address(self.url)})"

    def inspect(self, settings: Settings, *, thorough: bool = False) -> ServerReport:
        """Return what the server says of itself; as the store, to the store.

        Raises:
            InvalidSettings: the store cannot be opened.
        """
        if "store" in self.urls:
            return open_store(settings).inspection.inspect_server(thorough=thorough)
        return redis_reports.inspect_redis(self.url)


def find_servers(app: Celery, settings: Settings) -> list[Server]:
    """Return the store's server and the Redis servers that the app uses, each once."""
    found: dict[str, Server] = {}
    urls: dict[str, Callable[[], str | None]] = {
        "store": lambda: settings.store_url,
        "broker": lambda: redis_urls.broker_url(app, read=True),
        "result back end": lambda: redis_urls.result_backend_url(app),
    }
    for role, of_role in urls.items():
        url = None
        with suppress(InvalidSettings):  # the check of the settings reports it
            url = of_role()
        if url is not None:
            # URLs with different passwords stay apart: one may be right and the other wrong.
            found.setdefault(_server_key(url), Server({})).urls[role] = url
    return list(found.values())


def findings_of(server: Server, report: ServerReport) -> Iterator[Finding]:
    """Yield the findings about a server that reported these problems."""
    for each in report.problems:
        # A database of its own has a setting of its own, also where the server has more than one role.
        roles = server.roles[:1] if each.kind == "NO_DATABASE" else server.roles
        yield describe_problem(each, server.name, roles)


def describe_problem(problem: ServerProblem, name: str, roles: Sequence[str]) -> Finding:
    """Return the finding about a problem of a server."""
    setting, leads = name_settings(roles), LEADS[roles[0]]
    if problem.kind == "NO_ANSWER":
        return no_answer(name, setting, leads, problem.values["error"])
    kind: Problem = getattr(problems, problem.kind)
    about: dict[str, Any] = {"server": name, "setting": setting, "leads": leads, "loss": LOSSES[roles[0]]}
    return kind.found(**about, **problem.values)


def no_answer(name: str, setting: str, leads: str, error: BaseException | str) -> Finding:
    """Return the finding for a server that does not answer, with the cause that the client's error shows."""
    text = f"{type(error).__name__}: {error}" if isinstance(error, BaseException) else error
    text = " ".join(connections.mask_passwords(text).split())
    why, fix = next((why, fix) for words, why, fix in _CAUSES if any(word in text.lower() for word in words))
    found = {"why": why.format(error=text), "fix": fix.format(setting=setting)}
    return problems.NO_ANSWER.found(server=name, leads=leads, **found)


def name_settings(roles: Sequence[str]) -> str:
    """Return the settings that have the address of a server."""
    return " and ".join(SETTINGS[role] for role in roles)


def _server_key(url: str) -> str:
    """Return the part of a URL by which two of them name the same server."""
    if store_urls.kind_of(url) != "redis":
        return url
    parts = urlsplit(url)
    return parts.netloc or parts.path
