"""How one message of a job runs: its lease, its countdowns, the messages that follow it, and the job's end."""

from __future__ import annotations

from claude_batch_tasks.steps.batch_task import (
    BatchTask as BatchTask,
    JobTask as JobTask,
    stops_worker as stops_worker,
)
from claude_batch_tasks.steps.decisions import (
    Decision as Decision,
    Done as Done,
    Drop as Drop,
    Fail as Fail,
    StartOver as StartOver,
    Wait as Wait,
)
from claude_batch_tasks.steps.message_chain import (
    DONE as DONE,
    ENDED as ENDED,
    NAME as NAME,
)
from claude_batch_tasks.steps.rate_limit import RateLimits as RateLimits
from claude_batch_tasks.steps.step import (
    JobEnded as JobEnded,
    LeaseLost as LeaseLost,
    Step as Step,
)
from claude_batch_tasks.steps.step_task import StepTask as StepTask, reason_of as reason_of
from claude_batch_tasks.steps.task_classes import (
    RefusesCalls as RefusesCalls,
    by_name as by_name,
    job_task as job_task,
)
