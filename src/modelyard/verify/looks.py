"""The e-processes of a comparison that may stop early, found anew from the answers.

A look is taken after every item (exact McNemar, sign) or after every whole cluster (all other methods), in
the order of asking. The first look at which an e-value reaches 1/alpha_early decides. One e-process bets
that the claim is true, the other that the candidate is worse.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from modelyard.verify.dossier import Dossier, Item, Pair
from modelyard.verify.estimates import difference

_BETS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_GREATEST = 1e300
_RELATIVE = 1e-9

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Look:
    """What both e-processes have grown to after a number of items."""

    items: int
    e_value: float
    e_against: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Watched:
    """All looks up to the one that decided, or up to the last."""

    looks: tuple[Look, ...]
    # What the last look decided: "pass", "fail", or nothing.
    decision: str

    @property
    def stopped_at(self) -> int | None:
        """After how many items it was decided; None where it was not."""
        return self.looks[-1].items if self.decision else None


def watch(dossier: Dossier, design: Mapping[str, Any]) -> Watched:
    """Every look at the items that were asked from the first on without leaving one out."""
    pairs = dossier.pairs[: dossier.unbroken]
    if design["method"] in ("mcnemar_exact", "sign"):
        ends = list(range(1, len(pairs) + 1))
        logs = _discordant(pairs)
    else:
        ends = _whole_clusters(dossier.pack, len(pairs))
        logs = _betting(dossier.pack, pairs, ends, float(design["margin"]))
    found = [
        Look(items=end, e_value=_bounded(one), e_against=_bounded(other))
        for end, one, other in zip(ends, *logs, strict=True)
    ]
    threshold = (1 - _RELATIVE) / float(design["alpha_early"])
    for number, look in enumerate(found, start=1):
        if max(look.e_value, look.e_against) >= threshold:
            decision = "pass" if look.e_value >= threshold else "fail"
            return Watched(looks=tuple(found[:number]), decision=decision)
    return Watched(looks=tuple(found), decision="")


def _discordant(pairs: Sequence[Pair]) -> tuple[Floats, Floats]:
    """Logs of the mixtures over the share of wins among what differs: Beta(1/2, 1/2) above one half."""
    gaps = np.array([difference(pair) for pair in pairs], np.float64)
    wins = np.cumsum(gaps > 0, dtype=np.float64)
    losses = np.cumsum(gaps < 0, dtype=np.float64)

    def log_e(won: Floats, lost: Floats) -> Floats:
        with np.errstate(divide="ignore"):
            upper = np.log(special.betainc(lost + 0.5, won + 0.5, 0.5))
        log_odds = special.betaln(won + 0.5, lost + 0.5) - special.betaln(0.5, 0.5)
        value: Floats = (1 + won + lost) * math.log(2) + log_odds + upper
        return value

    return log_e(wins, losses), log_e(losses, wins)


def _betting(
    pack: Sequence[Item], pairs: Sequence[Pair], ends: Sequence[int], margin: float
) -> tuple[Floats, Floats]:
    """Logs of the mean wealth of constant bets on the clusters' sums, bounded by the heaviest of the pack."""
    by_cluster: dict[str, float] = {}
    for item in pack:
        by_cluster[item.cluster] = by_cluster.get(item.cluster, 0.0) + item.weight
    heaviest = max(by_cluster.values())
    excess = []
    for begin, end in zip([0, *ends], ends, strict=False):
        members = pairs[begin:end]
        moved = math.fsum(pair.item.weight * (difference(pair) + margin) for pair in members)
        excess.append(moved / heaviest)
    units = np.array(excess)

    def log_wealth(x: Floats) -> Floats:
        grown = np.cumsum(np.log1p(np.outer(_BETS, x)), axis=1)
        value: Floats = special.logsumexp(grown, axis=0) - math.log(len(_BETS))
        return value

    return log_wealth(units), log_wealth(-units / (1 + margin))


def _whole_clusters(pack: Sequence[Item], asked: int) -> list[int]:
    """After how many items a cluster is whole, as far as was asked."""
    return [
        place + 1
        for place in range(asked)
        if place + 1 == len(pack) or pack[place + 1].cluster != pack[place].cluster
    ]


def _bounded(log_e: float) -> float:
    return float(math.exp(min(log_e, math.log(_GREATEST))))
