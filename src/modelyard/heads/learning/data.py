"""The text that heads learn from, as tokens, and which of them the model itself writes.

One JSON object a line, in any mixture: `{"text"}`, of which all is learned; `{"prompt", "completion"}` and
`{"messages": [{"role", "content"}, ...]}`, of which the answers are; and `{"tokens", "learn_from"}` with the
digest of the `vocabulary`, as self-distillation writes them. Other keys are passed over.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from modelyard.core.errors import HeadsError
from modelyard.core.faults import Faults
from modelyard.heads.lines import numbered_lines
from modelyard.heads.turns import Turns, vocabulary_digest

#: More faults than a reader will mend in one go.
_MOST_FAULTS = 20
_REMEDY = 'write {"text"}, {"prompt", "completion"} or {"messages"}'
#: Tokens, and whether the model writes them.
_Pieces = list[tuple[list[int], bool]]


@dataclass(frozen=True, eq=False, kw_only=True)
class TokenSequence:
    """One text: its tokens [n], and which of them the model writes [n]."""

    tokens: NDArray[np.int32]
    learned: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.tokens)


@dataclass(frozen=True, eq=False, kw_only=True)
class Corpus:
    """All texts, in the order of their file."""

    sequences: Sequence[TokenSequence]
    digest: str
    # Tokens that the model writes.
    learned_tokens: int
    # Texts that were cut because they are longer than what was allowed.
    cut: int = 0


def read_corpus(path: Path, tokenizer: Any, *, ends: frozenset[int], most_tokens: int = 1024) -> Corpus:
    """The texts of a file as tokens; those too long are cut at their end.

    Args:
        path: JSON lines in UTF-8.
        tokenizer: Of the library transformers; its chat template renders messages.
        ends: The tokens after which the model writes nothing.
        most_tokens: Longest text.

    Raises:
        DocumentError: With the faults of the file, each with its line.
        HeadsError: There is nothing to learn from.
    """
    faults = Faults(file=str(path))
    reader = _Reader(tokenizer=tokenizer, ends=ends)
    sequences: list[TokenSequence] = []
    cut = 0
    for number, line in numbered_lines(path, faults):
        pieces = reader.pieces(line, f"line {number}", faults)
        if len(faults.found) >= _MOST_FAULTS:
            break
        found = _sequence(pieces)
        cut += len(found) > most_tokens
        if found.learned[:most_tokens].any():
            sequences.append(
                TokenSequence(tokens=found.tokens[:most_tokens], learned=found.learned[:most_tokens])
            )
    faults.raise_if_any()
    return corpus_of(sequences, place=str(path), cut=cut)


def corpus_of(sequences: Sequence[TokenSequence], *, place: str, cut: int = 0) -> Corpus:
    """Gather sequences.

    Raises:
        HeadsError: There is nothing to learn from.
    """
    learned = int(sum(int(sequence.learned.sum()) for sequence in sequences))
    if not learned:
        raise HeadsError(f"{place}: holds nothing that a model writes; {_REMEDY}, one object a line")
    running = hashlib.sha256()
    for sequence in sequences:
        running.update(len(sequence).to_bytes(8, "little"))
        running.update(sequence.tokens.astype("<i4").tobytes())
        running.update(sequence.learned.astype(np.uint8).tobytes())
    digest = "sha256:" + running.hexdigest()
    return Corpus(sequences=sequences, digest=digest, learned_tokens=learned, cut=cut)


def _sequence(pieces: _Pieces) -> TokenSequence:
    tokens = [token for part, _ in pieces for token in part]
    learned = [written for part, written in pieces for _ in part]
    return TokenSequence(tokens=np.array(tokens, np.int32), learned=np.array(learned, np.bool_))


@dataclass(kw_only=True)
class _Reader:
    """Reads lines; a line with a fault gives nothing."""

    tokenizer: Any
    ends: frozenset[int]

    def __post_init__(self) -> None:
        self._turns = Turns(self.tokenizer)
        self._vocabulary = vocabulary_digest(self.tokenizer)
        self._highest = max(self.tokenizer.get_vocab().values())

    def pieces(self, line: str, place: str, faults: Faults) -> _Pieces:
        """The parts of one line, each written by the model or not."""
        try:
            value = json.loads(line)
        except ValueError:
            faults.add(place, line.strip(), "is not JSON", _REMEDY)
            return []
        if not isinstance(value, dict):
            faults.add(place, value, "is not an object", _REMEDY)
            return []
        if "tokens" in value and not self._other_vocabulary(value):
            return self._of_tokens(value, place, faults)
        if "messages" in value:
            return self._of_messages(value["messages"], f"{place}.messages", faults)
        if "completion" in value or "prompt" in value:
            return self._of_completion(value, place, faults)
        if "text" in value:
            return self._of_text(value["text"], f"{place}.text", faults)
        if "tokens" in value:
            faults.add(
                place, value.get("vocabulary"), "has tokens of another vocabulary", "write the data anew"
            )
        else:
            faults.add(place, value, "has nothing to learn from", _REMEDY)
        return []

    def _other_vocabulary(self, value: Mapping[str, Any]) -> bool:
        return value.get("vocabulary") not in (None, self._vocabulary)

    def _of_tokens(self, value: Mapping[str, Any], place: str, faults: Faults) -> _Pieces:
        tokens, start = value["tokens"], value.get("learn_from", 0)
        whole = isinstance(tokens, list) and all(
            type(token) is int and 0 <= token <= self._highest for token in tokens
        )
        if not whole:
            faults.add(
                f"{place}.tokens", tokens, "is not a list of tokens of the base", "write the data anew"
            )
            return []
        if type(start) is not int or not 0 <= start <= len(tokens):
            faults.add(f"{place}.learn_from", start, "is no place in tokens", f"use 0 to {len(tokens)}")
            return []
        return [(tokens[:start], False), (tokens[start:], True)]

    def _of_text(self, text: object, place: str, faults: Faults) -> _Pieces:
        if not isinstance(text, str) or not text:
            faults.add(place, text, "is not a string with text", "write the text")
            return []
        return [(self._ended(self.tokenizer.encode(text)), True)]

    def _of_completion(self, value: Mapping[str, Any], place: str, faults: Faults) -> _Pieces:
        for name in ("prompt", "completion"):
            if not isinstance(value.get(name), str) or not value[name]:
                faults.add(
                    f"{place}.{name}", value.get(name), "is not a string with text", "write both texts"
                )
                return []
        answer = self._ended(self.tokenizer.encode(value["completion"], add_special_tokens=False))
        return [(self._turns.asked(value["prompt"]), False), (answer, True)]

    def _of_messages(self, messages: object, place: str, faults: Faults) -> _Pieces:
        if not isinstance(messages, list) or not all(_is_message(each) for each in messages):
            faults.add(place, messages, "is not a list of messages", 'write {"role", "content"} in each')
            return []
        if not any(each["role"] == "assistant" for each in messages):
            faults.add(
                place, [each["role"] for each in messages], "has no answer", "add one of role assistant"
            )
            return []
        try:
            pieces = self._turns.pieces(messages)
        except HeadsError as error:
            faults.add(place, None, str(error), "give text, or prompt and completion")
            return []
        return [part for tokens, written in pieces for part in self._cut_at_end(tokens, written=written)]

    def _cut_at_end(self, tokens: list[int], *, written: bool) -> _Pieces:
        """What a template writes after the end of an answer is not the model's."""
        if not written:
            return [(tokens, False)]
        place = next((i + 1 for i, token in enumerate(tokens) if token in self.ends), len(tokens))
        return [(tokens[:place], True), (tokens[place:], False)]

    def _ended(self, tokens: list[int]) -> list[int]:
        """With the token of the end, if there is one."""
        last = getattr(self.tokenizer, "eos_token_id", None)
        return tokens if last is None or (tokens and tokens[-1] == last) else [*tokens, last]


def _is_message(value: object) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("role"), str)
        and isinstance(value.get("content"), str)
    )
