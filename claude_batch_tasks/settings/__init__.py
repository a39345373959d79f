"""Every ``claude_batch_*`` setting: how it is spelled, read and checked."""

from __future__ import annotations

from claude_batch_tasks.settings.job_labels import (
    MetadataValue as MetadataValue,
    check_label as check_label,
    check_metadata as check_metadata,
    has_labels as has_labels,
)
from claude_batch_tasks.settings.model import (
    FIELDS as FIELDS,
    NAMES as NAMES,
    Settings as Settings,
    configuration as configuration,
    from_environment as from_environment,
    prices_of as prices_of,
    visibility_timeout as visibility_timeout,
)
from claude_batch_tasks.settings.store_urls import default_store_url as default_store_url
