"""How much of an answer is read, and when an answer must be streamed."""

from __future__ import annotations

from typing import NamedTuple

from claude_batch_tasks.rules.classification import Endpoint

#: The SDK refuses to wait for longer answers without a stream: at 128,000 tokens an hour they take over ten minutes.
LONGEST_UNSTREAMED = 21_333
_SOONER_STREAMED = {"claude-opus-4-0", "claude-opus-4-20250514", "claude-4-opus-20250514", "claude-opus-4-1-20250805"}
_SLOW_UNSTREAMED = 8_192

#: The longest answer of the Messages API; longer ones (the beta ``output-300k``) exist in batches only.
LONGEST_MESSAGE = 128_000

#: Bytes of one answer, unpacked: of the Messages API, or a line of a result file. What Claude has said goes into the
#: next request of a conversation, and that may have 32 MB.
ANSWER_BYTES = 32_000_000

#: Of such an answer as server-sent events: 128,000 tokens in an event each are 20 MB.
STREAM_BYTES = 64_000_000

#: Of any other answer: a page of a listing has 1,000 batches of under 1,000 bytes each.
LISTING_BYTES = 8_000_000

#: Of an error's answer; what is over is left unread.
ERROR_BYTES = 1_000_000

#: Values in one answer of the Messages API, about: a hundred bytes each once they are Python's.
ANSWER_VALUES = 2_000_000

#: Seconds an answer may take from its first byte to its last. 128,000 tokens take an hour, and 100,000 of the longest
#: answers some hours.
LOOK_SECONDS = 600
ANSWER_SECONDS = 4 * 3600
DOWNLOAD_SECONDS = 12 * 3600

#: Lines of a result file beyond one for each request, before it is read no further.
SURPLUS_LINES = 10_000

#: Pages of a listing: of a million batches.
PAGES = 1000


class BodyLimit(NamedTuple):
    """How much of an answer is read."""

    size: int | None
    """Bytes, unpacked; None: as many as there are, one after the other."""
    seconds: float
    """From its first byte to its last."""
    cut: bool = False
    """What is over is left unread, and no error."""


def body_limit(endpoint: Endpoint, *, stream: bool = False) -> BodyLimit:
    """How much of an endpoint's answer is read."""
    if endpoint == "results":
        return BodyLimit(None, DOWNLOAD_SECONDS)
    if endpoint == "messages":
        return BodyLimit(STREAM_BYTES if stream else ANSWER_BYTES, ANSWER_SECONDS)
    return BodyLimit(LISTING_BYTES, LOOK_SECONDS)


def streams(model: str, max_tokens: int) -> bool:
    """Whether an answer may take so long that it must be streamed."""
    return max_tokens > (_SLOW_UNSTREAMED if model in _SOONER_STREAMED else LONGEST_UNSTREAMED)
