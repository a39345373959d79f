"""The atomic steps of the Redis store: Lua scripts, each loaded into the server once and called by its hash.

A script writes a name of ``keys``, a number of ``rules`` or one of the words below as ``JOB.state``, ``RULE.REFILL`` or
``TAKEN.wait``. When it is read from its file, the text or number takes the place of the name: that costs nothing when
the script runs.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

from claude_batch_tasks import rules
from claude_batch_tasks.pool_records import AskPlace, PoolRecord
from claude_batch_tasks.records import JobRecord, Lease, Taken
from claude_batch_tasks.store.redis import keys

_FOLDER = Path(__file__).parent
#: A name, or a comment, which is left as it is.
_NAME = re.compile(r"--.*|\b([A-Z][A-Z_]*)\.(\w+)\b")

#: Words that scripts get as arguments: how to claim a batch id, how to postpone a batch, what follows a step.
FORCE, RELEASE, TAKE = "force", "release", "take"
WOKEN, LISTED, ALONE = "woken", "listed", "alone"
WAIT, THROUGH = "wait", "through:"

#: How the machine that wrote a number in bytes orders them: the highest first. ``sys.byteorder`` says so.
BIG = "big"

#: What happened to calls of ``on_result``.
CALLED, DELIVERED, FAILED, ACTIVE = "called", "delivered", "failed", "active"


def _each(words: tuple[str, ...]) -> dict[str, str]:
    return {word: word for word in words}


#: What names in scripts stand for, beside fields.
WORDS: dict[str, dict[str, str]] = {
    "CLAIM": _each((FORCE, RELEASE)),
    "POSTPONED": _each((WOKEN, LISTED)),
    "BYTE_ORDER": _each((BIG,)),
    "NEXT": {"wait": WAIT, "through": f"^{THROUGH}(.*)$"},
    "BUDGET": _each(("yes", "wait", "no", "lost")),
    "DELIVERY": _each((CALLED, DELIVERED, FAILED, ACTIVE)),
    "LEASED": _each(get_args(get_type_hints(Lease)["state"])),
    "TAKEN": _each(get_args(get_type_hints(Taken)["state"])),
    "POOL_STATE": _each(get_args(get_type_hints(PoolRecord)["state"])),
    "ASK_STATE": _each(get_args(get_type_hints(AskPlace)["state"])),
    #: As records have them: in JSON.
    "STATE": {state: f'"{state}"' for state in get_args(get_type_hints(JobRecord)["state"])},
}

#: Numbers of the decisions that scripts apply.
RULES = {name: value for name, value in vars(rules).items() if isinstance(value, (int, float))}

_ALL: dict[str, dict[str, Any]] = {"RULE": RULES, **keys.FIELDS, **keys.PLACES, **keys.PARTS, **WORDS}


@functools.cache
def script_text(*names: str) -> str:
    """Return the files of these names one after the other, as one script, with values in the place of names.

    Raises:
        KeyError: one of them has a name that stands for nothing.
    """
    return "".join(with_values((_FOLDER / f"{name}.lua").read_text()) for name in names)


def with_values(text: str) -> str:
    """Return a script with values in the place of its names."""
    return _NAME.sub(lambda found: _literal(_ALL[found[1]][found[2]]) if found[1] else found[0], text)


def _literal(value: Any) -> str:
    return f"'{value}'" if isinstance(value, str) else repr(value).removesuffix(".0")


class Script:
    """An attribute of a part of the store: the script made of these files, to be called with ``keys`` and ``args``."""

    def __init__(self, *names: str) -> None:
        self.names = names

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, part: Any, owner: type) -> Any:
        if part is None:
            return self
        # From now on found in the instance, which comes first.
        return part.__dict__.setdefault(self._name, part._redis.register_script(script_text(*self.names)))
