"""What users see of this release: settings, metrics, events, problems, commands, signals, and the Python API.

``surface.json`` has it as it was; ``python -m tests.guards`` writes what is new into it.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec
from celery.utils.dispatch import Signal
from typing_extensions import is_typeddict

import claude_batch_tasks
from claude_batch_tasks import cli, metrics, signals, simulator
from claude_batch_tasks.settings import Settings, configuration

ROOT = Path(__file__).parents[2]
GOLDEN = Path(__file__).with_name("surface.json")


def written() -> dict[str, Any]:
    """Return what is written down."""
    found: dict[str, Any] = json.loads(GOLDEN.read_text())
    return found


def present() -> dict[str, Any]:
    """Return what there is."""
    shown = {
        "settings": _settings(),
        "configuration": configuration({}),
        "metrics": _metrics(),
        "history events": _history_events(),
        "log events": sorted(set(_log_events())),
        "problems": sorted(_problems()),
        "commands": dict(_commands(cli.claude_batch, "claude-batch")),
        "exit codes": dict(re.findall(r"^ +(\d+)  (.+)$", str(cli.claude_batch.epilog), re.MULTILINE)),
        "signals": _signals(),
        "python": _python(),
        "simulator": {name: _value(getattr(simulator, name)) for name in sorted(simulator.__all__)},
        "fixtures": sorted(name for name in _fixtures() if not name.startswith("_")),
    }
    found: dict[str, Any] = json.loads(json.dumps(shown, default=_plain))
    return found


def text(value: Any, indent: str = "") -> str:
    """Return a value as JSON: on a line, where that is not long."""
    line = json.dumps(value)
    if (indent and len(indent) + len(line) <= 118) or not isinstance(value, (dict, list)):
        return line
    more = indent + "  "
    if isinstance(value, list):
        return "[\n" + ",\n".join(more + text(each, more) for each in value) + f"\n{indent}]"
    parts = (f"{more}{json.dumps(key)}: {text(each, more)}" for key, each in value.items())
    return "{\n" + ",\n".join(parts) + f"\n{indent}}}"


def differences(old: Any, new: Any, where: str = "") -> Iterator[tuple[str, str]]:
    """Yield what differs between what is written down and what there is: ``gone``, ``new`` or ``different``; where."""
    if isinstance(old, dict) and isinstance(new, dict):
        if isinstance(fields := old.get("fields"), list):
            # A field that is a property now can still be read: it is the old name of another.
            old = {**old, "fields": [each for each in fields if new.get(each) != "property"]}
        for key in sorted({*old, *new}):
            at = f"{where} / {key}" if where else key
            if key not in new:
                yield "gone", at
            elif key not in old:
                yield "new", at
            else:
                yield from differences(old[key], new[key], at)
    elif isinstance(old, list) and isinstance(new, list) and all(isinstance(each, str) for each in [*old, *new]):
        yield from (("gone", f"{where} / {each}") for each in old if each not in new)
        yield from (("new", f"{where} / {each}") for each in new if each not in old)
        if [each for each in new if each in old] != [each for each in old if each in new]:
            yield "different", f"{where}: the order"
    elif old != new:
        yield "different", f"{where}: {json.dumps(old)} is now {json.dumps(new)}"


def _settings() -> dict[str, Any]:
    return {
        field.name: {
            "type": str(field.type),
            "default": field.default if field.default is not dataclasses.MISSING else _made(field.default_factory),
            "per job": field.metadata["per_job"],
            "least": field.metadata["least"],
            "choices": list(field.metadata["choices"]),
            "secret": not field.repr,
        }
        for field in dataclasses.fields(Settings)
    }


def _made(factory: Any) -> Any:
    return factory()


def _metrics() -> dict[str, Any]:
    return {
        metric.exposed_name: {
            "kind": metric.kind,
            "name": metric.full_name,
            "labels": {label: list(values) for label, values in metric.labels.items()},
            "buckets": list(metric.buckets),
        }
        for metric in metrics.METRICS.values()
    }


def _history_events() -> dict[str, list[str]]:
    """Events and their details, as their page has them, which another test compares with the code."""
    page = (ROOT / "docs" / "reference" / "history.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \|.*\|(.*)\|$", page, re.MULTILINE)
    return {event: re.findall(r"`(\w+)`", details) for event, details in rows}


def _log_events() -> Iterator[str]:
    """What ``claude_batch_event`` may be in a line of the log, beside the events of the history."""
    for tree in _sources():
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == "fields":
                for argument in node.args[:2]:
                    if isinstance(argument, ast.Constant) and isinstance(argument.value, str):
                        yield argument.value


def _problems() -> set[str]:
    """The ids of problems: all texts in the package that are one, or the number of one."""
    texts = (node.value for tree in _sources() for node in ast.walk(tree) if isinstance(node, ast.Constant))
    matches = (re.fullmatch(r"(?:claude_batch\.)?([EW]\d{3})", text) for text in texts if isinstance(text, str))
    return {f"claude_batch.{match[1]}" for match in matches if match}


def _sources() -> Iterator[ast.Module]:
    for path in sorted((ROOT / "claude_batch_tasks").rglob("*.py")):
        yield ast.parse(path.read_text())


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, Any]]:
    context = click.Context(command)
    # Celery's `-A` comes before `claude-batch`; in our own program it is an option of ours.
    yield path, {_spelled(param): _param(param) for param in command.params}
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from _commands(found, f"{path} {name}")


def _spelled(param: click.Parameter) -> str:
    if isinstance(param, click.Argument):
        return param.make_metavar(click.Context(click.Command("any"))) if param.metavar is None else param.metavar
    return ", ".join([*param.opts, *param.secondary_opts])


def _param(param: click.Parameter) -> dict[str, Any]:
    shown: dict[str, Any] = {"type": param.type.name, "required": param.required, "envvar": param.envvar}
    if isinstance(param.type, click.Choice):
        shown["choices"] = [str(choice) for choice in param.type.choices]
    if isinstance(param, click.Option):
        shown |= {"flag": param.is_flag, "multiple": param.multiple}
    if isinstance(param.default, (str, int, float)) and not isinstance(param.default, bool):
        shown["default"] = param.default
    return {name: value for name, value in shown.items() if value not in (None, False)}


def _signals() -> dict[str, list[str]]:
    found = {name: value for name, value in vars(signals).items() if isinstance(value, Signal)}
    assert all(name == signal.name for name, signal in found.items())
    return {name: sorted(signal.providing_args) for name, signal in found.items()}


def _python() -> dict[str, Any]:
    """Each name of ``__all__`` that is a class or a function, with what can be called or read."""
    names = (name for name in claude_batch_tasks.__all__ if name not in ("ask", "errors", "signals", "run_batch"))
    return {name: _value(getattr(claude_batch_tasks, name)) for name in sorted(names)}


def _value(value: Any) -> Any:
    if is_typeddict(value):
        return {"keys": sorted(value.__required_keys__ | value.__optional_keys__)}
    if isinstance(value, type):
        names = getattr(value, "__struct_fields__", ()) or tuple(getattr(value, "__dataclass_fields__", ()))
        members = {name: found for name, found in inspect.getmembers(value) if _is_public(name, value)}
        shown = {name: _value(member) for name, member in members.items() if name not in names}
        return {"fields": list(_fields(value)), **shown} if names else {"()": _parameters(value), **shown}
    if callable(value):
        return _parameters(value)
    if isinstance(value, dict):
        return sorted(value)
    return "property" if isinstance(value, property) else type(value).__name__


def _fields(cls: type) -> Iterator[str]:
    """What a struct or a dataclass has, in the order in which it takes them by position."""
    missing = (msgspec.NODEFAULT, dataclasses.MISSING)
    for each in dataclasses.fields(cls) if dataclasses.is_dataclass(cls) else msgspec.structs.fields(cls):
        default = each.default if each.default_factory in missing else each.default_factory()
        yield each.name if default in missing else f"{each.name}={default!r}"


def _is_public(name: str, cls: type) -> bool:
    """Whether users see it as ours: what a base of somebody else's has is not."""
    ours = (base for base in cls.__mro__ if base.__module__.startswith("claude_batch_tasks"))
    return not name.startswith("_") and any(name in vars(base) for base in ours)


def _parameters(function: Any) -> list[str]:
    """What a function takes, as it is written: ``/`` and ``*`` among it, defaults in full, no types."""
    signature = inspect.signature(function)
    bare = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in signature.parameters.items()
        if name != "self"
    ]
    text = str(signature.replace(parameters=bare, return_annotation=inspect.Signature.empty))
    return re.split(r", (?![^(\[]*[)\]])", text[1:-1]) if text != "()" else []


def _fixtures() -> Iterator[str]:
    """What the pytest plugin gives to tests."""
    [plugin] = [
        path for path in (ROOT / "claude_batch_tasks").rglob("pytest_plugin.py") if path.parent.name == "simulator"
    ]
    for node in ast.parse(plugin.read_text()).body:
        decorators = node.decorator_list if isinstance(node, ast.FunctionDef) else []
        if isinstance(node, ast.FunctionDef) and any("fixture" in ast.unparse(each) for each in decorators):
            yield node.name


def _plain(value: Any) -> Any:
    if isinstance(value, (tuple, set, frozenset)):
        return list(value)
    if isinstance(value, dict):
        return dict(value)
    raise TypeError(f"{value!r} cannot be written down")
