"""Makes certificates of a dozen made-up items: real files, a real judgement, a real signature.

For tests of whatever needs evidence and not the asking of models: the registry, its kill campaign, runs.
Nobody was asked; `wins` items are passed by the candidate alone, `losses` by the baseline alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelyard.core.digests import canonical_json, digest_bytes, digest_json
from modelyard.core.files import write_json, write_whole
from modelyard.core.signing import Signer
from modelyard.evidence.design import declare
from modelyard.evidence.outcomes import Item, Outcome, Outcomes, asking_order
from modelyard.evidence.report import REPORT
from modelyard.evidence.verdict import judge


@dataclass(frozen=True, slots=True, kw_only=True)
class MadeUp:
    """A comparison that nobody made. As it stands it passes."""

    baseline: str
    candidate: str
    items: int = 12
    wins: int = 8
    losses: int = 0
    seed: int = 0
    id: str = ""
    # What its design declares beside the seed.
    declared: Mapping[str, Any] | None = None
    # More fields of the report, or other values of those that it has.
    more: Mapping[str, Any] | None = None


def model_digest(name: str) -> str:
    """The digest by which a made-up certificate names a model."""
    return digest_json({"engine": "made up", "model": name})


def make_certificate(folder: Path, made_up: MadeUp, signer: Signer) -> Path:
    """Write a certificate's files; the path of its report."""
    items = asking_order([Item(id=f"q{number:03}") for number in range(made_up.items)], made_up.seed)
    outcomes = Outcomes(
        pack=items, answered=tuple(_outcome(made_up, n, item) for n, item in enumerate(items))
    )
    pack = b"".join(_line(_pack_line(item)) for item in sorted(items, key=lambda each: each.id))
    answers = b"".join(_line(each) for each in _answers(outcomes))
    record = {
        "schema": "modelyard.paired_eval_report/1",
        "id": made_up.id or f"{made_up.candidate}-over-{made_up.baseline}",
        "created_at": "2026-01-01T00:00:00.000000+00:00",
        "run_id": None,
        "prompt_pack": {
            "digest": digest_bytes(pack), "snapshot_digest": digest_bytes(pack), "name": "made up",
            "split": "certify", "n": len(items), "n_critical": 0, "clusters": len(items), "overlap": None,
        },
        "baseline": _model(made_up.baseline),
        "candidate": _model(made_up.candidate),
        "decoding": {},
        "judge": None,
        "items_asked": len(items),
        **judge(outcomes, declare(seed=made_up.seed, **(made_up.declared or {}))).to_json(),
        "look": {"split_looks": 1, "retired_at": 20},
        "raw_outputs": "answers.jsonl",
        "raw_outputs_digest": digest_bytes(answers),
        "code_digest": digest_bytes(b""),
        "secondary": [],
        **(made_up.more or {}),
    }  # fmt: skip
    write_whole(folder / "pack.jsonl", pack, durable=False)
    write_whole(folder / "answers.jsonl", answers, durable=False)
    write_json(folder / REPORT, signer.sign(record), durable=False)
    return folder / REPORT


def _outcome(made_up: MadeUp, number: int, item: Item) -> Outcome:
    won, lost = number < made_up.wins, made_up.wins <= number < made_up.wins + made_up.losses
    return Outcome(item=item, baseline=(0.0 if won else 1.0,), candidate=(0.0 if lost else 1.0,))


def _model(name: str) -> dict[str, Any]:
    return {"name": name, "digest": model_digest(name), "identity": {"engine": "made up", "model": name}}


def _pack_line(item: Item) -> dict[str, Any]:
    return {
        "prompt_id": item.id, "prompt": f"What is {item.id}?", "answers": ["right"], "choices": [],
        "scorer": {"id": "exact", "version": "1", "params": {}}, "critical": False, "cluster": item.id,
        "weight": 1.0, "tags": [], "split": "certify",
    }  # fmt: skip


def _answers(outcomes: Outcomes) -> list[dict[str, Any]]:
    return [
        {
            "asked": 2 * order + place + 1, "order": order, "item": outcome.item.id, "side": side,
            "sample": 0, "text": "right" if score else "wrong", "error": "", "score": score,
            "scorer": "exact", "scorer_version": "1", "cluster": outcome.item.id, "weight": 1.0,
            "critical": False, "latency_s": None, "prompt_tokens": None, "completion_tokens": None,
            "cost_usd": None,
        }
        for order, outcome in enumerate(outcomes.answered)
        for place, (side, score) in enumerate(
            (("baseline", outcome.baseline[0]), ("candidate", outcome.candidate[0]))
        )
    ]  # fmt: skip


def _line(value: Mapping[str, Any]) -> bytes:
    return canonical_json(value) + b"\n"
