"""What a run's manifest pins is held to: nothing that a proof rests on may change once it was planned.

What is trained is pinned until it was submitted, and the terms of the gate for all iterations: whoever could
choose margin, alpha or pack after the training would choose them by its outcome.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelyard.core.digests import digest_json, digest_path
from modelyard.core.errors import GovernanceError
from modelyard.core.files import read_json
from modelyard.lifecycle.governed.declaration import Governance
from modelyard.lifecycle.governed.request import RunPlaces
from modelyard.lifecycle.governed.training_step import Training

#: Parts of `digests` that say what is submitted.
_SUBMITTED = ("step", "code", "providers", "prompt_pack")
#: The state in which a plan binds and nothing is submitted yet; a dry run binds nobody.
_PLANNED = "planned"
#: States in which a verdict may still come of the gate's terms.
OPEN = frozenset({
    "routed", "planned", "submit_intent", "submit_failed", "submitted", "running", "failed",
    "lost", "artifacts_ready", "paired_eval", "inconclusive",
})  # fmt: skip


def gate_digest(governance: Governance) -> str:
    """Of the terms that decide a verdict. The baseline is none: what an alias serves may change."""
    gate = governance.gate
    terms = {
        name: getattr(gate, name)
        for name in ("claim", "margin", "alpha", "samples", "sequential", "losses_allowed")
    }
    return digest_json({**terms, "seed": governance.seed, "alone": governance.budget.iterations == 1})


def refuse_changed(training: Training) -> None:
    """That data and weights are still what the iteration's manifest names. Raises `GovernanceError`."""
    manifest = read_json(training.places.iteration(training.iteration) / "manifest.json")
    folder, start = training.governance.folder, training.start
    pinned = {folder / name: digest for name, digest in manifest["digests"]["data"].items()}
    if start.digest is not None:
        pinned[Path(start.base)] = start.digest
    for path, digest in pinned.items():
        found = digest_path(path) if path.exists() else "nothing"
        if found != digest:
            raise GovernanceError(
                f"{training.request.run_id}: {path} was {digest} when the run was planned and is {found} "
                "now; restore it, or begin a run of another id"
            )


def refuse_replanned(run: str, state: str, pinned: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    """That what goes live is what was planned. Raises `GovernanceError`."""
    if state != _PLANNED:
        return
    for name in _SUBMITTED:
        if pinned.get(name) != found[name]:
            raise GovernanceError(
                f"{run}: its {name} was {pinned.get(name)} when the run was planned and is {found[name]} "
                "now; restore it, or begin a run of another id"
            )


def refuse_other_gate(run: str, governance: Governance, places: RunPlaces) -> None:
    """That the gate's terms are those of the first plan. Raises `GovernanceError`."""
    first = places.iteration(1) / "manifest.json"
    pinned = read_json(first)["digests"].get("gate") if first.exists() else None
    if pinned not in (None, gate_digest(governance)):
        raise GovernanceError(
            f"{run}: its gate (claim, margin, alpha, samples, sequential, losses_allowed, seed, or whether "
            "there are several iterations) was declared otherwise when the run was planned; restore it, or "
            "begin a run of another id"
        )


def refuse_other_pack(run: str, governance: Governance, places: RunPlaces, iteration: int) -> None:
    """That the pack is the one of the manifest, where that has one. Raises `GovernanceError`."""
    pinned = read_json(places.iteration(iteration) / "manifest.json")["digests"]["prompt_pack"]
    pack = governance.gate.pack
    found = digest_path(pack) if pack is not None and pack.exists() else None
    if pinned not in (None, found):
        raise GovernanceError(
            f"{run}: {pack} was {pinned} before the training and is {found or 'nothing'} now; restore it, "
            "or begin a run of another id"
        )
