"""How much of an answer is read, and when an answer must be streamed."""

from __future__ import annotations

from typing import NamedTuple

from claude_batch_tasks.rules.classification import Endpoint

#: Output tokens above which the SDK refuses to wait for an answer without a stream: at 128,000 tokens an hour such an
#: answer takes over ten minutes.
LONGEST_UNSTREAMED = 21_333
_SOONER_STREAMED = {"claude-opus-4-0", "claude-opus-4-20250514", "claude-4-opus-20250514", "claude-opus-4-1-20250805"}
_SLOW_UNSTREAMED = 8_192

#: Output tokens of the longest answer of the Messages API; longer ones (the beta ``output-300k``) exist in batches
#: only.
LONGEST_MESSAGE = 128_000

#: Bytes of one unpacked answer of the Messages API, or of one line of a result file. What Claude has said goes into the
#: next request of a conversation, which may have 32 MB.
ANSWER_BYTES = 32_000_000

#: Bytes of such an answer as server-sent events: 128,000 tokens with one event each are 20 MB.
STREAM_BYTES = 64_000_000

#: Bytes of any other answer: a page of a list call has 1,000 batches of under 1,000 bytes each.
LIST_BYTES = 8_000_000

#: Bytes of an error's answer; the rest is not read.
ERROR_BYTES = 1_000_000

#: Approximate number of values in one answer of the Messages API: as Python objects they take a hundred bytes each.
ANSWER_VALUES = 2_000_000

#: Seconds that an answer may take from its first byte to its last: of a poll, of a message, of a result file. 128,000
#: tokens take an hour, and a file with 100,000 of the longest answers takes some hours.
CALL_SECONDS = 600
ANSWER_SECONDS = 4 * 3600
DOWNLOAD_SECONDS = 12 * 3600

#: Lines of a result file beyond one for each request, after which we stop reading it.
SURPLUS_LINES = 10_000

#: Pages of one list call at most: enough for a million batches.
PAGES = 1000


class BodyLimit(NamedTuple):
    """How much of an answer is read."""

    size: int | None
    """Unpacked bytes; None: no limit, because the body is read chunk by chunk."""
    seconds: float
    """Seconds from the first byte to the last."""
    cut: bool = False
    """Whether the rest is left unread instead of being an error."""


def body_limit(endpoint: Endpoint, *, stream: bool = False) -> BodyLimit:
    """Return how much of an endpoint's answer is read."""
    if endpoint == "results":
        return BodyLimit(None, DOWNLOAD_SECONDS)
    if endpoint == "messages":
        return BodyLimit(STREAM_BYTES if stream else ANSWER_BYTES, ANSWER_SECONDS)
    return BodyLimit(LIST_BYTES, CALL_SECONDS)


def must_stream(model: str, max_tokens: int) -> bool:
    """Return whether an answer may take so long that it must be streamed."""
    return max_tokens > (_SLOW_UNSTREAMED if model in _SOONER_STREAMED else LONGEST_UNSTREAMED)
