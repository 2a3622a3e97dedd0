"""The certificate of regret: what the policy lost to each expert on its validation, and what it may lose.

Every forecast of the validation period was made before its truth, so the regret is one that was paid. It
is held against the working bound of the rule that ran (`regret`), expert by expert and lead by lead; the
certificate names, for every lead, the expert that came nearest to its bound. Rules without a bound get a
regret without one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from modelyard.ensemble.combining.committee import judge
from modelyard.ensemble.combining.lessons import Floats
from modelyard.ensemble.combining.rules import COMMITTEE
from modelyard.ensemble.measuring.regret import regret_bound
from modelyard.ensemble.runtime.engine import Setup
from modelyard.ensemble.runtime.matrix import SeriesMatrix

BOUNDED = (COMMITTEE, "boa")  # the rules with a second-order bound


def bound_of(setup: Setup, gap_n: Floats, delay: int) -> float | None:
    """The working bound of the engine's rule, None where it has none.

    Args:
        setup: Of the engine.
        gap_n: Policy - expert on the rows learnt, in units of y.
        delay: The lead.
    """
    if setup.method not in BOUNDED:
        return None
    if setup.method != COMMITTEE:
        return regret_bound(gap_n, members=len(setup.members), beta=setup.beta, delay=delay)
    inner = len(setup.members) - setup.voters
    levels = ((inner, setup.beta), (setup.voters, float(judge(setup.beta, [setup.voters]).beta)))
    both = [regret_bound(gap_n, members=m, beta=beta, delay=delay) for m, beta in levels]
    return min(math.fsum(both), float(np.abs(gap_n).sum()))


def certify_regret(
    setup: Setup, parts: Sequence[SeriesMatrix], policies_th: Sequence[Floats]
) -> Mapping[str, Any]:
    """The certificate of a policy over its series.

    Args:
        setup: Of the engines; their limits do not matter.
        parts: The series up to the end of validation.
        policies_th: What the policy had forecast for each target and lead, NaN where nothing.
    """
    entries = [_of_lead(setup, parts, policies_th, lead) for lead in range(1, setup.horizon + 1)]
    held = [entry["held"] for entry in entries if entry["held"] is not None]
    return {
        "rows": "the validation period, each forecast made before its truth",
        "rule": setup.method,
        "held": all(held) if held else None,
        "leads": entries,
    }


def _of_lead(
    setup: Setup, parts: Sequence[SeriesMatrix], policies_th: Sequence[Floats], lead: int
) -> dict[str, Any]:
    found: list[tuple[str, float, float, int]] = []
    for k, name in enumerate(setup.experts):
        realised, bound, rows = 0.0, 0.0, 0
        for part, policy_th in zip(parts, policies_th, strict=True):
            mixed, expert, y = policy_th[:, lead - 1], part.forecast_thk[:, lead - 1, k], part.truth_t
            use = np.isfinite(mixed) & np.isfinite(expert) & np.isfinite(y)
            mixed, expert, y = mixed[use], expert[use], y[use]
            realised += float((np.abs(mixed - y) - np.abs(expert - y)).sum())
            bound += bound_of(setup, mixed - expert, lead) or 0.0
            rows += int(use.sum())
        found.append((name, realised, bound, rows))
    bounded = setup.method in BOUNDED
    name, realised, bound, rows = max(found, key=lambda one: one[1] - (one[2] if bounded else 0.0))
    return {
        "lead": lead,
        "expert": name,
        "realised": realised,
        "bound": bound if bounded else None,
        "rows": rows,
        "held": all(one[1] <= one[2] for one in found) if bounded else None,
    }
