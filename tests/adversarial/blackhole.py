"""A TCP proxy behind which packets can vanish: no FIN, no RST, no answer, as after a NAT time-out or in a paused VM."""

from __future__ import annotations

import contextlib
import socket
import threading
from dataclasses import dataclass, field


@dataclass(eq=False)
class _Pair:
    client: socket.socket
    server: socket.socket
    dead: bool = False
    ended: threading.Event = field(default_factory=threading.Event)


class Blackhole:
    """Forwards every connection to a port of this machine until ``swallow`` is called.

    >>> with Blackhole(6379) as proxy:
    ...     proxy.swallow()  # from now on everything vanishes, in both directions
    ...     proxy.heal()  # new connections work; those that were there stay silent for ever
    """

    def __init__(self, target: int) -> None:
        self._target = ("127.0.0.1", target)
        self._lock = threading.Lock()
        self._pairs: set[_Pair] = set()
        self._swallowing = False
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self.port: int = self._listener.getsockname()[1]

    def swallow(self) -> None:
        """Let everything vanish."""
        with self._lock:
            self._swallowing = True
            for pair in self._pairs:
                pair.dead = True

    def heal(self, *, old_ones_too: bool = False) -> None:
        """Serve new connections again, and also the old ones, whose packets in between stay lost, if that is said."""
        with self._lock:
            self._swallowing = False
            if old_ones_too:
                for pair in self._pairs:
                    pair.dead = False

    def __enter__(self) -> Blackhole:
        threading.Thread(target=self._accept, name="blackhole", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        with self._lock:
            pairs = list(self._pairs)
        for pair in pairs:
            self._end(pair)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                try:
                    server = socket.create_connection(self._target, timeout=10)
                except OSError:
                    client.close()
                    continue
                server.settimeout(None)
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                with self._lock:
                    pair = _Pair(client, server, dead=self._swallowing)
                    self._pairs.add(pair)
                for source, sink in ((client, server), (server, client)):
                    threading.Thread(target=self._pump, args=(pair, source, sink), daemon=True).start()

    def _pump(self, pair: _Pair, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(65536):
                if not pair.dead:
                    sink.sendall(piece)
        # Nor does the other side hear of a connection's end while packets vanish.
        if not pair.dead or source is pair.client:
            self._end(pair)

    def _end(self, pair: _Pair) -> None:
        with self._lock:
            self._pairs.discard(pair)
        for end in (pair.client, pair.server):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
