"""The command ``claude-batch completion``, which prints the script that makes a shell complete our commands."""

from __future__ import annotations

import click
from click import shell_completion

from claude_batch_tasks.cli import claude_batch


@claude_batch.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the script that completes commands in your shell.

    Commands, options and the ids of the newest jobs are completed.

    \b
    eval "$(claude-batch completion bash)"    # in ~/.bashrc
    eval "$(claude-batch completion zsh)"     # in ~/.zshrc, after compinit
    claude-batch completion fish > ~/.config/fish/completions/claude-batch.fish
    """
    kind = shell_completion.get_completion_class(shell)
    assert kind is not None
    root = ctx.find_root()
    program = root.info_name or "claude-batch"
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    # Not `source()`: bash's asks which bash is installed, and warns where it finds none.
    made = kind(root.command, {}, program, variable)
    click.echo(made.source_template % made.source_vars())
