"""Smaller batches, at half the price: what failed is sent again, and answers that are not complete are repaired.

Rounds are counted from 0, the batch as it was submitted. Each round has wire ids of its own, so that rows say to which
round they belong. The outcome of a request is its row in the last round that has one.
"""

from __future__ import annotations

from claude_batch_tasks.lifecycle.resubmission.positions import (
    final_positions as final_positions,
    holds_request as holds_request,
    nonce_of_round as nonce_of_round,
    positions_in_batch as positions_in_batch,
    positions_left as positions_left,
)
from claude_batch_tasks.lifecycle.resubmission.rounds import (
    begin_round as begin_round,
    count_repairs as count_repairs,
    count_sources as count_sources,
    merge_rows as merge_rows,
    start_round as start_round,
)
from claude_batch_tasks.lifecycle.resubmission.row_judging import (
    complete_choice as complete_choice,
    expect_rows as expect_rows,
    expect_rows_again as expect_rows_again,
    stored_index as stored_index,
)
from claude_batch_tasks.lifecycle.resubmission.sent_requests import (
    read_chunks as read_chunks,
    read_params_left as read_params_left,
    read_params_sent as read_params_sent,
    read_staged as read_staged,
)
