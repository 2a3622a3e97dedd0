"""`bayesian`: BoTorch's Gaussian process where it is installed (the extra `bo`), and otherwise Optuna's.

The option `engine` says which; a study that is shared or resumed elsewhere should name it.
"""

from __future__ import annotations

from importlib.util import find_spec

from modelyard.core.errors import TuneError
from modelyard.core.faults import Section
from modelyard.tuning.searcher import Searcher, SearcherSettings
from modelyard.tuning.searchers.algorithm import Algorithm, Options
from modelyard.tuning.searchers.optuna_samplers import START, GaussianSearcher, start_option


def _bayesian(settings: SearcherSettings) -> Searcher:
    options = dict(settings.options)
    engine = str(options.get("engine", "auto"))
    if engine == "botorch" or (engine == "auto" and find_spec("botorch") is not None):
        from modelyard.tuning.searchers.botorch import BoTorchSearcher

        return BoTorchSearcher(settings, name="bayesian")
    if find_spec("torch") is None:
        raise TuneError("bayesian: torch is not installed; install modelyard[bo], or use tpe")
    return GaussianSearcher(settings, name="bayesian", start=int(str(options.get("start", START))))


def _options(section: Section) -> Options:
    engine = section.choice("engine", "auto", ("auto", "botorch", "optuna"))
    return (("engine", engine), *start_option(START)(section))


BAYESIAN = Algorithm(name="bayesian", make=_bayesian, options=_options, several=True)
