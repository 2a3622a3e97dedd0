"""Whether a report's design could have been declared: its form, and what it may spend.

What must have been fixed before the first item was asked is taken from it, so a design that contradicts
itself proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.verify.lines import NUMBER, is_of

_FORM = {
    "metric": str, "alternative": str, "margin": NUMBER, "alpha": NUMBER, "method": str, "sequential": bool,
    "alpha_early": NUMBER, "alpha_final": NUMBER, "samples": int, "seed": int, "bootstrap": int,
    "critical_failures_allowed": int, "losses_allowed": (int, type(None)), "iteration": int,
    "nominal_alpha": NUMBER,
}  # fmt: skip
_CLOSE = 1e-9
#: More draws than this are not repeated.
_MOST_DRAWS = 1_000_000


def design_faults(design: Mapping[str, Any]) -> list[str]:
    """What is wrong with a design; empty where it may be followed."""
    wrong = [name for name, kind in _FORM.items() if not is_of(design.get(name, ...), kind)]
    if wrong:
        return [f"design: has no such field, or a wrong one: {', '.join(wrong)}"]
    return [f"design.{name} is {design[name]!r}: {problem}" for name, problem in _contradictions(design)]


def _contradictions(d: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    superior = d["alternative"] == "superiority"
    if d["alternative"] not in ("superiority", "non_inferiority"):
        yield "alternative", "is neither superiority nor non_inferiority"
    elif not (d["margin"] == 0 if superior else 0 < d["margin"] < 1):
        yield "margin", f"is none of {d['alternative']}"
    for name in ("samples", "iteration"):
        if d[name] < 1:
            yield name, "is below 1"
    for name in ("seed", "critical_failures_allowed"):
        if d[name] < 0:
            yield name, "is below 0"
    if d["losses_allowed"] is not None and d["losses_allowed"] < 0:
        yield "losses_allowed", "is below 0"
    if not 0 < d["bootstrap"] <= _MOST_DRAWS:
        yield "bootstrap", f"is not between 1 and {_MOST_DRAWS}"
    yield from _overspent(d)


def _overspent(d: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """What is spent beyond the nominal error: by this iteration, early, and at the end."""
    if not 0 < d["nominal_alpha"] < 0.5:
        yield "nominal_alpha", "is not between 0 and 0.5"
    # iterations together spend no more than the nominal error; a comparison alone has all of it
    due = d["nominal_alpha"] * (1.0 if d["iteration"] == 1 else 6 / (math.pi * max(d["iteration"], 1)) ** 2)
    if not 0 < d["alpha"] <= due * (1 + _CLOSE):
        yield "alpha", f"iteration {d['iteration']} may spend {due:.6g}"
    if not (0 < d["alpha_early"] < d["alpha"] if d["sequential"] else d["alpha_early"] == 0):
        yield "alpha_early", f"does not fit alpha {d['alpha']} and sequential {d['sequential']}"
    if not math.isclose(d["alpha_early"] + d["alpha_final"], d["alpha"], rel_tol=_CLOSE):
        yield "alpha_final", "is not what alpha_early leaves of alpha"
