"""Typed answers: what ``output=`` and ``check=`` of a job mean for its requests, and for their answers."""

from claude_batch_tasks.outputs.checks import OutputUnusable as OutputUnusable
from claude_batch_tasks.outputs.output_reader import OutputReader as OutputReader
from claude_batch_tasks.outputs.output_spec import describe_output as describe_output, name_options as name_options
from claude_batch_tasks.outputs.output_types import dump_object as dump_object
from claude_batch_tasks.outputs.reasking import make_turns as make_turns
from claude_batch_tasks.outputs.sending import (
    OutputSender as OutputSender,
    add_output as add_output,
    make_preparation as make_preparation,
)
