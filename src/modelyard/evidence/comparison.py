"""A comparison of two models as it was declared: before anything is asked, opened or written down."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json
from modelyard.core.errors import EvidenceError
from modelyard.core.faults import Faults
from modelyard.evaluation import judging
from modelyard.evaluation.frozen_sets import FrozenSet, Opening
from modelyard.evaluation.pool import PoolModel
from modelyard.evidence.answers import BASELINE, CANDIDATE, SIDES, Call, blocks_of
from modelyard.evidence.design import Design, chosen_method
from modelyard.evidence.outcomes import Item, asking_order
from modelyard.evidence.packs import RETIRED_AFTER, read_pack
from modelyard.evidence.power import detectable_difference
from modelyard.results.examples import SPLITS, Example
from modelyard.results.scorers import load_scorer

#: Shares of items on which two models may differ, for planning.
_SHARES = (0.05, 0.2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What is to be shown, and on what."""

    design: Design
    split: str = "certify"
    # Whether an answer that was cut off at its limit of tokens is a failure.
    whole: bool = True
    # Looks at the split after which no further one is allowed.
    retired_after: int = RETIRED_AFTER


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two models, a pack and the terms; made by `declare_comparison`."""

    pack: FrozenSet
    # By side.
    models: Mapping[str, PoolModel]
    terms: Terms
    # Of the items that need one.
    judge: PoolModel | None = None

    @property
    def design(self) -> Design:
        """How it is decided."""
        return self.terms.design

    @cached_property
    def id(self) -> str:
        """Names the comparison for ever: both models, the pack, the split, and how it is decided."""
        told = {
            "pack": self.pack.digest,
            "split": self.terms.split,
            "design": self.design.to_json(),
            "whole": self.terms.whole,
            "judge": None if self.judge is None else [self.judge.digest, judging.VERSION],
            **{side: self.models[side].digest for side in SIDES},
        }
        candidate, baseline = (self.models[side].name.replace("/", "--") for side in (CANDIDATE, BASELINE))
        return f"{candidate}-vs-{baseline}-{digest_json(told).removeprefix('sha256:')[:12]}"

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """The split's items in the order in which they are asked."""
        return asking_order(_items(self.pack.sealed(self.terms.split)), self.design.seed)

    @property
    def questions(self) -> int:
        """How many answers each model gives at most."""
        return len(self.items) * self.design.samples

    @property
    def opening(self) -> Opening:
        """How the journal knows it."""
        names = tuple(self.models[side].name for side in SIDES)
        return Opening(split=self.terms.split, purpose="certify", models=names, run=self.id)

    def blocks(self, examples: Sequence[Example]) -> list[tuple[Call, ...]]:
        """The calls on the items of the split, once it has been opened."""
        by_id = {example.id: example for example in examples}
        ordered = [by_id[item.id] for item in self.items]
        design = self.design
        return blocks_of(ordered, comparison=self.id, samples=design.samples, seed=design.seed)


def declare_comparison(
    path: Path, models: Mapping[str, PoolModel], terms: Terms, judge: PoolModel | None = None
) -> Comparison:
    """What a comparison would be.

    Args:
        path: The pack.
        models: The baseline and the candidate, by these words.
        terms: Of the comparison; a method that they leave open is chosen here, before anything is asked.
        judge: Of items whose answers are compared with each other.

    Raises:
        DocumentError: With every fault of the pack; or an item needs a judge and there is none.
        EvidenceError: Both models are the same, the split is for fitting, or the method cannot be used for
            this pack.
    """
    if models[BASELINE].digest == models[CANDIDATE].digest:
        raise EvidenceError(
            f"{models[CANDIDATE].name}: is the same model as {models[BASELINE].name}, to the last option; "
            "name two models that differ, or give one its revision"
        )
    if terms.split == SPLITS[0]:
        raise EvidenceError(
            f"{path}: {SPLITS[0]} is what models and routers are fitted to and proves nothing of them; "
            f"compare on {' or '.join(SPLITS[1:])}"
        )
    pack = read_pack(path)
    examples = pack.sealed(terms.split)
    judged = [example.id for example in examples if load_scorer(example.scorer).by_verdict]
    if judged and judge is None:
        faults = Faults(file=str(path))
        faults.add(
            f"example {judged[0]}.scorer", "judge", f"needs a judge, as {len(judged)} items do",
            "declare one under `judge` of the yard.yaml, as a model of the pool",
        )  # fmt: skip
        faults.raise_if_any()
    if examples:
        method = chosen_method(terms.design, _items(examples), kind_of(examples))
        terms = replace(terms, design=replace(terms.design, method=method))
    return Comparison(pack=pack, models=models, terms=terms, judge=judge if judged else None)


def kind_of(examples: Sequence[Example]) -> str:
    """What scores there will be: `binary`, `judged` or, of a mixture too, `continuous`."""
    scorers = [load_scorer(name) for name in {example.scorer for example in examples}]
    if all(scorer.zero_one for scorer in scorers):
        return "binary"
    return "judged" if all(scorer.by_verdict for scorer in scorers) else "continuous"


def _items(examples: Sequence[Example]) -> tuple[Item, ...]:
    """The items by their ids, so that a pack's order is no matter."""
    return tuple(
        Item(
            id=example.id, weight=example.weight, cluster=example.group_id or example.id,
            critical=example.critical,
        )
        for example in sorted(examples, key=lambda each: each.id)
    )  # fmt: skip


def planned(comparison: Comparison) -> dict[str, Any]:
    """The comparison as JSON; nothing is sent, opened or recorded.

    `detectable` has how far above the margin's end the truth must lie to be found with a chance of 80 %, by
    the share of items on which the models differ; items of one cluster count as one.
    """
    models, clusters = comparison.models, len({item.group for item in comparison.items})
    errors = {share: math.sqrt(share / max(1, clusters)) for share in _SHARES}
    return {
        "id": comparison.id,
        "pack": {
            "digest": comparison.pack.digest,
            "split": comparison.terms.split,
            "n": len(comparison.items),
            "n_critical": sum(item.critical for item in comparison.items),
            "clusters": clusters,
        },
        **{side: {"name": models[side].name, "digest": models[side].digest} for side in SIDES},
        "judge": None if comparison.judge is None else comparison.judge.name,
        "design": comparison.design.to_json(),
        "questions": comparison.questions * len(SIDES),
        "detectable": {
            f"{share:g}": detectable_difference(error, comparison.design.alpha_final)
            for share, error in errors.items()
        },
    }
