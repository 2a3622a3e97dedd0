"""BOHB by hand-made examples: which budget's model is used, who is good, and what is drawn from it."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from modelyard.core.errors import DocumentError, TuneError
from modelyard.core.faults import Faults, Section
from modelyard.testing.simulated_study import SimulatedStudy, Simulation
from modelyard.tuning.dimensions import Dimension
from modelyard.tuning.searcher import Rungs, SearcherSettings
from modelyard.tuning.searchers.bohb import BOHB, DensityPoints
from modelyard.tuning.searchers.halving import HYPERBAND
from modelyard.tuning.trial import Trial, TrialState

SQUARE = tuple(Dimension(name=name, kind="float", low=0.0, high=1.0) for name in "xy")
RUNGS = Rungs(low=1, high=9, promote=True)


def settings(dimensions=SQUARE, direction="minimize", rungs=RUNGS, seed=1, **options):
    return SearcherSettings(
        dimensions=dimensions, directions=(direction,), rungs=rungs, seed=seed, options=tuple(options.items())
    )


def points(**more):
    return DensityPoints(settings(**more), budgets=(1, 3, 9))


def ended(number, value, budget=1, state=TrialState.COMPLETE, **more):
    return Trial(
        **{"point": {"x": (number % 10) / 10, "y": 0.5}, **more},
        number=number, source="bohb", budget=budget, state=state,
        values=(value,) if state is TrialState.COMPLETE else None,
    )  # fmt: skip


def told(model):
    return model.good.points_nd[:, 0].tolist(), model.bad.points_nd[:, 0].tolist()


class TestTheModel:
    """One budget, the good and the bad."""

    def test_it_needs_twice_as_many_results_as_dimensions_and_one(self):
        trials = [ended(n, float(n)) for n in range(6)]
        assert points().model(trials[:5]) is None
        assert points().model(trials).budget == 1
        assert points(least=4).model(trials) is None

    def test_the_largest_budget_with_enough_results_is_used_alone(self):
        trials = [ended(n, float(n)) for n in range(20)]
        higher = [ended(20 + n, 100.0 - n, budget=3, parent=n, point=trials[n].point) for n in range(6)]
        assert points().model([*trials, *higher[:5]]).budget == 1
        model = points().model([*trials, *higher])
        assert model.budget == 3
        # at budget 3 the last were the best
        assert told(model) == ([0.5, 0.4, 0.3], [0.2, 0.1, 0.0])

    def test_running_ones_count_where_they_have_come_to_a_budget(self):
        """Trials that run on have results at the rungs that they passed."""
        trials = [
            replace(ended(n, None, budget=9, state=TrialState.RUNNING), curve={1: float(n), 2: 0.0})
            for n in range(6)
        ]
        assert points().model(trials).budget == 1

    def test_the_best_fifteen_percent_are_good(self):
        trials = [ended(n, -float(n), point={"x": n / 100, "y": 0.5}) for n in range(100)]
        good, bad = told(points().model(trials))
        assert good == [n / 100 for n in range(99, 84, -1)] and len(bad) == 85

    def test_more_is_better_where_it_is_to_be_maximized(self):
        trials = [ended(n, float(n)) for n in range(6)]
        assert told(points(direction="maximize").model(trials))[0] == [0.5, 0.4, 0.3]

    def test_failed_ones_are_bad_and_are_no_results(self):
        trials = [ended(n, float(n)) for n in range(6)]
        lost = ended(6, None, budget=9, state=TrialState.FAILED)
        assert points().model([*trials[:5], lost]) is None
        assert told(points().model([*trials, lost])) == ([0.0, 0.1, 0.2], [0.3, 0.4, 0.5, 0.6])

    def test_what_exceeds_a_constraint_is_worse_than_what_does_not(self):
        trials = [ended(n, float(n), excess=(1.0 if n == 0 else -1.0,)) for n in range(6)]
        assert told(points().model(trials))[0] == [0.1, 0.2, 0.3]

    def test_choices_are_counted_and_numbers_stand_on_their_scales(self):
        dimensions = (
            Dimension(name="x", kind="float", low=1e-4, high=1.0, log=True),
            Dimension(name="c", kind="choice", choices=('"a"', '"b"')),
            Dimension(name="one", kind="int", low=3, high=3),
        )
        trials = [ended(n, float(n), point={"x": 1e-2, "c": '"b"', "one": 3}) for n in range(6)]
        model = points(dimensions=dimensions).model(trials)
        assert np.allclose(model.good.points_nd, [[0.5, 1.0]] * 3)
        assert model.good.levels == (0, 2)


class TestThePoints:
    """What is drawn."""

    def test_a_third_is_random_and_the_rest_is_near_the_good_ones(self):
        trials = [
            ended(n, abs(n - 200), point={"x": 0.7 if n < 10 else n / 200, "y": 0.2 if n < 10 else 0.9})
            for n in (*range(10), *range(20, 100))
        ]
        trials = [replace(t, values=(float(t.number >= 10),)) for t in trials]
        searcher = points(random=1 / 3)
        drawn = [searcher.propose(trials, 1000 + n).point for n in range(300)]
        near = sum(abs(p["x"] - 0.7) < 0.1 and abs(p["y"] - 0.2) < 0.1 for p in drawn)
        # of the random ones 4 % are near: 208 expected, 8.3 their standard deviation
        assert 175 <= near <= 241

    def test_all_may_be_random(self):
        trials = [ended(n, float(n)) for n in range(40)]
        searcher = points(random=1.0)
        drawn = [searcher.propose(trials, 1000 + n).point["y"] for n in range(100)]
        assert min(drawn) < 0.1 and max(drawn) > 0.9

    def test_of_those_drawn_the_one_with_the_best_ratio_is_taken(self):
        """Good and bad ones overlap at 0.5; the good ones alone are at 0.1."""
        trials = [
            ended(n, float(n), point={"x": 0.1 if n % 2 else 0.5, "y": 0.5})
            if n < 8
            else ended(n, float(n), point={"x": 0.5 + n / 1000, "y": 0.5})
            for n in range(53)
        ]
        share = []
        for samples in (1, 64):
            searcher = points(random=0.0, least=8, samples=samples)
            drawn = [searcher.propose(trials, 1000 + n).point["x"] for n in range(60)]
            share.append(np.mean(np.array(drawn) < 0.35))
        assert share[0] < 0.7 and share[1] > 0.8


class TestTheBrackets:
    """Those of Hyperband."""

    @pytest.mark.parametrize("promote", [True, False])
    def test_budgets_and_brackets_are_those_of_hyperband(self, promote):
        """With a curve that no point changes, whatever is drawn goes the same way."""
        rungs = replace(RUNGS, promote=promote)
        seen = []
        for algorithm in (BOHB, HYPERBAND):
            simulation = Simulation(curve=lambda _, step: 1 / step, steps=9)
            study = SimulatedStudy(algorithm(settings(rungs=rungs)), simulation)
            seen.append([(t.budget, t.parent, t.notes) for t in study.run(trials=40)])
        assert seen[0] == seen[1]

    def test_its_trials_bear_its_name_and_it_ends_after_the_rounds_asked_for(self):
        study = SimulatedStudy(BOHB(settings(cycles=1)), Simulation(curve=lambda p, _: p["x"], steps=9))
        trials = study.run(trials=100)
        assert {t.source for t in trials} == {"bohb"}
        assert len(trials) == 9 + 3 + 1 + 5 + 1 + 3


def test_without_steps_there_are_no_brackets():
    with pytest.raises(TuneError, match="no rungs are given"):
        BOHB(settings(rungs=None))


@pytest.mark.parametrize(
    "given",
    [
        {"top_percent": 0},
        {"samples": 0},
        {"random": 1.5},
        {"wider": 0},
        {"least": -1},
        {"least_bandwidth": 0},
        {"q": 1},
    ],
)
def test_options_out_of_range_are_refused(given):
    faults = Faults(file="f")
    section = Section(given, faults=faults)
    BOHB.options(section)
    section.close()
    with pytest.raises(DocumentError, match=next(iter(given))):
        faults.raise_if_any()
