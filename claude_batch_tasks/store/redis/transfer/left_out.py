"""The keys in Redis that are not copied, and why; ``keys`` has all there are."""

from __future__ import annotations

from typing import Final

_UNSENT: Final = "no job was made of it: who submits it gets an error, and submits it again"
_MADE_AGAIN: Final = "workers make it again"
_ASKED_AGAIN: Final = "the API is asked for it again"
_OWN: Final = "each store has its own"

LEFT_OUT: Final = {
    "{JOB}:staging:NONCE:index": _UNSENT,
    "{JOB}:staging:NONCE:BATCH:body": _UNSENT,
    "{JOB}:staging:NONCE:BATCH:ids": _UNSENT,
    "{JOB}:staging:NONCE:BATCH:sizes": _UNSENT,
    "{JOB}:batch:BATCH:rows:ATTEMPT:TOKEN": "a download that had not ended is made again",
    "schema": _OWN,
    "moved": _OWN,
    "late": "nothing is late where nothing runs",
    "census": _MADE_AGAIN,
    "census:fresh": _MADE_AGAIN,
    "workers": "none runs",
    "worker:WORKER": "none runs",
    "first:QUESTION": "somebody asks again",
    "doctor:TOKEN": "it is gone at once",
    "account:ACCOUNT:asked": "it is about messages of list calls, of which none is made now",
    "account:ACCOUNT:listing": "nobody makes a list call",
    "account:ACCOUNT:listed": _ASKED_AGAIN,
    "account:ACCOUNT:failed": _ASKED_AGAIN,
    "pace:ACCOUNT:messages:MODEL": "the next answers say what is left of a rate limit",
    "pace:ACCOUNT:messages:MODEL:calls": "no call is in flight",
}
