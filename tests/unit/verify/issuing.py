"""Certificates for the verifier's tests: made by the code that issues real ones, or as a forger would."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric import ec

from modelyard.core.digests import canonical_json, digest_bytes
from modelyard.core.signing import Signer
from modelyard.evidence.design import Design, chosen_method
from modelyard.evidence.outcomes import Item, Outcome, Outcomes, asking_order
from modelyard.evidence.secondary import tag_comparisons
from modelyard.evidence.sequential import Advice, Monitor
from modelyard.evidence.verdict import judge

SIDES = ("baseline", "candidate")
REPORT = "paired_eval_report.json"


@dataclass(frozen=True)
class Case:
    """What both models made of a pack; `scores[id]` has the baseline's and the candidate's, by sample."""

    items: Sequence[Item]
    scores: Mapping[str, tuple[Sequence[float], Sequence[float]]]
    design: Design
    # (item, side, sample) of answers that never came.
    missing: frozenset[tuple[str, str, int]] = field(default_factory=frozenset)
    # Of each item by its id; none where it is not there.
    tags: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def order(self) -> tuple[Item, ...]:
        return asking_order(sorted(self.items, key=lambda item: item.id), self.design.seed)

    def outcome(self, item: Item) -> Outcome:
        gone = [sum((item.id, side, s) in self.missing for s in range(self.design.samples)) for side in SIDES]
        both = [
            tuple(
                0.0 if (item.id, side, s) in self.missing else float(score) for s, score in enumerate(given)
            )
            for side, given in zip(SIDES, self.scores[item.id], strict=True)
        ]
        return Outcome(
            item=item, baseline=both[0], candidate=both[1],
            missing_baseline=gone[0], missing_candidate=gone[1],
        )  # fmt: skip

    def outcomes(self, beyond: int = 0) -> Outcomes:
        """What a comparison would have asked; with some items more behind the one that decided."""
        answered, advice, left = [], Advice.GO_ON, beyond
        monitor = Monitor(self.design, self.order) if self.design.sequential else None
        for item in self.order:
            decided = advice is not Advice.GO_ON
            if decided and not item.critical and left <= 0:
                continue
            left -= decided
            outcome = self.outcome(item)
            answered.append(outcome)
            if monitor is not None and advice not in (Advice.PASS, Advice.FAIL):
                advice = monitor.tell(outcome)
        return Outcomes(pack=self.order, answered=tuple(answered))


def signer() -> Signer:
    """A key of nobody in particular."""
    return Signer(ec.generate_private_key(ec.SECP256R1()))


def case(kind: str, seed: int, n: int = 60, **design: Any) -> Case:
    """A random comparison: alone, weighted, clustered or samples (0/1 scores), judged, continuous."""
    rng = np.random.default_rng(seed)
    samples = 3 if kind == "samples" else 1
    items, scores = [], {}
    for number in range(n):
        cluster = f"c{rng.integers(0, n // 4)}" if kind in ("clustered", "continuous") else f"i{number:03d}"
        weight = float(rng.integers(1, 4)) if kind in ("weighted", "continuous") else 1.0
        name = f"i{number:03d}"
        items.append(Item(id=name, weight=weight, cluster=cluster, critical=bool(rng.random() < 0.1)))
        if kind == "continuous":
            both = [np.round(rng.beta(4, 2, size=1), 3) for _ in SIDES]
        elif kind == "judged":
            first = rng.choice([0.0, 0.5, 1.0])
            both = [[first], [1 - first]]
        else:
            both = [(rng.random(samples) < share).astype(float) for share in (0.6, 0.72)]
        scores[name] = tuple(tuple(float(s) for s in side) for side in both)
    declared = Design(samples=samples, seed=seed, **design)
    method = chosen_method(declared, items, kind if kind in ("judged", "continuous") else "binary")
    return Case(items=items, scores=scores, design=replace(declared, method=method))


def decided(
    wins: int, losses: int, ties: int, *, critical: Sequence[int] = (), samples: int = 1, **design: Any
) -> Case:
    """A comparison with so many items won, lost and passed by both; critical ones by their outcome."""
    outcomes = [(0.0, 1.0)] * wins + [(1.0, 0.0)] * losses + [(1.0, 1.0)] * ties
    items = [Item(id=f"i{n:03d}", cluster=f"i{n:03d}", critical=n in critical) for n in range(len(outcomes))]
    scores = {item.id: ((b,) * samples, (c,) * samples) for item, (b, c) in zip(items, outcomes, strict=True)}
    return Case(items=items, scores=scores, design=Design(samples=samples, **design))


def answer_lines(made: Case, outcomes: Outcomes) -> list[dict[str, Any]]:
    """The raw answers, in the order of asking; the scores of judged items follow from `ruling_lines`."""
    places = {item.id: place for place, item in enumerate(made.order)}
    lines = []
    for outcome in outcomes.answered:
        item = outcome.item
        for sample in range(made.design.samples):
            for side, scores in zip(SIDES, (outcome.baseline, outcome.candidate), strict=True):
                gone = (item.id, side, sample) in made.missing
                lines.append({
                    "asked": len(lines) + 1, "order": places[item.id], "item": item.id, "side": side,
                    "sample": sample, "text": None if gone else f"the {side}'s answer",
                    "error": "timed out" if gone else "", "score": scores[sample], "scorer": "exact",
                    "scorer_version": "1", "cluster": item.cluster, "weight": item.weight,
                    "critical": item.critical, "latency_s": 0.5, "prompt_tokens": 10,
                    "completion_tokens": 5, "cost_usd": None,
                })  # fmt: skip
    return lines


def pack_lines(made: Case) -> list[dict[str, Any]]:
    """The items as they were asked, sorted by id."""
    return [
        {
            "prompt_id": item.id, "prompt": "?", "answers": ["!"], "choices": [],
            "scorer": {"id": "exact", "params": {}}, "critical": item.critical,
            "cluster": None if item.cluster == item.id else item.cluster, "weight": item.weight,
            "tags": list(made.tags.get(item.id, ())),
            "split": "certify",
        }
        for item in sorted(made.items, key=lambda item: item.id)
    ]  # fmt: skip


@dataclass
class Parts:
    """A certificate that is not yet on the disk, to be tampered with."""

    report: dict[str, Any]
    answers: list[dict[str, Any]]
    pack: list[dict[str, Any]]
    # Of the files, once written; a forger who signs would state the right ones.
    honest_digests: bool = True

    def write(self, folder: Path, key: Signer) -> Path:
        """Sign and write all files; gives the report's path."""
        contents = {name: joined(lines) for name, lines in self.files().items()}
        if self.honest_digests:
            self.report["raw_outputs_digest"] = digest_bytes(contents["answers.jsonl"])
            self.report["prompt_pack"]["snapshot_digest"] = digest_bytes(contents["pack.jsonl"])
        for name, content in contents.items():
            (folder / name).write_bytes(content)
        (folder / REPORT).write_text(json.dumps(key.sign(self.report), indent=2))
        return folder / REPORT

    def files(self) -> dict[str, list[dict[str, Any]]]:
        return {"answers.jsonl": self.answers, "pack.jsonl": self.pack}


def joined(lines: Sequence[Mapping[str, Any]]) -> bytes:
    """Canonical JSON lines."""
    return b"".join(canonical_json(line) + b"\n" for line in lines)


def parts(made: Case, beyond: int = 0) -> Parts:
    """What the code that issues certificates says of a case."""
    outcomes = made.outcomes(beyond)
    judgement = judge(outcomes, made.design)
    report = {
        "schema": "modelyard.paired_eval_report/1", "id": "test", "created_at": "2026-01-01T00:00:00+00:00",
        "run_id": None,
        "prompt_pack": {
            "digest": digest_bytes(b"pack"), "name": "pack.jsonl", "split": "certify", "n": len(made.items),
            "n_critical": sum(item.critical for item in made.items),
            "clusters": len({item.cluster for item in made.items}), "overlap": None,
        },
        "baseline": {"name": "old", "digest": digest_bytes(b"old"), "identity": {}},
        "candidate": {"name": "new", "digest": digest_bytes(b"new"), "identity": {}},
        "decoding": {}, "judge": None, "items_asked": len(outcomes.answered), **judgement.to_json(),
        "look": {"split_looks": 1, "retired_at": 20}, "raw_outputs": "answers.jsonl",
        "raw_outputs_digest": "", "code_digest": digest_bytes(b""),
        "secondary": tag_comparisons(
            outcomes, {item.id: made.tags.get(item.id, ()) for item in made.items}, made.design
        ),
    }  # fmt: skip
    report = json.loads(json.dumps(report))
    return Parts(report=report, answers=answer_lines(made, outcomes), pack=pack_lines(made))


def issued(folder: Path, made: Case, key: Signer, change: Callable[[Parts], object] | None = None) -> Path:
    """A certificate in a folder, after a change that its signer made."""
    made_parts = parts(made)
    if change is not None:
        change(made_parts)
    return made_parts.write(folder, key)
