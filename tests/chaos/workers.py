"""Workers under a supervisor that starts each again when it has ended, for whatever reason."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

from claude_batch_tasks.embedded import Worker
from tests.chaos.released import VERSION, release_env
from tests.chaos.schedule import SETTLE, Profile

#: The repository: workers import ``tests.chaos.app`` from here.
ROOT = Path(__file__).parents[2]

#: A stop that takes longer than this is a defect of its own, seconds. A warm stop waits for the running tasks, and
#: Celery's pool up to 30 s more when the stop meets a task just handed to it.
LONGEST_STOP = 60.0

#: How long a lease of a killed owner lasts, seconds.
_LEASE = 2.0

#: How long the children of a killed main process may go on beside the next worker, seconds.
_ORPHANS = 2.0


class Supervised:
    """One worker that is kept running."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.ready = threading.Event()
        #: Ends that nobody asked for: return codes.
        self.deaths: list[int] = []
        #: Stops that took too long: what was asked for.
        self.stuck: list[str] = []
        self.starts = 0
        self._asked = ""
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="supervisor", daemon=True)
        self._thread.start()

    def kill(self, victim: str) -> bool:
        """SIGKILL a pool child, the whole group, or the main process alone, whose children then go on for a while."""
        with contextlib.suppress(AssertionError, ProcessLookupError):
            pid = self.worker.pid
            if victim == "child":
                children = _children(pid)
                if children:
                    os.kill(children[int(time.monotonic() * 1000) % len(children)], signal.SIGKILL)
                return bool(children)
            self._asked = self._asked or f"kill {victim}"
            (os.killpg if victim == "group" else os.kill)(pid, signal.SIGKILL)
            return True
        return False

    def stop(self, how: str) -> bool:
        """Ask for a warm (TERM), soft or cold (QUIT) or impatient (INT twice) stop."""
        with contextlib.suppress(AssertionError, ProcessLookupError):
            pid = self.worker.pid
            self._asked = self._asked or f"stop {how}"
            threading.Timer(LONGEST_STOP, self._force, [pid, how]).start()
            os.kill(pid, getattr(signal, f"SIG{how}"))
            if how == "INT":
                time.sleep(0.2)
                os.kill(pid, signal.SIGINT)
            return True
        return False

    def close(self) -> None:
        """End it for good."""
        self._over.set()
        with contextlib.suppress(AssertionError, ProcessLookupError):
            os.killpg(self.worker.pid, signal.SIGKILL)
        self._thread.join()

    def _keep(self) -> None:
        while not self._over.is_set():
            started = True
            try:
                self.worker.start()
                self.starts += 1
                self.ready.set()
                while self.worker.returncode is None and not self._over.is_set():
                    time.sleep(0.05)
            except RuntimeError:  # it was killed before it was ready
                started = False
            self.ready.clear()
            code, asked, self._asked = self.worker.returncode, self._asked, ""
            if started and code not in (None, -signal.SIGKILL) and not asked and not self._over.is_set():
                self.deaths.append(code)
            if asked == "kill main" or (code == -signal.SIGKILL and not asked):
                # As after the kernel killed the main process for want of memory: its children may still be at work.
                self._over.wait(0.0)
                self._leave_orphans()
            else:
                self.worker.stop(kill=True)

    def _leave_orphans(self) -> None:
        old = self.worker
        self.worker = Worker(old.env, old.log, old.app, old.options, old.cwd)
        if self._over.is_set():
            old.stop(kill=True)
        else:
            threading.Timer(_ORPHANS, old.stop, kwargs={"kill": True}).start()

    def _force(self, pid: int, how: str) -> None:
        with contextlib.suppress(AssertionError, ProcessLookupError):
            if self.worker.pid == pid and self.worker.returncode is None:
                self.stuck.append(how)
                os.killpg(pid, signal.SIGKILL)


class Crew:
    """The workers of a profile.

    Args:
        pace: what all that is measured in seconds is multiplied by.
        released: where an earlier release is unpacked, of which some of a mixed fleet are.
    """

    def __init__(
        self, profile: Profile, env: Mapping[str, str], folder: Path, pace: int, released: Path | None = None
    ) -> None:
        self.profile, self.pace = profile, pace
        own = {
            **env,
            "CHAOS_VISIBILITY_TIMEOUT": str(profile.visibility_timeout * pace),
            "CLAUDE_BATCH_RECOVER_AFTER": str(profile.recover_after * pace),
            "CLAUDE_BATCH_CREATE_SETTLE": str(SETTLE * pace),
            "CLAUDE_BATCH_LEASE": str(_LEASE * pace),
        }
        self.logs: list[Path] = []
        self.members: list[Supervised] = []
        for number in range(profile.workers):
            log, env_of_one, cwd = folder / f"worker-{number}.log", own, ROOT
            if released is not None and number < profile.released:
                log, cwd = folder / f"worker-{number}-{VERSION}.log", released
                env_of_one = {**own, **release_env(released)}
            options = (*profile.options, "--queues=celery,notes", f"--hostname=w{number}@chaos")
            self.logs.append(log)
            self.members.append(Supervised(Worker(env_of_one, log, "tests.chaos.app", options, str(cwd))))

    def wait(self, seconds: float = 120.0) -> None:
        """Until all are ready."""
        for member in self.members:
            if not member.ready.wait(seconds):
                raise RuntimeError("a worker does not start:\n" + member.worker.log.read_text()[-3000:])

    def close(self) -> None:
        """End them all."""
        for member in self.members:
            member.close()


def _children(pid: int) -> list[int]:
    listed = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = (line.split() for line in listed.splitlines())
    return [int(child) for child, parent in pairs if int(parent) == pid]
