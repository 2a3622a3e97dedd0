"""One generation at a time: a line of bounded length in front of one thread that decodes.

Everything but the decoding happens on the event loop. Who goes away is noticed at the next piece of text, and
costs nothing at all while it waits.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

from modelyard.core.errors import HeadsError
from modelyard.heads.decoding.decoder import Decoded
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.serving.completions import Asked, Refused

#: Seconds after which one who was turned away may try again.
RETRY_AFTER_S = 1


class Continues(Protocol):
    """What decodes; see `modelyard.heads.decoding.decoder.Decoder`."""

    def generate(
        self, ids: Sequence[int], settings: DecodeSettings, emit: Callable[[str], None] | None = None
    ) -> Decoded:
        """Continue one prompt, telling pieces of text; whatever `emit` raises ends it."""
        ...


class GivenUp(Exception):  # noqa: N818  (nothing is wrong)
    """Nobody waits for this generation any more."""


class Generation:
    """One request in the line or under way; made by `Line.enter`, used on the event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self._given_up = threading.Event()
        self.result: asyncio.Future[Decoded] = loop.create_future()

    def emit(self, piece: str) -> None:
        """Called by the decoder, in its thread."""
        if self._given_up.is_set():
            raise GivenUp
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def next_piece(self) -> str | None:
        """The next piece of text; None after the last.

        Raises:
            HeadsError: It cannot be decoded.
        """
        piece = await self._pieces.get()
        if piece is None:
            self._pieces.put_nowait(None)
            await self.result
        return piece

    async def pieces(self) -> AsyncIterator[str]:
        """All pieces of text that are still to come; raises as `next_piece` does."""
        while (piece := await self.next_piece()) is not None:
            yield piece

    def give_up(self) -> None:
        """Nobody waits any more; may be called at any time, and twice."""
        self._given_up.set()

    @property
    def given_up(self) -> bool:
        """Whether nobody waits any more."""
        return self._given_up.is_set()

    def settle(self, outcome: Decoded | BaseException) -> None:
        """Set the result, on the event loop; after this no piece comes."""
        if not self.result.done():
            if isinstance(outcome, BaseException):
                self.result.set_exception(outcome)
                self.result.exception()  # nobody may be there to see it
            else:
                self.result.set_result(outcome)
        self._pieces.put_nowait(None)


class Line:
    """Requests that wait for the decoder.

    Args:
        decoder: Used by one thread at a time.
        most_waiting: Beyond the one that is under way.
    """

    def __init__(self, decoder: Continues, *, most_waiting: int) -> None:
        self._decoder, self._most = decoder, most_waiting
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="decode")
        self._inside: set[Generation] = set()

    @property
    def inside(self) -> int:
        """Requests that wait or are under way."""
        return len(self._inside)

    def enter(self, asked: Asked) -> Generation:
        """Take a request into the line.

        Raises:
            Refused: The line is full.
        """
        if self.inside > self._most:
            raise Refused(
                f"{self.inside} requests are being answered or wait; try again later", status=503,
                code="overloaded",
            )  # fmt: skip
        loop = asyncio.get_running_loop()
        generation = Generation(loop)
        self._inside.add(generation)

        def work() -> None:
            outcome = self._decode(generation, asked)
            loop.call_soon_threadsafe(self._leave, generation, outcome)

        self._thread.submit(work)
        return generation

    def give_up_all(self) -> None:
        """End what is under way and what waits; any thread may call it."""
        for generation in tuple(self._inside):
            generation.give_up()

    def close(self) -> None:
        """Give up all requests and wait until the thread has ended."""
        self.give_up_all()
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _decode(self, generation: Generation, asked: Asked) -> Decoded | BaseException:
        if generation.given_up:
            return GivenUp()
        try:
            return self._decoder.generate(asked.ids, asked.settings, generation.emit)
        except (GivenUp, HeadsError) as error:
            return error
        except Exception as error:  # noqa: BLE001  (a model's own code; the server goes on)
            made = HeadsError(f"decoding failed ({type(error).__name__}: {str(error)[:200]})")
            made.__cause__ = error
            return made

    def _leave(self, generation: Generation, outcome: Any) -> None:
        self._inside.discard(generation)
        generation.settle(outcome)
