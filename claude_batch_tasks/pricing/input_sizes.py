"""How much input a request gives a model: what the request's own bytes show, and what they do not.

Text is bounded by its bytes, and an image by the size to which Anthropic scales it down. A file, a URL, a PDF or what a
server tool finds may have any size. These are counted by name, so that nobody mistakes a guess for a limit.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from typing import Any, NamedTuple

import msgspec

#: UTF-8 bytes of text that make about one token, and tokens that come with every message.
TEXT_BYTES = 3.5
PER_MESSAGE = 4

#: The most tokens that are added with a message, and with tools. (Text never has more tokens than bytes.)
_PER_MESSAGE_AT_MOST = 16
_WITH_TOOLS_AT_MOST = 2_000

#: The most tokens of an image, whatever its bytes: for older models, and for models since Opus 4.7.
IMAGE = 1_600
LARGE_IMAGE = 4_784
_SMALL_IMAGES = re.compile(
    r"claude-(?:v?[0-3]\b|instant|(?:opus|sonnet|haiku)-4(?:[-.@](?:[0-6](?!\d)|\d{8})|$)|4-(?:opus|sonnet)|4[-.][1-6]-)"
)

#: Tokens that are assumed, at least, for a document of unknown size, and bytes of a PDF that make about one token.
DOCUMENT = 2_000
DOCUMENT_BYTES = 25

#: Tools that Anthropic defines and the caller runs: their results do not reach the model within the same request.
_RUN_BY_CALLER = ("custom", "bash_", "text_editor_", "computer_", "memory_", "browser_")

#: Types of blocks that hold the model's own words, whatever these look like.
_WORDS = ("tool_use", "server_tool_use", "mcp_tool_use", "thinking", "redacted_thinking")


class Advisor(NamedTuple):
    """Another model that may be asked while a request is answered."""

    model: str
    uses: int
    output_tokens: int | None
    """The most output tokens each time; None: as many as the model can give."""


class Inputs(NamedTuple):
    """What a request gives a model as input."""

    tokens: int
    """Estimated tokens of one prompt."""
    assumed: int
    """How many of these are assumed for parts of unknown size."""
    most: int
    """The most tokens of those parts of one prompt whose size is known."""
    ttl: str | None
    """The longest cache lifetime that the request asks for: ``5m`` or ``1h``; None: it asks for no cache."""
    unknown: Mapping[str, int]
    """Number of parts whose size is not known here, by what they are."""
    endless: tuple[str, str] | None
    """The field that lets a server tool prompt the model again and again without a limit, and the name of the tool."""
    prompts: int
    """How often the model is prompted at most, if that has a limit."""
    searches: int
    """The most web searches."""
    advisors: tuple[Advisor, ...]
    compacted: bool
    """Whether the prompt may be summarized before it is answered, which is billed in addition to the answer."""


def measure_inputs(params: Mapping[str, Any]) -> Inputs:
    """Measure the input of one request; the JSON may have any shape."""
    found = _Measured(str(params.get("model")))
    for message in _as_list(params.get("messages")):
        found.add_message(message)
    found.add_content([params.get("system")])
    found.add_tools(params.get("tools"))
    found.add_format(_as_dict(params.get("output_config")).get("format"))
    found.marks.append(params.get("cache_control"))
    thread = params.get("thread")
    if isinstance(thread, dict) and thread.get("type") != "create":
        found.unknown["conversation stored at Anthropic (thread)"] += 1
    if params.get("mcp_servers"):
        found.endless = found.endless or ("params.mcp_servers", "MCP servers")
    edits = _as_dict(params.get("context_management")).get("edits")
    if isinstance(edits, list):
        found.compacted = any(str(_as_dict(edit).get("type")).startswith("compact") for edit in edits)
    if _as_dict(params.get("container")).get("skills"):
        found.endless = found.endless or ("params.container.skills", "skills")
    return found.list_inputs()


class _Measured:
    """The sums over those parts of a request that were measured so far."""

    def __init__(self, model: str) -> None:
        self.marks: list[Any] = []
        self.unknown: Counter[str] = Counter()
        self.endless: tuple[str, str] | None = None
        self.compacted = False
        self._image = IMAGE if _SMALL_IMAGES.search(model) else LARGE_IMAGE
        self._size = self._tokens = self._assumed = self._most = self._uses = self._searches = 0
        self._advisors: list[Advisor] = []

    def list_inputs(self) -> Inputs:
        """Return all that was measured."""
        asked = [mark for mark in self.marks if mark]
        ttl = "1h" if any(isinstance(mark, dict) and mark.get("ttl") == "1h" for mark in asked) else "5m"
        return Inputs(
            tokens=self._tokens + math.ceil(self._size / TEXT_BYTES),
            assumed=self._assumed,
            most=self._most + self._size,
            ttl=ttl if asked else None,
            unknown=self.unknown,
            endless=self.endless,
            prompts=1 + self._uses,
            searches=self._searches,
            advisors=tuple(self._advisors),
            compacted=self.compacted,
        )

    def add_message(self, message: Any) -> None:
        """Add a message."""
        self._tokens += PER_MESSAGE
        self._most += _PER_MESSAGE_AT_MOST
        self.add_content([message.get("content") if isinstance(message, dict) else message])

    def add_content(self, todo: list[Any]) -> None:
        """Add content: texts, blocks, and lists of these."""
        # A list of parts that are still to be measured instead of recursion: the nesting may have any depth.
        while todo:
            part = todo.pop()
            if isinstance(part, str):
                self._size += _count_bytes(part)
            elif isinstance(part, (list, tuple)):
                todo += part
            elif isinstance(part, dict):
                todo += self._add_block(part)
            elif part is not None:
                self._size += _count_bytes(part)

    def _add_block(self, block: dict[str, Any]) -> list[Any]:
        """Add a block of content; return those parts of it that are still to be measured."""
        self.marks.append(block.get("cache_control"))
        kind = block.get("type")
        if kind == "text":
            return [block.get("text")]
        if kind == "tool_result":
            return [block.get("content")]
        if kind == "image":
            self._add_image()
        elif kind == "document":
            return [block.get("title"), block.get("context"), *self._add_source(block.get("source"))]
        else:
            self._size += _count_bytes(block)
            if kind not in _WORDS:
                self._add_inner(list(block.values()), named=block)
        return []

    def _add_inner(self, todo: list[Any], *, named: dict[str, Any]) -> None:
        """Add what a block, which was counted by its bytes, refers to in addition."""
        self._add_file(named)
        while todo:
            part = todo.pop()
            if isinstance(part, (list, tuple)):
                todo += part
            elif isinstance(part, dict) and part.get("type") == "image":
                self._add_image()
            elif isinstance(part, dict) and part.get("type") == "document":
                source = part.get("source")
                if not isinstance(source, dict) or source.get("type") not in ("text", "content"):
                    self._add_source(source)
            elif isinstance(part, dict):
                self._add_file(part)
                todo += part.values()

    def _add_file(self, part: dict[str, Any]) -> None:
        if isinstance(part.get("file_id"), str):
            self.unknown["file"] += 1

    def _add_image(self) -> None:
        self._tokens += self._image
        self._most += self._image

    def _add_source(self, source: Any) -> list[Any]:
        """Add the source of a document; return those parts of it that are still to be measured."""
        source = _as_dict(source)
        kind = source.get("type")
        if kind == "text":
            return [source.get("data")]
        if kind == "content":
            return [source.get("content")]
        name = {"base64": "PDF", "file": "file", "url": "document by URL"}.get(str(kind), "document")
        self.unknown[name] += 1
        # Base64 has four characters for three bytes; a URL or a file has no data here.
        assumed = max(DOCUMENT, len(str(source.get("data", ""))) * 3 // 4 // DOCUMENT_BYTES)
        self._tokens += assumed
        self._assumed += assumed
        return []

    def add_tools(self, tools: Any) -> None:
        """Add the definitions of tools, and the prompts and searches that Anthropic's own tools may cause."""
        if not tools:
            return
        self._most += _WITH_TOOLS_AT_MOST
        for tool in _as_list(tools):
            self._size += _count_bytes(tool)
            if isinstance(tool, dict):
                self.marks.append(tool.get("cache_control"))
                kind = tool.get("type")
                if kind is not None and not str(kind).startswith(_RUN_BY_CALLER):
                    self._add_server_tool(str(tool.get("name") or kind), str(kind), tool)

    def add_format(self, wanted: Any) -> None:
        """Add the format of a structured output, which the model gets in a prompt of Anthropic's."""
        if wanted:
            self._most += _WITH_TOOLS_AT_MOST
            self._size += _count_bytes(wanted)

    def _add_server_tool(self, name: str, kind: str, tool: dict[str, Any]) -> None:
        uses = _count_parts(tool.get("max_uses"))
        if uses is None:
            self.endless = self.endless or ("params.tools", f"{name} without max_uses")
            return
        self._uses += uses
        if kind.startswith("web_search"):
            self._searches += uses
        elif kind.startswith("advisor"):
            self._advisors.append(Advisor(str(tool.get("model")), uses, _count_parts(tool.get("max_tokens"))))


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _as_dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _count_parts(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _count_bytes(value: Any) -> int:
    """Return the length of a text in UTF-8, or of any other value as JSON."""
    if isinstance(value, str):
        return len(value.encode(errors="surrogatepass"))
    try:
        return len(msgspec.json.encode(value))
    except (TypeError, ValueError, RecursionError):
        return 0  # it cannot be sent
