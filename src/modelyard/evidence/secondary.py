"""Secondary comparisons: the same claim on the items of each tag, corrected for their number.

They tell where a difference comes from and decide nothing: the verdict is the primary comparison's. Tags
are part of the frozen pack, so what is compared was declared before anything was asked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from modelyard.evidence.design import Design
from modelyard.evidence.multiplicity import holm
from modelyard.evidence.outcomes import Outcome, Outcomes
from modelyard.evidence.verdict import judge

#: Fewer items than these are not compared.
_LEAST_ITEMS = 2


def tag_comparisons(
    outcomes: Outcomes, tags: Mapping[str, Sequence[str]], design: Design
) -> list[dict[str, Any]]:
    """One entry for each tag that some of the answered items have and others have not.

    Args:
        outcomes: Of the primary comparison; of one that ended early, what was answered.
        tags: Of each item by its id.
        design: Of the primary comparison; the p-values are those of its test over all items of a tag.
    """
    by_tag: dict[str, list[Outcome]] = {}
    for outcome in outcomes.answered:
        for tag in dict.fromkeys(tags[outcome.item.id]):
            by_tag.setdefault(tag, []).append(outcome)
    fixed = replace(design, sequential=False, alpha_early=0.0, alpha_final=design.alpha, method="auto")
    found = {
        tag: judge(_alone(answered), fixed)
        for tag, answered in sorted(by_tag.items())
        if _LEAST_ITEMS <= len(answered) < len(outcomes.answered)
    }
    corrected = holm({tag: judgement.p_value for tag, judgement in found.items()})
    return [
        {
            "metric": f"{design.metric} of {tag}",
            "n": len(by_tag[tag]),
            "delta": judgement.delta,
            "p": judgement.p_value,
            "holm_p": corrected[tag],
        }
        for tag, judgement in found.items()
    ]


def _alone(answered: Sequence[Outcome]) -> Outcomes:
    """Those outcomes as a pack of their own."""
    return Outcomes(pack=tuple(outcome.item for outcome in answered), answered=tuple(answered))
