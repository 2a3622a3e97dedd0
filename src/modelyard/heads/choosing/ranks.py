"""Where each head ranks the token that really came: what trees are chosen by, and heads are judged by."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.core.errors import HeadsError
from modelyard.heads.model import Heads

#: What stands where a head foretells a token beyond the end of the sequence.
BEYOND = -1


def rank_paths(
    heads: Heads, hidden_nh: torch.Tensor, tokens_n: torch.Tensor, ranks: int, *, logits_at_once: int = 2**24
) -> NDArray[np.int64]:
    """The rank of the token t + 2 + k among the drafts of head k at position t.

    Args:
        heads: The heads, on the device of the hidden states.
        hidden_nh: The base's last hidden states after its final norm, of one sequence.
        tokens_n: The tokens of that sequence; state t is the one after token t was read.
        ranks: How many drafts of each head are looked at.
        logits_at_once: So many are held in memory, over all heads.

    Returns:
        [positions, heads]: 0 for the likeliest, `ranks` where the token is not among them (or cannot be
        drafted), and -1 where the sequence has no such token.

    Raises:
        HeadsError: States and tokens differ in number, or `ranks` is under 1.
    """
    if len(hidden_nh) != len(tokens_n) or ranks < 1:
        raise HeadsError(
            f"{len(hidden_nh)} hidden states for {len(tokens_n)} tokens, and {ranks} ranks; give one state"
            " for each token and at least one rank"
        )
    config = heads.config
    aims_nk = _aims(tokens_n.to(hidden_nh.device), config.heads)
    found_nk = torch.full((len(tokens_n), config.heads), BEYOND, dtype=torch.int64)
    rows = max(1, logits_at_once // (config.heads * config.drafted))
    with torch.inference_mode():
        for start in range(0, len(tokens_n), rows):
            part = slice(start, start + rows)
            drafts_nkr = heads.drafts(hidden_nh[part], ranks).transpose(0, 1)
            hit_nkr = drafts_nkr == aims_nk[part].unsqueeze(-1)
            first_nk = torch.where(hit_nkr.any(-1), hit_nkr.int().argmax(-1), ranks)
            found_nk[part] = torch.where(aims_nk[part] < 0, BEYOND, first_nk).cpu()
    result: NDArray[np.int64] = found_nk.numpy()
    return result


def within(ranks_nk: NDArray[np.int64], start: int, end: int) -> NDArray[np.int64]:
    """The ranks of a stretch of tokens from `start` to before `end`, [end - start, heads].

    Row i belongs to the pass whose root is token start + i: what the heads said of the tokens after it, from
    the state before it; -1 for tokens beyond the stretch.

    Args:
        ranks_nk: Of the whole sequence, as `rank_paths` gives them.
        start: At least 1: there is no state before the first token.
        end: One beyond the last token.
    """
    part_nk = ranks_nk[start - 1 : end - 1].copy()
    ahead_nk = np.arange(start, end)[:, None] + 1 + np.arange(part_nk.shape[1])
    part_nk[ahead_nk >= end] = BEYOND
    return part_nk


def _aims(tokens_n: torch.Tensor, heads: int) -> torch.Tensor:
    """The token that each head foretells at each position, [positions, heads]; -1 beyond the end."""
    aims_nk = torch.full((len(tokens_n), heads), BEYOND, dtype=torch.int64, device=tokens_n.device)
    for k in range(heads):
        ahead_n = tokens_n[2 + k :]
        aims_nk[: len(ahead_n), k] = ahead_n
    return aims_nk
