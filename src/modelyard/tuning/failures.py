"""What a failure means for the search: a smaller batch, or a study that cannot go on.

A failed trial is never a value. Where memory was short and the space has a batch size, the same
configuration is tried with half of it; where the first trials all fail alike, the study stops and says why.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from modelyard.tuning.spaces.space import Space
from modelyard.tuning.trial import Proposal, Trial, TrialState

OUT_OF_MEMORY = "out_of_memory"
#: The note of a trial that tries an earlier one again with less.
RETRY_OF = "retry_of"
_BATCH = re.compile(
    r"(^|[._-])(micro_?|mini_?|train_|per_device_(train_)?)*(batch|bs)(_?size)?($|[._-])", re.IGNORECASE
)
_VARYING = re.compile(r"0x[0-9a-f]+|\d+(\.\d+)?|/\S+")
_MOST_HALVINGS = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Triage:
    """Why a study was stopped: its first trials, that all failed alike."""

    trials: tuple[int, ...]
    cause: str
    why: str

    def __str__(self) -> str:
        return (
            f"the first {len(self.trials)} trials all failed alike ({self.cause or 'failed'}): {self.why}; "
            "mend the command or the space, then run the same command again"
        )


def triage(trials: Sequence[Trial], *, first: int) -> Triage | None:
    """What stops a study whose first trials all failed for one reason; None where they did not."""
    head = [trial for trial in trials if trial.state.final][:first]
    if not 0 < first <= len(head) or any(trial.state is not TrialState.FAILED for trial in head):
        return None
    if len({(trial.cause, _VARYING.sub("*", trial.why)) for trial in head}) > 1:
        return None
    last = head[-1]
    return Triage(trials=tuple(trial.number for trial in head), cause=last.cause, why=last.why)


def with_less(space: Space, trials: Sequence[Trial]) -> Proposal | None:
    """The configuration of a trial that ran out of memory, with half the batch; None where none is due."""
    answered = {trial.notes[RETRY_OF] for trial in trials if RETRY_OF in trial.notes}
    for trial in trials:
        proposal = None if trial.number in answered else smaller(space, trials, trial)
        if proposal is not None:
            return proposal
    return None


def smaller(space: Space, trials: Sequence[Trial], trial: Trial) -> Proposal | None:
    """What may be tried in place of a trial that ran out of memory; None where there is nothing."""
    if trial.cause != OUT_OF_MEMORY or _halvings(trials, trial) >= _MOST_HALVINGS:
        return None
    return _halved(space, trial)


def batch_parameters(space: Space) -> list[str]:
    """The parameters that are batch sizes, by their names."""
    return [each.name for each in space.parameters if _BATCH.search(each.name)]


def _halved(space: Space, trial: Trial) -> Proposal | None:
    assignments = space.assignments(trial.point)
    smaller = dict(assignments)
    for name in batch_parameters(space):
        value = assignments.get(name)
        if isinstance(value, int) and not isinstance(value, bool):
            smaller[name] = _largest(space, name, most=value // 2) or value
    if smaller == assignments:
        return None
    point = space.repair(space.point(smaller))
    notes = {**trial.notes, RETRY_OF: trial.number}
    return Proposal(point=point, source="retry", budget=trial.budget, parent=trial.parent, notes=notes)


def _largest(space: Space, name: str, *, most: int) -> int | None:
    """The largest value of a parameter that is not above `most`."""
    parameter = next(each for each in space.parameters if each.name == name)
    for value in range(most, 0, -1):
        try:
            parameter.coordinates(value)
        except ValueError:
            continue
        return value
    return None


def _halvings(trials: Sequence[Trial], trial: Trial) -> int:
    count, at = 0, trial
    while RETRY_OF in at.notes:
        count, at = count + 1, trials[at.notes[RETRY_OF]]
    return count
