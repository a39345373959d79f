"""The requests that a job sends: validation, wire ids, and dividing them into batches by count and exact bytes.

The caller's iterable is read once. At a time, one chunk (about a megabyte) and a few bytes per request are held in
memory.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple, TypeAlias

import msgspec

from claude_batch_tasks.errors import InvalidRequests
from claude_batch_tasks.wire import plain_json, request_fields
from claude_batch_tasks.wire.custom_ids import Index as Index


class CheckedRequest(NamedTuple):
    """A request that was checked before, and is sent as it is."""

    custom_id: str
    params: bytes
    """As JSON."""


#: What a job is made of: ``{"custom_id": ..., "params": {...}}`` each, or a mapping of custom_id to params.
Requests: TypeAlias = Iterable[Mapping[str, Any]] | Mapping[str, Mapping[str, Any]] | Iterable[CheckedRequest]

#: What is added to the params of each request, which are plain: returns them, and what is wrong as (field, text).
Prepare: TypeAlias = Callable[[dict[str, Any]], tuple[dict[str, Any], list[tuple[str, str]]]]

#: The body of a create begins and ends with these two; the requests are between them, joined by commas.
ENVELOPE = (b'{"requests":[', b"]}")

#: The most bytes that a request of a batch has beside its params, with the comma after it.
ITEM_BYTES = 80

CHUNK_BYTES = 1_000_000
PROBLEMS_SHOWN = 20
LONGEST_CUSTOM_ID = 512


class Piece(NamedTuple):
    """A chunk of neighboring requests of one batch, as they are sent."""

    batch: int
    custom_ids: list[str]
    body: bytes
    """The requests as JSON, joined by commas, without a comma at either end."""


def wire_id(nonce: str, index: int) -> str:
    """Return the ``custom_id`` (``^[a-zA-Z0-9_-]{1,64}$``) that Anthropic gets for the job's request ``index``."""
    return f"cbt-{nonce}-{index}"


def round_nonce(nonce: str, round_: int) -> str:
    """Return the nonce of the wire ids in a job's batches of a round: a row's id shows its round."""
    return f"{nonce}-{round_}" if round_ else nonce


def index_of(nonce: str, custom_id: str) -> int | None:
    """Return the index in a wire id of this job; ``None`` for any other custom_id."""
    _, _, digits = custom_id.rpartition("-")
    try:
        index = int(digits)
    except ValueError:
        return None
    # int() accepts several spellings of a number, and digits of other alphabets.
    return index if custom_id == f"cbt-{nonce}-{index}" else None


def cut_batches(
    requests: Requests,
    *,
    nonce: str,
    index: Index,
    max_requests: int,
    max_bytes: int,
    models: set[str] | None = None,
    prepare: Prepare | None = None,
) -> Iterator[Piece]:
    """Validate requests and divide them into chunks of batches.

    Args:
        requests: any iterable of ``{"custom_id": ..., "params": {...}}``, or a mapping of custom_id to params.
        nonce: a part of the wire ids, by which a batch is recognized as this job's.
        index: an empty index, to which every custom_id is added.
        max_requests: requests a batch may hold.
        max_bytes: bytes the body of a batch's create may have, envelope included.
        models: a set to which the model of every request is added.
        prepare: returns the params as they are sent; default: as they are given.

    Raises:
        InvalidRequests: raised after the last request, with all problems; what was yielded must then be discarded.
    """
    most = max_bytes - len(ENVELOPE[0]) - len(ENVELOPE[1])
    models = set() if models is None else models
    problems = _Problems()
    batch = count = size = piece_size = 0
    ids: list[str] = []
    items: list[bytes] = []
    number = -1
    for number, request in enumerate(_as_requests(requests)):
        custom_id, params, item, wrong = _make_item(request, number, nonce, index, most, prepare)
        if wrong or problems.shown:
            problems.add_wrong(number, custom_id, wrong)
            items, ids = [], []
            continue
        assert custom_id is not None
        models.add(params["model"])
        added = len(item) + bool(count)
        full = count == max_requests or size + added > most
        if items and (full or piece_size + len(item) > CHUNK_BYTES):
            yield Piece(batch, ids, b",".join(items))
            items, ids, piece_size = [], [], 0
        if full:
            batch, count, size, added = batch + 1, 0, 0, len(item)
        items.append(item)
        ids.append(custom_id)
        count, size, piece_size = count + 1, size + added, piece_size + len(item) + 1
    problems.raise_if_wrong(number + 1)
    yield Piece(batch, ids, b",".join(items))


def check_params(params: Any, most: int, prepare: Prepare | None = None) -> tuple[dict[str, Any], bytes]:
    """Return the params of one request as they are sent: as plain values, and as JSON.

    Args:
        most: bytes that the request may have in a create, with what is added to the params.
        prepare: as for ``cut_batches``.

    Raises:
        InvalidRequests: with all that is wrong with them.
    """
    if isinstance(params, Mapping) and isinstance(params.get("params"), Mapping):
        raise InvalidRequests(
            "this is a request that has its params under params: give the params alone; nothing was stored or sent"
        )
    _, plain, body, wrong = _validate_request({"custom_id": "-", "params": params})
    if prepare is not None and not wrong:
        plain, wrong = prepare(plain)
        body = msgspec.json.encode(plain)
    if not wrong and (size := len(body) + ITEM_BYTES) > most:
        wrong = [("params", f"{size:,} bytes; a batch holds at most {most:,}")]
    if wrong:
        problems = _Problems()
        problems.add_wrong(None, None, wrong)
        problems.raise_if_wrong(1)
    return plain, body


class _Problems:
    """What is wrong with the requests of a job: the first of it, and how much more there is."""

    def __init__(self) -> None:
        self.shown: list[list[Any]] = []
        self.more = 0

    def add_wrong(self, number: int | None, custom_id: str | None, wrong: list[tuple[str, str]]) -> None:
        """Add what is wrong with a request, as (field, text)."""
        room = PROBLEMS_SHOWN - len(self.shown)
        self.shown += [[number, custom_id, field, text] for field, text in wrong[:room]]
        self.more += len(wrong[room:])

    def raise_if_wrong(self, requests: int) -> None:
        """Raise if anything is wrong, or if there are no requests at all.

        Raises:
            InvalidRequests: with all problems.
        """
        if not requests:
            self.add_wrong(None, None, [("requests", "the job is empty")])
        if self.shown:
            raise InvalidRequests(_describe_problems(self.shown, self.more), self.shown, self.more)


def pick_requests(body: bytes, positions: Iterable[int]) -> list[bytes]:
    """Return the ``params``, as JSON, of the requests at these positions of a chunk's body."""
    params = params_of(body)
    return [params[position] for position in positions]


def params_of(body: bytes) -> list[bytes]:
    """Return the ``params``, as JSON, of all requests of a chunk's body."""
    return [bytes(item.params) for item in _decode_items(b"[" + body + b"]")]


def rewrite_ids(body: bytes, positions: Iterable[int], wire_ids: Iterable[str]) -> list[bytes]:
    """Return the requests at these positions of a chunk's body, as they are sent under other ids."""
    params = pick_requests(body, positions)
    return [encode_item(custom_id, of_one) for custom_id, of_one in zip(wire_ids, params, strict=True)]


def encode_item(custom_id: str, params: bytes) -> bytes:
    """Return a request as it is sent."""
    return b'{"custom_id":"%s","params":%s}' % (custom_id.encode(), params)


class _Item(msgspec.Struct):
    params: msgspec.Raw


_decode_items = msgspec.json.Decoder(list[_Item]).decode


def _as_requests(requests: Any) -> Iterator[Any]:
    if isinstance(requests, Mapping):
        if isinstance(requests.get("custom_id"), str):
            raise InvalidRequests(
                "requests is one request, and must be a list: write [request]; nothing was stored or sent"
            )
        # This is the body of a create, as the SDK and curl send it.
        if len(requests) == 1 and isinstance(inner := requests.get("requests"), (list, tuple)):
            yield from inner
            return
        for custom_id, params in requests.items():
            yield {"custom_id": custom_id, "params": params}
    elif isinstance(requests, Iterable) and not isinstance(requests, (str, bytes, bytearray, type)):
        yield from requests
    else:
        raise InvalidRequests(
            f"requests must be an iterable of {{custom_id, params}} or a mapping of custom_id to params, "
            f"not {_describe_type(requests)}; nothing was stored or sent"
        )


def _make_item(
    request: Any, number: int, nonce: str, index: Index, most: int, prepare: Prepare | None
) -> tuple[str | None, Any, bytes, list[tuple[str, str]]]:
    """Return the custom_id, the plain params, the JSON of the request as it is sent, and what is wrong with it.

    Of a request that was checked before, the only param that is returned is the model.
    """
    checked = isinstance(request, CheckedRequest)
    custom_id, params, body, wrong = _read_checked(request) if checked else _validate_request(request)
    if prepare is not None and not wrong and not checked:
        params, wrong = prepare(params)
        body = msgspec.json.encode(params)
    usable = not wrong or not any(name == "custom_id" for name, _ in wrong)
    if usable and custom_id is not None and not index.add_id(custom_id, number):
        wrong.append(("custom_id", "occurs more than once"))
    if wrong:
        return custom_id, params, b"", wrong
    item = encode_item(wire_id(nonce, number), body)
    if len(item) > most:
        wrong.append(("params", f"{len(item):,} bytes; a batch holds at most {most:,}"))
    return custom_id, params, item, wrong


class _ModelOnly(msgspec.Struct):
    model: str


_read_model_only = msgspec.json.Decoder(_ModelOnly).decode


def _read_checked(request: CheckedRequest) -> tuple[str | None, Any, bytes, list[tuple[str, str]]]:
    """Return of a request that was checked before what ``_validate_request`` returns of one that was not."""
    return request.custom_id, {"model": _read_model_only(request.params).model}, request.params, []


def _validate_request(request: Any) -> tuple[str | None, Any, bytes, list[tuple[str, str]]]:
    """Return the custom_id (None if unusable), the plain params, their JSON, and what is wrong as (field, text)."""
    # The check for dict comes first, here and below: a check for the abstract class takes ten times as long.
    if not isinstance(request, dict) and not isinstance(request := _read_model(request), Mapping):
        return (
            None,
            None,
            b"",
            [("request", f"must be an object with custom_id and params, not {_describe_type(request)}")],
        )
    wrong = [] if request.keys() == _FIELDS else _find_outside(request)
    custom_id = _read_custom_id(request.get("custom_id"), wrong)
    given = request.get("params")
    if type(given) is not dict:
        if given is None or plain_json.is_omitted(given):
            return custom_id, None, b"", [*wrong, ("params", "is missing")]
        if not isinstance(given := _read_model(given), Mapping):
            return custom_id, None, b"", [*wrong, ("params", f"must be an object, not {_describe_type(given)}")]
    params, body, without_form = plain_json.encode_plain(given, "params")
    wrong += without_form
    if params is not None and not _is_complete(params):
        _check_params(params, wrong)
    return custom_id, params, body, wrong


_FIELDS = {"custom_id", "params"}


def _find_outside(request: Mapping[Any, Any]) -> list[tuple[str, str]]:
    return [
        (str(name), request_fields.find_outside(name))
        for name, value in request.items()
        if name not in _FIELDS and not plain_json.is_omitted(value)
    ]


def _read_custom_id(given: Any, wrong: list[tuple[str, str]]) -> str | None:
    """Return a request's custom_id, or the part of it that messages show; append to ``wrong`` what is wrong with it."""
    if type(given) is str and 0 < len(given) <= LONGEST_CUSTOM_ID and given.isascii():
        return given  # as nearly all are
    if given is None or plain_json.is_omitted(given):
        wrong.append(("custom_id", "is missing"))
        return None
    if not isinstance(given, str) or not 1 <= len(given) <= LONGEST_CUSTOM_ID:
        text = f"must be a string of 1 to {LONGEST_CUSTOM_ID} characters"
        wrong.append(("custom_id", text if isinstance(given, str) else f"{text}, not {_describe_type(given)}"))
        return given[:80] + "..." if isinstance(given, str) and given else None
    if not _is_encodable(given):
        wrong.append(("custom_id", "holds an unpaired surrogate, which is not valid Unicode"))
        return None
    return str.__str__(given)  # a plain str, in place of a subclass (numpy's, Django's)


def _is_complete(params: dict[str, Any]) -> bool:
    """Return whether plain params are certainly right: one quick check that suffices for most requests."""
    try:
        return (
            type(params["model"]) is str
            and params["model"] != ""
            and type(params["max_tokens"]) is int
            and params["max_tokens"] > 0
            and type(params["messages"]) is list
            and params["messages"] != []
            and request_fields.SPECIAL.isdisjoint(params)
        )
    except KeyError:
        return False


#: The fields that params must have: how they are missing, how they are right, and what is wrong otherwise.
_NEEDED: tuple[tuple[str, Callable[[Any], bool], Callable[[Any], bool], str], ...] = (
    ("model", operator.not_, lambda value: type(value) is str, "must be a text"),
    (
        "max_tokens",
        lambda value: value is None,
        lambda value: type(value) is int and value >= 1,
        "must be a whole number of at least 1 in a batch",
    ),
    ("messages", operator.not_, lambda value: type(value) is list, "must be a list of messages"),
)


def _check_params(params: dict[str, Any], wrong: list[tuple[str, str]]) -> None:
    """Append to ``wrong`` what would make a request with plain params fail.

    A field that is already in ``wrong`` has the value None.
    """
    reported = {field for field, _ in wrong}
    for name, is_missing, is_right, text in _NEEDED:
        value, field = params.get(name), f"params.{name}"
        if is_missing(value):
            if field not in reported:
                wrong.append((field, "is missing"))
        elif not is_right(value):
            wrong.append((field, text))
    if not request_fields.SPECIAL.isdisjoint(params):
        misplaced = list(request_fields.find_misplaced(params))
        places = tuple(field for field, _ in misplaced)
        wrong[:] = [found for found in wrong if not found[0].startswith(places)] + misplaced


def _read_model(value: Any) -> Any:
    """Return what the SDK makes of a pydantic model; return any other value unchanged."""
    try:
        return plain_json.dump_model(value)
    except Exception:  # noqa: BLE001 - pydantic's, or of the user's own serializers
        return value


def _describe_type(value: Any) -> str:
    return f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__


def _is_encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _describe_problems(problems: list[list[Any]], more: int) -> str:
    lines = [f"  {_describe_place(index, custom_id, field)} {text}" for index, custom_id, field, text in problems]
    if more:
        lines.append(f"  and {more:,} more")
    return "\n".join([f"{len(problems) + more:,} problem(s) in the requests; nothing was stored or sent:", *lines])


def _describe_place(index: int | None, custom_id: str | None, field: str) -> str:
    if index is None:
        return f"{field}:"
    pointer = f"requests[{index}]" + (f".{field}" if field != "request" else "")
    return f"{pointer} (custom_id {custom_id!r})" if custom_id is not None else pointer
