"""A client that asks a gateway many things at once and says of each answer whether it was whole.

It reads HTTP with asyncio's streams and nothing of the gateway's own, so that it judges and does not agree.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

_LIMIT_BYTES = 8 * 1024 * 1024


class Verdict(StrEnum):
    """What a client can say of what it got."""

    # A whole answer.
    ANSWERED = "answered"
    # An error as the interface has it, before an answer or within a stream that was cut then.
    TOLD = "told"
    # Refused with 429.
    LIMITED = "limited"
    # The connection ended without a word.
    DROPPED = "dropped"
    # Anything else: a success that is not whole, no end in time.
    WRONG = "wrong"


@dataclass(frozen=True, slots=True, kw_only=True)
class Got:
    """One answer, judged."""

    request_id: str
    verdict: Verdict
    status: int
    # Who answered, as the gateway says.
    model: str
    seconds: float
    # Whether it was sent again because its kept connection was dead.
    resent: bool = False
    # Of what was wrong.
    detail: str = ""


@dataclass(slots=True, kw_only=True)
class Client:
    """One connection, used again while the server lets it."""

    host: str
    port: int
    key: str
    # The longest that an answer may take.
    patience_s: float
    _reader: asyncio.StreamReader | None = None
    _writer: asyncio.StreamWriter | None = None
    _resent: bool = False

    async def ask(self, request_id: str, model: str, prompt: str, *, stream: bool) -> Got:
        """Ask once; never raises for what a server does."""
        begun = time.monotonic()
        body = {"model": model, "stream": stream, "messages": [{"role": "user", "content": prompt}]}
        headers: dict[str, str] = {}
        status, self._resent = 0, False
        try:
            async with asyncio.timeout(self.patience_s):
                status, headers = await self._sent(request_id, json.dumps(body).encode())
                whole, data = await self._body(headers)
            verdict, detail = _judged(status, headers, whole=whole, data=data)
        except TimeoutError:
            verdict, detail = Verdict.WRONG, f"no end within {self.patience_s:g} s"
            self.close()
        except (OSError, EOFError, ValueError) as error:
            verdict, detail = (Verdict.WRONG if status else Verdict.DROPPED), repr(error)
            self.close()
        if headers.get("connection") == "close":
            self.close()
        return Got(
            request_id=request_id, verdict=verdict, status=status, model=headers.get("x-modelyard-model", ""),
            seconds=time.monotonic() - begun, resent=self._resent, detail=detail,
        )  # fmt: skip

    def close(self) -> None:
        """End the connection."""
        if self._writer is not None:
            self._writer.close()
        self._reader = self._writer = None

    async def _sent(self, request_id: str, body: bytes) -> tuple[int, dict[str, str]]:
        """Send a request; status and headers of its answer. A kept connection that is dead is replaced."""
        head = (
            f"POST /v1/chat/completions HTTP/1.1\r\nhost: {self.host}\r\nauthorization: Bearer {self.key}\r\n"
            f"content-type: application/json\r\nx-request-id: {request_id}\r\n"
            f"content-length: {len(body)}\r\n\r\n"
        ).encode()
        while True:
            kept = self._writer is not None
            if self._writer is None or self._reader is None:
                self._reader, self._writer = await asyncio.open_connection(
                    self.host, self.port, limit=_LIMIT_BYTES
                )
            try:
                self._writer.write(head + body)
                await self._writer.drain()
                line = await self._reader.readline()
                if line:
                    return int(line.split()[1]), await _headers(self._reader)
                raise ConnectionResetError("closed before an answer")
            except ConnectionError:
                self.close()
                if not kept:
                    raise
                self._resent = True

    async def _body(self, headers: Mapping[str, str]) -> tuple[bool, bytes]:
        """Whether the body came to its end as HTTP has it, and what came."""
        reader = self._reader
        if reader is None:
            raise EOFError("no connection")
        if "content-length" in headers:
            return True, await reader.readexactly(int(headers["content-length"]))
        parts: list[bytes] = []
        try:
            while size := int(await reader.readline(), 16):
                parts.append(await reader.readexactly(size))
                await reader.readline()
            await reader.readline()
        except (ValueError, EOFError, ConnectionError):
            self.close()
            return False, b"".join(parts)
        return True, b"".join(parts)


async def _headers(reader: asyncio.StreamReader) -> dict[str, str]:
    headers: dict[str, str] = {}
    while (line := await reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.decode("latin-1").partition(":")
        headers[name.strip().lower()] = (
            value.strip().lower() if name.lower() == "connection" else value.strip()
        )
    return headers


def _judged(status: int, headers: Mapping[str, str], *, whole: bool, data: bytes) -> tuple[Verdict, str]:
    if status == 200 and headers.get("content-type", "").startswith("text/event-stream"):
        return _judged_stream(data, whole=whole)
    try:
        record = json.loads(data)
    except ValueError:
        return Verdict.WRONG, f"{status} with what is not JSON: {data[:100]!r}"
    if status == 200:
        said = whole and bool(record.get("choices"))
        return (Verdict.ANSWERED, "") if said else (Verdict.WRONG, f"half an answer: {data[:100]!r}")
    message = (record.get("error") or {}).get("message") if isinstance(record, dict) else None
    if not message:
        return Verdict.WRONG, f"{status} without an error: {data[:100]!r}"
    return (Verdict.LIMITED if status == 429 else Verdict.TOLD), str(message)


def _judged_stream(data: bytes, *, whole: bool) -> tuple[Verdict, str]:
    """A stream is whole by its last words and by its framing; cut, it must have told an error."""
    events = [each for each in data.replace(b"\r\n", b"\n").split(b"\n\n") if each.strip()]
    told = b'"error"' in events[-1] if events else False
    ended = b"data: [DONE]" in data or b'"finish_reason":"' in data
    if whole and ended and not told:
        return Verdict.ANSWERED, ""
    if told and not whole:
        return Verdict.TOLD, events[-1].decode(errors="replace")[:200]
    return Verdict.WRONG, f"{'ended' if whole else 'cut'} after {len(events)} events without a word"
