"""The setting ``store_url``: which kinds of stores there are, how each is named, and what it is where it is not set.

The kind follows from the form of the value alone. Nothing here connects, and psycopg is imported for its URLs only.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Literal
from urllib.parse import parse_qsl, urlsplit

from celery import Celery

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import redis_urls
from claude_batch_tasks.settings.spelling import PREFIX

Kind = Literal["redis", "postgres", "django", "sqlalchemy"]

#: What people call the server of each kind.
PRODUCTS: dict[Kind, str] = {
    "redis": "Redis",
    "postgres": "PostgreSQL",
    "django": "PostgreSQL",
    "sqlalchemy": "PostgreSQL",
}

#: The dotted path of a SQLAlchemy engine: ``myapp.db.engine`` or ``myapp.db:engine``.
_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*[.:][^\W\d]\w*")

#: The alias of a database in Django's ``DATABASES``.
_ALIAS = re.compile(r"django://([^\s/?#@:]+)/?")

#: A prefix that can stand in front of a schema's name without quotes, and leaves room for it.
_SCHEMA_PREFIX = re.compile(r"([a-z_][a-z0-9_]{0,39})?")

_ESCAPES = "write signs such as / @ [ # in a password as %2F %40 %5B %23"

_EXAMPLES = (
    "redis://host:6379/0, sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster, "
    "postgresql://user:password@host/database, django://default (a database of Django's), or the dotted path of a "
    "SQLAlchemy engine, such as myapp.db.engine"
)


def kind_of(url: str) -> Kind:
    """Return which kind of store a value of the setting names.

    Raises:
        InvalidSettings: none.
    """
    scheme = url.partition(":")[0]
    if scheme in redis_urls.SCHEMES:
        return "redis"
    if scheme in ("postgresql", "postgres"):
        return "postgres"
    if scheme.startswith(("postgresql+", "postgres+", "db+postgres")):
        raise InvalidSettings(
            f"{PREFIX}store_url is the address of a PostgreSQL as SQLAlchemy or Celery spells it: write postgresql:// "
            f"in place of {scheme}://, the store uses psycopg"
        )
    if scheme == "django":
        return "django"
    if _PATH.fullmatch(url):
        return "sqlalchemy"
    raise InvalidSettings(f"{PREFIX}store_url is not the address of a store. Examples: {_EXAMPLES}")


def store_url(url: str) -> str:
    """Return the address of a store in the form that all parts of the package use.

    Raises:
        InvalidSettings: it is not an address of a store; the text shows nothing of it, which may be a password.
    """
    kind = kind_of(url)
    if kind == "redis":
        return redis_urls.redis_url(url)
    if kind == "postgres":
        return _postgres_url(url)
    if kind == "django":
        if (found := _ALIAS.fullmatch(url)) is None:
            raise InvalidSettings(
                f"{PREFIX}store_url = 'django://<alias>' names a database in Django's DATABASES, and nothing else: "
                "django://default"
            )
        return f"django://{found[1]}"
    return url


def complete_url(app: Celery, url: str) -> str:
    """Return a store's own address; if it names Sentinels, with the Sentinel options that the app has."""
    return redis_urls.complete_url(app, url) if kind_of(url) == "redis" else store_url(url)


def check_prefix(url: str, prefix: str) -> None:
    """Check that a store of this kind can have this prefix.

    Raises:
        InvalidSettings: it cannot.
    """
    if kind_of(url) != "redis" and not _SCHEMA_PREFIX.fullmatch(prefix):
        raise InvalidSettings(
            f"{PREFIX}store_prefix stands in front of the name of a schema in PostgreSQL: up to 40 lower-case letters, "
            f"digits and underscores, such as shop_; it is {prefix!r}"
        )


def default_prefix(app: Celery, url: str) -> str:
    """Return the prefix of a store where none is set."""
    return redis_urls.key_prefix(app) if kind_of(url) == "redis" else ""


def store_product(url: str) -> str:
    """Return what people call the server of a store: ``Redis`` or ``PostgreSQL``."""
    return PRODUCTS[kind_of(url)]


def store_address(url: str) -> str:
    """Return how logs and errors name the server of a store; without user and password."""
    kind = kind_of(url)
    if kind == "redis":
        return redis_urls.redis_address(url)
    if kind == "postgres":
        return postgres_address(url)
    return f"Django's database {urlsplit(url).netloc!r}" if kind == "django" else f"the engine {url}"


def store_name(url: str) -> str:
    """Return the address of a store with its database, by which two processes see whether they have the same."""
    address = store_address(url)
    return f"{address}/{redis_urls.database_of(url)}" if kind_of(url) == "redis" else address


def store_hosts(url: str) -> list[str]:
    """Return the names of the hosts in the address of a store."""
    kind = kind_of(url)
    if kind == "redis":
        return [host for host, _ in redis_urls.address_of(url).hosts]
    if kind != "postgres":
        return []
    parts = urlsplit(url)
    hosts = [host.rpartition(":")[0] or host for host in parts.netloc.rpartition("@")[2].split(",")]
    options = dict(parse_qsl(parts.query))
    hosts += [host for name in ("host", "hostaddr") for host in options.get(name, "").split(",")]
    return [host for host in hosts if host]


def not_installed(exc: ImportError) -> InvalidSettings:
    """Return the error for a store on PostgreSQL whose packages are not there."""
    return InvalidSettings(
        f"{PREFIX}store_url names a PostgreSQL, and what it needs cannot be imported ({exc}): "
        "pip install 'claude-batch-tasks[postgres]'"
    )


def postgres_address(url: str) -> str:
    """Return the address in a PostgreSQL URL, without user, password and options, for texts of errors."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def default_store_url(app: Celery) -> str:
    """Return the URL of the result back end, else of the broker, if one of them is a Redis.

    Raises:
        InvalidSettings: neither is a Redis.
    """
    if (url := redis_urls.result_backend_url(app) or redis_urls.broker_url(app)) is not None:
        return url
    conf: Any = app.conf
    forgotten = "" if conf.broker_url else " (no broker URL is configured: is this the project's Celery app?)"
    raise InvalidSettings(
        f"{PREFIX}store_url is not set, and neither the result back end nor the broker is a Redis to default to"
        f"{forgotten}; set it to {_suggest_postgres(conf.result_backend)}, or to the URL of a Redis that is persistent "
        "(AOF) and never evicts (noeviction)"
    )


def _suggest_postgres(result_backend: Any) -> str:
    """Return the URL of a PostgreSQL to set: of the result back end's, if it is one, without user and password."""
    scheme, sign, rest = str(result_backend or "").partition("://")
    if sign and scheme.startswith("db+postgres"):
        where = rest.rpartition("@")[2].partition("?")[0]
        return f"'postgresql://user:password@{where}' (the database of the result back end can be the store's too)"
    if str(result_backend or "").startswith("django-db"):
        return "'django://default' (the database of the result back end can be the store's too, if it is a PostgreSQL)"
    return "the URL of a PostgreSQL, such as 'postgresql://user:password@host/database'"


@functools.lru_cache(maxsize=64)
def _postgres_url(url: str) -> str:
    """Return the URL of a PostgreSQL in the form of libpq."""
    scheme, _, rest = url.partition("://")
    try:
        parts = urlsplit(url)
        hosts = [urlsplit(f"//{host}") for host in parts.netloc.rpartition("@")[2].split(",")]
        ports = [host.port for host in hosts]
    except ValueError:
        raise _not_valid(_ESCAPES) from None
    if parts.netloc.count("@") > 1:
        raise _not_valid(_ESCAPES)
    if not rest or 0 in ports:
        raise _not_valid("it needs a host and a database, such as postgresql://user:password@host:5432/database")
    _check_options(url)
    return f"postgresql://{rest}" if scheme == "postgres" else url


def _check_options(url: str) -> None:
    """Refuse options that libpq does not know, where it is installed."""
    try:
        from psycopg.conninfo import conninfo_to_dict
        from psycopg.errors import ProgrammingError
    except ImportError as exc:
        raise not_installed(exc) from None
    try:
        conninfo_to_dict(url)
    except ProgrammingError as exc:
        # libpq quotes what it does not understand, which may be a part of a password.
        quoted = re.search(r'invalid URI query parameter: "(\w+)"', str(exc))
        raise _not_valid(f"libpq does not know the option {quoted[1]}" if quoted else "libpq cannot read it") from None


def _not_valid(why: str) -> InvalidSettings:
    return InvalidSettings(f"{PREFIX}store_url is not a valid URL of a PostgreSQL: {why}")
