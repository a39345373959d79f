"""Every ``claude_batch_*`` setting: how it is spelled, read and checked."""

from __future__ import annotations

from claude_batch_tasks.settings.model import FIELDS as FIELDS
from claude_batch_tasks.settings.model import NAMES as NAMES
from claude_batch_tasks.settings.model import Settings as Settings
from claude_batch_tasks.settings.model import configuration as configuration
from claude_batch_tasks.settings.model import default_store_url as default_store_url
from claude_batch_tasks.settings.model import from_environment as from_environment
from claude_batch_tasks.settings.model import prices_of as prices_of
from claude_batch_tasks.settings.model import visibility_timeout as visibility_timeout
