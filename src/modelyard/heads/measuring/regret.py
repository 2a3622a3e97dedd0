"""How faithful tokens are to their model: what the model in float32 would have preferred, and by how much.

In bfloat16 the shapes of the matrices alone change a few choices in a hundred, with a tree and without. The
regret of a token is the highest logit less its own, in float32 after the very same tokens; 0 for the token
that float32 itself would have taken. What a tree does is to be held against what plain decoding in bfloat16
does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.core.errors import HeadsError
from modelyard.heads.base import Base


@dataclass(frozen=True, slots=True, kw_only=True)
class Regret:
    """Over some tokens."""

    tokens: int
    # Tokens that float32 would not have taken.
    flips: int
    # Of all tokens, in logits.
    mean: float
    largest: float

    @property
    def flip_rate(self) -> float:
        """The share of tokens that float32 would not have taken."""
        return self.flips / self.tokens if self.tokens else 0.0

    def as_json(self) -> dict[str, Any]:
        """The regret as a JSON value."""
        return {
            "tokens": self.tokens, "flips": self.flips, "flip_rate": round(self.flip_rate, 5),
            "mean": round(self.mean, 6), "largest": round(self.largest, 4),
        }  # fmt: skip


@torch.inference_mode()
def regrets(reference: Base, prompt: Sequence[int], tokens: Sequence[int]) -> NDArray[np.float64]:
    """The regret of each token after a prompt, [tokens], in one pass of the model over all of them.

    Raises:
        HeadsError: The reference does not compute in float32.
    """
    if reference.dtype != torch.float32:
        raise HeadsError("regret is measured by a model in float32; open the base so")
    ids_bn = torch.tensor([[*prompt, *tokens]], device=reference.device)
    hidden_nh = reference.hidden(ids_bn, use_cache=False)[0, len(prompt) - 1 : -1]
    logits_nv = reference.logits(hidden_nh)
    own_n = logits_nv.gather(1, torch.tensor(tokens, device=reference.device)[:, None])[:, 0]
    found: NDArray[np.float64] = (logits_nv.max(-1).values - own_n).double().cpu().numpy()
    return found


def summed(parts: Sequence[NDArray[np.float64]]) -> Regret:
    """The regret of all tokens together."""
    values = np.concatenate(parts) if parts else np.zeros(0)
    return Regret(
        tokens=len(values), flips=int((values > 0).sum()),
        mean=float(values.mean()) if len(values) else 0.0, largest=float(values.max(initial=0.0)),
    )  # fmt: skip
