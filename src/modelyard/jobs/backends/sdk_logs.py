"""Logs of an SDK's jobs: a copy of our own that only grows, out of an SDK that gives the end of a text.

An SDK gives the last lines as text, or all; it may forget them when the job has ended. The copy is what
offsets count in. What is fetched is joined to it by content, so that nothing is copied twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from modelyard.core.locks import held

#: What stands in a copy where an SDK no longer gave what came between.
GAP = b"[modelyard: lines of this log are missing here]\n"
TAIL_LINES = 10_000
#: An overlap as long as this is no coincidence.
_SURE_BYTES = 64
_LOCK_S, _LOOK_S = 5.0, 0.01

#: Gives the last so many lines of a log, or with None all that there is.
Fetch = Callable[[int | None], "str | bytes | None"]


def follow(copy: Path, fetch: Fetch, *, final: bool) -> None:
    """Append to the copy what the SDK has beyond it.

    Where another process does so at this moment it is left to that one; with `final` it is waited for.
    """
    copy.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        deadline = time.monotonic() + (_LOCK_S if final else 0.0)
        while True:
            try:
                stack.enter_context(held(copy.with_suffix(".lock")))
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    return
                time.sleep(_LOOK_S)
        news = _news(copy, fetch, final=final)
        if news:
            with copy.open("ab") as file:
                file.write(news)


def read_from(copy: Path, offset: int) -> tuple[bytes, int]:
    """What the copy holds from an offset on, and the offset after it."""
    try:
        with copy.open("rb") as file:
            file.seek(offset)
            data = file.read()
    except FileNotFoundError:
        return b"", offset
    return data, offset + len(data)


def overlaps(known: bytes, fetched: bytes) -> list[int]:
    """How many bytes the end of `known` and the beginning of `fetched` may share: the longest, and the next.

    Two of them mean that lines repeat, and that the texts do not tell where one goes on in the other.
    Overlaps that could be coincidence are left out.
    """
    found: list[int] = []
    first = fetched[:_SURE_BYTES]
    place = known.find(first) if len(first) == _SURE_BYTES else -1
    while place >= 0 and len(found) < 2:
        if fetched.startswith(known[place:]) or known[place:].startswith(fetched):
            found.append(min(len(known) - place, len(fetched)))
        place = known.find(first, place + 1)
    return found


def _news(copy: Path, fetch: Fetch, *, final: bool) -> bytes:
    """What there is beyond the copy: by the last lines where they tell, by the whole log otherwise."""
    fetched = _as_bytes(fetch(TAIL_LINES), final=final)
    if fetched.count(b"\n") >= TAIL_LINES - 1:
        shared = overlaps(_end_of(copy, len(fetched)), fetched)
        if len(shared) == 1:
            return fetched[shared[0] :]
        fetched = _as_bytes(fetch(None), final=final)
    known = _end_of(copy, None)
    if fetched.startswith(known):
        return fetched[len(known) :]
    if known.startswith(fetched):  # an answer from before the last
        return b""
    shared = overlaps(known, fetched)
    if shared:
        return fetched[shared[0] :]
    return (b"" if known.endswith(b"\n") else b"\n") + GAP + fetched


def _end_of(copy: Path, count: int | None) -> bytes:
    """The last so many bytes of the copy, or all of it; none where there is no copy."""
    try:
        with copy.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(0 if count is None else max(0, size - count))
            return file.read()
    except FileNotFoundError:
        return b""


def _as_bytes(text: str | bytes | None, *, final: bool) -> bytes:
    """The text as bytes; half a character at the end of a log that still grows is left for later."""
    if isinstance(text, bytes):
        return text
    whole = text or ""
    return (whole if final else whole.rstrip("\ufffd")).encode("utf-8", "surrogateescape")
