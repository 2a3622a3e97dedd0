"""Outcomes for tests, from counts and arrays."""

from __future__ import annotations

from collections.abc import Sequence

from modelyard.evidence.outcomes import Item, Outcome, Outcomes


def outcome(item: Item, baseline: Sequence[float], candidate: Sequence[float]) -> Outcome:
    return Outcome(item=item, baseline=tuple(map(float, baseline)), candidate=tuple(map(float, candidate)))


def of_counts(n11: int = 0, n10: int = 0, n01: int = 0, n00: int = 0) -> Outcomes:
    """Items 0, 1, ... that stand alone: first those that both pass, then losses, wins, and both fail."""
    kinds = [(1, 1)] * n11 + [(1, 0)] * n10 + [(0, 1)] * n01 + [(0, 0)] * n00
    return of_scores([b for b, _ in kinds], [c for _, c in kinds])


def of_scores(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    weights: Sequence[float] | None = None,
    clusters: Sequence[object] | None = None,
    unasked: int = 0,
) -> Outcomes:
    """One sample of each item; `unasked` more items stand in the pack."""
    n = len(baseline)
    items = [
        Item(
            id=str(number),
            weight=weights[number] if weights is not None else 1.0,
            cluster=str(clusters[number]) if clusters is not None else "",
        )
        for number in range(n)
    ]
    rest = [Item(id=f"unasked-{number}") for number in range(unasked)]
    answered = [outcome(item, (b,), (c,)) for item, b, c in zip(items, baseline, candidate, strict=True)]
    return Outcomes(pack=(*items, *rest), answered=tuple(answered))
