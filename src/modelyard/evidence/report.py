"""The record of a paired comparison, `paired_eval_report.json`: what was compared, and what came of it.

It is whole by itself: with the files beside it, which it names by digest, anybody can recompute its
verdict. It is a record of facts and does not judge.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import modelyard
from modelyard.core.digests import digest_bytes, digest_json, digest_path
from modelyard.evaluation.frozen_sets import FrozenSet
from modelyard.evaluation.pool import PoolModel
from modelyard.evidence.answers import BASELINE, CANDIDATE
from modelyard.evidence.overlap import Overlap
from modelyard.evidence.packs import Look
from modelyard.evidence.verdict import Judgement

SCHEMA = "modelyard.paired_eval_report/1"
REPORT, ANSWERS, PACK, VERDICTS = "paired_eval_report.json", "answers.jsonl", "pack.jsonl", "verdicts.jsonl"
#: What the journal calls an entry about a report, once it lies there.
ISSUED = "certificate.issued"
#: The rooms whose code a report depends on.
_ROOMS = ("core", "results", "evaluation", "evidence")
#: The parts of an engine's identity that say how it decodes, not who answers.
_DECODING = ("api", "template", "options", "dtype")


@dataclass(frozen=True, slots=True, kw_only=True)
class Facts:
    """Everything that a report tells beside its judgement."""

    id: str
    created_at: str
    run_id: str | None
    pack: FrozenSet
    split: str
    look: Look
    # Of them, how many were asked: fewer than all where the comparison ended early.
    items_asked: int
    # None where no training data was given.
    overlap: Overlap | None
    # By side.
    models: Mapping[str, PoolModel]
    # Whether an answer that was cut off is a failure.
    whole: bool
    # The comparisons by tag.
    secondary: Sequence[Mapping[str, Any]]
    # Who judged, where somebody did.
    judge: Mapping[str, Any] | None
    # The contents of the files beside the report, by name.
    files: Mapping[str, bytes]


def report_record(facts: Facts, judgement: Judgement) -> dict[str, Any]:
    """The report as JSON, not signed."""
    models = facts.models
    return {
        "schema": SCHEMA,
        "id": facts.id,
        "created_at": facts.created_at,
        "run_id": facts.run_id,
        "prompt_pack": _pack(facts),
        BASELINE: _model(models[BASELINE]),
        CANDIDATE: _model(models[CANDIDATE]),
        "decoding": decoding(models, whole=facts.whole),
        "judge": None if facts.judge is None else {**facts.judge, **_raw(facts.files, VERDICTS)},
        "items_asked": facts.items_asked,
        **judgement.to_json(),
        "look": {"split_looks": facts.look.number, "retired_at": facts.look.retired_after},
        **_raw(facts.files, ANSWERS),
        "code_digest": code_digest(),
        "secondary": list(facts.secondary),
    }


def decoding(models: Mapping[str, PoolModel], *, whole: bool) -> dict[str, Any]:
    """How both models decode, whether alike, and what becomes of an answer that was cut off."""
    told = {
        side: {name: model.identity[name] for name in _DECODING if name in model.identity}
        for side, model in models.items()
    }
    same = told[BASELINE] == told[CANDIDATE]
    return {"same": same, **told, "truncated": "fails" if whole else "is scored"}


def code_digest() -> str:
    """Of the modules that ask, score, compare and decide, as they are installed."""
    (root,) = (Path(place) for place in modelyard.__path__)
    paths = [path for room in _ROOMS for path in (root / room).rglob("*.py")]
    return digest_json({path.relative_to(root).as_posix(): digest_path(path) for path in paths})


def _pack(facts: Facts) -> dict[str, Any]:
    items = facts.look.items
    return {
        "digest": facts.pack.digest,
        "name": facts.pack.path.name,
        "split": facts.split,
        "n": len(items),
        "n_critical": sum(item.critical for item in items),
        "clusters": len({item.group_id or item.id for item in items}),
        "snapshot_digest": digest_bytes(facts.files[PACK]),
        "overlap": None if facts.overlap is None else facts.overlap.record(),
    }


def _model(model: PoolModel) -> dict[str, Any]:
    return {"name": model.name, "digest": model.digest, "identity": model.identity}


def _raw(files: Mapping[str, bytes], name: str) -> dict[str, str]:
    return {"raw_outputs": name, "raw_outputs_digest": digest_bytes(files[name])}
