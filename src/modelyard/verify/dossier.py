"""The files of a certificate as they lie: the report, the raw answers, the pack as it was asked.

Here is found out whether they belong together and whether everything was asked that had to be: digests,
form, the seeded order of asking, every item by both models, no score without an answer. What the answers
show is not its matter.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from modelyard.verify.lines import NUMBER, misshapen, read_lines
from modelyard.verify.rulings import ruling_faults

SIDES = ("baseline", "candidate")
#: Of a line of answers.jsonl, in the order in which faults are told.
_ANSWER = {
    "asked": int, "order": int, "item": str, "side": str, "sample": int, "text": (str, type(None)),
    "error": str, "score": NUMBER, "scorer": str, "scorer_version": str, "cluster": str, "weight": NUMBER,
    "critical": bool, "latency_s": (*NUMBER, type(None)), "prompt_tokens": (int, type(None)),
    "completion_tokens": (int, type(None)), "cost_usd": (*NUMBER, type(None)),
}  # fmt: skip
_ITEM = {
    "prompt_id": str,
    "scorer": dict,
    "critical": bool,
    "cluster": (str, type(None)),
    "weight": NUMBER,
    "tags": list,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Item:
    """One item of the pack; one that stands alone is a cluster of its own name."""

    id: str
    cluster: str
    weight: float
    critical: bool
    scorer: str
    scorer_version: str | None
    tags: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """What both models made of one item: scores by sample, and how many answers are missing."""

    item: Item
    baseline: tuple[float, ...]
    candidate: tuple[float, ...]
    missing: tuple[int, int]

    @property
    def means(self) -> tuple[float, float]:
        """The mean score of the baseline and of the candidate."""
        return (
            math.fsum(self.baseline) / len(self.baseline),
            math.fsum(self.candidate) / len(self.candidate),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Dossier:
    """Pack and answers, read and put in order."""

    # The whole pack in the order in which it had to be asked.
    pack: tuple[Item, ...]
    # What was answered, in that order; and the place of each in the pack.
    pairs: tuple[Pair, ...]
    places: tuple[int, ...]

    @property
    def complete(self) -> bool:
        """Whether every item of the pack was asked."""
        return len(self.pairs) == len(self.pack)

    @property
    def unbroken(self) -> int:
        """How many items were asked from the first on without leaving one out."""
        return next((n for n, place in enumerate(self.places) if n != place), len(self.places))


def read_dossier(
    folder: Path, report: Mapping[str, Any], design: Mapping[str, Any]
) -> tuple[Dossier | None, list[str]]:
    """What lies beside a report and its faults; nothing where the files cannot be read at all."""
    faults: list[str] = []
    pack = _items(folder, report, faults)
    answers = _answers(folder, report, faults)
    if pack is None or answers is None:
        return None, faults
    ordered = asking_order(pack, int(design["seed"]))
    _check_answers(answers, ordered, faults)
    faults += ruling_faults(folder, report, answers)
    if faults:
        return None, faults
    dossier = _paired(ordered, answers, int(design["samples"]), faults)
    return (None if faults else dossier), faults


def asking_order(items: Sequence[Item], seed: int) -> tuple[Item, ...]:
    """The items in the order in which they had to be asked, whatever the order of the pack.

    Sorted by id; with numpy's `default_rng(seed)` clusters, listed by their first item, are permuted,
    then the items of each, cluster after cluster in the new order.
    """
    rng = np.random.default_rng(seed)
    clusters: dict[str, list[Item]] = {}
    for item in sorted(items, key=lambda each: each.id):
        clusters.setdefault(item.cluster, []).append(item)
    listed = list(clusters.values())
    shuffled = [listed[number] for number in rng.permutation(len(listed))]
    return tuple(members[number] for members in shuffled for number in rng.permutation(len(members)))


def _items(folder: Path, report: Mapping[str, Any], faults: list[str]) -> list[Item] | None:
    told = report["prompt_pack"]
    lines = read_lines(folder, "pack.jsonl", told.get("snapshot_digest"), faults)
    if lines is None or misshapen("pack.jsonl", lines, _ITEM, faults):
        return None
    items = [_item(line) for line in lines]
    if len({item.id for item in items}) != len(items):
        faults.append("pack.jsonl: an id stands twice")
    if any(not (math.isfinite(item.weight) and item.weight > 0) for item in items):
        faults.append("pack.jsonl: a weight is not above 0")
    found = {
        "n": len(items),
        "n_critical": sum(item.critical for item in items),
        "clusters": len({item.cluster for item in items}),
    }
    faults += [
        f"prompt_pack.{name}: the report states {told.get(name)!r}, pack.jsonl has {count}"
        for name, count in found.items()
        if told.get(name) != count
    ]
    return items


def _item(line: Mapping[str, Any]) -> Item:
    version = line["scorer"].get("version")
    return Item(
        id=line["prompt_id"],
        cluster=line["cluster"] or line["prompt_id"],
        weight=float(line["weight"]),
        critical=line["critical"],
        scorer=str(line["scorer"].get("id")),
        scorer_version=None if version is None else str(version),
        tags=tuple(str(tag) for tag in line["tags"]),
    )


def _answers(folder: Path, report: Mapping[str, Any], faults: list[str]) -> list[dict[str, Any]] | None:
    name = report.get("raw_outputs")
    lines = read_lines(folder, name, report.get("raw_outputs_digest"), faults)
    return None if lines is None or misshapen(str(name), lines, _ANSWER, faults, exact=True) else lines


def _check_answers(answers: Sequence[Mapping[str, Any]], ordered: Sequence[Item], faults: list[str]) -> None:
    places = {item.id: (place, item) for place, item in enumerate(ordered)}
    asked = [line["asked"] for line in answers]
    if asked != sorted(set(asked)):
        faults.append("answers: they are not in the order in which they were asked, or a number stands twice")
    for line in answers:
        place, item = places.get(line["item"], (-1, None))
        problem = "is not in the pack" if item is None else _answer_problem(line, place, item)
        if problem:
            faults.append(f"answers: {line['asked']} ({line['side']} on {line['item']}) {problem}")


def _answer_problem(line: Mapping[str, Any], place: int, item: Item) -> str:
    """What is wrong with one answer; empty where nothing is."""
    if line["side"] not in SIDES:
        return f"is of neither of {' and '.join(SIDES)}"
    if line["order"] != place:
        return f"has the order {line['order']}, the seed puts its item at {place}"
    for name in ("cluster", "weight", "critical", "scorer"):
        if line[name] != getattr(item, name):
            return f"has {name} {line[name]!r}, the pack has {getattr(item, name)!r}"
    if item.scorer_version not in (None, line["scorer_version"]):
        return f"has scorer_version {line['scorer_version']}, the pack has {item.scorer_version}"
    if not 0 <= line["score"] <= 1:
        return f"has the score {line['score']}, which is not between 0 and 1"
    if line["text"] is None and not line["error"]:
        return "has neither a text nor an error"
    if line["score"] != 0 and (line["error"] or not (line["text"] or "").strip()):
        return f"has the score {line['score']}, but a missing, failed or empty answer is worth 0"
    return ""


def _paired(
    ordered: Sequence[Item], answers: Sequence[Mapping[str, Any]], samples: int, faults: list[str]
) -> Dossier:
    """Item by item in the order of asking; every item that was asked has every sample of both models."""
    scores: dict[tuple[str, str], dict[int, Mapping[str, Any]]] = {}
    for line in answers:
        known = scores.setdefault((line["item"], line["side"]), {})
        if line["sample"] in known:
            faults.append(
                f"answers: {line['side']} has two answers to {line['item']}, sample {line['sample']}"
            )
        known[line["sample"]] = line
    pairs, places = [], []
    for place, item in enumerate(ordered):
        sides = [scores.get((item.id, side), {}) for side in SIDES]
        if not any(sides):
            continue
        if any(len(known) != samples or max(known) >= samples or min(known) < 0 for known in sides):
            faults.append(f"answers: {item.id} does not have the samples 0 to {samples - 1} of both models")
            continue
        both = [tuple(float(known[sample]["score"]) for sample in range(samples)) for known in sides]
        missing = [sum(bool(line["error"]) for line in known.values()) for known in sides]
        pairs.append(Pair(item=item, baseline=both[0], candidate=both[1], missing=(missing[0], missing[1])))
        places.append(place)
    return Dossier(pack=tuple(ordered), pairs=tuple(pairs), places=tuple(places))
