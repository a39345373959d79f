"""The store's keys, their types, and the fields and members in them, as workers of several releases share them.

What a release has written, the next one reads, and both write at the same time while workers are replaced: no key and
no field may get another name, type or form. Words in capitals stand for what differs (``PLACES``). ``added`` came
after 0.2.0, whose workers leave it alone.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

#: What the words in capitals stand for. Of a job id's characters only those that Celery's have.
PLACES = {
    "JOB": r"[0-9a-f]{8}-[0-9a-f-]{27}",
    "NONCE": r"[0-9a-f]{16}",
    #: Which batch of a job, which download of it, which turn or round of its life, and which of its senders.
    "BATCH": r"\d+",
    "ATTEMPT": r"\d+",
    "TURN": r"\d+",
    "LANE": r"\d+",
    #: A request's position in its batch, with as many digits as a million has, and without.
    "PLACE": r"\d{7}",
    "NUMBER": r"\d+",
    #: One of the parts of an index of custom_ids.
    "PART": r"\d{1,3}",
    #: What an index calls a unit: batch and lane, where it has them, and the job.
    "UNIT": r"\d*:\d*:[0-9a-f]{8}-[0-9a-f-]{27}",
    "BATCH_ID": r"msgbatch_\w+",
    "ACCOUNT": r"[0-9a-f]{32}",
    "MODEL": r"[\w.-]+",
    #: Of a batch: its model and the digits of the number of its requests.
    "KIND": r"[\w.-]+:\d",
    "LIMIT": r"requests|tokens|input-tokens|output-tokens",
    #: As it stands in the job's record.
    "QUEUE": r'null|"[\w.-]*"|',
    "WORKER": r".+@[^:]+",
    #: An ask, what asks of one pool have in common, and the name of a pool.
    "ASK": r".+",
    "COMMON": r".*",
    "POOL": r".+",
    "SECONDS": r"[\d.e+]+",
    "START": r"\d+",
    "TOKEN": r"[0-9a-z]+",
    "QUESTION": r"jobs|revoked:.*|restore:.*|told:.*",
}


class Key(NamedTuple):
    """What there is under a key: its type, and the names in it: fields of a hash, members of a set."""

    kind: str
    names: frozenset[str] = frozenset()
    added: frozenset[str] = frozenset()
    """Names that came after 0.2.0."""
    asked: frozenset[str] = frozenset()
    """Names that are asked for and are not there: what asks does not know which kind of hash it has."""
    since: str = "0.2.0"
    """``later``: the key came after 0.2.0."""


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: What a lease and a message that seems lost leave in the hash of what they are for.
_LEASE = "position owner until resent resent_at missed"
_BROKEN = "step_failures step_failure"

_JOB = Key(
    "hash",
    _words(
        """
        nonce requests batches models client queue options canvas account organization adopted sealed_by state
        submitted_at started_at resumed_at ended_at cancel_requested admitted through fallback_granted on_result
        stopped summary error
        forgotten
        """
        + " ".join(f"lease:{name}" for name in f"failures due_at {_LEASE}".split())
    ),
    _words(
        """
        route headers workspace identity not_sent on_result_error expires_at
        delivery_errors delivery_at defaults limited
        parent sources retries
        label metadata model output
        pool answer_by direct
        money
        """
        + " ".join(f"lease:{name}" for name in _BROKEN.split())
    ),
    _words("count lease:flights"),
)

_BATCH = Key(
    "hash",
    _words(
        """
        first count body_bytes least most state turn rounds smaller smaller_bytes intent_at create_not_found
        unanswered_at ambiguous_at create_looks rejected_ids batch_id provisional created_at expires_at cancel_sent
        sighting absences told counts looks not_found failures due_at task_id attempt attempts_before published usage
        costs outcome granted messages_out first_lane eligible open final done made_room resubmitted answered skipped
        note error
        flights
        """
        + _LEASE
    ),
    _words(
        """
        refusal refused_since organization workspace unidentified api_ahead not_before unpriced stored rows read_only
        failed_types failed_types_of processed incomplete incomplete_examples repairs
        again not_sent_again cut_short
        retry:NUMBER
        """
        + _BROKEN
    ),
    _words("nonce"),
)

_LANES = Key(
    "hash",
    frozenset(f"LANE:{name}" for name in f"failures due_at task_id {_LEASE}".split()),
    frozenset(f"LANE:{name}" for name in f"missing_since {_BROKEN}".split()),
    _words("LANE:flights"),
)

#: Of a job.
OF_JOB = {
    "job": _JOB,
    "index": Key("hash", _words("PART")),
    "history": Key("list"),
    "history:last": Key("list"),
    "money": Key("hash", _words("BATCH:TURN spent reserved fallback_spent fallback_reserved"), _words("begun")),
    "staging:NONCE:index": Key("hash", _words("PART")),
    **{f"staging:NONCE:BATCH:{name}": Key("list") for name in ("body", "ids", "sizes")},
    "batch:BATCH": _BATCH,
    #: Asked for where a job is meant, which has no such hash.
    "batch:None": Key("hash", asked=_words("flights")),
    "batch:BATCH:body": Key("list"),
    "batch:BATCH:ids": Key("list"),
    "batch:BATCH:sizes": Key("list"),
    "batch:BATCH:rows:ATTEMPT": Key("list"),
    "batch:BATCH:rows:ATTEMPT:TOKEN": Key("list", since="later"),
    "batch:BATCH:pieces:ATTEMPT": Key("string"),
    "batch:BATCH:eligible:ATTEMPT": Key("string"),
    "batch:BATCH:again:ATTEMPT": Key("string", since="later"),
    "batch:BATCH:index:ATTEMPT": Key("hash", _words("PART")),
    "batch:BATCH:lanes": _LANES,
    "batch:BATCH:to_send": Key("zset", _words("PLACE")),
    "batch:BATCH:sent": Key("hash", _words("PLACE")),
    "batch:BATCH:refused": Key("hash", _words("PLACE")),
    "batch:BATCH:outcomes": Key("hash", _words("PLACE")),
    "batch:BATCH:announced": Key("string"),
    "pool": Key(
        "hash",
        _words("record key state count withdrawn size opened_at due_at deadline sealing sent"),
        since="later",
    ),
    "pool:asks": Key("list", since="later"),
    "pool:ended": Key("string", since="later"),
    "delivered": Key("string", since="later"),
    "undelivered": Key("string", since="later"),
    "delivered:parts": Key("string", since="later"),
    "batch:BATCH:given_up": Key("set", _words("PLACE"), since="later"),
}

#: By pattern.
KEYS: dict[str, Key] = {
    **{f"claude_batch:{{JOB}}:{name}": key for name, key in OF_JOB.items()},
    "claude_batch:identity": Key("string", since="later"),
    "claude_batch:schema": Key("zset", _words("version least")),
    "claude_batch:moved": Key("string", since="later"),
    "claude_batch:jobs": Key("zset", _words("JOB")),
    "claude_batch:due": Key("zset", _words("UNIT")),
    "claude_batch:waiting": Key("zset", _words("UNIT")),
    "claude_batch:held": Key(
        "zset",
        _words("ACCOUNT ACCOUNT:create ACCOUNT:list ACCOUNT:messages:MODEL"),
        _words("ACCOUNT:no-batches"),
    ),
    "claude_batch:late": Key("string"),
    "claude_batch:pools": Key("zset", _words("JOB"), since="later"),
    "claude_batch:pools:due": Key("zset", _words("JOB"), since="later"),
    "claude_batch:pools:open": Key("hash", _words("COMMON"), since="later"),
    "claude_batch:ask:ASK": Key(
        "hash",
        _words("job_id position asked_at state canvas headers reserved budget withdrawn"),
        since="later",
    ),
    "claude_batch:cost:SECONDS:START:POOL": Key("string", since="later"),
    "claude_batch:deleted:JOB": Key("string"),
    "claude_batch:owner:BATCH_ID": Key("string"),
    "claude_batch:census": Key("string"),
    "claude_batch:census:fresh": Key("string"),
    "claude_batch:restore": Key("zset", _words("JOB"), since="later"),
    "claude_batch:workers": Key("zset", _words("WORKER"), since="later"),
    "claude_batch:worker:WORKER": Key("string", since="later"),
    "claude_batch:first:QUESTION": Key("string", since="later"),
    "claude_batch:doctor:TOKEN": Key("string"),
    "claude_batch:account:ACCOUNT:flights": Key("hash", _words("UNIT")),
    "claude_batch:account:ACCOUNT:asked": Key("hash", _words("QUEUE:member QUEUE:at QUEUE:in_vain")),
    "claude_batch:account:ACCOUNT:listing": Key("string"),
    "claude_batch:account:ACCOUNT:listed": Key("hash", _words("BATCH_ID taken_at since")),
    "claude_batch:account:ACCOUNT:failed": Key("string"),
    "claude_batch:account:ACCOUNT:past": Key("list"),
    "claude_batch:past:KIND": Key("list", since="later"),
    "claude_batch:pace:ACCOUNT:messages:MODEL": Key(
        "hash",
        _words(
            "sent input output synced at allowed cut_at in_a_row usual_output left:LIMIT limit:LIMIT",
        ),
    ),
    "claude_batch:pace:ACCOUNT:messages:MODEL:calls": Key("zset", _words("BATCH:NUMBER:JOB")),
}

_WORD = re.compile(r"(?<![A-Z_])(" + "|".join(sorted(PLACES, key=len, reverse=True)) + r")(?![A-Z_])")


def _regex(pattern: str) -> re.Pattern[str]:
    parts = _WORD.split(pattern)
    return re.compile("".join(f"(?:{PLACES[part]})" if n % 2 else re.escape(part) for n, part in enumerate(parts)))


def _is_open(name: str) -> bool:
    """Return whether a name has words in capitals; those that have none are tried first."""
    return _WORD.search(name) is not None


_KEYS = {pattern: _regex(pattern) for pattern in KEYS}
_NAMES = {
    pattern: {name: _regex(name) for name in sorted({*key.names, *key.added, *key.asked}, key=_is_open)}
    for pattern, key in KEYS.items()
}


def pattern_of(key: str) -> str | None:
    """Return the pattern of a key; None: there is none for it."""
    return next((pattern for pattern, regex in _KEYS.items() if regex.fullmatch(key)), None)


def name_in(pattern: str, name: str) -> str | None:
    """Return what the table calls a field or a member of such a key; None: it does not know it."""
    return next((known for known, regex in _NAMES[pattern].items() if regex.fullmatch(name)), None)


#: Values that several releases read and write: a type, a regular expression for what is not JSON, and for JSON what is
#: in it: of an object the names (one with a ``?`` may be absent, ``*``: any), of an array ``[each]`` or ``(first,
#: second, ...)``, which may have more at its end.
_TEXT, _NUMBER, _MAYBE, _COUNTS = str, (int, float), (int, float, type(None)), {"*": int}
_EVENT = {"at": _TEXT, "event": _TEXT, "batch": (int, type(None)), "text": _TEXT, "details": {"*": object}}
_TALLY = {
    "outcome": str,
    "error_type": (str, type(None)),
    "count": int,
    "open": int,
    "again?": int,
    "example": (int, type(None)),
}


class OrNull(NamedTuple):
    """The form of a value that may be null."""

    form: Any


_AGAIN = {
    "attempt": int,
    "count": int,
    "left": int,
    "outcomes": _COUNTS,
    "incomplete": _COUNTS,
    "kinds": _COUNTS,
    "options": {
        "retries": int,
        "refusal_models": [str],
        "max_tokens_limit": (int, type(None)),
        "continue_paused": int,
        "reask": int,
        "long_output": bool,
        "max_bytes": (int, type(None)),
    },
}
_ROUND = {
    "batch_id": (str, type(None)),
    "attempt": int,
    "counts": _COUNTS,
    "usage": _COUNTS,
    "costs": {"*": (str, type(None))},
    "eligible": int,
    "open": _COUNTS,
    "unpriced?": _COUNTS,
    "failed_types?": [_TALLY],
    "incomplete?": _COUNTS,
    "again?": OrNull(_AGAIN),
    "created_at?": _MAYBE,
}
_UNIT = re.compile(PLACES["UNIT"])
_STATES = "staged creating in_progress canceling ended fetched unsent lost failed"

FORMS: dict[str, Any] = {
    **{
        f"claude_batch:{{JOB}}:{name}": form
        for name, form in {
            "history": _EVENT,
            "history:last": _EVENT,
            "job / state": re.compile('"(staged|running|completed|canceled|failed|revoked)"'),
            "job / options": {"*": object},
            "job / canvas": _TEXT,
            "job / cancel_requested": bool,
            "job / metadata": {"*": str},
            "job / submitted_at": _NUMBER,
            "job / through": int,
            "job / sources": [{"job_id": str, "batch": int, "count": int}],
            "job / retries": [{"job_id": str, "taken": _COUNTS}],
            "job / lease:position": re.compile(r"\d+"),
            "job / lease:owner": re.compile(r".+/[0-9a-f]{12}"),
            "job / lease:until": re.compile(r"\d+\.\d{3}"),
            "money / BATCH:TURN": re.compile(r"(settled )?\d+"),
            "pool / state": re.compile("open|closed|parked|sealed|divided"),
            "pool / record": {
                "name": str,
                "client": str,
                "options": {"*": object},
                "mode": str,
                **dict.fromkeys(("queue", "route", "deadline", "search"), object),
                "*": object,
            },
            "pool / key": re.compile(r"[0-9a-f]{32}|"),
            "pool / deadline": re.compile(r"\d+\.\d+|"),
            **{f"pool / {name}": int for name in ("count", "withdrawn", "size", "sealing", "sent")},
            **{f"pool / {name}": float for name in ("opened_at", "due_at")},
            "batch:BATCH / state": re.compile(f'"({"|".join(_STATES.split())})"'),
            "batch:BATCH / rounds": [_ROUND],
            "batch:BATCH / counts": _COUNTS,
            "batch:BATCH / told": _COUNTS,
            "batch:BATCH / due_at": _MAYBE,
            "batch:BATCH / failed_types": [_TALLY],
            "batch:BATCH / failed_types_of": [int],
            "batch:BATCH / again": OrNull(_AGAIN),
            "batch:BATCH / done": bool,
            "batch:BATCH / rejected_ids": [_TEXT],
            "batch:BATCH / position": re.compile(r"\d+"),
            "batch:BATCH / flights": re.compile(r"claude_batch:account:[0-9a-f]{32}:flights"),
            "batch:BATCH:sizes": int,
            "batch:BATCH:sent / PLACE": re.compile(r"\d+ \d*"),
            "batch:BATCH:refused / PLACE": re.compile(r"\d+"),
        }.items()
    },
    "claude_batch:owner:BATCH_ID": _UNIT,
    "claude_batch:pools:open / COMMON": re.compile(PLACES["JOB"]),
    "claude_batch:ask:ASK / job_id": re.compile(PLACES["JOB"]),
    "claude_batch:ask:ASK / state": re.compile("succeeded|failed|revoked"),
    "claude_batch:ask:ASK / asked_at": _NUMBER,
    "claude_batch:ask:ASK / canvas": {"*": object},
    "claude_batch:ask:ASK / headers": {"*": object},
    "claude_batch:ask:ASK / budget": re.compile(r"[\d.e+]+:\d+:.+"),
    **{f"claude_batch:ask:ASK / {name}": int for name in ("position", "reserved", "withdrawn")},
    "claude_batch:census": [(_TEXT, {"*": str}, _NUMBER)],
    "claude_batch:account:ACCOUNT:flights / UNIT": (_TEXT, _NUMBER, _MAYBE, int, _NUMBER, _NUMBER, _MAYBE),
    "claude_batch:account:ACCOUNT:past": (int, _NUMBER),
    "claude_batch:past:KIND": (int, _NUMBER),
    "claude_batch:account:ACCOUNT:asked / QUEUE:member": _UNIT,
}


def has_form(value: str | bytes | float, form: Any) -> bool:
    """Return whether a value in the store is of a form."""
    text = value.decode() if isinstance(value, bytes) else str(value)
    if isinstance(form, re.Pattern):
        return form.fullmatch(text) is not None
    return _is_of(json.loads(text), form)


def _is_of(value: Any, form: Any) -> bool:
    if isinstance(form, OrNull):
        return value is None or _is_of(value, form.form)
    if isinstance(form, list):
        return isinstance(value, list) and all(_is_of(each, form[0]) for each in value)
    if isinstance(form, tuple) and not all(isinstance(each, type) for each in form):
        fits = isinstance(value, list) and len(value) >= len(form)
        return fits and all(_is_of(each, own) for each, own in zip(value, form, strict=False))
    if isinstance(form, dict):
        needed = {name for name in form if name != "*" and not name.endswith("?")}
        known = {name.removesuffix("?"): own for name, own in form.items()}
        fits = isinstance(value, dict) and needed <= value.keys()
        return fits and all(_is_of(each, known.get(name, form.get("*", ()))) for name, each in value.items())
    return isinstance(value, form)


class Seen(NamedTuple):
    """What was found of the table, and beside it. An entry is a pattern, or a pattern and a name in such keys."""

    entries: set[str]
    strange: list[str]
    """Keys, types and names that the table does not have."""


def see(found: Iterable[tuple[str, str, Iterable[str]]]) -> Seen:
    """Compare keys, with their types and the names in them, with the table; an empty type is any."""
    seen = Seen(set(), [])
    for key, kind, names in found:
        pattern = pattern_of(key)
        if pattern is None:
            seen.strange.append(key)
            continue
        if kind not in ("", KEYS[pattern].kind):
            seen.strange.append(f"{key} is a {kind}")
        if kind:
            seen.entries.add(pattern)
        for name in names:
            known = name_in(pattern, name)
            if known is None:
                seen.strange.append(f"{key} / {name}")
            elif known not in KEYS[pattern].asked:
                seen.entries.add(f"{pattern} / {known}")
    return seen


def strange_values(found: Iterable[tuple[str, str | None, Any]]) -> Iterator[str]:
    """Yield those of some values (key, field or None, value) that are of another form than the table has for them."""
    for key, name, value in found:
        pattern = pattern_of(key)
        if pattern is None:
            continue
        entry = pattern if name is None else f"{pattern} / {name_in(pattern, name)}"
        if entry in FORMS and not has_form(value, FORMS[entry]):
            yield f"{entry}: {value!r}"


def entries(*, later: bool) -> set[str]:
    """Return all entries of the table, or those of 0.2.0."""
    found = set()
    for pattern, key in KEYS.items():
        if later or key.since == "0.2.0":
            names = key.names | (key.added if later else frozenset())
            found |= {pattern, *(f"{pattern} / {name}" for name in names)}
    return found
