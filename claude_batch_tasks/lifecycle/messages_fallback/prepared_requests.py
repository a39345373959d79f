"""Requests as they are read from the store to be sent: their bytes, and what they need of limits and budgets."""

from __future__ import annotations

import json
from typing import NamedTuple

from claude_batch_tasks import errors, rules
from claude_batch_tasks.logs import get_logger
from claude_batch_tasks.pricing import request_bounds, spending
from claude_batch_tasks.records import Attempt, Need
from claude_batch_tasks.results.stored.batch_rows import BatchRows
from claude_batch_tasks.steps import Step
from claude_batch_tasks.wire import batch_requests

log = get_logger(__name__)

#: How the reason begins why a request whose cost has no limit is not sent.
UNLIMITED = "its cost has no limit"


class Request(NamedTuple):
    """What is needed to send a request."""

    place: int
    params: bytes
    model: str
    max_tokens: int
    pace: str
    need: Need
    earlier: list[Attempt]
    """Each time that it was sent in a batch."""


class Preparation:
    """Reads the requests of a batch, and estimates what they need.

    Args:
        step: the sender's step.
    """

    def __init__(self, step: Step) -> None:
        self._step = step
        #: ``max_fallback_cost`` and ``max_cost`` in nano-dollars.
        self.limit, self.total = (
            None if dollars is None else spending.to_nano_dollars(dollars)
            for dollars in (step.settings.max_fallback_cost, step.settings.max_cost)
        )
        #: The chunk that was read last: the position of its first request, and the params of all.
        self._piece: tuple[int, list[bytes]] = (0, [])

    def prepare_request(self, place: int) -> Request | str:
        """Return what is needed to send a request; a text: why it cannot be sent this way."""
        step = self._step
        try:
            params = self._read_params(place)
        except errors.ResultsMissing as exc:
            return f"it is not sent: {exc}"
        values = json.loads(params)
        model, max_tokens = str(values["model"]), int(values["max_tokens"])
        if max_tokens > rules.LONGEST_MESSAGE:
            return f"answers of {max_tokens:,} tokens (max_tokens) are possible in batches only"
        least = most = None
        if self.limit is not None or self.total is not None:
            found = request_bounds.budget_need(values, step.settings.price_list, batch=False)
            if isinstance(found, request_bounds.Need):
                least, most = spending.to_nano_dollars(found.input), spending.to_nano_dollars(found.most)
            elif step.settings.price_list.has_price(model):
                return f"{UNLIMITED}: {found.why}"
        need = Need(request_bounds.tokens_of(values), least, most)
        return Request(
            place, params, model, max_tokens, f"{step.account}:messages:{model}", need, self._find_attempts(place)
        )

    def _find_attempts(self, place: int) -> list[Attempt]:
        step = self._step
        earlier = BatchRows(
            step.store, step.unit.job_id, step.job, step.unit.batch or 0, step.batch, step.settings.price_list
        )
        try:
            return earlier.find_attempts(place)
        except errors.StoreUnavailable:
            raise
        except Exception:  # no fault here may keep a request from being sent
            extra = step.fields("attempts")
            log.exception("job %s: earlier attempts of request %d could not be read", step.where, place, extra=extra)
            return []

    def name_limits(self) -> str:
        """Return the budgets of the job as texts name them."""
        return " or ".join(f"{name} (${limit:,.4g})" for name, limit in self._list_limits().items())

    def explain_limits(self) -> str:
        """Return what was not sent, and how to allow more."""
        names = list(self._list_limits())
        settings = " or ".join(f"claude_batch_{name}" for name in names)
        return (
            "What is not sent keeps its outcome and costs nothing. To allow more in later jobs: the option "
            f"{' or '.join(names)} of run_batch, or the setting {settings}; none: no limit"
        )

    def _list_limits(self) -> dict[str, float]:
        settings = self._step.settings
        limits = {"max_fallback_cost": settings.max_fallback_cost, "max_cost": settings.max_cost}
        return {name: limit for name, limit in limits.items() if limit is not None}

    def _read_params(self, place: int) -> bytes:
        first, piece = self._piece
        if not first <= place < first + len(piece):
            first, body = self._step.store.payloads.find_chunk(
                self._step.unit.job_id, self._step.unit.batch or 0, place
            )
            piece = batch_requests.params_of(body)
            self._piece = first, piece
        return piece[place - first]
