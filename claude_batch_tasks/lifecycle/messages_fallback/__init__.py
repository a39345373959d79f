"""The requests of a batch that go through the Messages API.

They wait in one queue. A few messages, the batch's senders, take from it the requests that may be sent now: those that
the account's limits, the calls in flight on it and the job's budget allow. One step of the store checks all of these
and records that the request is about to be sent. A sender makes several calls at the same time. When nothing may be
sent, it releases its worker and comes back later.
"""

from __future__ import annotations

from claude_batch_tasks.lifecycle.messages_fallback.sender import Sender as Sender
from claude_batch_tasks.lifecycle.messages_fallback.senders import (
    all_ended as all_ended,
    end_unaccounted_requests as end_unaccounted_requests,
    fail_abandoned_calls as fail_abandoned_calls,
    list_senders as list_senders,
    send_rest as send_rest,
)
