"""URLs of Redis servers, as Celery, kombu and redis-py spell them, and clients for these servers.

Inside the package every URL has the same form, called the normal form: everything that a connection needs is in it, as
options. This includes TLS and Sentinel, for which Celery has separate settings. Each option is passed on to redis-py,
overruled, or refused by its name.
"""

from __future__ import annotations

import functools
import json
import ssl
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

import redis
from celery import Celery
from kombu.utils.imports import symbol_by_name
from redis import sentinel

from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings.fair_queue import FairQueue

#: Spellings of each scheme.
SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "valkey": "redis",
    "valkeys": "rediss",
    "unix": "unix",
    "redis+socket": "unix",
    "sentinel": "sentinel",
}

#: Options that the store overrules, because it reads bytes.
_OVERRULED = {"decode_responses", "encoding", "encoding_errors", "legacy_responses"}

#: Options of kombu in a broker's URL, which the store ignores.
_KOMBU = {"connect_timeout", "heartbeat", "login_method", "failover_strategy", "transport_options"}

_SENTINEL = {"master_name", "sentinel_kwargs", "min_other_sentinels"}

#: Connections of one process to the store, unless its URL sets another number. Threads share them in turn: no call
#: takes long.
MOST_CONNECTIONS = 1

#: Seconds for which a thread waits for a free connection.
_PATIENCE = 20

_FALSE, _TRUE = ("0", "f", "false", "n", "no"), ("1", "t", "true", "y", "yes")


def _parse_flag(text: str) -> bool:
    if text.lower() not in (*_FALSE, *_TRUE):
        raise ValueError
    return text.lower() in _TRUE


def _cert_reqs(text: str) -> str:
    known = {"none": "none", "optional": "optional", "required": "required", "0": "none", "1": "optional"}
    return {**known, "2": "required"}[text.lower().removeprefix("verifymode.").removeprefix("cert_")]


def _tls_version(text: str) -> ssl.TLSVersion:
    return ssl.TLSVersion(int(text)) if text.isdigit() else ssl.TLSVersion[text.removeprefix("TLSVersion.")]


def _parse_positive(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _parse_mapping(text: str) -> dict[str, Any]:
    found = json.loads(text)
    if not isinstance(found, dict):
        raise TypeError
    return found


_PARSERS: Mapping[str, Callable[[str], Any]] = redis.connection.URL_QUERY_ARGUMENT_PARSERS  # type: ignore[assignment]

#: Options that are passed on, and how each is read.
_PASSED: dict[str, Callable[[str], Any]] = {
    "db": int,
    **dict.fromkeys(("username", "password", "client_name", "lib_name", "lib_version"), str),
    **dict.fromkeys(("socket_timeout", "socket_connect_timeout"), float),
    **dict.fromkeys(("socket_keepalive", "retry_on_timeout"), _parse_flag),
    **dict.fromkeys(("health_check_interval", "socket_read_size", "protocol"), int),
    "max_connections": _parse_positive,
    "credential_provider": lambda path: symbol_by_name(path)(),
    "ssl": _parse_flag,
    **dict.fromkeys(("ssl_keyfile", "ssl_certfile", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data"), str),
    **dict.fromkeys(("ssl_password", "ssl_ciphers", "ssl_ocsp_expected_cert"), str),
    **dict.fromkeys(("ssl_check_hostname", "ssl_validate_ocsp", "ssl_validate_ocsp_stapled"), _parse_flag),
    "ssl_cert_reqs": _cert_reqs,
    "ssl_min_version": _tls_version,
    **{name: parser for name, parser in _PARSERS.items() if name.endswith("_verify_flags")},
    "master_name": str,
    "sentinel_kwargs": _parse_mapping,
    "min_other_sentinels": int,
}


class Address(NamedTuple):
    """The content of a URL: the address of the server (or of its Sentinels), and the parsed options of a connection."""

    scheme: str
    hosts: tuple[tuple[str, int], ...]
    options: dict[str, Any]


def redis_url(url: str, extra: Mapping[str, str] | None = None) -> str:
    """Return the URL of a broker, a result back end or a store in the normal form.

    Args:
        url: as Celery accepts it; several Sentinels are separated by semicolons.
        extra: options that apply if the URL does not have them.

    Raises:
        InvalidSettings: it is not the URL of a Redis, or has an option that cannot be passed on.
    """
    return _redis_url(url, tuple((extra or {}).items()))


@functools.lru_cache(maxsize=64)
def _redis_url(url: str, extra: tuple[tuple[str, str], ...]) -> str:
    given, netloc, path, query = _split_url(url)
    scheme = SCHEMES.get(given, "")
    if not scheme or not (path or netloc) or not _ports_are_right(scheme, netloc):
        raise InvalidSettings(
            "claude_batch_store_url must be the URL of a Redis, such as redis://host:6379/0, or of its Sentinels, "
            "such as sentinel://one:26379;sentinel://two:26379/0?master_name=mymaster"
        )
    options = {**dict(extra), **dict(parse_qsl(query, keep_blank_values=True))}
    if "virtual_host" in options:
        options["db"] = options.pop("virtual_host").lstrip("/")
    checked = _check_options(options)
    scheme = _choose_tls(scheme, checked)
    _check_sentinels(scheme, checked)
    found = f"{scheme}://{netloc}{path}" + (f"?{urlencode(checked, quote_via=quote)}" if checked else "")
    _check_known_to_client(found)
    return found


def _split_url(url: str) -> tuple[str, str, str, str]:
    """Return scheme, hosts, path and query; of several Sentinels, the last path and query count."""
    first, *others = url.split(";") if url.startswith("sentinel:") else [url]
    scheme, netloc, path, query, _ = urlsplit(first)
    for other in others:
        more = urlsplit(other if "//" in other else f"sentinel://{other}")
        netloc += "," + more.netloc.rpartition("@")[2]
        path, query = (more.path.strip("/") and more.path) or path, more.query or query
    return scheme, netloc, path, query


def _choose_tls(scheme: str, options: dict[str, str]) -> str:
    """Return ``redis`` or ``rediss`` as the TLS options say, and remove the option that only says whether."""
    if scheme == "redis" and any(name.startswith("ssl") for name in options):
        scheme = "rediss" if options.pop("ssl", "true") == "true" else "redis"
    if scheme == "rediss":
        options.pop("ssl", None)
    return scheme


def _check_sentinels(scheme: str, options: Mapping[str, str]) -> None:
    """Refuse Sentinels without the name of what they watch, and options of Sentinels for anything else."""
    if scheme == "sentinel" and not options.get("master_name"):
        raise InvalidSettings(
            "claude_batch_store_url names Sentinels, but no master: add ?master_name=<name>, or set master_name in "
            "result_backend_transport_options or broker_transport_options"
        )
    if scheme != "sentinel" and (wrong := sorted(_SENTINEL & options.keys())):
        raise InvalidSettings(f"claude_batch_store_url: {wrong[0]} is for sentinel:// only")


def _ports_are_right(scheme: str, netloc: str) -> bool:
    if scheme == "unix":
        return True
    try:
        return all(host.port != 0 for host in _split_hosts(netloc))
    except ValueError:
        return False


def _split_hosts(netloc: str) -> list[SplitResult]:
    return [urlsplit(f"//{host}") for host in netloc.rpartition("@")[2].split(",")]


def _check_options(options: Mapping[str, str]) -> dict[str, str]:
    """Return the options that are passed on, each as a text that its parser accepts."""
    found = {}
    for name, value in options.items():
        if name in _OVERRULED:
            continue
        if name not in _PASSED:
            raise InvalidSettings(
                f"claude_batch_store_url: the option {name} cannot be used for the store; remove it, or give the store "
                f"a URL of its own. Known: {', '.join(sorted(_PASSED))}"
            )
        try:
            read = _PASSED[name](value)
        except Exception:  # noqa: BLE001 - a class that an option names may raise anything
            raise InvalidSettings(f"claude_batch_store_url: the value of the option {name} is not valid") from None
        found[name] = str(read).lower() if isinstance(read, bool) else read if name == "ssl_cert_reqs" else value
    return found


def _check_known_to_client(url: str) -> None:
    """Refuse options that the installed redis-py does not know."""
    kind, options = _connection_class(address_of(url))
    try:
        kind(**options)
    except TypeError as exc:
        raise InvalidSettings(f"claude_batch_store_url: redis-py {redis.__version__} cannot use it: {exc}") from None
    except (redis.RedisError, ValueError, OSError):
        pass  # reported by the code that connects


@functools.lru_cache(maxsize=64)
def address_of(url: str) -> Address:
    """Return the parts of a URL in the normal form."""
    parts = urlsplit(url)
    options = {name: _PASSED[name](value) for name, value in parse_qsl(parts.query, keep_blank_values=True)}
    for name, value in (("username", parts.username), ("password", parts.password)):
        if value:
            options[name] = unquote(value)
    if parts.scheme == "unix":
        return Address("unix", ((unquote(parts.path), 0),), options)
    database = parts.path.strip("/")
    if database.isdigit():
        options.setdefault("db", int(database))
    usual = 26379 if parts.scheme == "sentinel" else 6379
    hosts = tuple((unquote(host.hostname or "localhost"), host.port or usual) for host in _split_hosts(parts.netloc))
    return Address(parts.scheme, hosts, options)


def redis_address(url: str) -> str:
    """Return how logs and errors name a Redis: host and port, or the socket's path; without the password."""
    found = address_of(redis_url(url))
    if found.scheme == "unix":
        return found.hosts[0][0]
    hosts = ",".join(f"{host}:{port}" for host, port in found.hosts)
    return f"{found.options['master_name']} by the Sentinels {hosts}" if found.scheme == "sentinel" else hosts


def database_of(url: str) -> int:
    """Return the number of the database that a URL names."""
    return int(address_of(redis_url(url)).options.get("db", 0))


def _connection_class(found: Address) -> tuple[type[Any], dict[str, Any]]:
    """Return the class of a connection and its arguments; ``connect_redis`` adapts both for Sentinels."""
    options = {name: value for name, value in found.options.items() if name not in (*_SENTINEL, "ssl")}
    options.pop("max_connections", None)
    if "credential_provider" in options:  # redis-py accepts one or the other
        options.pop("username", None)
        options.pop("password", None)
    if found.scheme == "unix":
        return redis.UnixDomainSocketConnection, {**options, "path": found.hosts[0][0]}
    host, port = found.hosts[0]
    tls = found.scheme == "rediss" or found.options.get("ssl")
    return redis.SSLConnection if tls else redis.Connection, {**options, "host": host, "port": port}


def connect_redis(
    url: str,
    defaults: Mapping[str, Any],
    wrapped: Callable[[type[Any]], type[Any]] = lambda kind: kind,
    kind: type[redis.Redis] = redis.Redis,
) -> redis.Redis:
    """Return a client of the server that a URL names; it does not decode, and connects when it is first used.

    Args:
        url: the URL in any form.
        defaults: options that apply if the URL does not have them.
        wrapped: makes the class of connections from redis-py's class.
        kind: the class of the client.
    """
    found = address_of(redis_url(url))
    plain, options = _connection_class(found)
    defaults = {n: v for n, v in defaults.items() if found.scheme != "unix" or not n.startswith("socket_keepalive")}
    options = {**defaults, **options}
    if found.scheme == "sentinel":
        return kind.from_pool(_sentinel_pool(found, plain, options, defaults, wrapped))
    options["max_connections"] = found.options.get("max_connections", MOST_CONNECTIONS)
    options |= {"connection_class": wrapped(plain), "queue_class": FairQueue, "timeout": _PATIENCE}
    return kind.from_pool(redis.BlockingConnectionPool(**options))  # type: ignore[no-untyped-call]


def _sentinel_pool(
    found: Address,
    plain: type[Any],
    options: dict[str, Any],
    defaults: Mapping[str, Any],
    wrapped: Callable[[type[Any]], type[Any]],
) -> sentinel.SentinelConnectionPool:
    """Return a pool of connections to the server that Sentinels name."""
    if limit := found.options.get("max_connections"):  # this pool refuses one more; by default it has no limit
        options["max_connections"] = limit
    for name in ("host", "port"):
        del options[name]
    managed = (
        sentinel.SentinelManagedSSLConnection if plain is redis.SSLConnection else sentinel.SentinelManagedConnection
    )
    shared = {name: value for name, value in defaults.items() if name.startswith("socket_") or name == "retry"}
    manager = sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(found.hosts),
        min_other_sentinels=found.options.get("min_other_sentinels", 0),
        sentinel_kwargs={**shared, **found.options.get("sentinel_kwargs", {})},
        **options,
    )
    return sentinel.SentinelConnectionPool(  # type: ignore[no-untyped-call]
        found.options["master_name"], manager, connection_class=wrapped(managed), **manager.connection_kwargs
    )


def result_backend_url(app: Celery) -> str | None:
    """Return the URL of the app's result back end with its TLS and Sentinel options, if that is a Redis."""
    conf = app.conf
    options = _of_transport(conf.result_backend_transport_options)
    return _of_app(conf.result_backend, conf.redis_backend_use_ssl, options)


def broker_url(app: Celery, *, read: bool = False) -> str | None:
    """Return the URL of the app's broker with its TLS and Sentinel options, if that is a Redis."""
    conf = app.conf
    urls = (read and conf.broker_read_url) or conf.broker_url
    return _of_app(urls, conf.broker_use_ssl, _of_transport(conf.broker_transport_options), _KOMBU)


def complete_url(app: Celery, url: str) -> str:
    """Return a store's own URL; if it names Sentinels, add the Sentinel options that the app has."""
    known: dict[str, str] = {}
    if url.startswith("sentinel:"):
        for options in (app.conf.broker_transport_options, app.conf.result_backend_transport_options):
            known |= _of_transport(options)
    return redis_url(url, known)


def key_prefix(app: Celery) -> str:
    """Return what the app puts in front of its keys in Redis (``global_keyprefix``)."""
    for options in (app.conf.result_backend_transport_options, app.conf.broker_transport_options):
        if prefix := (options or {}).get("global_keyprefix"):
            return str(prefix)
    return ""


def _of_app(urls: Any, tls: Any, options: dict[str, str], unwanted: set[str] = frozenset()) -> str | None:  # type: ignore[assignment]
    # A broker may have several URLs, for failover; the store uses the first.
    url = str(urls[0] if isinstance(urls, (list, tuple)) and urls else urls)
    scheme = SCHEMES.get(urlsplit(url).scheme)
    if scheme is None:
        return None
    if scheme != "sentinel":
        url, options = url.split(";")[0], {}
    url = _without_options(url, unwanted)
    if tls and scheme != "unix":
        options["ssl"] = "true"
        given = tls if isinstance(tls, Mapping) else {}
        options |= {name: _option_text(value) for name, value in given.items() if value is not None}
    return redis_url(url, options)


def _without_options(url: str, unwanted: set[str]) -> str:
    before, sign, query = url.partition("?")
    kept = [(name, value) for name, value in parse_qsl(query, keep_blank_values=True) if name not in unwanted]
    return before + sign * bool(kept) + urlencode(kept, quote_via=quote) if unwanted else url


def _of_transport(options: Any) -> dict[str, str]:
    found = {name: value for name, value in (options or {}).items() if name in _SENTINEL and value is not None}
    return {name: json.dumps(value) if name == "sentinel_kwargs" else str(value) for name, value in found.items()}


def _option_text(value: Any) -> str:
    return str(int(value)) if isinstance(value, (ssl.VerifyMode, ssl.TLSVersion)) else str(value)
