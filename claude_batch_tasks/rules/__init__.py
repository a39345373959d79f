"""Decisions, as pure functions: no I/O, no clock and no randomness of their own.

Times are UTC epoch seconds, durations are seconds. ``rand`` is a number in [0, 1) drawn by the caller.
"""

from __future__ import annotations

from claude_batch_tasks.rules.budget import (
    RESERVED_WAIT as RESERVED_WAIT,
    affordable_twice as affordable_twice,
    judge_spending as judge_spending,
)
from claude_batch_tasks.rules.calls import (
    MAX_REFUSED_PAUSE as MAX_REFUSED_PAUSE,
    OUTPUT_SHARE as OUTPUT_SHARE,
    REFILL as REFILL,
    REFUSED_TOGETHER as REFUSED_TOGETHER,
    SLOT_WAIT as SLOT_WAIT,
    RateLimit as RateLimit,
    calls_allowed as calls_allowed,
    calls_need as calls_need,
    refused_pause as refused_pause,
    send_wait as send_wait,
    usual_output as usual_output,
)
from claude_batch_tasks.rules.classification import (
    NO_ROUTE as NO_ROUTE,
    STATUS_OF as STATUS_OF,
    Endpoint as Endpoint,
    classify_answer as classify_answer,
    concerns_account as concerns_account,
    concerns_request as concerns_request,
    is_foreign_refusal as is_foreign_refusal,
    may_pass_by_itself as may_pass_by_itself,
)
from claude_batch_tasks.rules.existence import (
    BATCH_LIFETIME as BATCH_LIFETIME,
    CLOCK_TOLERANCE as CLOCK_TOLERANCE,
    RETENTION as RETENTION,
    TALLY_DOWNLOADS as TALLY_DOWNLOADS,
    clock_offset as clock_offset,
    date_of_answer as date_of_answer,
    judge_not_found as judge_not_found,
)
from claude_batch_tasks.rules.job_progress import (
    DELIVERY_REASONS as DELIVERY_REASONS,
    DELIVERY_SILENCE as DELIVERY_SILENCE,
    PHASES as PHASES,
    BatchPart as BatchPart,
    Estimated as Estimated,
    batch_kind as batch_kind,
    choose_phase as choose_phase,
    estimate_progress as estimate_progress,
    find_stage as find_stage,
    is_delivering as is_delivering,
    states_of as states_of,
)
from claude_batch_tasks.rules.leases import (
    LATENESS_LEFT as LATENESS_LEFT,
    MAX_COPIES as MAX_COPIES,
    MAX_LATENESS as MAX_LATENESS,
    RESENT_JUST_NOW as RESENT_JUST_NOW,
    count_interruptions as count_interruptions,
    lease_state as lease_state,
    next_copy_after as next_copy_after,
    seems_lost as seems_lost,
    usual_lateness as usual_lateness,
)
from claude_batch_tasks.rules.polling import (
    CANCELED_POLL as CANCELED_POLL,
    LIST_CALL_FROM as LIST_CALL_FROM,
    LIST_CALL_PAUSE as LIST_CALL_PAUSE,
    LIST_CALL_SLACK as LIST_CALL_SLACK,
    LIST_CALL_TRIES as LIST_CALL_TRIES,
    MAX_UNCLAIMED_MESSAGES as MAX_UNCLAIMED_MESSAGES,
    MAX_VAIN_POLLS as MAX_VAIN_POLLS,
    POLL_JITTER as POLL_JITTER,
    UNCLAIMED_SECONDS as UNCLAIMED_SECONDS,
    cancel_moment as cancel_moment,
    poll_interval as poll_interval,
    usual_batch_seconds as usual_batch_seconds,
)
from claude_batch_tasks.rules.rate_limits import (
    DEFAULT_PAUSE as DEFAULT_PAUSE,
    FIRST_IN_FLIGHT as FIRST_IN_FLIGHT,
    LONGEST_PAUSE as LONGEST_PAUSE,
    RATE_LIMITS as RATE_LIMITS,
    SENDER_TIME_SLICE as SENDER_TIME_SLICE,
    SENDERS as SENDERS,
    SHORTEST_MESSAGES_PAUSE as SHORTEST_MESSAGES_PAUSE,
    SHORTEST_PAUSE as SHORTEST_PAUSE,
    choose_concurrency as choose_concurrency,
    pause_of_account as pause_of_account,
    pause_of_model as pause_of_model,
    read_rate_limits as read_rate_limits,
    read_retry_after as read_retry_after,
)
from claude_batch_tasks.rules.response_limits import (
    ANSWER_BYTES as ANSWER_BYTES,
    ANSWER_VALUES as ANSWER_VALUES,
    ERROR_BYTES as ERROR_BYTES,
    LONGEST_MESSAGE as LONGEST_MESSAGE,
    PAGES as PAGES,
    STREAM_BYTES as STREAM_BYTES,
    SURPLUS_LINES as SURPLUS_LINES,
    BodyLimit as BodyLimit,
    body_limit as body_limit,
    must_stream as must_stream,
)
from claude_batch_tasks.rules.resubmission import (
    LONG_OUTPUT as LONG_OUTPUT,
    REPAIRS as REPAIRS,
    RESUBMIT_AFTER as RESUBMIT_AFTER,
    Repair as Repair,
    SentAs as SentAs,
    choose_next_attempt as choose_next_attempt,
    choose_repair as choose_repair,
    deserves_resubmission as deserves_resubmission,
    ends_in_time as ends_in_time,
    fit_budget as fit_budget,
    is_same_model as is_same_model,
    may_fall_back as may_fall_back,
    output_limit as output_limit,
    raise_max_tokens as raise_max_tokens,
)
from claude_batch_tasks.rules.retries import (
    DEFAULT_VISIBILITY_TIMEOUT as DEFAULT_VISIBILITY_TIMEOUT,
    EAGER_MAX_FAILING as EAGER_MAX_FAILING,
    EAGER_MAX_WAIT as EAGER_MAX_WAIT,
    EAGER_MIN_WAIT as EAGER_MIN_WAIT,
    EAGER_WAIT_SHARE as EAGER_WAIT_SHARE,
    LAST_POLL_SECONDS as LAST_POLL_SECONDS,
    LONGEST_IN_BROKER as LONGEST_IN_BROKER,
    OUTAGE_RETRY_MAX as OUTAGE_RETRY_MAX,
    longest_countdown as longest_countdown,
    retry_countdown as retry_countdown,
)
from claude_batch_tasks.rules.shared_polls import (
    Asked as Asked,
    asks_for_list_call as asks_for_list_call,
    handed_out_at_most as handed_out_at_most,
    spared_until as spared_until,
)
