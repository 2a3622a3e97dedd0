"""`bfbo`: Bayesian optimisation by confidence bounds with local penalisation, for several trials at once.

TAO AutoML has an algorithm of this name, "first-order" Bayesian optimisation: a Gaussian process, an upper
confidence bound whose distance from the mean falls from 2 to 0.5 standard deviations, and a "local
penalisation" that shrinks the deviation near tried places, one trial at a time. This one keeps the bound and
its schedule, and takes the rest at its word: what is first-order is the slope of the model, and penalised are
the places of running trials, as González et al. (2016) have it (`penalisation.py`). The extra `bo`.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec

from modelyard.core.errors import TuneError
from modelyard.core.faults import Section
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.botorch import START, BoTorchSearcher
from modelyard.tuning.searchers.optuna_samplers import start_option, trial_seed
from modelyard.tuning.trial import Trial, TrialState, sign_of

#: The bound at first, by how much it falls with every complete trial, and where it ends.
_KAPPA, _FALL, _LEAST = 2.0, 0.95, 0.5


class PenalisingSearcher(BoTorchSearcher):
    """Confidence bounds, penalised around the trials that run."""

    def best_place(
        self, dimensions: Sequence[Dimension], trials: Sequence[Trial], number: int
    ) -> list[float]:
        """See `BoTorchSearcher.best_place`."""
        from modelyard.tuning.searchers.penalisation import least_crowded

        (direction,) = self.settings.directions
        complete = sum(trial.state is TrialState.COMPLETE for trial in trials)
        return least_crowded(
            dimensions, trials, sign=sign_of(direction), kappa=kappa(complete),
            seed=trial_seed(self.settings.seed, number), conditions=self.conditions,
        )  # fmt: skip


def kappa(complete: int) -> float:
    """How many standard deviations above the mean the bound lies after so many complete trials."""
    return max(_LEAST, _KAPPA * _FALL**complete)


def _searcher(settings: SearcherSettings) -> Searcher:
    if find_spec("botorch") is None:
        raise TuneError("bfbo: BoTorch is not installed; install modelyard[bo], or use tpe")
    return PenalisingSearcher(settings, name="bfbo")


def _options(section: Section) -> Options:
    return start_option(START)(section)


BFBO = Algorithm(name="bfbo", make=_searcher, options=_options)
