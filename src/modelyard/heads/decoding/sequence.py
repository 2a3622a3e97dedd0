"""One prompt under way: what was made of it so far, where it ends, and what its reader is told."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from modelyard.heads.decoding.acceptance import Chooser
from modelyard.heads.decoding.drafting import Memory
from modelyard.heads.decoding.settings import DecodeSettings
from modelyard.heads.decoding.text_stream import TextStream

#: Called with each piece of text; what it raises ends the decoding.
Emit = Callable[[str], None]


@dataclass(slots=True, kw_only=True)
class GrowingSequence:
    """A prompt and what follows it."""

    # The prompt's tokens, and those made.
    ids: list[int]
    chooser: Chooser
    stream: TextStream
    # For prompt lookup; None without it.
    memory: Memory | None
    settings: DecodeSettings
    end_tokens: frozenset[int]
    emit: Emit | None
    made: list[int] = field(default_factory=list)
    # "stop" or "length" once it has ended.
    finish: str = ""
    # Forward passes, that over the prompt included.
    passes: int = 1
    accepted: Counter[int] = field(default_factory=Counter)

    def take(self, tokens: Sequence[int]) -> int:
        """Add tokens until the sequence ends; those after its end are not part of it. How many were added."""
        begun = len(self.made)
        for token in tokens:
            self.made.append(token)
            self.finish = self._end(token)
            if self.finish:
                self._tell(self.stream.close())
                if self.stream.stopped:  # by what was held back
                    self.finish = "stop"
                break
        self.ids.extend(self.made[begun:])
        if self.memory is not None:
            self.memory.extend(self.made[begun:])
        return len(self.made) - begun

    def continuation(self) -> list[int]:
        """What lookup drafts."""
        return [] if self.memory is None else self.memory.continuation(self.settings.lookup)

    def _end(self, token: int) -> str:
        if token in self.end_tokens and not self.settings.ignore_end:
            return "stop"
        self._tell(self.stream.push(token))
        if self.stream.stopped:
            return "stop"
        return "length" if len(self.made) >= self.settings.max_new_tokens else ""

    def _tell(self, piece: str) -> None:
        if piece and self.emit is not None:
            self.emit(piece)
