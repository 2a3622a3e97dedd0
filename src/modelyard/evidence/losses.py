"""Failures that a better mean does not excuse: new critical failures, and items lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.evidence.discordance import share_bounds
from modelyard.evidence.outcomes import PASSES, Outcome

_LEVEL = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Critical:
    """How the candidate did on critical items, every sample counted."""

    passed: int
    n: int
    # With 95 % confidence the candidate passes at least this share of such answers.
    lower95: float
    # Critical items that the baseline passes in every sample and the candidate does not.
    new_failures: tuple[str, ...]


def is_new_critical_failure(outcome: Outcome) -> bool:
    """Whether the item is critical, the baseline passes every sample of it, and the candidate fails any."""
    return (
        outcome.item.critical
        and all(score >= PASSES for score in outcome.baseline)
        and any(score < PASSES for score in outcome.candidate)
    )


def is_lost(outcome: Outcome) -> bool:
    """Whether the baseline passes the item, by its mean over samples, and the candidate does not."""
    return outcome.baseline_mean >= PASSES > outcome.candidate_mean


def critical_passes(outcomes: Sequence[Outcome]) -> Critical:
    """The critical items among these. Without any, nothing is known: the bound is 0."""
    critical = [outcome for outcome in outcomes if outcome.item.critical]
    answers = [score >= PASSES for outcome in critical for score in outcome.candidate]
    passed, n = sum(answers), len(answers)
    return Critical(
        passed=passed, n=n, lower95=share_bounds(passed, n, _LEVEL)[0],
        new_failures=tuple(o.item.id for o in critical if is_new_critical_failure(o)),
    )  # fmt: skip
