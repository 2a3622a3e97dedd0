"""The design of a comparison: all that must be declared before the first item is asked.

What is tested, against which margin, at which error rate, by which method, whether it may stop early, and
which failures are not excused by a better mean. The record goes into the report as it is, so that a
verdict can be held against what was declared.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

from modelyard.core.errors import EvidenceError
from modelyard.evidence.multiplicity import spent_alpha
from modelyard.evidence.outcomes import Item, Outcomes

ALTERNATIVES = ("superiority", "non_inferiority")
#: Methods on counts of wins and losses: independent items, one sample, differences of -1, 0 and 1.
COUNTED = ("mcnemar_exact", "sign", "tango_score")
METHODS = ("auto", *COUNTED, "cluster_robust", "cluster_bootstrap")
KINDS = ("binary", "judged", "continuous")
#: The part of alpha that a sequential design may spend before the last item. Simulated at 300 and 1,000
#: items where the test at the end has a power of 81 % to 87 % (4,000 repetitions): with a fifth 96 % to 97 %
#: of that power is kept and 28 % to 34 % of the comparisons stop early; with a half 89 % to 91 % is kept and
#: 41 % to 45 % stop early. A gap of 15 points takes 110 items of 300 with a fifth, 92 with a half.
EARLY_SHARE = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Design:
    """A comparison as it was declared; its JSON has the same keys."""

    metric: str = "score"
    # The claim: better than the baseline, or worse by less than the margin.
    alternative: str = "superiority"
    # In points of the score; the claim is refuted where the difference is -margin or less.
    margin: float = 0.0
    # One-sided chance to pass where the claim is false, of this iteration.
    alpha: float = 0.05
    method: str = "auto"
    sequential: bool = False
    # What of alpha may be spent before the last item, and at the last item.
    alpha_early: float = 0.0
    alpha_final: float = 0.05
    # Answers per model and item.
    samples: int = 1
    # Of the asking order and of the bootstrap.
    seed: int = 0
    # How many samples the bootstrap draws.
    bootstrap: int = 2000
    critical_failures_allowed: int = 0
    # How many items may be lost that the baseline passes; None for any number.
    losses_allowed: int | None = None
    # Of a repair loop, and what the whole loop may spend.
    iteration: int = 1
    nominal_alpha: float = 0.05

    def __post_init__(self) -> None:
        for name, wrong, remedy in _faults(self):
            if wrong:
                raise EvidenceError(f"design: {name} is {getattr(self, name)!r}; {remedy}")

    def to_json(self) -> dict[str, Any]:
        """The design as a JSON value."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Design:
        """The design of a report.

        Raises:
            EvidenceError: a key is missing or unknown, or a value cannot be right.
        """
        known = {field.name for field in fields(cls)}
        if known != set(record):
            missing, unknown = sorted(known - set(record)), sorted(set(record) - known)
            raise EvidenceError(
                f"design: lacks {missing} and has the unknown keys {unknown}; give exactly {sorted(known)}"
            )
        try:
            return cls(**record)
        except TypeError as error:
            raise EvidenceError(f"design: a value has the wrong type: {error}; correct it") from error


def declare(*, nominal_alpha: float = 0.05, iteration: int | None = None, **choices: Any) -> Design:
    """A design with its alpha spent and split.

    Args:
        nominal_alpha: The one-sided chance of a false pass, of the whole loop or of the one comparison.
        iteration: Of a repair loop: this one spends its part (`spent_alpha`), the first included. None for a
            comparison that is not repeated until it passes: it has all of `nominal_alpha`.
        choices: Other fields of `Design`; `alpha_early` and `alpha_final` follow.

    Raises:
        EvidenceError: a value cannot be right.
    """
    alpha = nominal_alpha if iteration is None else spent_alpha(nominal_alpha, iteration)
    early = EARLY_SHARE * alpha if choices.get("sequential") else 0.0
    return Design(
        alpha=alpha, alpha_early=early, alpha_final=alpha - early,
        nominal_alpha=nominal_alpha, iteration=iteration or 1, **choices,
    )  # fmt: skip


def chosen_method(design: Design, items: Sequence[Item], kind: str) -> str:
    """The method that the design names, or for "auto" the one that fits the pack and its scorers.

    Items that stand alone, weigh the same and get one answer are counted: exactly for superiority (McNemar,
    or the sign test where a judge compared), by Tango's score test against a margin. Other 0/1 scores get
    cluster-robust errors. Continuous scores get the studentised cluster bootstrap, however few clusters
    there are: simulated at a nominal 5 % with left-skewed scores and 10, 20 and 50 clusters (2,000
    repetitions), a t-test passed falsely in 12 %, 11 % and 9 %, percentiles in 18 %, 12 % and 10 %, the
    studentised bootstrap in 7.5 %, 6 to 7 % and 6 %; with normal scores it keeps 5 % and the power of t.

    Args:
        design: As declared.
        items: The pack.
        kind: What the scorers give: "binary", "judged" or "continuous".

    Raises:
        EvidenceError: the named method cannot be used for this pack or these scores.
    """
    if kind not in KINDS:
        raise EvidenceError(f"design: the kind of scores is {kind!r}; choose one of {', '.join(KINDS)}")
    counted = _can_count(design, items) and kind != "continuous"
    if design.method in COUNTED and not counted:
        raise EvidenceError(
            f"design: the method {design.method!r} needs 0/1 or judged scores, one sample, equal weights and"
            f" no shared clusters, but scores are {kind}, samples {design.samples}; choose cluster_robust,"
            " or cluster_bootstrap for continuous scores"
        )
    if design.method != "auto":
        return design.method
    if not counted:
        return "cluster_bootstrap" if kind == "continuous" else "cluster_robust"
    if design.alternative == "non_inferiority":
        return "tango_score"
    return "sign" if kind == "judged" else "mcnemar_exact"


def refuse_unnamed_method(design: Design) -> None:
    """Raise `EvidenceError` where looks would be taken by a method that is not chosen yet."""
    if design.method == "auto":
        raise EvidenceError(
            "design: a sequential comparison must name its method before the first item is asked, but"
            " method is 'auto'; choose it with chosen_method"
        )


def observed_kind(outcomes: Outcomes) -> str:
    """What kind of scores these are, from the scores alone."""
    pairs = [pair for o in outcomes.answered for pair in zip(o.baseline, o.candidate, strict=True)]
    if all(score in (0, 1) for pair in pairs for score in pair):
        return "binary"
    if all(b in (0, 0.5, 1) and (b == c or abs(c - b) == 1) for b, c in pairs):
        return "judged"
    return "continuous"


def _can_count(design: Design, items: Sequence[Item]) -> bool:
    alone = len({item.group for item in items}) == len(items)
    return alone and design.samples == 1 and len({item.weight for item in items}) <= 1


def _faults(design: Design) -> list[tuple[str, bool, str]]:
    d = design
    most = d.nominal_alpha if d.iteration == 1 else spent_alpha(d.nominal_alpha, d.iteration)
    early_right = 0 < d.alpha_early < d.alpha if d.sequential else d.alpha_early == 0
    summed = math.isclose(d.alpha_early + d.alpha_final, d.alpha, rel_tol=1e-9)
    superior = d.alternative == "superiority"
    return [
        ("alternative", d.alternative not in ALTERNATIVES, f"choose one of {', '.join(ALTERNATIVES)}"),
        ("method", d.method not in METHODS, f"choose one of {', '.join(METHODS)}"),
        ("margin", not 0 <= d.margin < 1, "it must be at least 0 and below 1"),
        ("margin", superior and d.margin != 0, "superiority has no margin; choose non_inferiority"),
        ("margin", not superior and d.margin == 0, "non_inferiority needs a margin above 0"),
        ("method", d.method in COUNTED[:2] and not superior, "against a margin choose tango_score"),
        ("nominal_alpha", not 0 < d.nominal_alpha < 0.5, "it must lie between 0 and 0.5"),
        ("iteration", d.iteration < 1, "the first is 1"),
        ("alpha", not 0 < d.alpha <= most * (1 + 1e-9), f"this iteration may spend {most:.6g}"),
        ("alpha_early", not early_right, "above 0 and below alpha where sequential, otherwise 0"),
        ("alpha_final", not summed, "with alpha_early it must be alpha"),
        ("samples", d.samples < 1, "it must be at least 1"),
        ("bootstrap", d.bootstrap < 100, "draw at least 100 samples"),
        ("seed", d.seed < 0, "it must be at least 0"),
        ("critical_failures_allowed", d.critical_failures_allowed < 0, "it must be at least 0"),
        ("losses_allowed", d.losses_allowed is not None and d.losses_allowed < 0, "it must be at least 0"),
    ]  # fmt: skip
