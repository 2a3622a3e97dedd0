"""Text out of tokens, piece by piece: no half characters, nothing of a stop string."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class TextStream:
    """The text of a growing sequence of tokens.

    Args:
        tokenizer: Of transformers.
        stop: Texts at which to end.
    """

    def __init__(self, tokenizer: Any, stop: Sequence[str] = ()) -> None:
        self._tokenizer, self._stop = tokenizer, tuple(stop)
        self._tokens: list[int] = []
        # The tokens before `_settled` have given the text `_text`; those from `_context` on are decoded
        # again.
        self._context = self._settled = 0
        self._text = ""
        self._told = 0
        self.stopped = False

    @property
    def text(self) -> str:
        """All of it, up to a stop string."""
        return self._text

    def push(self, token: int) -> str:
        """The text that is certain now and was not before; after a stop string there is none."""
        if self.stopped:
            return ""
        self._tokens.append(token)
        before = self._decode(self._tokens[self._context : self._settled])
        now = self._decode(self._tokens[self._context :])
        if not now.endswith("\ufffd") and len(now) > len(before):
            self._grow(now[len(before) :])
            self._context, self._settled = self._settled, len(self._tokens)
        return self._certain(last=False)

    def close(self) -> str:
        """What was held back."""
        if not self.stopped:
            before = self._decode(self._tokens[self._context : self._settled])
            self._grow(self._decode(self._tokens[self._context :])[len(before) :])
        return self._certain(last=True)

    def _grow(self, piece: str) -> None:
        start = max(0, len(self._text) - max(map(len, self._stop), default=1) + 1)
        self._text += piece
        ends = [place for stop in self._stop if (place := self._text.find(stop, start)) >= 0]
        if ends:
            self._text, self.stopped = self._text[: min(ends)], True

    def _certain(self, *, last: bool) -> str:
        held = 0 if last or self.stopped else self._possible_stop()
        end = max(len(self._text) - held, self._told)
        piece, self._told = self._text[self._told : end], end
        return piece

    def _possible_stop(self) -> int:
        """How much of the end of the text may be the beginning of a stop string."""
        longest = max((len(stop) - 1 for stop in self._stop), default=0)
        return next(
            (
                length
                for length in range(min(longest, len(self._text)), 0, -1)
                if any(stop.startswith(self._text[-length:]) for stop in self._stop)
            ),
            0,
        )

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(
            list(tokens), skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return text
