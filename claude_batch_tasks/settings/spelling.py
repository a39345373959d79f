"""How Celery, Django and Flask spell settings: which keys are read, and what a message asks users to write."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

from celery import Celery
from celery.app.defaults import _TO_OLD_KEY, SETTING_KEYS  # type: ignore[attr-defined]

from claude_batch_tasks.errors import InvalidSettings

PREFIX = "claude_batch_"

#: Celery's own prefix, for its old settings in capitals and for its environment variables.
CELERY = "celery_"

_WORD = re.compile(r"(?<![\w.*~])[a-z]+(?:_[a-z0-9]+)+(?![\w.])", re.ASCII)


class Given(NamedTuple):
    """A setting as the user wrote it: its key there, and its value."""

    key: str
    value: Any


def list_prefixes(app: Celery) -> tuple[str, str]:
    """Return what may precede ``claude_batch_`` in the keys of an app's configuration, in lower case."""
    namespace: str | None = app.namespace  # type: ignore[attr-defined]
    return "", f"{namespace.rstrip('_')}_".lower() if namespace else CELERY


def name_of(key: Any, allowed: Iterable[str]) -> str | None:
    """Return the name of a setting without our prefix; None: the key has another prefix, or is not ours.

    Args:
        key: the key, in capitals or not.
        allowed: what may precede our prefix.
    """
    before, ours, name = str(key).lower().partition(PREFIX)
    return name if ours and before in allowed else None


def find_unique(items: Iterable[tuple[Any, Any]], allowed: Iterable[str]) -> dict[str, Given]:
    """Return our settings in one place by their names, including unknown names.

    Raises:
        InvalidSettings: a setting is spelled in two ways, with two values.
    """
    found: dict[str, Given] = {}
    for key, value in items:
        if (name := name_of(key, allowed)) is None:
            continue
        first = found.setdefault(name, Given(str(key), value))
        if first.key != str(key) and first.value != value:
            raise InvalidSettings(f"{first.key} and {key} are the same setting with two values; remove one of them")
    return found


def read_configured(app: Celery) -> dict[str, Given]:
    """Return our settings in an app's configuration by their names, including unknown names.

    The order of precedence is that of Celery's own settings: values assigned to ``app.conf``, then defaults that were
    added, then the configuration object.

    Raises:
        InvalidSettings: a setting is spelled in two ways in the same place, with two values.
    """
    allowed = list_prefixes(app)
    found: dict[str, Given] = {}
    for mapping in list_maps(app):
        items = ((key, mapping[key]) for key in mapping if name_of(key, allowed) is not None)
        found = {**find_unique(items, allowed), **found}
    return found


def list_maps(app: Celery) -> list[Mapping[Any, Any]]:
    """Return the parts of an app's configuration, without Celery's defaults; the first part has precedence."""
    app.conf.finalize()
    chained: list[Mapping[Any, Any]] = app.conf.maps or []
    return chained[:-1]


def from_framework(app: Celery) -> bool:
    """Return whether an app reads Django's settings or a whole Flask config, which keep only names in capitals."""
    return any(name in mapping for mapping in list_maps(app) for name in ("INSTALLED_APPS", "PROPAGATE_EXCEPTIONS"))


def spell_setting(app: Celery, name: str) -> str:
    """Return the name of one of our or Celery's settings as an app's configuration must spell it."""
    before = list_prefixes(app)[1]
    if namespace := app.namespace:  # type: ignore[attr-defined]
        return (before + name).upper() if namespace.isupper() else before + name
    return _TO_OLD_KEY.get(name, name.upper()) if from_framework(app) else name


def respell_setting(key: str, name: str, right: str) -> str:
    """Return a key with the right name in place of the name at its end, in capitals if the rest of the key is."""
    before = key[: len(key) - len(name)]
    return before + (right.upper() if before.isupper() else right)


def in_its_words(app: Celery, text: str, known: Collection[str], given: Mapping[str, Given] | None = None) -> str:
    """Return a text in which every setting is spelled as the app's configuration must spell it.

    Args:
        known: the names of our settings.
        given: the settings that are set, which keep their spelling.
    """

    def in_place(word: re.Match[str]) -> str:
        name = name_of(word[0], ("",)) or ""
        if given and name in given:
            return given[name].key
        return spell_setting(app, word[0]) if name in known or word[0] in SETTING_KEYS else word[0]

    return _WORD.sub(in_place, text)
