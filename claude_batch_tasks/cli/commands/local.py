"""The commands ``claude-batch demo`` and ``simulator``, which run on this machine alone."""

from __future__ import annotations

import click

from claude_batch_tasks.cli import claude_batch
from claude_batch_tasks.simulator.cli import simulator
from claude_batch_tasks.simulator.scenarios import SCENARIOS

claude_batch.add_command(simulator)


@claude_batch.command()
@click.option("--scenario", type=click.Choice(sorted(SCENARIOS)), default="issue-1432", show_default=True)
@click.option("--requests", "count", type=click.IntRange(1, 10_000), default=40, show_default=True)
@click.option(
    "--real", is_flag=True, help="Send them to Anthropic, with the key in ANTHROPIC_API_KEY. This costs money."
)
@click.option("--model", default="claude-haiku-4-5", show_default=True)
def demo(scenario: str, count: int, real: bool, model: str) -> None:
    """Run a job on this machine, without a key.

    A Redis, the simulated API and a worker are started, and stopped at the end.
    """
    try:
        from claude_batch_tasks.demo import run_demo
    except ImportError as exc:
        raise click.ClickException(f"the demo needs {exc.name}: pip install 'claude-batch-tasks[demo]'") from None
    try:
        run_demo(scenario=scenario, count=count, real=real, model=model)
    except (RuntimeError, LookupError) as exc:
        raise click.ClickException(str(exc)) from None
