"""Which drafted tokens are accepted: those that would have come anyway, or those that are typical.

Exact: at each node the token that plain decoding would take (the likeliest, or one drawn at the temperature)
is taken; where it is among the drafts the walk goes on there. A draft is a point of mass, for which this is
rejection sampling (arXiv 2302.01318) carried to the end: a draft x is accepted with probability p(x), and
after refusals the token comes from what is left of p. The tokens have the model's distribution whatever is
drafted, and they use up one random number each, as plain decoding does: with the same seed they are the same
tokens.

Typical (arXiv 2401.10774, section 2.3.1): changes the distribution.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from modelyard.core.errors import HeadsError
from modelyard.heads.decoding.drafting import Candidates
from modelyard.heads.decoding.settings import DecodeSettings, Processor


@dataclass(frozen=True, slots=True, kw_only=True)
class Walk:
    """What a pass gives."""

    # The accepted nodes, the root first.
    nodes: tuple[int, ...]
    # The tokens of the accepted nodes but for the root, and the one after them.
    tokens: tuple[int, ...]


class Chooser:
    """Chooses the tokens of one sequence.

    Args:
        settings: How.
        processors: What changes logits, of the settings and the caller's own.
        generator: The source of randomness; one number is drawn for every token.
        ends: Tokens after which nothing is chosen: processors see no text that goes on after its end.
    """

    def __init__(
        self, settings: DecodeSettings, processors: Sequence[Processor], generator: torch.Generator,
        ends: Collection[int] = (),
    ) -> None:  # fmt: skip
        self._settings, self._processors, self._generator = settings, tuple(processors), generator
        self._ends = frozenset(ends)

    def walk(self, logits_nv: torch.Tensor, candidates: Candidates, prefix: Sequence[int]) -> Walk:
        """Go down the tree from the root.

        Args:
            logits_nv: Of every node, the root first.
            candidates: The nodes.
            prefix: All tokens of the sequence, the root included.
        """
        if self._settings.typical:
            return self._typical(logits_nv, candidates, prefix)
        children = candidates.children()
        node, nodes = 0, [0]
        tokens: list[int] = []
        while True:
            token = self._choose(logits_nv[node], [*prefix, *tokens])
            tokens.append(token)
            after = children[node].get(token)
            if after is None or token in self._ends:
                return Walk(nodes=tuple(nodes), tokens=tuple(tokens))
            nodes.append(after)
            node = after

    def _choose(self, logits_v: torch.Tensor, prefix: Sequence[int]) -> int:
        scores_v = self._processed(logits_v, prefix)
        if self._settings.temperature == 0:
            return int(scores_v.argmax())
        return self._draw(torch.softmax(scores_v, dim=-1))

    def _draw(self, chances_v: torch.Tensor) -> int:
        """One token by one number: where the summed chances pass it."""
        number = torch.rand((), generator=self._generator, dtype=torch.float64)
        summed_v = chances_v.double().cumsum(-1)
        if not summed_v[-1] > 0:
            raise HeadsError("no token is left to choose from: the processors forbid all; let one be")
        place = int(
            torch.searchsorted(summed_v, (number.to(summed_v.device) * summed_v[-1])[None], right=True)
        )
        return min(place, len(chances_v) - 1)

    def _processed(self, logits_v: torch.Tensor, prefix: Sequence[int]) -> torch.Tensor:
        scores_bv = logits_v.float()[None]  # also faster: torch's argmax is slow in bfloat16
        if self._processors:
            ids_bn = torch.tensor([list(prefix)], device=logits_v.device)
            for processor in self._processors:
                scores_bv = processor(ids_bn, scores_bv)
        return scores_bv[0]

    def _typical(self, logits_nv: torch.Tensor, candidates: Candidates, prefix: Sequence[int]) -> Walk:
        """The longest way of typical drafts, of several the likeliest; then a token is drawn."""
        children = candidates.children()
        chances: dict[int, torch.Tensor] = {}

        def at(node: int, tokens: tuple[int, ...]) -> torch.Tensor:
            chances[node] = torch.softmax(self._processed(logits_nv[node], [*prefix, *tokens]), dim=-1)
            return chances[node]

        best = _longest(children, at, self._settings, self._ends)
        if best.tokens and best.tokens[-1] in self._ends:
            return Walk(nodes=best.nodes[:-1], tokens=best.tokens)
        last = self._draw(chances[best.nodes[-1]])
        return Walk(nodes=best.nodes, tokens=(*best.tokens, last))


def _longest(
    children: Sequence[dict[int, int]],
    chances_at: Callable[[int, tuple[int, ...]], Any],
    settings: DecodeSettings,
    ends: Collection[int],
) -> Walk:
    ways = [(0.0, Walk(nodes=(0,), tokens=()))]
    best = ways[0]
    while ways:
        score, way = ways.pop()
        if (len(way.nodes), score) > (len(best[1].nodes), best[0]) or len(way.nodes) == 1:
            best = (score, way)
        if way.tokens and way.tokens[-1] in ends:
            continue
        chances_v = chances_at(way.nodes[-1], way.tokens)
        entropy = float(torch.special.entr(chances_v).sum())
        threshold = min(settings.epsilon, settings.delta * math.exp(-entropy))
        for token, node in children[way.nodes[-1]].items():
            chance = float(chances_v[token])
            if chance > threshold:
                grown = Walk(nodes=(*way.nodes, node), tokens=(*way.tokens, token))
                ways.append((score + math.log(chance), grown))
    return best[1]
