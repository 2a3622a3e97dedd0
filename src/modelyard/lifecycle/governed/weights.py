"""Which weights the trainings of a governed run have left, by digest, as the journal has them."""

from __future__ import annotations

from collections.abc import Iterable

from modelyard.core.journal import Entry
from modelyard.lifecycle.governed.request import training_run


def kept_weights(entries: Iterable[Entry], run_id: str, iteration: int) -> tuple[str, ...]:
    """What an iteration's training has left in the content store, the newest last; empty before it ended."""
    run = training_run(run_id, iteration)
    stored = (entry for entry in entries if entry.kind == "artifact.stored" and entry.run == run)
    return tuple(str(entry.data["digest"]) for entry in stored)
