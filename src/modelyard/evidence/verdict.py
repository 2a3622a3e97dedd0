"""The verdict on a comparison: pass, fail or inconclusive, with everything that a report says of it.

A pure function of the outcomes and the design. It does not know models, answers, files or signatures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from modelyard.core.errors import EvidenceError
from modelyard.evidence.design import Design, chosen_method, observed_kind, refuse_unnamed_method
from modelyard.evidence.discordance import exact_two_sided_p
from modelyard.evidence.losses import Critical, critical_passes, is_lost
from modelyard.evidence.outcomes import Outcomes, Table
from modelyard.evidence.power import detectable_difference
from modelyard.evidence.proof import Proof, prove
from modelyard.evidence.reasons import broken_budgets, claim_reasons
from modelyard.evidence.sequential import Look

_MOST_LOOKS = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Items by what both made of them (first digit baseline, second candidate), and missing answers."""

    n11: int
    n10: int
    n01: int
    n00: int
    missing_base: int
    missing_cand: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """All that follows from outcomes and design.

    `critical` and `losses` are of every item that was answered, `reasons` tells of all. The rest is of the
    items that decided: where a sequential comparison stopped early those up to `stopped_at`.
    """

    # As declared, with the method that was used.
    design: Design
    counts: Counts
    delta: float
    ci: tuple[float, float]
    level: float
    # One-sided, of the claim, by the method.
    p_value: float
    # Two-sided exact McNemar of the items passed, whatever the method.
    mcnemar_p: float
    # Of the look that decided, else of the last; None where the design is not sequential.
    e_value: float | None
    critical: Critical
    losses: tuple[str, ...]
    # Weighted means.
    baseline: float
    candidate: float
    # How far above -margin the truth must be for this many items to show it with a chance of 80 %.
    mde: float
    # Items in all with which the difference observed would be proven with that chance; None: it would not.
    n_needed: int | None
    looks: tuple[Look, ...]
    # How many items had been asked when an e-value decided; None where none did.
    stopped_at: int | None
    verdict: str
    reasons: tuple[str, ...]

    @property
    def method(self) -> str:
        """The method that was used."""
        return self.design.method

    def to_json(self) -> dict[str, Any]:
        """The part of a `paired_eval_report` that follows from the outcomes, as a JSON value."""
        return {
            "design": self.design.to_json(),
            "counts": asdict(self.counts),
            "effect": {"delta": self.delta, "ci": list(self.ci), "level": self.level, "method": self.method},
            "p_value": self.p_value,
            "mcnemar_p": self.mcnemar_p,
            "e_value": self.e_value,
            "critical": {**asdict(self.critical), "new_failures": list(self.critical.new_failures)},
            "pairwise_losses": list(self.losses),
            "aggregate": {"baseline": self.baseline, "candidate": self.candidate},
            "power": {"mde": self.mde, "n_needed": self.n_needed},
            "looks": [asdict(look) for look in self.looks],
            "verdict": self.verdict,
            "reasons": list(self.reasons),
        }


def judge(outcomes: Outcomes, design: Design) -> Judgement:
    """The verdict.

    pass: the claim is proven, no budget is broken, and every critical item was answered (with a budget of
    losses every item). fail: a budget is broken, or the candidate is proven worse than the claim lets it be.
    Everything else is inconclusive. A claim is proven by an e-value of 1/alpha_early at any look, or by the
    test at alpha_final once the whole pack is answered; of half a pack the test proves nothing, since
    somebody chose where to stop.

    Raises:
        EvidenceError: nothing was answered, the samples are not those of the design, or its method does not
            fit the pack and the scores.
    """
    used = _with_method(outcomes, design)
    proof = prove(outcomes, used)
    critical = critical_passes(outcomes.answered)
    losses = tuple(outcome.item.id for outcome in outcomes.answered if is_lost(outcome))
    budgets = broken_budgets(used, critical, losses)
    unasked = _unasked(outcomes, used)
    verdict = _verdict(proof, broken=bool(budgets), unasked=unasked)
    table, found, alpha = proof.decided.table(), proof.estimate, used.alpha_final
    return Judgement(
        design=used,
        counts=_counts(proof.decided, table),
        delta=found.delta,
        ci=found.ci,
        level=1 - 2 * alpha,
        p_value=found.p_value,
        mcnemar_p=_mcnemar(table),
        e_value=proof.e_value,
        critical=critical,
        losses=losses,
        baseline=float(np.average(table.baseline_n, weights=table.weight_n)),
        candidate=float(np.average(table.candidate_n, weights=table.weight_n)),
        mde=detectable_difference(found.standard_error, alpha),
        n_needed=proof.n_needed,
        looks=_thinned(proof.looks),
        stopped_at=proof.stopped_at,
        verdict=verdict,
        reasons=(*claim_reasons(proof), *budgets, *unasked),
    )


def _with_method(outcomes: Outcomes, design: Design) -> Design:
    if not outcomes.answered:
        raise EvidenceError("outcomes: no item was answered, so there is nothing to judge; ask the pack")
    if outcomes.samples != design.samples:
        raise EvidenceError(
            f"outcomes: {outcomes.samples} samples of each item, but the design declares {design.samples};"
            " judge what was declared"
        )
    if design.sequential:
        refuse_unnamed_method(design)
    return replace(design, method=chosen_method(design, outcomes.pack, observed_kind(outcomes)))


def _unasked(outcomes: Outcomes, design: Design) -> tuple[str, ...]:
    """Why a proven claim is not enough yet: what has to be asked still."""
    asked = {outcome.item.id for outcome in outcomes.answered}
    critical = sum(item.critical and item.id not in asked for item in outcomes.pack)
    reasons = []
    if critical:
        reasons.append(f"Critical items that were not asked: {critical}; every one must be.")
    if design.losses_allowed is not None and not outcomes.complete:
        reasons.append("Items lost are counted over the whole pack, and it was not asked to its end.")
    return tuple(reasons)


def _verdict(proof: Proof, *, broken: bool, unasked: Sequence[str]) -> str:
    if broken or proof.refuted:
        return "fail"
    return "pass" if proof.proven and not unasked else "inconclusive"


def _counts(outcomes: Outcomes, table: Table) -> Counts:
    n11, n10, n01, n00 = table.counts
    return Counts(
        n11=n11, n10=n10, n01=n01, n00=n00,
        missing_base=sum(outcome.missing_baseline for outcome in outcomes.answered),
        missing_cand=sum(outcome.missing_candidate for outcome in outcomes.answered),
    )  # fmt: skip


def _mcnemar(table: Table) -> float:
    _, losses, wins, _ = table.counts
    return float(exact_two_sided_p(wins, losses))


def _thinned(looks: tuple[Look, ...]) -> tuple[Look, ...]:
    """At most 200 of them, evenly, and always the last."""
    stride = -(-len(looks) // _MOST_LOOKS)
    return looks[::-1][::stride][::-1] if stride > 1 else looks
