"""The check for settings of ours in places where the app does not read them, such as a limit that is not in force.

It reads Django's settings, the config of Flask apps, the environment, and the app's own configuration.
"""

from __future__ import annotations

import dataclasses
import difflib
import gc
import os
import sys
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import partial
from typing import Any, NamedTuple

from celery import Celery, _state

from claude_batch_tasks.checks import problems
from claude_batch_tasks.checks.problems import Finding
from claude_batch_tasks.errors import InvalidSettings
from claude_batch_tasks.settings import FIELDS, NAMES, Settings, spelling
from claude_batch_tasks.settings.spelling import CELERY, PREFIX

#: The words in a prefix that frameworks, and people who use them, put before the name of a setting.
_WORDS = ("celery", "django", "flask")

#: How similar a name must be to one of ours to count as misspelled: the part after our prefix, and the whole name.
_ALIKE = 0.8
_ALIKE_WITH_PREFIX = 0.9

_Items = list[tuple[str, Any]]


class _Place(NamedTuple):
    """A place where settings are written.

    ``why``: why a setting there is not in force. ``fix(key, name)``: what to do about it.
    """

    title: str
    why: str
    items: _Items
    fix: Callable[[str, str], str]


def find_unread(app: Celery, settings: Settings) -> Iterator[Finding]:
    """Yield a finding for each setting of ours, also a misspelled one, that is written somewhere and not in force.

    Args:
        settings: the settings in force.
    """
    found = set()
    for place in _list_places(app):
        for key, value in place.items:
            name, foreign = _guess_meant(app, key)
            if name is None or key in found or _in_force(settings, name, value):
                continue
            found.add(key)
            misspelled = not key.lower().endswith(PREFIX + name)
            why = f"it is misspelled ({name} is meant)" if misspelled else place.why
            problem = problems.LOOKS_LIKE_OURS if foreign else problems.NOT_IN_FORCE
            now, fix = _show_value(settings, name), place.fix(key, name)
            yield problem.found(key=key, place=place.title, why=why, name=name, value=now, fix=fix)


def _in_force(settings: Settings, name: str, value: Any) -> bool:
    try:
        return dataclasses.replace(settings, **{name: value}) == settings
    except InvalidSettings:
        return False


def _show_value(settings: Settings, name: str) -> str:
    value = getattr(settings, name)
    if value is None:
        return "none"
    return repr(value) if FIELDS[name].repr else "another"


def _guess_meant(app: Celery, key: str) -> tuple[str | None, bool]:
    """Return the name of the setting that a key is meant for, and whether it may be for something else.

    It may be for something else if there are words before our prefix that no framework puts there.
    """
    before, ours, name = key.lower().partition(PREFIX)
    if not ours:
        return _find_misspelled(app, key.lower()), False
    if before in _prefixes_of_others(app):
        return None, False
    words = {*_WORDS, *spelling.list_prefixes(app)[1].split("_")}
    foreign = not all(difflib.get_close_matches(word, words, n=1) for word in before.split("_") if word)
    if name in NAMES:
        return name, foreign
    return (None if foreign else _closest_name(name, NAMES, _ALIKE)), False


def _find_misspelled(app: Celery, key: str) -> str | None:
    for before in {CELERY, *spelling.list_prefixes(app)}:
        key = key.removeprefix(before)
    close = _closest_name(key, [PREFIX + name for name in NAMES], _ALIKE_WITH_PREFIX)
    return close and close.removeprefix(PREFIX)


def _closest_name(name: str, names: Collection[str], cutoff: float) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=cutoff)), None)


def _prefixes_of_others(app: Celery) -> set[str]:
    """Return the namespaces of the program's other Celery apps, which read those settings themselves."""
    others = [one for one in _state._get_active_apps() if one.namespace]  # type: ignore[attr-defined]
    return {spelling.list_prefixes(one)[1] for one in others} - set(spelling.list_prefixes(app))


def _list_places(app: Celery) -> Iterator[_Place]:
    """Yield all places, each with its items that resemble a setting of ours and are not read."""
    maps = [_pick_similar(mapping, mapping.__getitem__) for mapping in spelling.list_maps(app)]
    ours = spelling.list_prefixes(app)
    read = [item for items in maps for item in items if spelling.name_of(item[0], ours) is not None]

    def unread(items: Iterable[tuple[str, Any]]) -> _Items:
        return [item for item in items if item not in read]

    yield from _of_django(app, unread)
    yield from _of_flask(app, unread)
    assigned = partial(_hint_assigning, app, "os.environ['{key}']")
    yield _Place("the environment", "the app does not read it", _list_environment(app), assigned)
    for items in maps:
        written = partial(_hint_writing, app, "in place of it")
        yield _Place("the app's configuration", "Celery does not read it", unread(items), written)


def _list_environment(app: Celery) -> _Items:
    items = [(key, value) for key, value in _pick_similar(os.environ, os.environ.__getitem__) if value]
    if not _is_ready_made(app):
        return items
    return [item for item in items if spelling.name_of(item[0], ("", CELERY)) is None]


def _of_django(app: Celery, unread: Callable[[Iterable[tuple[str, Any]]], _Items]) -> Iterator[_Place]:
    django = sys.modules.get("django.conf")
    if django is None or not django.settings.configured:
        return
    settings = django.settings
    is_read = "INSTALLED_APPS" in app.conf
    fix = (
        partial(_hint_writing, app, "in Django's settings")
        if is_read
        else partial(_hint_assigning, app, "settings.{key}")
    )
    items = unread(_pick_similar(dir(settings), partial(getattr, settings)))
    yield _Place("Django's settings", "Celery does not read it", items, fix)
    for outer, nested in _list_nested((name, getattr(settings, name)) for name in dir(settings) if "CELERY" in name):
        assigned = partial(_hint_assigning, app, f"settings.{outer}['{{key}}']")
        yield _Place(f"{outer} in Django's settings", "Celery does not read it", unread(nested), assigned)
    if (module := sys.modules.get(str(getattr(settings, "SETTINGS_MODULE", None)))) is not None:
        dropped = _in_lower_case(unread(_pick_similar(vars(module), vars(module).__getitem__)))
        fix = fix if is_read else partial(_hint_assigning, app, f"{module.__name__}.{{key}}")
        yield _Place(module.__name__, "Django reads names in capitals alone", dropped, fix)


def _of_flask(app: Celery, unread: Callable[[Iterable[tuple[str, Any]]], _Items]) -> Iterator[_Place]:
    for flask_app in _flask_apps(app):
        config, title = flask_app.config, f"the config of the Flask app {flask_app.name!r}"
        items = unread(_pick_similar(config, config.__getitem__))
        yield _Place(
            title, "Celery does not read it", items, partial(_hint_assigning, app, "flask_app.config['{key}']")
        )
        for source, held in _read_by_flask(config):
            dropped = _in_lower_case(unread(_pick_similar(held, held.__getitem__)))
            assigned = partial(_hint_assigning, app, f"{source}.{{key}}")
            fix = partial(_hint_writing, app, "in place of it") if spelling.from_framework(app) else assigned
            yield _Place(source, "Flask reads names in capitals alone", dropped, fix)
        for outer, nested in _list_nested((str(name), value) for name, value in config.items()):
            assigned = partial(_hint_assigning, app, f"flask_app.config['{outer}']['{{key}}']")
            yield _Place(f"{outer} in {title}", "Celery does not read it", unread(nested), assigned)


def _list_nested(items: Iterable[tuple[str, Any]]) -> Iterator[tuple[str, _Items]]:
    """Yield the names of mappings and classes that hold Celery's settings, with their items that resemble ours."""
    for outer, inner in items:
        if "celery" in outer.lower() and isinstance(inner, (Mapping, type)):
            held = dict(inner if isinstance(inner, Mapping) else vars(inner))
            yield outer, _pick_similar(held, held.__getitem__)


def _in_lower_case(items: _Items) -> _Items:
    return [(key, value) for key, value in items if not key.isupper()]


def _read_by_flask(config: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the modules and classes from which Flask has read the names in capitals, with all their items."""
    for source, items in _modules_and_classes():
        if any(key.isupper() and key in config and config[key] is value for key, value in items.items()):
            yield source, items


def _modules_and_classes() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield all modules, and the classes that are defined in them, with their items."""
    for name, module in list(sys.modules.items()):
        held = dict(getattr(module, "__dict__", {}))
        yield name, held
        for one in held.values():
            if type(one) is type and one.__module__ == name:
                yield f"{name}.{one.__qualname__}", dict(vars(one))


def _hint_writing(app: Celery, where: str, key: str, name: str) -> str:
    return _of_ready_made(app, name) or f"Write {spelling.spell_setting(app, PREFIX + name)} {where}"


def _hint_assigning(app: Celery, value: str, key: str, name: str) -> str:
    if (given := spelling.read_configured(app).get(name)) is not None:
        return f"{given.key} in the app's configuration says otherwise: leave one of the two out"
    return _of_ready_made(app, name) or f"Beside Celery(...): app.conf.{PREFIX}{name} = {value.format(key=key)}"


def _of_ready_made(app: Celery, name: str) -> str | None:
    return f"Set {PREFIX.upper()}{name.upper()} in the environment" if _is_ready_made(app) else None


def _is_ready_made(app: Celery) -> bool:
    return app.main == "claude_batch_tasks"


def _pick_similar(keys: Iterable[Any], get: Callable[[str], Any]) -> _Items:
    """Return the items that may be a setting of ours, perhaps misspelled; no other value is read."""
    return [(key, get(key)) for key in keys if "claud" in (lower := str(key).lower()) or "batch" in lower]


def _flask_apps(app: Celery) -> list[Any]:
    """Return the program's Flask apps, without those that belong to another Celery app."""
    flask = sys.modules.get("flask")
    if flask is None:
        return []
    gc.collect()  # removes apps that nothing refers to any more
    # By class: isinstance() would create the lazy objects of other packages.
    apps: list[Any] = [one for one in gc.get_objects() if issubclass(type(one), flask.Flask)]
    return [one for one in apps if app in (_celery_apps(one) or [app])]


def _celery_apps(flask_app: Any) -> list[Any]:
    return [one for one in flask_app.extensions.values() if issubclass(type(one), Celery)]
