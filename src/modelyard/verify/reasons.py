"""Whether the sentences of a report say what decided.

The wording of a sentence is its author's; the figures in it are not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from modelyard.verify.judgement import Judgement


def reason_faults(report: Mapping[str, Any], found: Judgement) -> list[str]:
    """A fault for each fact that decided and that no sentence has."""
    reasons = report["reasons"]
    if not all(isinstance(each, str) for each in reasons):
        return ["reasons: they are not all sentences"]
    return [
        f"reasons: no sentence has {' and '.join(words)}, {what}"
        for what, words in _facts(report, found)
        if not any(all(word in sentence for word in words) for sentence in reasons)
    ]


def _facts(report: Mapping[str, Any], found: Judgement) -> Iterator[tuple[str, list[str]]]:
    """What has to be said, and the words that a sentence must have; figures as the report states them."""
    counts, effect = found.figures["counts"], found.figures["effect"]
    items = sum(counts[cell] for cell in ("n11", "n10", "n01", "n00"))
    yield "the difference and the items it is of", [f"{effect['delta'] * 100:+.2f}", str(items)]
    if found.watched.decision:
        last = found.looks[-1]
        decided = last.e_value if found.watched.decision == "pass" else last.e_against
        yield "the e-value that decided", [f"{decided:.4g}"]
    elif found.by_test and found.verdict(report["design"], report["p_value"], effect["ci"][1]) == "pass":
        yield "the p-value that decided", [f"{report['p_value']:.4g}"]
    for what, broken in (("critical", found.critical_broken), ("lost", found.losses_broken)):
        if broken:
            yield f"the broken budget of {what} items", [str(len(broken)), what, broken[0]]
    if found.critical_unasked:
        yield "the critical items that were not asked", [str(found.critical_unasked), "critical"]
