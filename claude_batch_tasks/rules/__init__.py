"""Decisions, as pure functions: no I/O, no clock and no randomness of their own.

Times are UTC epoch seconds, durations are seconds. ``rand`` is a number in [0, 1) drawn by the caller.
"""

from __future__ import annotations

from claude_batch_tasks.rules.classification import (
    NO_ROUTE as NO_ROUTE,
    STATUS_OF as STATUS_OF,
    Endpoint as Endpoint,
    classify as classify,
    concerns_account as concerns_account,
    concerns_request as concerns_request,
    is_foreign_refusal as is_foreign_refusal,
    may_pass as may_pass,
)
from claude_batch_tasks.rules.existence import (
    BATCH_LIFETIME as BATCH_LIFETIME,
    EXACT as EXACT,
    RETENTION as RETENTION,
    TALLY_DOWNLOADS as TALLY_DOWNLOADS,
    ahead as ahead,
    date as date,
    not_found_means as not_found_means,
)
from claude_batch_tasks.rules.polling import (
    ALIKE as ALIKE,
    ASKED_IN_VAIN as ASKED_IN_VAIN,
    EARLIEST_SHARE as EARLIEST_SHARE,
    KNOWN_ENOUGH as KNOWN_ENOUGH,
    LISTING_PAUSE as LISTING_PAUSE,
    LISTING_TRIES as LISTING_TRIES,
    LOOK_JITTER as LOOK_JITTER,
    LOOK_SHARE as LOOK_SHARE,
    SENT_AHEAD as SENT_AHEAD,
    SHARE_FROM as SHARE_FROM,
    SHARE_SLACK as SHARE_SLACK,
    UNTAKEN as UNTAKEN,
    look_interval as look_interval,
    usual_seconds as usual_seconds,
)
from claude_batch_tasks.rules.rate_limits import (
    FIRST_IN_FLIGHT as FIRST_IN_FLIGHT,
    HOLD as HOLD,
    LANES as LANES,
    LONGEST_HOLD as LONGEST_HOLD,
    NARROW as NARROW,
    QUICK as QUICK,
    RATES as RATES,
    SHORTEST_HOLD as SHORTEST_HOLD,
    SHORTEST_MESSAGES_HOLD as SHORTEST_MESSAGES_HOLD,
    SLICE as SLICE,
    WIDE as WIDE,
    hold_back as hold_back,
    limits as limits,
    messages_hold as messages_hold,
    retry_after as retry_after,
    width as width,
)
from claude_batch_tasks.rules.response_limits import (
    ANSWER_BYTES as ANSWER_BYTES,
    ANSWER_SECONDS as ANSWER_SECONDS,
    ANSWER_VALUES as ANSWER_VALUES,
    DOWNLOAD_SECONDS as DOWNLOAD_SECONDS,
    ERROR_BYTES as ERROR_BYTES,
    LISTING_BYTES as LISTING_BYTES,
    LONGEST_MESSAGE as LONGEST_MESSAGE,
    LONGEST_UNSTREAMED as LONGEST_UNSTREAMED,
    LOOK_SECONDS as LOOK_SECONDS,
    PAGES as PAGES,
    STREAM_BYTES as STREAM_BYTES,
    SURPLUS_LINES as SURPLUS_LINES,
    BodyLimit as BodyLimit,
    body_limit as body_limit,
    streams as streams,
)
from claude_batch_tasks.rules.resubmission import (
    RESUBMIT_AFTER as RESUBMIT_AFTER,
    USUAL_BATCH as USUAL_BATCH,
    in_time as in_time,
    next_chance as next_chance,
    second_chance as second_chance,
)
from claude_batch_tasks.rules.retries import (
    DEFAULT_VISIBILITY_TIMEOUT as DEFAULT_VISIBILITY_TIMEOUT,
    EAGER_MAX_FAILING as EAGER_MAX_FAILING,
    EAGER_MAX_WAIT as EAGER_MAX_WAIT,
    EAGER_MIN_WAIT as EAGER_MIN_WAIT,
    EAGER_WAIT_SHARE as EAGER_WAIT_SHARE,
    LAST_LOOK as LAST_LOOK,
    LONGEST_HOP as LONGEST_HOP,
    LONGEST_IN_BROKER as LONGEST_IN_BROKER,
    OUTAGE_RETRY_MAX as OUTAGE_RETRY_MAX,
    backoff as backoff,
    longest_hop as longest_hop,
)
