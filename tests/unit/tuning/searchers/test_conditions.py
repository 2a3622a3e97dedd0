"""Conditional spaces and Gaussian processes: what does not count is not searched, by either engine."""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from modelyard.testing.searcher_contract import PLANE
from modelyard.tuning.searcher import Host, SearcherSettings
from modelyard.tuning.searchers.bayesian import BAYESIAN
from modelyard.tuning.searchers.bfbo import BFBO
from modelyard.tuning.searchers.conditions import Conditions, conditions
from modelyard.tuning.searchers.optuna_conditions import ConditionalSampler, inner, meant
from modelyard.tuning.searchers.scaling import at_place, sobol_point
from modelyard.tuning.spaces.domains import Choices
from modelyard.tuning.spaces.scalars import Range
from modelyard.tuning.spaces.space import Condition, Parameter, Space
from modelyard.tuning.study import distribution
from modelyard.tuning.trial import Trial, TrialState

ENGINES = [
    "optuna",
    pytest.param("botorch", marks=pytest.mark.skipif(find_spec("botorch") is None, reason="needs bo")),
]


def when(*pairs):
    return tuple(Condition(parameter=name, values=values) for name, values in pairs)


SPACE = Space(
    [
        Parameter(name="model", domain=Choices(options=("svm", "forest"))),
        Parameter(name="degree", domain=Range(low=1, high=5, integer=True), when=when(("model", ("svm",)))),
        Parameter(name="shift", domain=Range(low=0.0, high=1.0), when=when(("degree", (3, 4)))),
        Parameter(name="leaf", domain=Range(low=0.0, high=1.0), when=when(("model", ("forest",)))),
    ]
)


def settings(space=SPACE, **changes):
    host = Host(folder=Path(), space=space, metrics=("loss",))
    made = {"dimensions": space.dimensions, "directions": ("minimize",), "seed": 3, "host": host, **changes}
    return SearcherSettings(**made)


def test_what_does_not_count_is_moved_and_has_no_slope():
    rows = torch.tensor(
        [[0.0, 0.5, 0.9, 0.9], [0.0, 0.0, 0.9, 0.9], [1.0, 0.5, 0.9, 0.9]], dtype=torch.double
    ).requires_grad_()
    default = torch.tensor([0.0, 0.25, 0.1, 0.2], dtype=torch.double)
    moved = Conditions(SPACE, SPACE.dimensions).moved(rows, default, at_place)
    assert moved.tolist() == [[0.0, 0.5, 0.9, 0.2], [0.0, 0.0, 0.1, 0.2], [1.0, 0.25, 0.1, 0.9]]
    moved.sum().backward()
    assert rows.grad.tolist() == [[1, 1, 1, 0], [1, 1, 0, 0], [1, 0, 0, 1]]


def test_rows_have_any_shape():
    """BoTorch asks for places x 1 x dimensions, Optuna's model for one place too."""
    default = torch.tensor([0.0, 0.25, 0.1, 0.2], dtype=torch.double)
    found = Conditions(SPACE, SPACE.dimensions)
    assert found.moved(torch.full((5, 1, 4), 1.0), default, at_place).shape == (5, 1, 4)
    assert found.moved(torch.tensor([1.0, 0.0, 0.0, 0.75]).double(), default, at_place).tolist() == [
        1.0, 0.25, 0.1, 0.75,
    ]  # fmt: skip


def test_a_space_without_conditions_has_none():
    plain = Space([Parameter(name="x", domain=Range(low=0.0, high=1.0))])
    assert conditions(settings(plain), plain.dimensions) is None
    assert conditions(settings(host=None), SPACE.dimensions) is None
    assert conditions(settings(), SPACE.dimensions) is not None


def test_numbers_are_those_of_optunas_model():
    from optuna._gp.search_space import SearchSpace

    numbers = [each for each in (*PLANE, *SPACE.dimensions) if each.kind != "choice"]
    for each in (*numbers, *Range(low=2, high=64, log=True, integer=True).dimensions("width")):
        theirs = SearchSpace({each.name: distribution(each)})
        for at in (0.05, 0.5, 0.9):
            value = theirs.get_unnormalized_param(np.array([at]))[each.name]
            assert meant(each, at) == pytest.approx(value)
            there = inner(each, value)
            assert theirs.get_unnormalized_param(np.array([there]))[each.name] == pytest.approx(value)
            assert isinstance(value, int) or there == pytest.approx(at)


def test_options_are_counted_as_optunas_model_counts_them():
    model = SPACE.dimensions[0]
    assert [inner(model, each) for each in model.choices] == [0.0, 1.0]
    assert [meant(model, at) for at in (0.0, 1.0)] == list(model.choices)


def loss(values):
    if values["model"] == "forest":
        return 0.2 + (values["leaf"] - 0.3) ** 2
    return 0.3 + 0.1 * abs(values["degree"] - 3) + (values.get("shift", 1.0) - 0.8) ** 2


def searched(searcher, count):
    trials = []
    for number in range(count):
        point = SPACE.repair(searcher.propose(trials, number).point)
        value = loss(SPACE.assignments(point))
        trials.append(
            Trial(number=number, point=point, source="x", state=TrialState.COMPLETE, values=(value,))
        )
    return trials


def test_optunas_model_is_asked_at_moved_places_only():
    from optuna._gp.acqf import BaseAcquisitionFunc
    from optuna._gp.search_space import SearchSpace

    seen = []

    class Far(BaseAcquisitionFunc):
        """Highest where everything is far from its default."""

        def eval_acqf(self, x):
            seen.append(x.detach().reshape(-1, x.shape[-1]))
            return (x - 0.4).abs().sum(dim=-1)

    space = SearchSpace({each.name: distribution(each) for each in SPACE.dimensions})
    sampler = ConditionalSampler(Conditions(SPACE, SPACE.dimensions), seed=1)
    sampler._optimize_acqf(Far(np.ones(4), space), None)
    asked = torch.cat(seen)
    forest = asked[asked[:, 0] == [o == '"forest"' for o in SPACE.dimensions[0].choices].index(True)]
    assert len(forest) > 100 and len(forest) < len(asked)
    assert set(forest[:, 1].tolist()) == {0.5} and set(forest[:, 2].tolist()) == {0.5}
    assert len(set(forest[:, 3].tolist())) > 100


#: Five points of the sequence, and one for each dimension that does not always count.
BEGINNING = 8


@pytest.mark.parametrize("engine", ENGINES)
def test_a_searcher_that_knows_the_conditions_uses_them(engine):
    options = (("engine", engine),)
    trials = searched(BAYESIAN(settings(options=options)), BEGINNING)
    knowing = BAYESIAN(settings(options=options)).propose(trials, BEGINNING)
    assert knowing != BAYESIAN(settings(options=options, host=None)).propose(trials, BEGINNING)


@pytest.mark.parametrize("engine", ENGINES)
def test_what_does_not_always_count_asks_for_more_points_at_the_beginning(engine):
    made = settings(options=(("engine", engine),))
    trials = searched(BAYESIAN(made), BEGINNING)
    drawn = [sobol_point(SPACE.dimensions, seed=made.seed, index=i) for i in range(BEGINNING + 1)]
    assert [trial.point for trial in trials] == [SPACE.repair(point) for point in drawn[:BEGINNING]]
    assert BAYESIAN(made).propose(trials, BEGINNING).point != drawn[BEGINNING]
    shorter = settings(options=(("engine", engine), ("start", 2)))
    assert BAYESIAN(shorter).propose(trials[:5], 5).point != drawn[5]


@pytest.mark.skipif(find_spec("botorch") is None, reason="needs bo")
def test_values_and_their_ranks_have_turns_where_not_everything_counts():
    """What leaves the ranks as they are changes every other proposal; without conditions each."""
    trials = searched(BAYESIAN(settings()), BEGINNING + 1)
    bent = [replace(trial, values=(trial.value**3,)) for trial in trials]
    same = {}
    for known in (True, False):
        searcher = BAYESIAN(settings() if known else settings(host=None))
        turns = ((trials[:BEGINNING], bent[:BEGINNING]), (trials, bent))
        same[known] = [searcher.propose(a, len(a)) == searcher.propose(b, len(b)) for a, b in turns]
    assert same == {True: [True, False], False: [False, False]}


@pytest.mark.skipif(find_spec("botorch") is None, reason="needs bo")
def test_confidence_bounds_know_conditions_too():
    trials = searched(BFBO(settings()), BEGINNING)
    assert BFBO(settings()).propose(trials, BEGINNING) != BFBO(settings(host=None)).propose(trials, BEGINNING)
