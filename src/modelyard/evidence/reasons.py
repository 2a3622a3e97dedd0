"""Why a verdict is what it is, in sentences that a reader can hold against the numbers."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.evidence.design import Design
from modelyard.evidence.losses import Critical
from modelyard.evidence.proof import Proof
from modelyard.evidence.sequential import Advice

_SHOWN = 5


def claim_reasons(proof: Proof) -> tuple[str, ...]:
    """What is known of the claim, what it was held against, and what would help."""
    observed = f"Observed: {_points(proof.estimate.delta)} over {len(proof.decided.answered)} items."
    if proof.early is not Advice.GO_ON:
        return (observed, _early(proof))
    if not proof.complete:
        asked, whole = len(proof.decided.answered), len(proof.decided.pack)
        return (observed, f"Only {asked} of {whole} items were answered, and the test is of the whole pack.")
    return (observed, _by_test(proof), *_advice(proof))


def broken_budgets(design: Design, critical: Critical, losses: Sequence[str]) -> tuple[str, ...]:
    """A sentence for every budget that is broken."""
    reasons = []
    new, allowed = critical.new_failures, design.critical_failures_allowed
    if len(new) > allowed:
        reasons.append(f"New critical failures: {len(new)}, allowed: {allowed} ({_named(new)}).")
    if design.losses_allowed is not None and len(losses) > design.losses_allowed:
        reasons.append(f"Items lost: {len(losses)}, allowed: {design.losses_allowed} ({_named(losses)}).")
    return tuple(reasons)


def _early(proof: Proof) -> str:
    look, wanted = proof.looks[-1], 1 / proof.design.alpha_early
    if proof.early is Advice.PASS:
        what, value = f"the candidate is {_claim(proof.design)}", look.e_value
    else:
        what, value = f"the candidate is {_contrary(proof.design)}", look.e_against
    return f"Stopped early: the e-value that {what} is {value:.4g}, at least {wanted:.4g} was needed."


def _by_test(proof: Proof) -> str:
    design, found = proof.design, proof.estimate
    low, high = found.ci
    interval = f"the interval at {1 - 2 * design.alpha_final:.4g} is {_points(low)} to {_points(high)}"
    if proof.proven:
        return (
            f"The candidate is {_claim(design)}: p = {found.p_value:.4g}, at most {design.alpha_final:.4g}"
            f" was needed ({design.method}; {interval})."
        )
    if proof.refuted:
        return f"The candidate is {_contrary(design)} ({design.method}; {interval})."
    return (
        f"Not proven that the candidate is {_claim(design)}: p = {found.p_value:.4g}, at most"
        f" {design.alpha_final:.4g} was needed ({design.method}; {interval})."
    )


def _advice(proof: Proof) -> tuple[str, ...]:
    if proof.proven or proof.refuted:
        return ()
    if proof.n_needed is None:
        return ("More items would not prove it, were the difference observed the true one.",)
    return (
        f"About {proof.n_needed} items would prove it with a chance of 80 %, were the difference observed"
        " the true one.",
    )


def _claim(design: Design) -> str:
    if design.alternative == "superiority":
        return "better than the baseline"
    return f"at most {design.margin * 100:.4g} points worse than the baseline"


def _contrary(design: Design) -> str:
    more = f"more than {design.margin * 100:.4g} points " if design.margin else ""
    return f"{more}worse than the baseline"


def _points(share: float) -> str:
    return f"{share * 100:+.2f} points"


def _named(ids: Sequence[str]) -> str:
    rest = len(ids) - _SHOWN
    return ", ".join(ids[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
