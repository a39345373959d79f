"""How settings are shown to people: no value that may be secret."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from claude_batch_tasks.settings.model import Settings


def list_changes(settings: Settings, options: Mapping[str, Any] = {}) -> dict[str, str]:
    """Return the settings that differ from their defaults, by name.

    Numbers, choices and the aliases of clients are shown. Any other setting may hold more, and is shown as ``set``. The
    address of the store is left out.

    Args:
        options: a job's own settings, which are marked as such.
    """
    found = {}
    for field in dataclasses.fields(settings):
        default: Any = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
        value = options.get(field.name, getattr(settings, field.name))
        if field.name == "client_factories":
            value, default = sorted(value), sorted(default)
        if value != default and field.name != "store_url" and not (field.name == "store_prefix" and not value):
            found[field.name] = _show_value(field, value) + (" (of this job)" if field.name in options else "")
    return found


def _show_value(field: dataclasses.Field[Any], value: Any) -> str:
    plain = value is None or isinstance(value, (int, float)) or field.name == "client_factories"
    return str(value) if plain or field.metadata["choices"] else "set"
