"""The secondary comparisons of a report, found anew: the same claim on the items of each tag.

Due are those tags that at least two of the answered items have and others have not, by name; one that is
left out would hide where a candidate is worse. Each is judged as a pack of its own, over all its answered
items, by the method that fits these, and the p-values are corrected for their number (Holm 1979).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.verify.dossier import Dossier, Pair
from modelyard.verify.estimates import estimate
from modelyard.verify.lines import NUMBER, close, is_of

_LEAST = 2
_FORM = {"metric": str, "n": int, "delta": NUMBER, "p": NUMBER, "holm_p": NUMBER}
_HALVES = (0.0, 0.5, 1.0)


def secondary_faults(stated: object, dossier: Dossier, design: Mapping[str, Any]) -> list[str]:
    """Where a report's secondary comparisons are not those that the answers give."""
    if not isinstance(stated, list) or not all(
        isinstance(each, dict) and all(is_of(each.get(name), kind) for name, kind in _FORM.items())
        for each in stated
    ):
        return [f"secondary: an entry does not have {', '.join(_FORM)}"]
    due = {f"{design['metric']} of {tag}": pairs for tag, pairs in _by_tag(dossier.pairs).items()}
    names = [each["metric"] for each in stated]
    if names != list(due):
        return [f"secondary: the report states {names}, the answers give {list(due)}"]
    faults = [fault for each in stated for fault in _entry_faults(each, due[each["metric"]], design)]
    return faults + _holm_faults(stated)


def _by_tag(pairs: Sequence[Pair]) -> dict[str, list[Pair]]:
    tagged: dict[str, list[Pair]] = {}
    for pair in pairs:
        for tag in set(pair.item.tags):
            tagged.setdefault(tag, []).append(pair)
    return {tag: tagged[tag] for tag in sorted(tagged) if _LEAST <= len(tagged[tag]) < len(pairs)}


def _entry_faults(stated: Mapping[str, Any], pairs: Sequence[Pair], design: Mapping[str, Any]) -> list[str]:
    found = estimate(pairs, {**design, "alpha_final": design["alpha"], "method": _method(pairs, design)})
    least, most = found.p
    place = f"secondary.{stated['metric']}"
    faults = []
    if stated["n"] != len(pairs):
        faults.append(f"{place}.n: the report states {stated['n']}, the answers give {len(pairs)}")
    if not close(stated["delta"], found.delta):
        faults.append(f"{place}.delta: the report states {stated['delta']}, the answers give {found.delta}")
    if not (least <= stated["p"] <= most or close(stated["p"], least) or close(stated["p"], most)):
        faults.append(f"{place}.p: the report states {stated['p']}, the answers give {most}")
    return faults


def _method(pairs: Sequence[Pair], design: Mapping[str, Any]) -> str:
    """The method that fits these items and scores."""
    items = [pair.item for pair in pairs]
    alone = len({item.cluster for item in items}) == len(items)
    scores = [each for pair in pairs for each in zip(pair.baseline, pair.candidate, strict=True)]
    binary = all(score in (0, 1) for both in scores for score in both)
    judged = all(b in _HALVES and (b == c or abs(b - c) == 1) for b, c in scores)
    if not (binary or judged):
        return "cluster_bootstrap"
    if not alone or design["samples"] != 1 or len({item.weight for item in items}) > 1:
        return "cluster_robust"
    if design["alternative"] == "non_inferiority":
        return "tango_score"
    return "mcnemar_exact" if binary else "sign"


def _holm_faults(stated: Sequence[Mapping[str, Any]]) -> list[str]:
    """Where the step-down correction of the p-values is another one."""
    return [
        f"secondary.{each['metric']}.holm_p: the report states {each['holm_p']!r}, by Holm it is {value!r}"
        for each, value in zip(stated, _holm([each["p"] for each in stated]), strict=True)
        if not close(each["holm_p"], value)
    ]


def _holm(p_values: Sequence[float]) -> list[float]:
    """Each p times how many are not smaller, never below that of a smaller one."""
    count, ranked = len(p_values), sorted(range(len(p_values)), key=lambda number: p_values[number])
    due, least = [0.0] * count, 0.0
    for rank, number in enumerate(ranked):
        least = max(least, min(1.0, (count - rank) * p_values[number]))
        due[number] = least
    return due
