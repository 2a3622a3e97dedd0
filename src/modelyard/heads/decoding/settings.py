"""How to decode: lengths, temperature, penalties, stop strings, and which drafts are accepted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelyard.core.errors import HeadsError

#: As transformers has them: (ids [1, n], scores [1, vocabulary]) to scores.
Processor = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeSettings:
    """How to decode; the defaults are greedy."""

    max_new_tokens: int = 256
    min_new_tokens: int = 0
    # 0 takes the likeliest token.
    temperature: float = 0.0
    # 0 is no limit.
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    # Text at which to end; it is not part of what is given back.
    stop: tuple[str, ...] = ()
    seed: int = 0
    # Accept drafts that are likely enough, instead of exactly those that would have been drawn.
    typical: bool = False
    # A draft is typical above min(epsilon, delta * exp(-entropy)): arXiv 2401.10774, section 2.3.1.
    epsilon: float = 0.09
    delta: float = 0.3
    # So many nodes of a pass may hold what followed the last tokens where they stood before.
    lookup: int = 0
    # Go on after the model's end token.
    ignore_end: bool = False

    def __post_init__(self) -> None:
        allowed = {
            "max_new_tokens": (self.max_new_tokens >= 1, "at least 1"),
            "min_new_tokens": (self.min_new_tokens >= 0, "at least 0"),
            "temperature": (self.temperature >= 0, "0 or more"),
            "top_k": (self.top_k >= 0, "0 or more"),
            "top_p": (0 < self.top_p <= 1, "above 0 and at most 1"),
            "repetition_penalty": (self.repetition_penalty > 0, "above 0"),
            "epsilon": (0 < self.epsilon <= 1, "above 0 and at most 1"),
            "delta": (0 < self.delta <= 1, "above 0 and at most 1"),
            "lookup": (self.lookup >= 0, "0 or more"),
            "seed": (abs(self.seed) < 2**63, "between -2**63 and 2**63"),
            "stop": (all(self.stop), "texts that are not empty"),
        }
        for name, (fit, wanted) in allowed.items():
            if not fit:
                raise HeadsError(f"{name} = {getattr(self, name)!r}: must be {wanted}")
        if self.typical and self.temperature == 0:
            raise HeadsError("typical acceptance needs a temperature above 0; give one, or leave it out")

    def processors(
        self, *, asked: int, end_tokens: Sequence[int], own: Sequence[Processor] = ()
    ) -> list[Processor]:
        """What changes the logits of a token, in transformers' order; empty when nothing does.

        Args:
            asked: Tokens of the prompt.
            end_tokens: The model's.
            own: The caller's, before what leaves out tokens for a draw: that would leave none otherwise.
        """
        from transformers.generation import logits_process as library

        made: list[Any] = []
        if self.repetition_penalty != 1:
            made.append(library.RepetitionPenaltyLogitsProcessor(penalty=float(self.repetition_penalty)))
        if self.min_new_tokens and end_tokens:
            made.append(
                library.MinNewTokensLengthLogitsProcessor(
                    prompt_length_to_skip=asked, min_new_tokens=self.min_new_tokens,
                    eos_token_id=list(end_tokens),
                )
            )  # fmt: skip
        made += own
        if self.temperature not in (0, 1):
            made.append(library.TemperatureLogitsWarper(float(self.temperature)))
        if self.temperature and self.top_k:
            made.append(library.TopKLogitsWarper(top_k=self.top_k))
        if self.temperature and self.top_p < 1:
            made.append(library.TopPLogitsWarper(top_p=self.top_p))
        return made
