"""The searchers keep the contract of searchers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any, ClassVar

import pytest

from modelyard.testing.openai_server import fake_server
from modelyard.testing.searcher_contract import PLANE, SearcherContract, bowl
from modelyard.testing.simulated_study import Simulation
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, Searcher
from modelyard.tuning.searchers.median import MedianRule, MedianStopping


class TestRandom(SearcherContract):
    """Optuna's random sampler."""

    algorithm = "random"
    better = 0


class TestTPE(SearcherContract):
    """Optuna's TPE."""

    algorithm = "tpe"
    trials = 60


class TestMedian(TestTPE):
    """TPE whose running trials are stopped by the median rule."""

    def searcher(self, dimensions: tuple[Dimension, ...], **changes: Any) -> Searcher:
        drawing = super().searcher(dimensions, **changes)
        direction = self.settings(dimensions, **changes).directions[0]
        return MedianStopping(drawing, MedianRule(), direction=direction)

    def simulation(self, **changes: Any) -> Simulation:
        return Simulation(curve=lambda p, step: bowl(p) + 1.0 - step / 9, steps=9, **changes)


class TestCMAES(SearcherContract):
    """CMA-ES, brought up from the trials."""

    algorithm = "cmaes"
    trials = 80


@pytest.mark.slow
class TestBayesian(SearcherContract):
    """Optuna's Gaussian process."""

    algorithm = "bayesian"
    options: ClassVar = {"engine": "optuna"}
    trials = 18


@pytest.mark.slow
class TestBoTorch(SearcherContract):
    """BoTorch's."""

    algorithm = "botorch"
    trials = 18


@pytest.mark.slow
class TestBFBO(SearcherContract):
    """Confidence bounds, penalised around running trials."""

    algorithm = "bfbo"
    trials = 18


class TestHybrid(SearcherContract):
    """TPE with the advice of a model that knows little, behind a server."""

    algorithm = "hybrid"
    trials = 60

    @pytest.fixture(scope="class", autouse=True)
    @classmethod
    def server(cls, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
        log = tmp_path_factory.mktemp("server") / "log.jsonl"
        with fake_server(log, "--weak-advice") as server:
            cls.options = {**cls.own, "endpoint": server.endpoint, "model": "adder"}
            yield

    own: ClassVar[dict[str, object]] = {}

    def test_less_is_better_exactly_as_more_is(self) -> None:
        """It is the same point; the conversation, which the notes name, is another."""
        trials = self.history(PLANE, count=self.trials)
        turned = [
            replace(
                t,
                values=None if t.values is None else (-t.values[0],),
                curve={step: -v for step, v in t.curve.items()},
            )
            for t in trials
        ]
        for number in range(len(trials), len(trials) + 5):
            less = self.searcher(PLANE).propose(trials, number)
            more = self.searcher(PLANE, directions=("maximize",)).propose(turned, number)
            assert less is not None and more is not None
            assert (less.point, less.source) == (more.point, more.source)


class TestHybridWithCMAES(TestHybrid):
    """CMA-ES, which waits for points of its own."""

    own: ClassVar = {"optimiser": "cmaes"}
    trials = 100


class TestASHA(SearcherContract):
    """Trials that run on, and are stopped."""

    algorithm = "asha"
    rungs = Rungs(low=1, high=27)
    trials = 120
    searches, better = 40, 26


class TestASHAByPromotion(TestASHA):
    """Trials that end at their rung, and are promoted."""

    rungs = Rungs(low=1, high=27, promote=True)
    trials = 150
    failing = 0.1  # a promotion that fails is not repeated, and there are up to three of each


class TestASHAWithTPE(TestASHA):
    """New points by TPE."""

    options: ClassVar = {"sampler": "tpe"}


class TestHyperband(TestASHA):
    """Brackets whose trials are stopped."""

    algorithm = "hyperband"
    trials = 98


class TestHyperbandByPromotion(TestHyperband):
    """Brackets as the paper has them, rung by rung."""

    rungs = Rungs(low=1, high=27, promote=True)
    trials = 240
    failing = 0.1


class TestPBT(SearcherContract):
    """A population whose members go on from each other's checkpoints."""

    algorithm = "pbt"
    rungs = Rungs(low=3, high=27, promote=True)
    trials = 116
    searches, better = 40, 26


class TestBOHB(TestHyperband):
    """Hyperband's brackets with points from a model."""

    algorithm = "bohb"
    searches, better = 10, 8  # by chance one time in 18


class TestBOHBByPromotion(TestHyperbandByPromotion):
    """The same, rung by rung."""

    algorithm = "bohb"
    searches, better = 10, 8


class TestDEHB(SearcherContract):
    """Differential evolution at every budget."""

    algorithm = "dehb"
    rungs = Rungs(low=1, high=27)
    trials = 150
    searches, better = 40, 26
    failing = 0.1  # the same as of other brackets


class TestDEHBByPromotion(TestDEHB):
    """The first round goes on from checkpoints."""

    rungs = Rungs(low=1, high=27, promote=True)


class TestNSGA2(SearcherContract):
    """Optuna's NSGA-II, its generations in the notes."""

    algorithm = "nsga2"
    trials = 250
    searches, better = 40, 26


class TestHyperbandES(TestHyperband):
    """Hyperband that extrapolates curves."""

    algorithm = "hyperband_es"


class TestHyperbandESByPromotion(TestHyperbandByPromotion):
    """The same, rung by rung."""

    algorithm = "hyperband_es"
