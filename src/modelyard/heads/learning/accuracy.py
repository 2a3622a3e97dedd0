"""How well heads foretell: the cross entropy of each, and how often the true token is among their first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from modelyard.heads.config import RANKS
from modelyard.heads.learning.examples import NOTHING, Examples
from modelyard.heads.learning.hidden_states import HiddenStates
from modelyard.heads.model import Heads

#: Logits of one head at a time.
_CHUNK = 1 << 23
#: The weight of head k in the loss is DECAY^k (arXiv 2401.10774, section 2.2.1).
DECAY = 0.8


@dataclass(frozen=True, eq=False, kw_only=True)
class Accuracy:
    """On positions that were not trained on."""

    # sum_k 0.8^k CE_k
    loss: float
    # Share of the true tokens among a head's first r, [heads, RANKS]; what cannot be drafted is missed.
    top_kr: NDArray[np.float64]

    def rounded(self) -> list[list[float]]:
        """As a record keeps it."""
        return [[round(float(share), 6) for share in row] for row in self.top_kr]


def head_losses(heads: Heads, states_nh: torch.Tensor, labels_kn: torch.Tensor) -> torch.Tensor:
    """The cross entropy of each head, summed over the positions that have a label, [heads]."""
    return hard_losses(heads_logits(heads, states_nh), labels_kn)


def hard_losses(logits_kns: torch.Tensor, labels_kn: torch.Tensor) -> torch.Tensor:
    """As `head_losses`, of logits."""
    labels_kn = labels_kn.to(logits_kns.device)
    return torch.stack(
        [
            torch.nn.functional.cross_entropy(
                logits_ns.float(), labels_n, ignore_index=NOTHING, reduction="sum"
            )
            for logits_ns, labels_n in zip(logits_kns, labels_kn, strict=True)
        ]
    )


def soft_losses(
    heads: Heads, logits_kns: torch.Tensor, states_knh: torch.Tensor, there_kn: torch.Tensor
) -> torch.Tensor:
    """The cross entropy of each head against the base's own distribution there, summed, [heads].

    What head k is to foretell at position t, the base itself tells at t + 1 + k, knowing the tokens between:
    a whole distribution where the text has one token of it (distillation, arXiv 1503.02531).

    Args:
        heads: Whose shortlist is meant.
        logits_kns: What they foretell.
        states_knh: The base's hidden states at t + 1 + k.
        there_kn: Whether that position belongs to the text.
    """
    states_knh = states_knh.to(heads.shared_sh.device, heads.shared_sh.dtype)
    sums = []
    for logits_ns, states_nh, there_n in zip(logits_kns, states_knh, there_kn, strict=True):
        with torch.no_grad():
            told_ns = torch.softmax(torch.nn.functional.linear(states_nh, heads.shared_sh).float(), dim=-1)
            told_ns *= there_n.to(told_ns.device)[:, None]
        sums.append(-(told_ns * torch.log_softmax(logits_ns.float(), dim=-1)).sum())
    return torch.stack(sums)


def heads_logits(heads: Heads, states_nh: torch.Tensor) -> torch.Tensor:
    """Logits of hidden states in any type and on any device, [heads, n, drafted]."""
    logits_kns: torch.Tensor = heads(states_nh.to(heads.shortlist.device, next(heads.parameters()).dtype))
    return logits_kns


def rank_hits(logits_ns: torch.Tensor, labels_n: torch.Tensor) -> NDArray[np.int64]:
    """How many labels are among the first r + 1 by their logits, [RANKS]; NOTHING counts for none."""
    has_n = labels_n != NOTHING
    logits_ns, wanted_n = logits_ns[has_n], labels_n[has_n]
    rank_n = (logits_ns > logits_ns.gather(1, wanted_n[:, None])).sum(dim=1)
    counts: NDArray[np.int64] = np.bincount(rank_n.clamp(max=RANKS).cpu().numpy(), minlength=RANKS + 1)
    return np.cumsum(counts)[:RANKS]


def measure(heads: Heads, states: HiddenStates, examples: Examples, labels_kn: NDArray[np.int64]) -> Accuracy:
    """Loss and accuracy on examples.

    Args:
        heads: What is measured.
        states: The base's hidden states.
        examples: The positions.
        labels_kn: Places in the shortlist; NOTHING where a token cannot be drafted.
    """
    count = heads.config.heads
    losses_k, hits_kr = np.zeros(count), np.zeros((count, RANKS))
    with torch.inference_mode():
        size = max(1, _CHUNK // heads.config.drafted)
        for start in range(0, len(examples), size):
            part = slice(start, start + size)
            states_nh = states.states_ph[torch.from_numpy(examples.positions_n[part])]
            logits_kns = heads_logits(heads, states_nh).float()
            labels_part_kn = torch.from_numpy(labels_kn[:, part]).to(logits_kns.device)
            for k in range(count):
                has_n = labels_part_kn[k] != NOTHING
                losses_k[k] += float(
                    torch.nn.functional.cross_entropy(
                        logits_kns[k][has_n], labels_part_kn[k][has_n], reduction="sum"
                    )
                )
                hits_kr[k] += rank_hits(logits_kns[k], labels_part_kn[k])
    seen_k = np.maximum((labels_kn != NOTHING).sum(axis=1), 1)
    all_k = np.maximum((examples.tokens_kn != NOTHING).sum(axis=1), 1)
    weights_k = np.array([DECAY**k for k in range(count)])
    return Accuracy(loss=float((weights_k * losses_k / seen_k).sum()), top_kr=hits_kr / all_k[:, None])
