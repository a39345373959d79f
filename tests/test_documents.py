"""The documents say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import get_args

import pytest
from click import Context

from claude_batch_tasks import rules
from claude_batch_tasks.cli import claude_batch, exits
from claude_batch_tasks.store import history
from claude_batch_tasks.wire.result_rows import OUTCOMES

pytestmark = pytest.mark.latest

ROOT = Path(__file__).parent.parent


def test_the_reference_has_the_present_table_of_settings() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "settings_table.py"))
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert script["updated"](page) == page, "run: python docs/settings_table.py"


def test_the_page_on_waiting_has_the_present_schedule() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "schedule_table.py"))
    page = (ROOT / "docs" / "explanation" / "waiting.md").read_text()
    assert script["updated"](page) == page, "run: python docs/schedule_table.py"


def test_the_make_targets_and_commands_the_readme_names_exist() -> None:
    readme = (ROOT / "README.md").read_text()
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^\$ make (\w+)", readme, re.MULTILINE):
        assert f"\n{target}:" in makefile
    for command in re.findall(r"claude-batch (\w+)", readme):
        assert command in claude_batch.list_commands(Context(claude_batch))


def test_the_pages_the_readme_links_to_exist() -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", (ROOT / "README.md").read_text())
    assert len(links) > 12
    for link in links:
        assert (ROOT / link).exists(), link


def test_the_tests_that_show_what_is_promised_exist() -> None:
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_page_on_another_chance_says_what_is_sent_again() -> None:
    page = (ROOT / "docs" / "explanation" / "another_chance.md").read_text()
    table = page[page.index("<!-- eligible: begin -->") : page.index("<!-- eligible: end -->")]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:4]] for line in table.splitlines()[3:]]
    told = {(outcome, kind or None): again == "yes" for outcome, kind, again in rows}
    known = {*rules.STATUS_OF, "anything else"}
    assert {kind for outcome, kind in told if outcome == "errored"} == known
    assert {outcome for outcome, _ in told} == set(OUTCOMES)
    assert {key: rules.deserves_resubmission(*key) for key in told} == told


def test_the_page_on_a_jobs_story_has_every_event() -> None:
    page = (ROOT / "docs" / "reference" / "history.md").read_text()
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(get_args(history.Event))


def test_the_page_on_the_command_line_has_the_exit_codes() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    told = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page.replace("`", ""), re.MULTILINE))
    assert told == dict(re.findall(r"^ +(\d+)  (.+)$", exits.DESCRIPTION, re.MULTILINE))
