"""The study `digits`, which every exporter is tried with: ended well and badly, stopped, running, promoted.

Of trial 0 the best value counts, which is not its last.
"""

from __future__ import annotations

from modelyard.testing.made_studies import MadeTrial
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Parameter, Space
from modelyard.tuning.study import Study
from modelyard.tuning.trial import Ended, Objective, TrialState
from modelyard.tuning.view import study_url

LOSS = Objective(metric="loss", direction="minimize", take="best")
SIZE = Objective(metric="size", direction="minimize")
SPACE = Space([
    Parameter(name="lr", domain=Range(low=1e-4, high=1.0, log=True)),
    Parameter(name="layers[0].width", domain=Range(low=1, high=64, integer=True)),
    Parameter(name="solver", domain=Choices(options=("adam", "sgd"))),
])  # fmt: skip
TRIALS = [
    MadeTrial(values=(0.5,), source="default", assignments={"lr": 0.1}, metrics={"acc": 0.75, "loss": 0.75},
              curve={1: 2.0, 3: 0.5, 4: 0.75}),
    MadeTrial(state=TrialState.FAILED, why="it broke", cause="code", curve={1: -9.0}),
    MadeTrial(state=TrialState.PRUNED, why="stopped at step 3", curve={0: 2.0, 3: 1.5}, budget=9),
    MadeTrial(state=TrialState.RUNNING, curve={1: 0.0}),
    MadeTrial(values=(0.25,), curve={1: 1.0, 2: 0.25}, parent=0, budget=27,
              assignments={"lr": 0.01, "layers[0].width": 8, "solver": "sgd"}),
]  # fmt: skip
#: One more, the best of all.
NEW = MadeTrial(values=(0.125,), curve={4: 0.125}, budget=27)


def end(run_dir, number):
    """A running trial fails."""
    study = Study(
        study_url(run_dir, None), run_dir.name, directions=["minimize"], dimensions=SPACE.dimensions,
        lock=run_dir / "study.lock",
    )  # fmt: skip
    study.tell(number, Ended(state=TrialState.FAILED, why="ended"))
    study.close()
