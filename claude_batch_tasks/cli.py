"""``claude-batch ...``, also reachable as ``celery -A proj claude-batch ...`` through Celery's plugin entry point."""

from __future__ import annotations

import click

from claude_batch_tasks.simulator.cli import simulator
from claude_batch_tasks.simulator.scenarios import SCENARIOS


@click.group("claude-batch", context_settings={"help_option_names": ["-h", "--help"]})
def claude_batch() -> None:
    """Anthropic Message Batches from Celery."""


claude_batch.add_command(simulator)


@claude_batch.command()
@click.option("--scenario", type=click.Choice(sorted(SCENARIOS)), default="issue-1432", show_default=True)
@click.option("--requests", "count", type=click.IntRange(1, 10_000), default=40, show_default=True)
@click.option(
    "--real", is_flag=True, help="Send them to Anthropic, with the key in ANTHROPIC_API_KEY. This costs money."
)
@click.option("--model", default="claude-haiku-4-5", show_default=True)
def demo(scenario: str, count: int, real: bool, model: str) -> None:
    """Run one job from beginning to end on embedded parts and show what happens."""
    try:
        from claude_batch_tasks.demo import run
    except ImportError as exc:
        raise click.ClickException(f"the demo needs {exc.name}: pip install 'claude-batch-tasks[demo]'") from None
    try:
        run(scenario=scenario, count=count, real=real, model=model)
    except (RuntimeError, LookupError) as exc:
        raise click.ClickException(str(exc)) from None


@claude_batch.command()
@click.option(
    "--after",
    type=click.FloatRange(0),
    default=0,
    show_default=True,
    help="Only messages that are overdue by this many seconds; 0: one for everything that waits.",
)
@click.pass_context
def recover(ctx: click.Context, after: float) -> None:
    """Send the messages of running jobs again, after the broker lost them.

    Safe at any time: of several messages that say the same, one acts. Workers do it themselves for what is overdue.
    """
    from kombu.exceptions import OperationalError

    from claude_batch_tasks import recovery
    from claude_batch_tasks.errors import BatchTasksError
    from claude_batch_tasks.settings import configured_app

    # Under `celery -A proj claude-batch` the context carries that app.
    app = getattr(ctx.obj, "app", None) or configured_app()
    app.loader.import_default_modules()
    try:
        sent = recovery.recover(app, after)
    except (BatchTasksError, OperationalError) as exc:
        raise click.ClickException(f"{exc}. Nothing is lost by trying again.") from None
    click.echo(f"{sent} message{'s' if sent != 1 else ''} sent again")


def main() -> None:
    """The ``claude-batch`` command."""
    claude_batch(prog_name="claude-batch")


if __name__ == "__main__":
    main()
