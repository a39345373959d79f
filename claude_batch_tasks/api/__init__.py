"""The calls of Anthropic's API, through the official SDK's client. No other package talks to Anthropic.

Every call makes one attempt (``max_retries=0``), and returns a value or raises one of our exceptions. Exceptions of
the SDK do not leave this package: stored by Celery they could not be decoded (0.96) or would carry the API key (2.x).
"""

from __future__ import annotations

from claude_batch_tasks.api.batches import (
    Batch as Batch,
    Page as Page,
    cancel_batch as cancel_batch,
    create_batch as create_batch,
    list_pages as list_pages,
    list_since as list_since,
    open_results as open_results,
    retrieve_batch as retrieve_batch,
)
from claude_batch_tasks.api.clients import (
    MALFORMED as MALFORMED,
    Account as Account,
    Caller as Caller,
    Client as Client,
    account_name as account_name,
    default_client as default_client,
    get_client as get_client,
    hash_credential as hash_credential,
    host_of as host_of,
    why_unusable as why_unusable,
    without_credentials as without_credentials,
)
from claude_batch_tasks.api.messages import Answer as Answer, create_message as create_message
from claude_batch_tasks.api.probes import (
    Elsewhere as Elsewhere,
    ProbeAnswer as ProbeAnswer,
    ask_elsewhere as ask_elsewhere,
    identify_account as identify_account,
    probe_api as probe_api,
)
from claude_batch_tasks.api.sdk import load_sdk as load_sdk
from claude_batch_tasks.api.simulated import simulated_api as simulated_api
