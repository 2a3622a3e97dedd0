"""Server-sent events of a streamed answer: passed on as they are, and read only where it counts.

Of an answer the gateway must know what it used, whether it came to its end, and whether it is an error.
The events themselves go on byte by byte, but for one: the usage that the gateway asked for and the client
did not.
"""

from __future__ import annotations

import re
from typing import Any

import orjson

#: What a client may be given as text, in all the places where the interface has it; JSON's own escapes.
_TEXT = re.compile(rb'"(?:content|text|arguments|reasoning_content|reasoning)"\s*:\s*"((?:[^"\\]|\\.)*)"')
_FINISHED = re.compile(rb'"finish_reason"\s*:\s*"')
_DONE = re.compile(rb"^data:\s*\[DONE\]", re.MULTILINE)
#: The most that may come without the end of an event.
LONGEST_EVENT_BYTES = 8 * 1024 * 1024


class EventStream:
    """Reads one streamed answer part by part; knows nothing of connections."""

    def __init__(self, *, hide_usage: bool, choices: int = 1) -> None:
        self._hide_usage = hide_usage
        # Answers to one request, each of which says itself why it ended.
        self._unfinished = choices
        self._tail = b""
        self._texts: list[bytes] = []
        self.usage: dict[str, Any] | None = None
        #: Whether the answer said itself that it is whole.
        self.done = False
        #: The error that was told in the middle of the stream, if any.
        self.error: object = None

    def feed(self, part: bytes) -> bytes:
        """Take a part as it came, give what may be passed on: whole events, unchanged.

        Raises:
            OverflowError: An event does not end.
        """
        data = self._tail + part if self._tail else part
        end = _whole_bytes(data)
        events, self._tail = data[:end], data[end:]
        if len(self._tail) > LONGEST_EVENT_BYTES:
            raise OverflowError(f"an event is over {LONGEST_EVENT_BYTES} bytes")
        return self._seen(events) if events else b""

    def rest(self) -> bytes:
        """What is left when the upstream has ended: an event without its blank line."""
        rest, self._tail = self._tail, b""
        return self._seen(rest) if rest.strip() else b""

    @property
    def finished(self) -> bool:
        """Whether each answer said why it ended."""
        return self._unfinished <= 0

    @property
    def whole(self) -> bool:
        """Whether nothing of the answer is missing."""
        return self.error is None and (self.done or self.finished)

    def text(self) -> str:
        """All the text that was streamed."""
        return "".join(_unescaped(raw) for raw in self._texts)

    def _seen(self, events: bytes) -> bytes:
        self._texts += _TEXT.findall(events)
        self._unfinished -= len(_FINISHED.findall(events))
        if b"[DONE]" in events and _DONE.search(events):
            self.done = True
        if b'"usage"' in events or b'"error"' in events:
            return self._looked_into(events)
        return events

    def _looked_into(self, events: bytes) -> bytes:
        """The events without the usage that nobody asked for."""
        kept = []
        for event in _split(events):
            record = _record(event)
            if record is not None:
                self.error = record.get("error") or self.error
                usage = record.get("usage")
                if isinstance(usage, dict):
                    self.usage = usage
                    if self._hide_usage and not record.get("choices"):
                        continue
            kept.append(event)
        return b"".join(kept)


def _whole_bytes(data: bytes) -> int:
    """How many of the bytes are whole events."""
    if data.endswith(b"\n\n"):  # nearly always
        return len(data)
    return max(data.rfind(b"\n\n") + 2 if b"\n\n" in data else 0,
               data.rfind(b"\r\n\r\n") + 4 if b"\r\n\r\n" in data else 0,
               data.rfind(b"\r\r") + 2 if b"\r\r" in data else 0)  # fmt: skip


def _split(events: bytes) -> list[bytes]:
    """Events with the blank lines that end them."""
    return re.findall(rb"(?s).+?(?:\r\n\r\n|\n\n|\r\r|\Z)", events)


def _record(event: bytes) -> dict[str, Any] | None:
    """The JSON of an event's data, or None."""
    data = b"\n".join(line[5:] for line in event.splitlines() if line.startswith(b"data:"))
    try:
        record = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return record if isinstance(record, dict) else None


def _unescaped(raw: bytes) -> str:
    try:
        return str(orjson.loads(b'"' + raw + b'"'))
    except orjson.JSONDecodeError:
        return raw.decode(errors="replace")
