"""The delivery of answers: the ends of asks, calls of a job's ``on_result``, and what is known of how they ended.

A call is a message of the application's own task. It carries the positions of its requests in a header of ours. A
worker that has this package reads that header when the task ends, and records it in the store.
"""

from __future__ import annotations

from claude_batch_tasks.lifecycle.delivery.announcing import (
    announce_results as announce_results,
    is_wanted as is_wanted,
    redeliver_results as redeliver_results,
)
from claude_batch_tasks.lifecycle.delivery.confirming import (
    record_activity as record_activity,
    record_failure as record_failure,
    record_success as record_success,
)
from claude_batch_tasks.lifecycle.delivery.hooks import check_hook as check_hook, encode_hook as encode_hook
from claude_batch_tasks.lifecycle.delivery.tracking import HEADER as HEADER
from claude_batch_tasks.lifecycle.pools.ending import fail_open_asks as fail_open_asks
