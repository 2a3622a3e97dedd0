"""What outcomes prove of a claim, budgets aside: by an e-value on the way, or by the test at the end."""

from __future__ import annotations

from dataclasses import dataclass

from modelyard.evidence.clustered import Estimate
from modelyard.evidence.design import Design
from modelyard.evidence.outcomes import Outcomes
from modelyard.evidence.paired import estimate
from modelyard.evidence.power import items_needed
from modelyard.evidence.sequential import Advice, Look, Watch


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """A claim, and what is known of it."""

    design: Design
    # The items that decide: up to the look that decided, else all that were answered.
    decided: Outcomes
    # Of those items.
    estimate: Estimate
    looks: tuple[Look, ...]
    # How an e-process decided: `PASS`, `FAIL`, or `GO_ON` where none did.
    early: Advice
    # Whether the whole pack was answered.
    complete: bool

    @property
    def stopped_at(self) -> int | None:
        """The number of items after which an e-process decided."""
        return None if self.early is Advice.GO_ON else self.looks[-1].items

    @property
    def e_value(self) -> float | None:
        """For the claim, at the last look; 1 before any, None where nobody looks."""
        if self.looks:
            return self.looks[-1].e_value
        return 1.0 if self.design.sequential else None

    @property
    def proven(self) -> bool:
        """The claim holds."""
        by_test = self.complete and self.estimate.p_value <= self.design.alpha_final
        return self.early is Advice.PASS or (self.early is Advice.GO_ON and by_test)

    @property
    def refuted(self) -> bool:
        """The candidate is worse than the claim lets it be."""
        by_test = self.complete and self.estimate.ci[1] < -self.design.margin
        return self.early is Advice.FAIL or (self.early is Advice.GO_ON and by_test)

    @property
    def n_needed(self) -> int | None:
        """Items in all that would prove what was observed with a chance of 80 %; None: none would."""
        found, design = self.estimate, self.design
        return items_needed(
            len(self.decided.answered), found.delta + design.margin, found.standard_error, design.alpha_final
        )


def prove(outcomes: Outcomes, design: Design) -> Proof:
    """Look as often as the design lets one, then estimate from the items that decide."""
    looks, early = _looked(outcomes, design) if design.sequential else ((), Advice.GO_ON)
    decided = outcomes if early is Advice.GO_ON else outcomes.first(looks[-1].items)
    return Proof(
        design=design, decided=decided, estimate=estimate(decided.table(), design),
        looks=looks, early=early, complete=outcomes.complete,
    )  # fmt: skip


def _looked(outcomes: Outcomes, design: Design) -> tuple[tuple[Look, ...], Advice]:
    """Every look up to the first that decides. Behind a gap in the order nobody looks."""
    watch = Watch(design, outcomes.pack)
    for outcome, item in zip(outcomes.answered, outcomes.pack, strict=False):
        if outcome.item != item:
            break
        look = watch.tell(outcome)
        if look and (decision := watch.decision(look)) is not Advice.GO_ON:
            return tuple(watch.looks), decision
    return tuple(watch.looks), Advice.GO_ON
