"""What callers who train by themselves may delete, and what the search has come to, by its trials."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from modelyard.tuning.searchers.brackets import levels
from modelyard.tuning.tao.planning import SearchPlan
from modelyard.tuning.trial import Trial, TrialState


def needed(trials: Sequence[Trial], plan: SearchPlan) -> list[int]:
    """The trials whose checkpoints a search that is not over may still need, by number.

    Those that run and whose they went on from; and where each rung is a job of its own, those that have ended
    below the largest budget and that nothing has gone on from yet. Which of these will be promoted is only
    known when it happens, so that none is left out that could be.
    """
    running = [trial for trial in trials if not trial.state.final]
    found = {trial.number for trial in running}
    found |= {trial.parent for trial in running if trial.parent is not None}
    if plan.rungs is None or not plan.rung_jobs:
        return sorted(found)
    followed = {trial.parent for trial in trials if trial.state is not TrialState.FAILED}
    found |= {
        trial.number
        for trial in trials
        if trial.state is TrialState.COMPLETE
        and (trial.budget or 0) < plan.rungs.high
        and (plan.copies or trial.number not in followed)
    }
    return sorted(found)


def whole(trials: Sequence[Trial], plan: SearchPlan) -> list[Trial]:
    """The trials that were trained to the end of the largest budget; without budgets all that succeeded."""
    complete = [trial for trial in trials if trial.state is TrialState.COMPLETE]
    if plan.rungs is None:
        return complete
    return [trial for trial in complete if trial.budget is None or trial.budget >= plan.rungs.high]


def state_of(trials: Sequence[Trial], plan: SearchPlan, *, seed: int) -> dict[str, Any]:
    """What decides on the next proposal, as a JSON value: our algorithms know nothing but this."""
    counts: Mapping[str, int] = Counter(trial.state.value.lower() for trial in trials)
    return {
        "algorithm": plan.algorithm,
        "options": dict(plan.options),
        "seed": seed,
        "budgets": [] if plan.rungs is None else list(levels(plan.rungs)),
        "counts": dict(counts),
        "trials": [
            {
                "rec_id": trial.number, "state": trial.state.value, "source": trial.source,
                "budget": trial.budget, "parent": trial.parent,
                "values": None if trial.values is None else list(trial.values), "notes": dict(trial.notes),
            }
            for trial in trials
        ],
    }  # fmt: skip
