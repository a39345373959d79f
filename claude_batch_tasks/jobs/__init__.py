"""What applications hold of a job."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:  # each is loaded when it is used
    from claude_batch_tasks.jobs.adopting import adopt as adopt
    from claude_batch_tasks.jobs.estimating import Estimate as Estimate, estimate as estimate
    from claude_batch_tasks.jobs.listing import (
        list_jobs as list_jobs,
        list_pools as list_pools,
        list_workers as list_workers,
    )
