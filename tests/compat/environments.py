"""Installs each client into an environment of its own under `.compat`, and says which versions are there."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.compat.clients import Client

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".compat"
DRIVERS = Path(__file__).parent / "drivers"
_VERSIONS = "import sys, importlib.metadata as m; print(*map(m.version, sys.argv[1:]), sep='\\n')"
_INSTALL_SECONDS = 600


class NotInstalled(Exception):
    """The client could not be installed; the text is the installer's reason."""


def install(client: Client) -> Path:
    """Return the client's environment, made where it is not there with these versions.

    Raises:
        NotInstalled: the installer failed.
    """
    folder = CACHE / client.name
    done = folder / "installed.json"
    wanted = [client.python, *client.packages]
    if done.exists() and json.loads(done.read_text()) == wanted:
        return folder
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if client.in_node:
        _install_node(client, folder)
    else:
        _install_python(client, folder)
    done.write_text(json.dumps(wanted))
    return folder


def _install_python(client: Client, folder: Path) -> None:
    uv = shutil.which("uv", path=os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]))
    if uv is None:
        raise NotInstalled("uv is missing")
    _call([uv, "venv", "--quiet", "--python", client.python, folder / "venv"])
    _call(
        [
            uv,
            "pip",
            "install",
            "--quiet",
            "--compile-bytecode",
            "--python",
            folder / "venv/bin/python",
            *client.packages,
        ]
    )


def _install_node(client: Client, folder: Path) -> None:
    packages = dict(package.rsplit("==", 1) for package in client.packages)
    (folder / "package.json").write_text(json.dumps({"private": True, "dependencies": packages}))
    npm = shutil.which("npm")
    if npm is None:
        raise NotInstalled("npm is missing")
    _call([npm, "install", "--no-audit", "--no-fund", "--loglevel=error"], folder)
    # Node looks for packages beside the file that imports them.
    for path in DRIVERS.glob("*.mjs"):
        shutil.copy(path, folder)


def _call(command: list[str | Path], folder: Path | None = None) -> None:
    done = subprocess.run(
        command, cwd=folder, capture_output=True, text=True, timeout=_INSTALL_SECONDS, check=False, env=_own_env()
    )
    if done.returncode:
        lines = [line.strip() for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise NotInstalled(" ".join(lines[:3])[:300] or f"status {done.returncode}")


def _own_env() -> dict[str, str]:
    """Return the environment of installers: without this project's own packages, and with pyenv's Pythons."""
    env = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv"))
    env["PATH"] = os.pathsep.join([env.get("PATH", ""), *map(str, sorted(pyenv.glob("versions/*/bin")))])
    return env


def make_command(client: Client, folder: Path) -> list[str | Path]:
    """Return the command that runs the client's driver."""
    if client.in_node:
        shutil.copy(DRIVERS / "report.mjs", folder)
        shutil.copy(DRIVERS / client.driver, folder)
        own = folder / "node_modules/.bin/node"
        return [own if own.exists() else "node", folder / client.driver]
    return [folder / "venv/bin/python", DRIVERS / client.driver]


def read_versions(client: Client, folder: Path) -> dict[str, str]:
    """Return the installed versions of the client's packages, and of the SDK where it brings one."""
    names = [package.split("==")[0].split("[")[0] for package in client.packages]
    if client.in_node:
        return {
            name: json.loads((folder / "node_modules" / name / "package.json").read_text())["version"] for name in names
        }
    found = {}
    for name in dict.fromkeys([*names, "anthropic"]):
        done = subprocess.run(
            [folder / "venv/bin/python", "-c", _VERSIONS, name], capture_output=True, text=True, check=False
        )
        if done.returncode == 0:
            found[name] = done.stdout.strip()
    return found
