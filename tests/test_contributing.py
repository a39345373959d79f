"""What those who change the package are told is so: files and names, diffs, the picture, the workflows."""

from __future__ import annotations

import ast
import re
import runpy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.docs.pages import blocks

pytestmark = pytest.mark.latest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "claude_batch_tasks"
FOLDER = ROOT / "docs" / "contributing"
PAGES = [ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *sorted(FOLDER.rglob("*.md"))]
HOW_IT_WORKS = ROOT / "docs" / "explanation" / "how_it_works.md"
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))

#: A file or a folder, by its suffix or its slash; after a colon a name in it.
_NAMED = re.compile(r"`((?:[\w.-]+/)*(?:[\w-]+\.(?:py|lua|json|txt|md|yml|toml)|[\w-]+/))(?::([\w.]+))?`")


def identity(page: Path) -> str:
    return str(page.relative_to(ROOT))


def find(name: str) -> Path | None:
    """Return the file or folder meant: in the package, at the top, or among the workflows and commands."""
    for folder in (PACKAGE, ROOT, ROOT / ".github" / "workflows", PACKAGE / "cli", PACKAGE / "tasks"):
        if (folder / name).exists():
            return folder / name
    return None


def defines(body: list[ast.stmt], name: str) -> bool:
    """Whether statements define a name, or a class with an attribute of that name."""
    first, _, rest = name.partition(".")
    for node in body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)) and node.name == first:
            return not rest or defines(node.body, rest)
        if isinstance(node, (ast.Assign, ast.AnnAssign)) and not rest:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names = {each.id for target in targets for each in ast.walk(target) if isinstance(each, ast.Name)}
            if first in names:
                return True
    return False


@pytest.mark.parametrize("page", [*PAGES, HOW_IT_WORKS], ids=identity)
def test_files_and_the_names_in_them_exist(page: Path) -> None:
    for name, inside in _NAMED.findall(page.read_text()):
        path = find(name)
        assert path is not None, name
        if inside:
            assert defines(ast.parse(path.read_text()).body, inside), f"{name}:{inside}"


@pytest.mark.parametrize("page", PAGES, ids=identity)
def test_links_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.skipif(shutil.which("git") is None, reason="no git, with which diffs are applied")
@pytest.mark.parametrize("page", sorted(FOLDER.glob("add_*.md")), ids=identity)
def test_diffs_apply_to_what_there_is(page: Path) -> None:
    diffs = [block.text for block in blocks(page) if block.language == "diff"]
    assert diffs
    for diff in diffs:
        done = subprocess.run(["git", "apply", "--check"], cwd=ROOT, input=diff, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


class TestThePicture:
    @pytest.fixture
    def script(self) -> dict[str, Any]:
        if sys.version_info < (3, 11):
            pytest.importorskip("tomli")
        return runpy.run_path(str(ROOT / "docs" / "architecture_picture.py"))

    def test_is_of_the_present_layers(self, script: dict[str, Any]) -> None:
        if not (layers := script["layers"]()):
            pytest.skip("pyproject.toml has no contract on layers")
        assert script["PICTURE"].read_text() == script["svg"](layers), "run: python docs/architecture_picture.py"

    def test_takes_the_layers_from_the_first_contract_of_that_type(self, script: dict[str, Any]) -> None:
        text = """
            [[tool.importlinter.contracts]]
            type = "forbidden"

            [[tool.importlinter.contracts]]
            type = "layers"
            containers = ["claude_batch_tasks"]
            layers = ["cli | contrib", "claude_batch_tasks.jobs : (demo)", "rules"]
        """
        assert script["layers"](text) == [["cli", "contrib"], ["jobs", "demo"], ["rules"]]
        assert script["layers"]("") == []

    def test_says_what_each_is_for(self, script: dict[str, Any]) -> None:
        picture = script["svg"]([["cli", "contrib"], ["rules"]])
        assert script["purpose"]("rules") == "Decisions, as pure functions"
        assert picture.count("<rect") == 4
        assert "Decisions, as pure functions" in picture


#: What an sdist does not have.
in_a_checkout = pytest.mark.skipif(not WORKFLOWS, reason="no .github here: this is not a checkout")


def steps(workflow: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for job in workflow["jobs"].values():
        yield from job["steps"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=identity)
def test_workflows_run_targets_there_are(path: Path) -> None:
    workflow = yaml.safe_load(path.read_text())
    makefile = (ROOT / "Makefile").read_text()
    assert workflow["permissions"] == {"contents": "read"}
    for step in steps(workflow):
        assert ("run" in step) != ("uses" in step), step
        for target in re.findall(r"^make ([\w-]+)", step.get("run", ""), re.MULTILINE):
            assert f"\n{target}:" in makefile, target


@in_a_checkout
def test_tests_run_on_every_python_that_the_classifiers_name() -> None:
    named = re.findall(r"Python :: (3\.\d+)", (ROOT / "pyproject.toml").read_text())
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text())["jobs"]
    assert jobs["test"]["strategy"]["matrix"]["python"] == named
    run = {step.get("run") for job in jobs.values() for step in job["steps"]}
    assert {"make lint", "make docs", "make test", "make test-lowest"} <= run


@in_a_checkout
def test_only_what_publishes_may_sign_in_to_pypi() -> None:
    jobs = yaml.safe_load((ROOT / ".github" / "workflows" / "release.yml").read_text())["jobs"]
    assert {name: job["permissions"] for name, job in jobs.items() if "permissions" in job} == {
        "publish": {"id-token": "write"}
    }
    assert jobs["publish"]["environment"]["name"] == "pypi"
    assert jobs["publish"]["needs"] == "build"


def test_issue_forms_ask_each_thing_once() -> None:
    for path in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        if path.name != "config.yml":
            names = [part["id"] for part in form["body"] if part["type"] != "markdown"]
            assert names
            assert len(names) == len(set(names))


@in_a_checkout
def test_hooks_run_the_tools_of_the_environment() -> None:
    [local] = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    assert all(hook["entry"].startswith(".venv/bin/") for hook in local["hooks"])
