"""The identity of a client, as far as it is known without a call: its kind, host, workspace and credential.

A key or a token in the client is a secret of one account, and distinguishes accounts. A provider of tokens, a profile
or a cloud's own identity does not: the next token may belong to another account. Such a client is identified by what
the API says of it; until then it shares nothing with clients of another provider.

Secrets leave this module only inside a keyed hash.
"""

from __future__ import annotations

import functools
import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from claude_batch_tasks.api.sdk import anthropic

WORKSPACE = "anthropic-workspace-id"

#: Names of a client's own headers that tell accounts, or tenants of a gateway, apart.
_TELLING = re.compile(r"auth|key|token|secret|tenant|workspace|org|account|project|customer|team", re.IGNORECASE)

#: Headers that hold a client's credential.
_SIGNED_IN = ("authorization", "x-api-key")

#: Environment variables in which the SDK finds a credential.
_VARIABLES = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")

_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTES = "'\"`\u2018\u2019\u201c\u201d"
_LINE_BREAK = re.compile(r"[\r\n]")
_BOM = "has a byte order mark (BOM) in it: the file that it was read from begins with one"
_CONTROL = "has a control character in it"

#: Attributes of clients and of the SDK's providers that name an account and are not secret.
_NAMES = (
    "_profile", "_config_path", "_federation_rule_id", "_organization_id", "_service_account_id", "_workspace_id",
    "service_account_email", "_env_var",
)  # fmt: skip
_CLIENT_NAMES = ("workspace_id", "aws_region", "aws_profile", "aws_access_key", "_project", "_location")
_CONFIG_NAMES = ("organization_id", "workspace_id", "federation_rule_id", "service_account_id", "client_id", "type")


def keyed_hash(client: anthropic.Anthropic, key: str, workspace: str | None = None) -> str:
    """Return a keyed hash of everything that identifies a client's account; none of it can be computed from the hash.

    Args:
        key: what the hash is for, such as a job's nonce.
        workspace: the workspace that the calls name in place of the client's own.
    """
    return hash_texts([*_list_identifying(client), f"workspace {workspace or requested_workspace(client)}"], key)


def hash_texts(parts: list[str], key: str = "") -> str:
    """Return a keyed hash of texts."""
    return hashlib.blake2b("\n".join(parts).encode(), key=key.encode()[:64], digest_size=16).hexdigest()


def requested_workspace(client: anthropic.Anthropic) -> str | None:
    """Return the workspace that a client's calls name."""
    found = _read_headers(client).get(WORKSPACE) or getattr(client, "workspace_id", None)
    return found if isinstance(found, str) else None


def has_secret(client: anthropic.Anthropic) -> bool:
    """Return whether a client signs in with a secret of its own, which belongs to one account while it is valid."""
    return bool(list_secrets(client))


def list_secrets(client: anthropic.Anthropic) -> list[str]:
    """Return the key, token or header with which a client signs in, if the client itself holds it."""
    if getattr(client, "custom_auth", None) is not None or getattr(client._client, "auth", None) is not None:
        provider = getattr(client, "credentials", None)
        token = getattr(provider, "_token", None) if type(provider).__name__ == "StaticToken" else None
        return [token] if isinstance(token, str) else []
    if key := getattr(client, "aws_secret_key", None):
        return [str(key)]
    sent = _read_headers(client)
    known = [*_own_credentials(client), *filter(None, (client.api_key, client.auth_token))]
    # A subclass may sign in another way, beside a key that is never sent.
    return [key for key in known if any(key in str(sent.get(name)) for name in _SIGNED_IN)]


def to_hide(client: anthropic.Anthropic) -> set[str]:
    """Return every secret that a client holds, whether it is sent or not."""
    token = getattr(getattr(getattr(client, "_token_cache", None), "_cached", None), "token", None)
    given = _own_credentials(client)
    kept = (getattr(client, name, None) for name in ("api_key", "auth_token", "aws_secret_key", "aws_session_token"))
    found = [token, *kept, *given, *(value.partition(" ")[2] for value in given)]
    return {secret for secret in found if isinstance(secret, str) and secret}


def _own_credentials(client: anthropic.Anthropic) -> list[str]:
    """Return the values of those of a client's own headers with which it signs in."""
    own = getattr(client, "_custom_headers", {})
    return [str(value) for name, value in own.items() if name.lower() in _SIGNED_IN]


def describe_client(client: anthropic.Anthropic) -> str:
    """Describe a client for people."""
    name = type(client).__name__
    if has_secret(client):
        return name
    provider = _token_provider(client)
    return f"{name} with {type(provider).__name__}" if provider is not None else f"{name} without a key"


def why_no_batches(made: Any) -> str | None:
    """Return why a client cannot create batches, if a factory returned a client for a platform without them."""
    if isinstance(made, anthropic.Anthropic):
        if getattr(made.messages, "batches", None) is not None:
            return None
    elif not (type(made).__module__.startswith("anthropic.") and type(made).__name__.startswith("Anthropic")):
        return None
    return (
        f"{type(made).__name__} has no Message Batches; use anthropic.Anthropic, or another client whose "
        "messages.batches works, such as AnthropicAWS"
    )


def why_malformed(client: anthropic.Anthropic) -> str | None:
    """Return what is wrong with the form of a client's key, token or headers, without showing them; None: nothing."""
    sent = _read_headers(client)
    for name, value in sent.items():
        if fault := _fault_of_header(client, name, value, sent):
            return fault
    return _why_no_credential(client, sent)


def _fault_of_header(client: anthropic.Anthropic, name: str, value: Any, sent: Mapping[str, Any]) -> str | None:
    if not _HEADER_NAME.fullmatch(name):
        return f"the name of its header {name.strip()[:40]!r} has a character that is not allowed in a header's name"
    if type(value).__name__ in ("Omit", "NotGiven"):  # how the SDK leaves a header out
        return None
    if not isinstance(value, (str, bytes)):
        return f"its header {name} is {type(value).__name__}, not a text"
    text = value if isinstance(value, str) else value.decode("latin-1")
    if name in _SIGNED_IN:
        return _fault_of_credential(client, name, text, sent)
    fault = _find_fault(text, secret=False) if text else None
    return f"its header {name} {fault}" if fault else None


def _fault_of_credential(client: anthropic.Anthropic, name: str, text: str, sent: Mapping[str, Any]) -> str | None:
    if name == "authorization" and text.partition(" ")[0].lower() == "bearer":
        text = text[len("bearer") + 1 :]
    if not text and name == "x-api-key" and sent.get("authorization"):
        return None  # an empty key is allowed if another credential is sent
    fault = _find_fault(text, secret=True)
    return f"its {_what_signs_in(client, text)} {fault}" if fault else None


def _what_signs_in(client: anthropic.Anthropic, text: str) -> str:
    if text == client.auth_token:
        return "token (ANTHROPIC_AUTH_TOKEN, or that of its factory)"
    if text == client.api_key:
        return "key (ANTHROPIC_API_KEY, or that of its factory)"
    return "key in a header of its own"


def _why_no_credential(client: anthropic.Anthropic, sent: Mapping[str, Any]) -> str | None:
    """Return which variables are empty, if a client has no credential because of that."""
    signs_in = {*_SIGNED_IN} & {*sent} or _token_provider(client) is not None or getattr(client._client, "auth", None)
    if signs_in or client.api_key or client.auth_token:
        return None
    empty = [name for name in _VARIABLES if not os.environ.get(name, "not set").strip()]
    if not empty:
        return None
    return f"{' and '.join(empty)} {'is' if len(empty) == 1 else 'are'} set but empty, and it has no other key"


#: What may be wrong with the form of a header's text: whether only a secret must not be so, how it is recognized (where
#: nothing before it applies), and how it is described.
_FAULTS: tuple[tuple[bool, Callable[[str], Any], str], ...] = (
    (False, lambda text: "\ufeff" in text, _BOM),
    (False, lambda text: _LINE_BREAK.search(text.strip()), "has a line break in it"),
    (False, _LINE_BREAK.search, "has a line break at its end or its beginning"),
    (False, lambda text: text != text.strip(), "begins or ends with a space"),
    (True, lambda text: text[0] in _QUOTES or text[-1] in _QUOTES, "is in quotation marks"),
    (True, re.compile(r"(export )?[A-Z]+_[A-Z_]+=").match, "begins with the name of a variable and ="),
    (True, re.compile(r"bearer\s", re.IGNORECASE).match, "begins with 'Bearer', which the SDK adds itself"),
    (True, re.compile(r"sk-ant-.*\s", re.DOTALL).match, "has a space in it"),
    (False, lambda text: not text.isascii(), "has a character in it that is not ASCII"),
    (True, lambda text: not text.isprintable(), _CONTROL),
    (False, lambda text: not text.replace("\t", "").isprintable(), _CONTROL),
)


def _find_fault(text: str, *, secret: bool) -> str | None:
    """Return what is wrong with the form of a header's text; None: nothing."""
    if not text.strip():
        return "is blank" if text else "is empty"
    return next((fault for of_secrets, applies, fault in _FAULTS if (secret or not of_secrets) and applies(text)), None)


def drop_token(client: anthropic.Anthropic) -> bool:
    """Make the next call sign in with a new token; return whether the client uses tokens at all."""
    cache = getattr(client, "_token_cache", None)
    if cache is not None:
        cache.invalidate()
        return True
    state = getattr(client, "_creds_state", None)  # Google's client; a token provider is asked at each call
    if (credentials := getattr(state, "credentials", None)) is not None:
        credentials.token = None
    if (sessions := getattr(sys.modules.get("anthropic.lib.aws._auth"), "_get_session", None)) is not None:
        sessions.cache_clear()  # sessions of botocore, which read their credentials once
    return not has_secret(client)


def _list_identifying(client: anthropic.Anthropic) -> Iterator[str]:
    yield str(client.base_url)
    signed = list_secrets(client)
    yield from signed
    if not signed:
        yield f"{type(client).__module__}.{type(client).__qualname__}"
        yield from _names_of(_token_provider(client))
        yield from (f"{name} {getattr(client, name, None)}" for name in _CLIENT_NAMES)
    yield from _pick_distinguishing(getattr(client, "_custom_headers", None))
    yield from _pick_distinguishing(getattr(client, "_custom_query", None))


def _pick_distinguishing(values: Mapping[str, Any] | None) -> list[str]:
    found = {name.lower(): value for name, value in (values or {}).items() if _TELLING.search(name)}
    return [f"{name}: {value}" for name, value in sorted(found.items()) if name != WORKSPACE]


def _read_headers(client: anthropic.Anthropic) -> dict[str, Any]:
    """Return the headers of each call, by their names in lower case."""
    try:
        return {name.lower(): value for name, value in client.default_headers.items()}
    except Exception:  # noqa: BLE001 - a subclass may compute them in any way
        return {}


def _token_provider(client: anthropic.Anthropic) -> Any:
    """Return the object that gives a client its tokens."""
    given = getattr(client, "credentials", None) or getattr(client, "_token_provider", None)
    provider = given or getattr(client, "google_credentials", None)
    while isinstance(provider, functools.partial):
        provider = provider.func
    return provider


def _names_of(provider: Any) -> Iterator[str]:
    if provider is None:
        return
    named = provider if hasattr(provider, "__qualname__") else type(provider)
    yield f"{named.__module__}.{named.__qualname__}"
    for name in _NAMES:
        if isinstance(value := getattr(provider, name, None), (str, int)) or hasattr(value, "__fspath__"):
            yield f"{name} {value}"
    if isinstance(config := getattr(provider, "_config", None), Mapping):
        yield from _names_of_config(config)
        yield from _names_of_config(config.get("authentication"))


def _names_of_config(values: Any) -> list[str]:
    given = values if isinstance(values, Mapping) else {}
    return [f"{name} {given[name]}" for name in _CONFIG_NAMES if given.get(name)]
