"""The group of commands: its help, its version, mistyped names, and what completes a word in a shell."""

from __future__ import annotations

from collections.abc import Callable

import click
import pytest
from celery import Celery
from celery.bin.celery import celery
from click.testing import CliRunner

from claude_batch_tasks import __version__
from claude_batch_tasks.cli import claude_batch, lazy_group
from claude_batch_tasks.lifecycle import submission
from tests.factories import make_params

CONTEXT = click.Context(claude_batch, info_name="claude-batch")


@pytest.mark.parametrize("name", lazy_group.ENTRIES)
def test_the_help_of_the_group_has_the_first_sentence_of_each_command(name: str) -> None:
    command = claude_batch.get_command(CONTEXT, name)
    assert command is not None
    assert command.get_short_help_str(200) == lazy_group.ENTRIES[name].about


def test_says_its_version() -> None:
    said = CliRunner().invoke(claude_batch, ["--version"])
    assert (said.exit_code, said.output) == (0, f"claude-batch {__version__}\n")
    assert CliRunner().invoke(celery, ["claude-batch", "--version"]).output == said.output


@pytest.mark.parametrize(
    ("typed", "answer"),
    [
        (["stauts"], "No such command 'stauts'. Did you mean status"),
        (["can", "x"], "Did you mean cancel?"),
        (["sub"], "Did you mean submit?"),
        (["nonsense"], "No such command 'nonsense'. `--help` lists the commands."),
        (["list", "--limt", "3"], "Did you mean --limit"),
        (["--versoin"], "Did you mean --version"),
        (["completion", "tcsh"], "'tcsh' is not one of 'bash', 'zsh', 'fish'"),
    ],
)
def test_asks_what_was_meant(typed: list[str], answer: str) -> None:
    refused = CliRunner().invoke(claude_batch, typed)
    assert refused.exit_code == 2
    assert answer in refused.output.replace("'--", "--")
    assert len(refused.output.splitlines()) == 4


class TestCompletion:
    @pytest.fixture
    def complete(self, app: Celery) -> Callable[..., list[str]]:
        """``complete("status", "")``: what a shell offers for the last word."""

        def complete(*words: str) -> list[str]:
            env = {
                "_CLAUDE_BATCH_COMPLETE": "bash_complete",
                "COMP_WORDS": " ".join(["claude-batch", *words]),
                "COMP_CWORD": str(len(words)),
            }
            offered = CliRunner().invoke(claude_batch, [], env=env, prog_name="claude-batch").output
            return [line.partition(",")[2] for line in offered.splitlines() if line]

        return complete

    def test_offers_commands_and_options(self, complete: Callable[..., list[str]]) -> None:
        assert complete("res") == ["results", "resume"]
        assert "--wait" in complete("submit", "--w")
        assert complete("list", "--state", "r") == ["running", "revoked"]

    def test_offers_the_ids_of_jobs(self, complete: Callable[..., list[str]], app: Celery) -> None:
        for job_id in ("aa-1", "aa-2", "bb-1"):
            submission.submit_job(app, job_id, [{"custom_id": "a", "params": make_params("a")}], {})
        assert sorted(complete("status", "aa")) == ["aa-1", "aa-2"]
        assert complete("cancel", "b") == ["bb-1"]

    def test_offers_nothing_when_the_store_does_not_answer(
        self, complete: Callable[..., list[str]], app: Celery
    ) -> None:
        app.conf.claude_batch_store_url = "redis://127.0.0.1:1/0"
        assert complete("status", "aa") == []

    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_has_a_script_for_each_shell(self, shell: str) -> None:
        script = CliRunner().invoke(claude_batch, ["completion", shell], prog_name="claude-batch").output
        assert f"_CLAUDE_BATCH_COMPLETE={shell}_complete" in script
        assert "claude-batch" in script
