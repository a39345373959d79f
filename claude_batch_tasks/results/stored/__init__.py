"""What the store has of a job's results: outcomes, the rows they come from, and the reader of a batch's."""

from claude_batch_tasks.results.stored.batch_reader import Reader as Reader
from claude_batch_tasks.results.stored.messages_outcomes import decode_unchanged as decode_unchanged
