"""An earlier release beside this tree: its package and its chaos app, unpacked from the history of the repository."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

from tests.support import inherited

VERSION, COMMIT = "0.2.0", "ab439fc44c40c6c8b5ddc6a8d72109c9afb13ef7"

_ROOT = Path(__file__).parents[2]

#: Of that commit: what its workers import, and its list of crash points.
_PATHS = ("claude_batch_tasks", "tests/__init__.py", "tests/support.py", "tests/chaos")


class ReleaseMissing(Exception):
    """The release cannot be had here; the text says why."""


def unpack_release(folder: Path, *more: str) -> Path:
    """Unpack the release, and what its callers are driven by.

    Args:
        more: further paths of that commit.

    Raises:
        ReleaseMissing: there is no history, and it cannot be fetched.
    """
    if not (_ROOT / ".git").exists():
        raise ReleaseMissing(f"{VERSION} is taken from the git history, and this is no checkout")
    if shutil.which("git") is None:
        raise ReleaseMissing(f"{VERSION} is taken from the git history, and there is no git")
    if _run_git("cat-file", "-e", f"{COMMIT}^{{commit}}").returncode:
        # A shallow clone, as CI makes it; a server gives out a single commit.
        fetched = _run_git("fetch", "--quiet", "--depth=1", "origin", COMMIT)
        if fetched.returncode:
            why = fetched.stderr.decode(errors="replace").strip()
            raise ReleaseMissing(f"{VERSION} is not in this clone's history ({COMMIT[:7]}), and not fetched: {why}")
    packed = _run_git("archive", "--format=tar", COMMIT, *_PATHS, *more)
    packed.check_returncode()
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as tar:
        if sys.version_info >= (3, 12):
            tar.extractall(folder, filter="data")
        else:
            tar.extractall(folder)
    shutil.copy(Path(__file__).with_name("callers.py"), folder / "tests" / "chaos")
    return folder


def release_env(folder: Path) -> dict[str, str]:
    """Return what makes a Python import the release: it comes before what is installed."""
    return {"PYTHONPATH": str(folder)}


def _run_git(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    # It must not ask anybody for a password.
    env = {**os.environ, "GIT_TERMINAL_PROMPT": "0"}
    return subprocess.run(["git", "-C", str(_ROOT), *arguments], capture_output=True, env=env, stdin=subprocess.DEVNULL)


class ReleasedCaller:
    """A ``callers.Caller`` in a process of the release.

    Args:
        folder: where the release is unpacked.
        url: of the Redis.
    """

    def __init__(self, folder: Path, url: str, prices: dict[str, Any]) -> None:
        self._log = folder / "caller.log"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.chaos.callers", url, json.dumps(prices)],
                cwd=folder,
                env={**inherited(), **release_env(folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        package = self._read()
        if not Path(package).is_relative_to(folder.resolve()):
            raise RuntimeError(f"the caller of {VERSION} has imported {package}")

    def submit_job(
        self, number: int, requests: dict[str, Any], options: dict[str, Any], follow: str, told: bool
    ) -> str:
        """As ``callers.Caller`` does."""
        return str(self._call("submit_job", number, requests, options, follow, told))

    def cancel_job(self, job_id: str) -> bool:
        """As ``callers.Caller`` does."""
        return bool(self._call("cancel_job", job_id))

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.kill()
        self._process.wait()

    def _call(self, method: str, *arguments: Any) -> Any:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps([method, arguments]) + "\n")
        self._process.stdin.flush()
        answer = self._read()
        if "error" in answer:
            raise RuntimeError(f"the caller of {VERSION}: {answer['error']}")
        return answer["value"]

    def _read(self) -> Any:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the caller of {VERSION} has ended:\n{self._log.read_text()[-3000:]}")
        return json.loads(line)
