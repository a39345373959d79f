"""Where asks are, in PostgreSQL, and how they ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager

import msgspec
from psycopg import sql

from claude_batch_tasks.pool_records import AskEnd, AskPlace
from claude_batch_tasks.store.ask_encoding import decrypt_canvas
from claude_batch_tasks.store.interface import AskListener
from claude_batch_tasks.store.postgres.connection import Part, answering

#: Asks in one call of a function.
_PAGE = 1_000

#: Ids that are reported at once, about.
_FOUND = 10_000

_decode_ids = msgspec.json.Decoder(list[str]).decode


class PostgresAsks(Part):
    """``interface.Asks`` on a PostgreSQL server."""

    queries = "asks"

    @answering
    def withdraw(
        self, ask_ids: Sequence[str], ttl: float, *, sealing: bool = False, terminate: bool = False
    ) -> list[bool]:
        found: list[bool] = []
        for start in range(0, len(ask_ids), _PAGE):
            some = list(ask_ids[start : start + _PAGE])
            found += self._connection.call("withdraw_asks", some, ttl, sealing, terminate, self._channel)
        return found

    @answering
    def read_places(self, ask_ids: Sequence[str], *, with_canvas: bool = False) -> list[AskPlace | None]:
        found: list[AskPlace | None] = []
        for ask_id, job_id, *row in self._fetch("read_places", ids=list(ask_ids), with_canvas=with_canvas):
            if job_id is None:
                found.append(None)
                continue
            position, asked_at, state, reserved, canvas, headers = row
            place = AskPlace(job_id=job_id, position=position, asked_at=asked_at, state=state, reserved=reserved)
            place.canvas, place.headers = decrypt_canvas(canvas, ask_id, self._connection.cipher), headers
            found.append(place)
        return found

    @answering
    def read_ended(self, job_id: str) -> bytes:
        return bytes(self._fetch_value("read_ended", job_id=job_id)).rstrip(b"\0")

    @answering
    def end_asks(self, job_id: str, ends: Mapping[int, AskEnd], ttl: float, *, final: bool = True) -> None:
        items = list(ends.items())
        for start in range(0, len(items), _PAGE):
            positions, some = zip(*items[start : start + _PAGE], strict=True)
            ids, states = zip(*some, strict=True)
            args = [job_id, list(positions), list(ids), list(states), ttl, final, self._channel]
            self._connection.call("end_asks", *args)

    @answering
    def settle_cost(self, spent: Mapping[str, int]) -> None:
        items = list(spent.items())
        for start in range(0, len(items), _PAGE):
            ids, costs = zip(*items[start : start + _PAGE], strict=True)
            self._connection.call("settle_asks", list(ids), list(costs))

    @answering
    def read_cost(self, name: str, window: float) -> int:
        return int(self._fetch_value("read_cost", name=name, window=window) or 0)

    @contextmanager
    def listen(self) -> Iterator[AskListener]:
        with ExitStack() as stack:
            listener = PostgresAskListener(self._connection)
            listener.subscribe(stack, self._channel)
            yield listener

    @property
    def _channel(self) -> str:
        return self._connection.channel("asks_ended")


class PostgresAskListener(Part):
    """``interface.AskListener`` on a PostgreSQL server.

    A pooler that gives each transaction another connection lets no notification through: then nothing is ever reported,
    and those who wait find the ends of their asks by ``read_places``.
    """

    @answering
    def subscribe(self, stack: ExitStack, channel: str) -> None:
        """Subscribe until the stack is closed; what ends from now on is reported."""
        self._listening = stack.enter_context(self._connection.source.listen())
        self._listening.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    @answering
    def wait(self, timeout: float) -> list[str]:
        """As ``AskListener.wait``."""
        found = self._receive(timeout)
        while found and len(found) < _FOUND and (more := self._receive(0.0)):
            found += more
        return found

    def _receive(self, timeout: float) -> list[str]:
        # To its end: what came together with the first notification would be lost.
        received = list(self._listening.notifies(timeout=timeout, stop_after=1))
        return [ask_id for each in received for ask_id in _decode_ids(each.payload)]
