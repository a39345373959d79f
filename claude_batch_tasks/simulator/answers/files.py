"""The reading of a script file: answers, faults and behaviour in YAML or JSON."""

from __future__ import annotations

import importlib
import re
from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from ..script import Answer, Behaviour, Fault, Scenario, Value

_PLACE = re.compile(r"(?P<text>.*) - at `\$\.?(?P<place>.*)`", re.DOTALL)


class Script(Value, frozen=True):
    """The content of a script file. What it does not say is as in the scenario that it is put on."""

    answers: tuple[Answer, ...] = ()
    faults: tuple[Fault, ...] = ()
    behaviour: Behaviour = Behaviour()


def read_script(path: str | Path, scenario: Scenario | None = None) -> Scenario:
    """Return a scenario with what a script file adds to it: `healthy` where none is given.

    Raises:
        ValueError: the file cannot be read, or says something that the simulator does not know. The message names the
            file, the entry and the field.
    """
    scenario = scenario or Scenario()
    content = _load_file(Path(path))
    try:
        script = msgspec.convert(content, Script)
    except msgspec.ValidationError as error:
        raise ValueError(f"{path}: {_name_place(str(error))}") from None
    # Only the fields that are given replace the scenario's.
    fields = {**msgspec.to_builtins(scenario.behaviour), **content.get("behaviour", {})}
    behaviour = msgspec.convert(fields, Behaviour)
    return replace(
        scenario,
        behaviour=replace(behaviour, answers=script.answers + behaviour.answers),
        faults=scenario.faults + script.faults,
    )


def _load_file(path: Path) -> Any:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path}: {error.strerror}") from None
    if path.suffix == ".json":
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            raise ValueError(f"{path}: {error}") from None
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        raise ValueError(f"{path}: YAML needs pyyaml: pip install 'claude-batch-tasks[simulator]'") from None
    try:
        return yaml.safe_load(data) or {}
    except yaml.YAMLError as error:
        raise ValueError(f"{path}: {error}") from None


def _name_place(message: str) -> str:
    """Return msgspec's message with the place first: `answers[1].pauses: Expected int, got str`."""
    match = _PLACE.fullmatch(message)
    if match is None:
        return message.replace("`", "")
    return f"{match['place']}: {match['text']}".replace("`", "")
