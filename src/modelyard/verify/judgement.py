"""What the answers of a dossier come to under a design: every figure of a report that follows from them.

pass: the claim is proven, no budget is broken, and every critical item was asked (with a budget of losses
every item at all). fail: a budget is broken, or the candidate is proven worse than the claim lets it be.
Everything else is inconclusive. Of a pack that was not asked to its end only an e-value proves anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelyard.verify.dossier import Dossier, Pair
from modelyard.verify.estimates import Estimate, estimate, share_bounds, two_sided_mcnemar
from modelyard.verify.looks import Look, Watched, watch

_PASSES = 0.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """Figures by the names that a report gives them, and what they were decided by."""

    figures: Mapping[str, Any]
    estimate: Estimate
    watched: Watched
    # Whether the items that decide are the whole pack, and no e-value decided.
    by_test: bool
    # Items that may not be lost, and were: new critical failures and losses, where a budget is broken.
    critical_broken: tuple[str, ...]
    losses_broken: tuple[str, ...]
    # Critical items that were not asked, and whether all had to be asked and were not.
    critical_unasked: int
    losses_uncounted: bool

    @property
    def looks(self) -> Sequence[Look]:
        """Every look up to the one that decided."""
        return self.watched.looks

    def verdict(self, design: Mapping[str, Any], p_value: float, high: float) -> str:
        """The verdict, where the p-value and the upper bound are these."""
        refuted = self.watched.decision == "fail" or (self.by_test and high < -design["margin"])
        if self.critical_broken or self.losses_broken or refuted:
            return "fail"
        proven = self.watched.decision == "pass" or (self.by_test and p_value <= design["alpha_final"])
        return "pass" if proven and not (self.critical_unasked or self.losses_uncounted) else "inconclusive"


def judge(dossier: Dossier, design: Mapping[str, Any]) -> Judgement:
    """Everything that follows from the answers."""
    watched = watch(dossier, design) if design["sequential"] else Watched(looks=(), decision="")
    pairs = dossier.pairs[: watched.stopped_at]
    found = estimate(pairs, design)
    critical = [pair for pair in dossier.pairs if pair.item.critical]
    failures = tuple(pair.item.id for pair in critical if _newly_failed(pair))
    losses = tuple(pair.item.id for pair in dossier.pairs if _passed(pair) == (True, False))
    allowed = design["losses_allowed"]
    return Judgement(
        figures={
            "items_asked": len(dossier.pairs),
            "counts": _counts(pairs),
            "effect": {
                "delta": found.delta,
                "ci": [found.low, found.high],
                "level": 1 - 2 * design["alpha_final"],
                "method": design["method"],
            },
            "mcnemar_p": two_sided_mcnemar(pairs),
            "e_value": _last_e(watched) if design["sequential"] else None,
            "critical": {**_critical(critical), "new_failures": list(failures)},
            "pairwise_losses": list(losses),
            "aggregate": _aggregate(pairs),
        },
        estimate=found,
        watched=watched,
        by_test=not watched.decision and dossier.complete,
        critical_broken=failures if len(failures) > design["critical_failures_allowed"] else (),
        losses_broken=losses if allowed is not None and len(losses) > allowed else (),
        critical_unasked=sum(item.critical for item in dossier.pack) - len(critical),
        losses_uncounted=allowed is not None and not dossier.complete,
    )


def _passed(pair: Pair) -> tuple[bool, bool]:
    baseline, candidate = pair.means
    return baseline >= _PASSES, candidate >= _PASSES


def _newly_failed(pair: Pair) -> bool:
    """The baseline passes every sample, and the candidate does not."""
    return min(pair.baseline) >= _PASSES > min(pair.candidate)


def _counts(pairs: Sequence[Pair]) -> dict[str, int]:
    made = [_passed(pair) for pair in pairs]
    cells = {
        f"n{base:d}{cand:d}": made.count((base, cand)) for base in (True, False) for cand in (True, False)
    }
    missing = [sum(pair.missing[side] for pair in pairs) for side in (0, 1)]
    return {**cells, "missing_base": missing[0], "missing_cand": missing[1]}


def _critical(critical: Sequence[Pair]) -> dict[str, Any]:
    """Answers of the candidate to critical items; the bound is Clopper and Pearson's, one-sided at 95 %."""
    answers = [score >= _PASSES for pair in critical for score in pair.candidate]
    passed, n = sum(answers), len(answers)
    return {"passed": passed, "n": n, "lower95": share_bounds(passed, n, 0.05)[0]}


def _aggregate(pairs: Sequence[Pair]) -> dict[str, float]:
    whole = math.fsum(pair.item.weight for pair in pairs)
    sums = [math.fsum(pair.item.weight * pair.means[side] for pair in pairs) for side in (0, 1)]
    return {"baseline": sums[0] / whole, "candidate": sums[1] / whole}


def _last_e(watched: Watched) -> float:
    return watched.looks[-1].e_value if watched.looks else 1.0
