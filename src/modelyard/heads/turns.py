"""The turns of a conversation as tokens, by a tokenizer's own chat template where it has one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import HeadsError

#: Stands where a user's words go, so that what a template writes around them can be seen.
_MARK = "THEUSERSWORDS"


def vocabulary_digest(tokenizer: Any) -> str:
    """Which token has which number: token numbers of one vocabulary mean nothing in another."""
    return digest_json(tokenizer.get_vocab())


class Turns:
    """Renders conversations of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.templated = bool(getattr(tokenizer, "chat_template", None))

    def opened(self, system: str, opening: str) -> list[int]:
        """The tokens up to the first words of a user's turn, those included.

        Raises:
            HeadsError: The template takes no system message, or there is nothing to begin with.
        """
        if self.templated:
            before, _ = self._around(system)
            return self._encoded(before + opening)
        tokens: list[int] = self._tokenizer.encode(opening)
        if not tokens:
            first = self._tokenizer.bos_token_id
            first = self._tokenizer.eos_token_id if first is None else first
            if first is None:
                raise HeadsError(
                    "the tokenizer has neither a token of the beginning nor of the end;"
                    " give topics with openings"
                )
            tokens = [int(first)]
        return tokens

    def request(self, opening: str, start: Sequence[int], tokens: Sequence[int]) -> tuple[str, bool]:
        """The user's turn that `tokens` complete, and whether the template's own end of it was written."""
        kept = {"skip_special_tokens": True}
        before = self._tokenizer.decode(list(start), **kept)
        text = opening + self._tokenizer.decode([*start, *tokens], **kept)[len(before) :]
        end = self._around("")[1].strip() if self.templated else ""
        ended = bool(end) and end in text
        return (text.split(end)[0] if ended else text).strip(), ended

    def asked(self, prompt: str) -> list[int]:
        """The tokens after which the answer to `prompt` comes."""
        if not self.templated:
            tokens: list[int] = self._tokenizer.encode(prompt)
            return tokens
        return self.rendered([{"role": "user", "content": prompt}], answer_next=True)

    def rendered(self, messages: Sequence[Mapping[str, str]], *, answer_next: bool) -> list[int]:
        """The tokens of messages; with `answer_next` up to where the model's answer begins.

        Raises:
            HeadsError: There is no template, or it refuses the messages.
        """
        return self._encoded(self._text(messages, answer_next=answer_next))

    def pieces(self, messages: Sequence[Mapping[str, str]]) -> list[tuple[list[int], bool]]:
        """The tokens of a conversation in parts, each with whether the model writes it.

        Parts become tokens apart from one another, as they do when the model is asked.

        Raises:
            HeadsError: There is no template, or it does not write messages one after another.
        """
        pieces: list[tuple[list[int], bool]] = []
        told = ""
        for place, message in enumerate(messages):
            if message["role"] != "assistant":
                continue
            before = self._text(messages[:place], answer_next=True)
            whole = self._text(messages[: place + 1], answer_next=False)
            if not (before.startswith(told) and whole.startswith(before)):
                raise HeadsError(f"the chat template alters what stands before message {place + 1}")
            pieces += [
                (self._encoded(before[len(told) :]), False),
                (self._encoded(whole[len(before) :]), True),
            ]
            told = whole
        return pieces

    def _text(self, messages: Sequence[Mapping[str, str]], *, answer_next: bool) -> str:
        if not self.templated:
            raise HeadsError("the tokenizer has no chat template; give text, or prompt and completion")
        try:
            text: str = self._tokenizer.apply_chat_template(
                [dict(message) for message in messages], tokenize=False, add_generation_prompt=answer_next
            )
        except Exception as error:  # whatever a template's own words raise
            roles = ", ".join(message["role"] for message in messages)
            raise HeadsError(
                f"the chat template refuses messages of {roles} ({error}); leave out those that"
                " it does not know"
            ) from error
        return text

    def _around(self, system: str) -> tuple[str, str]:
        """What a template writes before and after a user's words."""
        given = [{"role": "system", "content": system}] if system else []
        text = self._text([*given, {"role": "user", "content": _MARK}], answer_next=False)
        before, _, after = text.partition(_MARK)
        return before, after

    def _encoded(self, text: str) -> list[int]:
        tokens: list[int] = self._tokenizer.encode(text, add_special_tokens=False)
        return tokens
