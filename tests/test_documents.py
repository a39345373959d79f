"""The documents say what the code does."""

from __future__ import annotations

import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import pytest
from click import Context

from claude_batch_tasks import rules
from claude_batch_tasks.cli import claude_batch, exits
from claude_batch_tasks.store import history
from claude_batch_tasks.wire.result_rows import OUTCOMES
from tests.docs.pages import PAGES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.latest

ROOT = Path(__file__).parent.parent
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def test_the_reference_has_the_present_table_of_settings() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "settings_table.py"))
    page = (ROOT / "docs" / "reference" / "settings.md").read_text()
    assert script["updated"](page) == page, "run: python docs/settings_table.py"


def test_the_page_on_waiting_has_the_present_schedule() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "schedule_table.py"))
    page = (ROOT / "docs" / "explanation" / "waiting.md").read_text()
    assert script["updated"](page) == page, "run: python docs/schedule_table.py"


def test_the_page_on_the_test_double_has_the_present_scenarios() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "scenarios_table.py"))
    page = (ROOT / "docs" / "howto" / "test_double.md").read_text()
    assert script["updated"](page) == page, "run: python docs/scenarios_table.py"


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


def test_the_readme_is_short_and_shows_a_picture() -> None:
    readme = (ROOT / "README.md").read_text()
    assert readme.count("\n") <= 100
    assert re.search(r"^!\[[^]]+\]\(docs/images/[\w-]+\.png\)$", readme, re.MULTILINE)


def test_the_readme_names_the_extras_that_there_are() -> None:
    readme = (ROOT / "README.md").read_text()
    named = re.findall(r"`([\w-]+)`", re.search(r"^Extras: (.*)$", readme, re.MULTILINE)[1])  # type: ignore[index]
    assert set(named) == set(PROJECT["optional-dependencies"]) - {"dev", "docs"}


def test_every_extra_that_a_page_installs_exists() -> None:
    for page in PAGES:
        for extras in re.findall(r"\[([\w,]+)\]'", page.read_text()):
            assert set(extras.split(",")) <= set(PROJECT["optional-dependencies"]), page


@pytest.mark.skipif(find_spec("hatchling") is None, reason="no hatchling, which builds the package")
def test_links_and_pictures_of_the_readme_work_on_pypi() -> None:
    hook = runpy.run_path(str(ROOT / "tools" / "readme_for_pypi.py"))["ReadmeForPyPI"](str(ROOT), {})
    metadata = {"urls": dict(PROJECT["urls"]), "version": PROJECT["version"]}
    hook.update(metadata)
    text, repository = metadata["readme"]["text"], PROJECT["urls"]["Repository"]
    links = re.findall(r"\]\(([^)]+)\)", text)
    assert len(links) > 12
    assert all(link.startswith("https://") for link in links)
    assert f"{repository}/blob/v{PROJECT['version']}/docs/tutorial.md" in links
    assert any(link.startswith("https://raw.githubusercontent.com/") and link.endswith(".png") for link in links)
    assert "<!--" not in text


def test_only_the_metadata_name_the_repository() -> None:
    address = PROJECT["urls"]["Repository"]
    for path in [*PAGES, *ROOT.glob("*.md"), *ROOT.glob(".github/**/*"), *(ROOT / "claude_batch_tasks").rglob("*.py")]:
        assert not path.is_file() or address not in path.read_text(), path


def test_the_tests_that_show_what_is_promised_exist() -> None:
    text = (ROOT / "docs" / "explanation" / "reliability.md").read_text()
    named = set(re.findall(r"`(tests/[\w/.]+)`", text))
    assert len(named) > 8
    for name in named:
        assert (ROOT / name).exists(), name


def test_the_page_on_resubmission_and_fallback_says_what_is_sent_again() -> None:
    page = (ROOT / "docs" / "explanation" / "resubmission_and_fallback.md").read_text()
    table = page[page.index("<!-- eligible: begin -->") : page.index("<!-- eligible: end -->")]
    rows = [[cell.strip().strip("`") for cell in line.split("|")[1:4]] for line in table.splitlines()[3:]]
    told = {(outcome, kind or None): again == "yes" for outcome, kind, again in rows}
    known = {*rules.STATUS_OF, "anything else"}
    assert {kind for outcome, kind in told if outcome == "errored"} == known
    assert {outcome for outcome, _ in told} == set(OUTCOMES)
    assert {key: rules.deserves_resubmission(*key) for key in told} == told


def test_the_page_on_a_jobs_story_has_every_event() -> None:
    page = (ROOT / "docs" / "reference" / "history.md").read_text().partition("\n## The history\n")[2]
    assert set(re.findall(r"^\| `(\w+)` \|", page, re.MULTILINE)) == set(get_args(history.Event))


def test_the_page_on_the_command_line_has_the_exit_codes() -> None:
    page = (ROOT / "docs" / "reference" / "cli.md").read_text()
    told = dict(re.findall(r"^\| (\d+) \| (.+) \|$", page.replace("`", ""), re.MULTILINE))
    assert told == dict(re.findall(r"^ +(\d+)  (.+)$", exits.DESCRIPTION, re.MULTILINE))
