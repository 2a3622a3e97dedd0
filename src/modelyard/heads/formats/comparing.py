"""Whether two sets of heads say the same: their logits for the same hidden states."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base
from modelyard.heads.model import Heads

#: Some text of everyday words, for hidden states as they come.
_TEXT = "The first of them was written in the year 1848, and nobody has read it since; 2 + 2 = 4, I said."


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """How two sets of heads differ in their logits, computed in float32."""

    # Hidden states that were tried.
    states: int
    # Tokens whose logits were compared: those that the first can draft.
    tokens: int
    largest_difference: float

    @property
    def identical(self) -> bool:
        """Whether every logit is the same number."""
        return self.largest_difference == 0


def states_to_try(base: Base, *, random_states: int = 16, seed: int = 0) -> torch.Tensor:
    """Hidden states to compare heads on, [n, hidden] in float32: those of a text, and random ones."""
    ids_bn = torch.tensor([base.tokenizer.encode(_TEXT)], device=base.device)
    with torch.inference_mode():
        real_nh = base.hidden(ids_bn, use_cache=False)[0].float()
    chance = torch.Generator().manual_seed(seed)
    random_nh = torch.randn(random_states, base.hidden_size, generator=chance).to(base.device)
    return torch.cat([real_nh, random_nh * real_nh.std()])


def compare(first: Heads, second: Heads, hidden_nh: torch.Tensor) -> Comparison:
    """Compare the logits of all tokens that the first heads can draft.

    Raises:
        HeadsError: The second are fewer, or cannot draft one of those tokens.
    """
    if first.config.heads != second.config.heads:
        raise HeadsError(
            f"{first.config.heads} heads were to be compared with {second.config.heads}; these are others"
        )
    tokens_s = first.shortlist
    largest = 0.0
    with torch.inference_mode():
        for k in range(first.config.heads):
            here_ns, there_ns = (_logits(heads, k, hidden_nh, tokens_s) for heads in (first, second))
            largest = max(largest, float((here_ns - there_ns).abs().max()))
    return Comparison(states=len(hidden_nh), tokens=len(tokens_s), largest_difference=largest)


def _logits(heads: Heads, head: int, hidden_nh: torch.Tensor, tokens_s: torch.Tensor) -> torch.Tensor:
    """The logits of some tokens under one head, in float32, for whatever heads by the same steps."""
    state_nh = deepcopy(heads.blocks[head]).float()(hidden_nh.float())
    return torch.nn.functional.linear(state_nh, heads.projection(head)[_rows(heads, tokens_s)].float())


def _rows(heads: Heads, tokens_s: torch.Tensor) -> torch.Tensor:
    """The rows of a projection that belong to tokens."""
    row_of = torch.full((heads.config.vocab_size,), -1, dtype=torch.int64, device=tokens_s.device)
    row_of[heads.shortlist] = torch.arange(heads.config.drafted, device=tokens_s.device)
    rows_s = row_of[tokens_s]
    if bool((rows_s < 0).any()):
        missing = int((rows_s < 0).sum())
        raise HeadsError(f"{missing} of the tokens cannot be drafted by the other heads; these are others")
    return rows_s
