"""The entry point of ``python -m claude_batch_tasks.cli``."""

from claude_batch_tasks.cli import main

main()
