"""Somebody who does what a page says, from top to bottom, in an empty folder."""

from __future__ import annotations

import configparser
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path

import yaml

from tests.docs.pages import PROSE, Block, blocks
from tests.docs.shown import appears
from tests.support import wait_until

_PARSERS: dict[str, Callable[[str], object]] = {
    "yaml": yaml.safe_load,
    "json": json.loads,
    "ini": lambda text: configparser.ConfigParser(strict=False, interpolation=None).read_string(text),
}

_IDS = re.compile(r"[0-9a-f]{8}-[0-9a-f-]{27}")


class Reader:
    """Reads one page.

    Args:
        folder: where files go and commands run.
        env: the environment of every terminal at its start.
        here: what the page's port numbers, and names, are here.
        python: the interpreter of the environment in which the page is read.
    """

    #: Seconds that one command may take.
    longest = 300

    def __init__(
        self, folder: Path, env: Mapping[str, str], here: Mapping[str, str], python: str = sys.executable
    ) -> None:
        self.folder = folder
        self._env = {
            **env,
            "PATH": f"{Path(python).parent}{os.pathsep}{env['PATH']}",
            "PYTHONUNBUFFERED": "1",
            "PYTHONDONTWRITEBYTECODE": "1",  # files change within a second here
            "COLUMNS": "120",
        }
        self._names = dict(here)
        self._session = f"{python} -m tests.docs.session"
        self._terminal = self._new_terminal("first")
        self._python: subprocess.Popen[str] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def read(self, page: Path) -> None:
        """Do what it says; an AssertionError names the line that is not true."""
        for block in blocks(page):
            if not block.not_run:
                self._do(block, self._here(block.text))

    def _do(self, block: Block, text: str) -> None:
        if block.language == "console":
            typed = [(self._here(command), self._here(shown)) for command, shown in block.commands]
            if block.own_terminal:
                terminal = self._new_terminal(f"line-{block.line}")
                for command, shown in typed[:-1]:
                    self._type(block, command, shown, terminal)
                self._start(block, *typed[-1], terminal)
            else:
                for command, shown in typed:
                    self._type(block, command, shown, self._terminal)
        elif block.file:
            name, at_the_end = block.file
            path = (self.folder / name).resolve()
            assert path.is_relative_to(self.folder.resolve()), f"{block}: {name} is not in the page's folder"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("a" if at_the_end else "w") as file:
                file.write(text)
        elif block.language in ("python", "pycon"):
            self._exec(block, text)
        elif block.language in _PARSERS:
            _PARSERS[block.language](text)
        else:
            assert block.language in PROSE, f"{block}: nobody knows how to run {block.language or 'a block like this'}"

    def _new_terminal(self, name: str) -> Path:
        """The file in which a terminal remembers what was exported in it, and where it is."""
        path = self.folder / f".terminal-{name}"
        path.touch()
        return path

    def _here(self, text: str) -> str:
        """As the page says it, but with what is free here."""
        return re.sub(rf"\b({'|'.join(self._names)})\b", lambda found: self._names[found[0]], text)

    def _type(self, block: Block, command: str, shown: str, terminal: Path) -> None:
        keep = f'code=$?; {{ export -p; printf "cd %q\\n(exit $code)\\n" "$PWD"; }} >{terminal}; exit $code'
        done = subprocess.run(
            ["bash", "-c", f". {terminal}\n{command}\n{keep}"],
            cwd=self.folder,
            env=self._env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=self.longest,
        )
        told = f"{block}: $ {command}\n{done.stdout}"
        assert done.returncode == 0 or shown, f"{told}\nended with {done.returncode}"
        assert not shown or appears(shown, done.stdout), f"{told}\n--- but the page shows\n{shown}"
        # What a reader copies from what appeared.
        self._names.update(zip(_IDS.findall(shown), _IDS.findall(done.stdout), strict=False))

    def _start(self, block: Block, command: str, shown: str, terminal: Path) -> None:
        log = terminal.with_suffix(".log")
        with log.open("w") as out:
            process = subprocess.Popen(
                ["bash", "-c", f". {terminal}\nexec {command}"],
                cwd=self.folder,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._stack.callback(self._end, process)

        def seen() -> bool:
            assert process.poll() is None, f"{block}: $ {command}\n{log.read_text()}\nended with {process.returncode}"
            return appears(shown, log.read_text(), so_far=True)

        try:
            wait_until(seen, seconds=90)
        except AssertionError:
            raise AssertionError(f"{block}: $ {command}\n{log.read_text()}\n--- but the page shows\n{shown}") from None

    @staticmethod
    def _end(process: subprocess.Popen[bytes]) -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    def _exec(self, block: Block, text: str) -> None:
        if self._python is None:
            self._python = self._stack.enter_context(
                subprocess.Popen(
                    ["bash", "-c", f". {self._terminal}\nexec {self._session}"],
                    cwd=self.folder,
                    env=self._env,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            self._stack.callback(self._python.kill)
        assert self._python.stdin
        assert self._python.stdout
        asked = {"language": block.language, "text": text, "page": str(block.page), "line": block.line}
        self._python.stdin.write(json.dumps(asked) + "\n")
        self._python.stdin.flush()
        answer = self._python.stdout.readline()
        assert answer, f"{block}: Python ended"
        wrong = json.loads(answer)
        assert wrong is None, f"{block}:\n{wrong}"
