"""The classes that run a simulator: `Simulator` starts one, `Control` controls one that runs anywhere."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from .journal import Invoice, Journal, State
from .scenarios import find_scenario
from .script import Answer, Fault, Scenario

if TYPE_CHECKING:
    import uvicorn

T = TypeVar("T")


class Control:
    """A simulator that runs at `url`, seen through its control API. May be used from any thread."""

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")

    def state(self) -> State:
        """Return scenario, clock, faults with their counts, batches, totals."""
        return self._call_control("state", State)

    def journal(self, since: int = 0, prompts: bool = True) -> Journal:
        """Return every call after number `since`, and what was sent and paid for each prompt."""
        return self._call_control(f"journal?since={since}&prompts={str(prompts).lower()}", Journal)

    def invoice(self) -> Invoice:
        """Return what is charged so far, by model, and what is not."""
        return self._call_control("invoice", Invoice)

    def faults(self, *faults: Fault, replace: bool = False) -> State:
        """Install faults beside (or in place of) those in force. They count calls from now on."""
        return self._call_control("faults", State, {"faults": faults, "replace": replace})

    def answer_with(self, *answers: Answer, replace: bool = False) -> State:
        """Answer matching requests so: rules that come before (or in place of) those in force."""
        return self._call_control("answers", State, {"answers": answers, "replace": replace})

    def behave(self, **changes: Any) -> State:
        """Change fields of the `Behaviour`: at once for messages, for batches from the next one on."""
        return self._call_control("behaviour", State, changes)

    def reset(self, scenario: str | Scenario | None = None) -> State:
        """Forget everything, and begin this scenario, or the present one again."""
        return self._call_control("reset", State, {"scenario": scenario})

    def advance(self, seconds: float) -> State:
        """Let so many simulated seconds pass at once; the times that clients are shown move with them."""
        return self._call_control("advance", State, {"seconds": seconds})

    def end(self, batch_id: str = "*") -> State:
        """End one batch, or all, now, with every request processed."""
        return self._call_control("advance", State, {"end": batch_id})

    def expire(self, batch_id: str = "*") -> State:
        """Let one batch, or all, expire now: requests not processed yet are expired."""
        return self._call_control("advance", State, {"expire": batch_id})

    def forget(self, batch_id: str = "*") -> State:
        """Make a batch vanish for the API: 404 everywhere, absent from lists. The journal keeps it."""
        return self._call_control("forget", State, {"batch_id": batch_id})

    @property
    def env(self) -> dict[str, str]:
        """The environment that makes the SDK use this simulator."""
        return {"ANTHROPIC_BASE_URL": self.url, "ANTHROPIC_API_KEY": "sk-ant-simulated"}

    def _call_control(self, path: str, answer: type[T], body: object = None) -> T:
        data = None if body is None else msgspec.json.encode(body)
        request = urllib.request.Request(f"{self.url}/__sim__/{path}", data)
        # Not through a proxy of the environment.
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        try:
            with opener.open(request, timeout=60) as response:
                return msgspec.json.decode(response.read(), type=answer)
        except urllib.error.HTTPError as error:
            raise ValueError(f"the simulator refused: {error.read().decode()}") from None


class Simulator(Control):
    """A simulator of its own on a free port, in a thread of this process or in a process of its own.

    >>> with Simulator("issue-1432") as simulator:
    ...     client = anthropic.Anthropic(base_url=simulator.url, api_key="any", max_retries=0)
    ...     simulator.faults(Fault("retrieve", "status", status=529, times=2))
    ...     assert not simulator.journal().paid_twice()

    Args:
        scenario: the name of a scenario, or one of your own.
        host: the address to listen at.
        port: 0 takes a free one.
        process: run in a process of its own, without a share in this one's interpreter lock: for benchmarks.
    """

    def __init__(
        self,
        scenario: str | Scenario = "healthy",
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        process: bool = False,
    ) -> None:
        self.scenario = find_scenario(scenario) if isinstance(scenario, str) else scenario
        self.host = host
        self.port = port
        self._in_process = process
        self._server: uvicorn.Server | None = None
        self._thread: threading.Thread | None = None
        self._process: subprocess.Popen[bytes] | None = None
        super().__init__("")

    def start(self) -> Simulator:
        """Start serving; returns when calls are answered. RuntimeError where an extra package is missing."""
        require_extra()
        listener = listen(self.host, self.port)
        self.port = listener.getsockname()[1]
        self.url = f"http://{self.host}:{self.port}"
        if self._in_process:
            listener.close()
            command = [
                sys.executable,
                "-m",
                __package__,
                "--host",
                self.host,
                "--port",
                str(self.port),
                "--quiet",
            ]
            self._process = subprocess.Popen(command, env=_child_env())
        else:
            self._server = make_server(self.scenario, log_level="error")
            self._thread = threading.Thread(
                target=self._server.run, args=([listener],), name="claude-batch-simulator", daemon=True
            )
            self._thread.start()
        self._wait_ready()
        self.reset(self.scenario)
        return self

    def stop(self) -> None:
        """Stop serving, open connections with it."""
        if self._server is not None and self._thread is not None:
            self._server.should_exit = True
            self._thread.join(10)
        if self._process is not None:
            self._process.terminate()
            try:
                self._process.wait(10)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._server = self._thread = self._process = None

    def __enter__(self) -> Simulator:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def _wait_ready(self, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError):
                self.state()
                return
            if self._process is not None and self._process.poll() is not None:
                break
            time.sleep(0.02)
        self.stop()
        raise RuntimeError(f"the simulator did not start at {self.url}")


def make_server(scenario: Scenario, log_level: str = "warning") -> uvicorn.Server:
    """Return a uvicorn server of the simulator, to be run with `server.run(sockets=[listen(...)])`."""
    import uvicorn

    from .serving.app import build_app
    from .serving.connections import Protocol

    return uvicorn.Server(
        uvicorn.Config(
            build_app(scenario),
            http=Protocol,
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            log_level=log_level,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            # Longer than clients keep idle connections; otherwise one is sometimes closed just as it is used.
            timeout_keep_alive=600,
            timeout_graceful_shutdown=1,
        )
    )


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket. Its port is known, and connections wait in it, before the server runs."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host, port), family=family, backlog=512)
    listener.set_inheritable(False)
    return listener


def missing_packages() -> list[str]:
    """Return the packages of the extra `simulator` that are not installed."""
    return [name for name in ("starlette", "uvicorn") if importlib.util.find_spec(name) is None]


def require_extra() -> None:
    if missing := missing_packages():
        raise RuntimeError(f"the simulator needs {' and '.join(missing)}: pip install 'claude-batch-tasks[simulator]'")


def _child_env() -> dict[str, str]:
    """Return the environment of the child, which must import this very package, installed or not."""
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (root, os.environ.get("PYTHONPATH"))))}
